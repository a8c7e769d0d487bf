package snapshottest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"keepset/internal/snapshot"
)

var prepareTests = []namedPrepareTest{
	{"prepare then provision", testPrepare},
	{"prepare again prepares nothing more", testPrepareAgain},
	{"prepare while the old claim stands", testPrepareBeside},
	{"prepare of another run replaces what is left", testPrepareOtherRun},
	{"prepare then scrap leaves nothing", testScrap},
	{"scrap leaves what a claim is bound to", testScrapBound},
	{"scrap leaves other claims' alone", testScrapOther},
	{"prepare refuses a claim of another mode", testPrepareUnfit},
	{"cancelled prepare makes nothing", testPrepareCancelled},
}

func testPrepare(t *testing.T, s *suite, p snapshot.Preparer) {
	ref, target := s.cut(t), s.target("data-mysql-2")
	claims := s.claims(t)
	require.NoError(t, p.Prepare(t.Context(), ref, target))
	require.Equal(t, claims, s.claims(t), "everything but the claim")
	s.provision(t, ref, target)
	require.Equal(t, "data-mysql-0", s.Read(t, s.Namespace, "data-mysql-2"))
	s.requireBound(t, target)
}

func testPrepareAgain(t *testing.T, s *suite, p snapshot.Preparer) {
	ref, target := s.cut(t), s.target("data-mysql-2")
	require.NoError(t, p.Prepare(t.Context(), ref, target))
	before := s.Inventory(t)
	require.NoError(t, p.Prepare(t.Context(), ref, target))
	require.ElementsMatch(t, before, s.Inventory(t))
}

// testPrepareBeside prepares for the name of a claim that exists.
func testPrepareBeside(t *testing.T, s *suite, p snapshot.Preparer) {
	ref, target := s.cut(t), s.target("data-mysql-0")
	old := s.get(t, s.Namespace, "data-mysql-0")
	s.Write(t, s.Namespace, "data-mysql-0", "newer")
	before := s.Inventory(t)
	require.NoError(t, p.Prepare(t.Context(), ref, target))
	require.Equal(t, old.Spec.VolumeName, s.get(t, s.Namespace, "data-mysql-0").Spec.VolumeName)
	require.Equal(t, "newer", s.Read(t, s.Namespace, "data-mysql-0"))
	require.NoError(t, p.Scrap(t.Context(), target))
	s.requireInventory(t, before)
	require.Equal(t, "newer", s.Read(t, s.Namespace, "data-mysql-0"))
}

func testPrepareOtherRun(t *testing.T, s *suite, p snapshot.Preparer) {
	ref, target := s.cut(t), s.target("data-mysql-2")
	require.NoError(t, p.Prepare(t.Context(), ref, target))
	n := len(s.Inventory(t))
	target.Run = "another"
	require.NoError(t, p.Prepare(t.Context(), ref, target))
	require.Eventually(t, func() bool { return len(s.Inventory(t)) == n }, s.Wait, s.Wait/500)
	s.provision(t, ref, target)
	require.Equal(t, "data-mysql-0", s.Read(t, s.Namespace, "data-mysql-2"))
}

func testScrap(t *testing.T, s *suite, p snapshot.Preparer) {
	ref, target := s.cut(t), s.target("data-mysql-2")
	before := s.Inventory(t)
	require.NoError(t, p.Scrap(t.Context(), target), "nothing there")
	require.NoError(t, p.Prepare(t.Context(), ref, target))
	target.Run = "another"
	require.NoError(t, p.Scrap(t.Context(), target), "of whatever run")
	s.requireInventory(t, before)
}

func testScrapBound(t *testing.T, s *suite, p snapshot.Preparer) {
	ref, target := s.cut(t), s.target("data-mysql-2")
	s.provision(t, ref, target)
	s.Read(t, s.Namespace, "data-mysql-2")
	before := s.Inventory(t)
	require.NoError(t, p.Scrap(t.Context(), target))
	require.ElementsMatch(t, before, s.Inventory(t))
	require.Equal(t, "data-mysql-0", s.Read(t, s.Namespace, "data-mysql-2"))
}

func testScrapOther(t *testing.T, s *suite, p snapshot.Preparer) {
	ref, target := s.cut(t), s.target("data-mysql-2")
	require.NoError(t, p.Prepare(t.Context(), ref, target))
	before := s.Inventory(t)
	other := s.target("data-mysql-3")
	require.NoError(t, p.Scrap(t.Context(), other))
	elsewhere := s.target("data-mysql-2")
	elsewhere.Claim.Namespace = s.OtherNamespace
	require.NoError(t, p.Scrap(t.Context(), elsewhere))
	for _, o := range s.neighbours() {
		theirs := target
		theirs.Owner = o
		require.NoError(t, p.Scrap(t.Context(), theirs))
	}
	require.ElementsMatch(t, before, s.Inventory(t))
}

func testPrepareUnfit(t *testing.T, s *suite, p snapshot.Preparer) {
	ref, target := s.cut(t), s.target("data-mysql-0")
	before := s.Inventory(t)
	block := corev1.PersistentVolumeBlock
	target.Claim.Spec.VolumeMode = &block
	require.ErrorIs(t, p.Prepare(t.Context(), ref, target), snapshot.ErrUnfit)
	s.requireInventory(t, before)
}

func testPrepareCancelled(t *testing.T, s *suite, p snapshot.Preparer) {
	ref, target := s.cut(t), s.target("data-mysql-2")
	before := s.Inventory(t)
	require.ErrorIs(t, p.Prepare(cancelled(t), ref, target), context.Canceled)
	require.ElementsMatch(t, before, s.Inventory(t))
	require.ErrorIs(t, p.Scrap(cancelled(t), target), context.Canceled)
}
