package storagetest

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/storage"
)

// oddKeys are valid, and each has broken some client, server or listing.
var oddKeys = []string{
	"with space",
	" leading and trailing ",
	"plus+sign",
	"per%cent",
	"%2F",
	"a%20b+c d",
	"question?mark&amp;=#fragment",
	"<xml>&\"quoted\"'",
	"back\\slash",
	"semi;colon:comma,at@bang!dollar$star*tilde~",
	"(brackets)[square]{curly}|^`",
	"umlaut äöü ß",
	"umlaut decomposed a\u0308",
	"日本語/キー",
	"emoji 💾",
	"right to left \u05d0\u05d1",
	"no-break\u00a0space",
	"..dots", "dots..", "...", ".hidden", "a/.b/c",
	"trailing.",
	"-dash", "--help",
	"CON", "nul.txt",
	"sets/_/db/backups/20260801T000000Z-ab12/0.attempt.000001",
	"Case", "case",
	"long/" + strings.Repeat("n", 240),
	"deep/" + strings.Repeat("d/", 40) + "end",
	"long-path/" + strings.Repeat(strings.Repeat("p", 99)+"/", 7) + "end",
}

func testOddKeys(t *testing.T, s storage.Store) {
	for _, key := range oddKeys {
		require.NoErrorf(t, s.Put(t.Context(), key, strings.NewReader(key)), "put %q", key)
	}
	for _, key := range oddKeys {
		require.Equal(t, key, string(get(t, s, key, 0, -1)))
		o, err := s.Stat(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, key, o.Key)
		require.Contains(t, list(t, s, key), key)
	}
	want := slices.Sorted(slices.Values(oddKeys))
	require.Equal(t, want, list(t, s, ""))
	for _, key := range oddKeys {
		require.NoErrorf(t, s.Delete(t.Context(), key), "delete %q", key)
		_, err := s.Stat(t.Context(), key)
		require.ErrorIs(t, err, errNotExist)
	}
	require.Empty(t, list(t, s, ""))
}

func testInvalidKeys(t *testing.T, s storage.Store) {
	for _, key := range InvalidKeys {
		require.ErrorIs(t, s.Put(t.Context(), key, strings.NewReader("x")), storage.ErrInvalid, "%q", key)
		_, err := s.Get(t.Context(), key, 0, -1)
		require.ErrorIs(t, err, storage.ErrInvalid, "%q", key)
		_, err = s.Stat(t.Context(), key)
		require.ErrorIs(t, err, storage.ErrInvalid, "%q", key)
		require.ErrorIs(t, s.Delete(t.Context(), key), storage.ErrInvalid, "%q", key)
	}
	require.Empty(t, list(t, s, ""))
}

// InvalidKeys are keys that every store refuses.
var InvalidKeys = []string{
	"", "/", "/a", "a/", "a//b", ".", "..", "./a", "a/.", "../a", "a/../b", "a/..",
	"new\nline", "nul\x00", "delete\x7f", "broken\xffutf8", "\ufffe",
	storage.ReservedPrefix + "tmp/x", "a/" + storage.ReservedPrefix + "b",
	strings.Repeat("k", 256),
	strings.Repeat("k/", 500) + "k",
}

func testListOrder(t *testing.T, s storage.Store) {
	// '-' and '.' sort before '/', '0' and letters after it: a walk that sorts
	// directories by name alone gets this wrong.
	keys := []string{"a-b", "a.b", "a/b", "a/b.c", "a/b/c", "a0", "aa", "B", "b", "ä", "z", "\U0001F4BE", "\uFF5E"}
	keys = slices.DeleteFunc(keys, func(k string) bool { return k == "a/b" }) // "a/b/c" lies below it
	for _, key := range slices.Backward(keys) {
		put(t, s, key, []byte(key))
	}
	slices.Sort(keys)
	require.Equal(t, keys, list(t, s, ""))
}

func testListPrefix(t *testing.T, s storage.Store) {
	require.Empty(t, list(t, s, ""))
	for _, key := range []string{"a/b/1", "a/b/2", "a/bc/1", "a/c", "ab", "b", "packs/ab12", "packs/ab34", "packs/cd"} {
		put(t, s, key, []byte("x"))
	}
	for prefix, want := range map[string][]string{
		"a":         {"a/b/1", "a/b/2", "a/bc/1", "a/c", "ab"},
		"a/":        {"a/b/1", "a/b/2", "a/bc/1", "a/c"},
		"a/b":       {"a/b/1", "a/b/2", "a/bc/1"},
		"a/b/":      {"a/b/1", "a/b/2"},
		"a/b/1":     {"a/b/1"},
		"a/b/1/":    {},
		"packs/ab":  {"packs/ab12", "packs/ab34"},
		"none":      {},
		"none/none": {},
		"b":         {"b"},
		"b/":        {},
	} {
		require.Equal(t, want, list(t, s, prefix), "prefix %q", prefix)
	}
}

func testListPages(t *testing.T, s storage.Store) {
	const n = 2001 // three pages of S3
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := w; i < n; i += 16 {
				assert.NoError(t, s.Put(t.Context(), numberedKey(i), bytes.NewReader([]byte{1, 2, 3})))
			}
		})
	}
	wg.Wait()
	i := 0
	for o, err := range s.List(t.Context(), "packs/") {
		require.NoError(t, err)
		require.Equal(t, numberedKey(i), o.Key)
		require.EqualValues(t, 3, o.Size)
		require.False(t, o.LastModified.IsZero())
		i++
	}
	require.Equal(t, n, i)
	require.Len(t, list(t, s, "packs/00001"), 1000)
}

func testListStops(t *testing.T, s storage.Store) {
	for i := range 10 {
		put(t, s, numberedKey(i), []byte("x"))
	}
	seen := 0
	for _, err := range s.List(t.Context(), "") {
		require.NoError(t, err)
		if seen++; seen == 3 {
			break
		}
	}
	require.Equal(t, 3, seen)
}

func testInvalidPrefixes(t *testing.T, s storage.Store) {
	put(t, s, "a", []byte("x"))
	for _, prefix := range []string{"/", "/a", "../", "a/../", "a//", "./", "\xff", "../../etc/p"} {
		yields := 0
		for o, err := range s.List(t.Context(), prefix) {
			require.ErrorIs(t, err, storage.ErrInvalid, "prefix %q", prefix)
			require.Zero(t, o)
			yields++
		}
		require.Equal(t, 1, yields)
	}
}
