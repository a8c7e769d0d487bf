// Package storagetest says what a store must do, as tests.
//
// [Run] is the conformance suite of [storage.Store]; every store passes it.
// [Faulty] is a store that fails on demand, for the tests of those who use one.
package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/storage"
)

// LargeSize is the size in bytes of the suite's largest object.
const LargeSize = 40 << 20

// Run tests a store. It calls newStore once for each test; each time the
// store must be empty and share nothing with the others.
func Run(t *testing.T, newStore func(t *testing.T) storage.Store) {
	tests := []struct {
		name string
		test func(t *testing.T, s storage.Store)
	}{
		{"put then get, stat and list", testRoundTrip},
		{"empty object", testEmptyObject},
		{"large object", testLargeObject},
		{"keys are written once", testWrittenOnce},
		{"body is written from its start", testBodyFromStart},
		{"body that fails leaves nothing", testFailingBody},
		{"body that ends early leaves nothing", testShortBody},
		{"cancelled put leaves nothing", testCancelledPut},
		{"body is not read after put", testBodyNotReadLater},
		{"one of sixteen writers wins", testConcurrentWriters},
		{"many writers of many keys", testManyWriters},
		{"absent object", testAbsent},
		{"ranges", testRanges},
		{"ranges outside", testRangesOutside},
		{"reader follows its context", testReaderContext},
		{"reader closed early", testReaderClosedEarly},
		{"odd keys", testOddKeys},
		{"invalid keys are refused", testInvalidKeys},
		{"list in byte order", testListOrder},
		{"list by prefix", testListPrefix},
		{"list past a thousand keys", testListPages},
		{"list stops when told", testListStops},
		{"invalid prefixes are refused", testInvalidPrefixes},
		{"delete", testDelete},
		{"delete leaves the neighbours", testDeleteNeighbours},
		{"cancelled context", testCancelledContext},
		{"compare", testHolds},
		{"probe", testProbe},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.test(t, newStore(t)) })
	}
}

// put writes data under key and fails the test unless that succeeds.
func put(t *testing.T, s storage.Store, key string, data []byte) {
	t.Helper()
	require.NoError(t, s.Put(t.Context(), key, bytes.NewReader(data)))
}

// get reads a range and fails the test unless that succeeds to the end.
func get(t *testing.T, s storage.Store, key string, offset, length int64) []byte {
	t.Helper()
	data, err := tryGet(t.Context(), s, key, offset, length)
	require.NoErrorf(t, err, "get %q %d+%d", key, offset, length)
	return data
}

func tryGet(ctx context.Context, s storage.Store, key string, offset, length int64) (data []byte, err error) {
	r, err := s.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(r)
}

// list returns the keys of all objects under prefix.
func list(t *testing.T, s storage.Store, prefix string) []string {
	t.Helper()
	keys := []string{}
	for o, err := range s.List(t.Context(), prefix) {
		require.NoErrorf(t, err, "list %q", prefix)
		keys = append(keys, o.Key)
	}
	return keys
}

// requireAbsent fails the test if there is any trace of key.
func requireAbsent(t *testing.T, s storage.Store, key string) {
	t.Helper()
	_, err := s.Stat(t.Context(), key)
	require.ErrorIs(t, err, errNotExist)
	_, err = tryGet(t.Context(), s, key, 0, -1)
	require.ErrorIs(t, err, errNotExist)
	require.Empty(t, list(t, s, key))
}

// randomBytes returns n bytes that no compression or coincidence makes equal.
func randomBytes(n int, seed byte) []byte {
	data := make([]byte, n)
	// Read of ChaCha8 never fails.
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data)
	return data
}

func numberedKey(n int) string { return fmt.Sprintf("packs/%08d", n) }
