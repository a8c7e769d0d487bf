package snapshottest

import (
	"slices"
	"testing"

	"keepset/internal/snapshot"
)

// Run tests a snapshotter. It calls newHarness once for each test; each time
// the provider and the cluster must hold nothing of the others'.
func Run(t *testing.T, newHarness func(t *testing.T) *Harness) {
	for _, test := range slices.Concat(locateTests, cutTests, ownerTests, provisionTests) {
		t.Run(test.name, func(t *testing.T) { test.test(t, newSuite(newHarness(t))) })
	}
}

// RunPreparer tests the power of a snapshotter that is a [snapshot.Preparer].
func RunPreparer(t *testing.T, newHarness func(t *testing.T) *Harness) {
	for _, test := range prepareTests {
		t.Run(test.name, func(t *testing.T) {
			s := newSuite(newHarness(t))
			p, ok := s.snap.(snapshot.Preparer)
			if !ok {
				t.Fatalf("%T is not a Preparer", s.snap)
			}
			test.test(t, s, p)
		})
	}
}

// RunBlocks tests the power of a snapshotter that is a [snapshot.BlockReader]
// and a [snapshot.BlockWriter].
func RunBlocks(t *testing.T, newHarness func(t *testing.T) *Harness) {
	for _, test := range blockTests {
		t.Run(test.name, func(t *testing.T) {
			s := newSuite(newHarness(t))
			b, ok := s.snap.(blocks)
			if !ok {
				t.Fatalf("%T is not a BlockReader and a BlockWriter", s.snap)
			}
			test.test(t, s, b)
		})
	}
}

type namedTest struct {
	name string
	test func(t *testing.T, s *suite)
}

type namedPrepareTest struct {
	name string
	test func(t *testing.T, s *suite, p snapshot.Preparer)
}

type namedBlockTest struct {
	name string
	test func(t *testing.T, s *suite, b blocks)
}

type blocks interface {
	snapshot.BlockReader
	snapshot.BlockWriter
}
