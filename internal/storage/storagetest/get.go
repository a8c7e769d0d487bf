package storagetest

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/storage"
)

func testAbsent(t *testing.T, s storage.Store) {
	put(t, s, "a/b/c", []byte("x"))
	// The last two are directories where the store is one.
	for _, key := range []string{"absent", "a/absent", "a/b/c/d", "a/b/cc", "a/b", "a"} {
		_, err := s.Get(t.Context(), key, 0, -1)
		require.ErrorIs(t, err, errNotExist, key)
		require.ErrorContains(t, err, key)
		_, err = s.Get(t.Context(), key, 0, 0)
		require.ErrorIs(t, err, errNotExist, key)
		_, err = s.Stat(t.Context(), key)
		require.ErrorIs(t, err, errNotExist, key)
		require.ErrorContains(t, err, key)
	}
}

func testRanges(t *testing.T, s storage.Store) {
	data := randomBytes(100_000, 6)
	put(t, s, "k", data)
	size := int64(len(data))
	for _, r := range []struct{ offset, length int64 }{
		{0, -1},
		{0, size},
		{0, 1},
		{1, 1},
		{size - 1, 1},
		{size - 1, -1},
		{99, 65_537},
		{50_000, -1},
		{50_000, 50_000},
		{0, 0},
		{7, 0},
		{size, 0},
		{size, -1},
	} {
		want := data[r.offset:]
		if r.length >= 0 {
			want = want[:r.length]
		}
		got := get(t, s, "k", r.offset, r.length)
		require.True(t, bytes.Equal(want, got), "range %d+%d: %d bytes, first wrong", r.offset, r.length, len(got))
	}
}

func testRangesOutside(t *testing.T, s storage.Store) {
	put(t, s, "k", []byte("0123456789"))
	for _, r := range []struct{ offset, length int64 }{
		{0, 11},
		{9, 2},
		{10, 1},
		{11, 0},
		{11, -1},
		{11, 1},
		{1 << 40, 1},
		{1 << 40, -1},
		{5, 1<<63 - 1},
		{-1, 1},
		{0, -2},
	} {
		_, err := tryGet(t.Context(), s, "k", r.offset, r.length)
		require.ErrorIs(t, err, storage.ErrInvalid, "range %d+%d", r.offset, r.length)
	}
}

func testReaderContext(t *testing.T, s storage.Store) {
	put(t, s, "k", randomBytes(8<<20, 7))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := s.Get(ctx, "k", 0, -1)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	_, err = io.ReadFull(r, make([]byte, 1000))
	require.NoError(t, err)
	cancel()
	_, err = io.Copy(io.Discard, r)
	require.ErrorIs(t, err, context.Canceled)
}

func testReaderClosedEarly(t *testing.T, s storage.Store) {
	put(t, s, "k", randomBytes(8<<20, 8))
	for range 20 {
		r, err := s.Get(t.Context(), "k", 0, -1)
		require.NoError(t, err)
		_, err = io.ReadFull(r, make([]byte, 10))
		require.NoError(t, err)
		require.NoError(t, r.Close())
	}
}

func testDelete(t *testing.T, s storage.Store) {
	put(t, s, "packs/a", []byte("x"))
	require.NoError(t, s.Delete(t.Context(), "packs/a"))
	requireAbsent(t, s, "packs/a")
	require.NoError(t, s.Delete(t.Context(), "packs/a"), "absent")
	require.NoError(t, s.Delete(t.Context(), "never/was/there"), "absent")
	put(t, s, "packs/a", []byte("again"))
	require.Equal(t, "again", string(get(t, s, "packs/a", 0, -1)))
}

func testDeleteNeighbours(t *testing.T, s storage.Store) {
	for _, key := range []string{"a/b/c", "a/b/d", "a/bc"} {
		put(t, s, key, []byte(key))
	}
	require.NoError(t, s.Delete(t.Context(), "a/b"), "absent: only keys below it exist")
	require.NoError(t, s.Delete(t.Context(), "a"), "absent: only keys below it exist")
	require.NoError(t, s.Delete(t.Context(), "a/b/c"))
	require.Equal(t, []string{"a/b/d", "a/bc"}, list(t, s, ""))
}

func testCancelledContext(t *testing.T, s storage.Store) {
	put(t, s, "k", []byte("x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.Put(ctx, "new", bytes.NewReader([]byte("x"))), context.Canceled)
	_, err := tryGet(ctx, s, "k", 0, -1)
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.Stat(ctx, "k")
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, s.Delete(ctx, "k"), context.Canceled)
	yields := 0
	for o, err := range s.List(ctx, "") {
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, o)
		yields++
	}
	require.Equal(t, 1, yields, "one error ends the list")
	require.Equal(t, []string{"k"}, list(t, s, ""))
}

func testHolds(t *testing.T, s storage.Store) {
	data := randomBytes(300_000, 9)
	put(t, s, "k", data)
	for name, c := range map[string]struct {
		body []byte
		same bool
	}{
		"same":              {data, true},
		"other length":      {data[1:], false},
		"last byte differs": {append(bytes.Clone(data[:len(data)-1]), data[len(data)-1]^1), false},
		"empty":             {nil, false},
	} {
		same, err := storage.Holds(t.Context(), s, "k", bytes.NewReader(c.body))
		require.NoError(t, err, name)
		require.Equal(t, c.same, same, name)
	}
	_, err := storage.Holds(t.Context(), s, "absent", bytes.NewReader(data))
	require.ErrorIs(t, err, errNotExist)
}

func testProbe(t *testing.T, s storage.Store) {
	data := []byte("the bytes that are there already")
	put(t, s, "config/1", data)
	guarantee, err := storage.Probe(t.Context(), s, "config/1", bytes.NewReader(data))
	require.NoError(t, err)
	require.Equal(t, storage.GuaranteeAtomic, guarantee)
	require.Equal(t, data, get(t, s, "config/1", 0, -1))
	require.Equal(t, []string{"config/1"}, list(t, s, ""))
}
