package repository

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"keepset/internal/record"
	"keepset/internal/storage"
)

// section is one section of a stream; one without a key is not remembered.
type section struct {
	key, fingerprint string
	data             []byte
	cut              int // a chunk is to end there
}

func drawPart(rt *rapid.T, i int) section {
	p := section{key: fmt.Sprint("file ", i), fingerprint: "as it was"}
	if rapid.IntRange(0, 4).Draw(rt, "remembered") == 0 {
		p.key = ""
	}
	for range rapid.IntRange(0, 3).Draw(rt, "runs") {
		if rapid.Bool().Draw(rt, "zeros") {
			p.data = append(p.data, make([]byte, rapid.SampledFrom([]int{1, 4096, holeMin, 3 * holeMin}).Draw(rt, "length"))...)
			continue
		}
		seed := rapid.Uint64Range(1, 1<<20).Draw(rt, "seed")
		p.data = append(p.data, randomBytes(seed, rapid.SampledFrom([]int{1, 700, chunkMin + 5, 3 * chunkAverage}).Draw(rt, "length"))...)
	}
	p.cut = rapid.IntRange(0, len(p.data)).Draw(rt, "cut")
	return p
}

// writeParts writes one stream, and takes over what is remembered. It returns
// how many bytes that were.
func writeParts(tb testing.TB, w *MemberWriter, parts []section) (reused int64) {
	s, err := w.Create(tb.Context(), "tree", StreamOptions{})
	require.NoError(tb, err)
	for _, p := range parts {
		var r *Remember
		if p.key != "" {
			r = &Remember{Key: p.key, Fingerprint: []byte(p.fingerprint)}
		}
		require.NoError(tb, s.Section(r))
		if r != nil {
			e, found, err := w.Recall(tb.Context(), p.key, []byte(p.fingerprint))
			require.NoError(tb, err)
			if found {
				require.EqualValues(tb, len(p.data), e.Size())
				require.NoError(tb, s.ReuseAll(e))
				reused += e.Size()
				continue
			}
		}
		_, err := s.Write(p.data[:p.cut])
		require.NoError(tb, err)
		require.NoError(tb, s.Cut())
		_, err = s.Write(p.data[p.cut:])
		require.NoError(tb, err)
	}
	require.NoError(tb, s.Close())
	return reused
}

// backUpParts takes a backup of one stream and reads it back.
func backUpParts(tb testing.TB, store storage.Store, m mode, n int, parts []section) (reused int64) {
	b := begin(tb, store, m, testPlan(n, 0), record.AttemptID(fmt.Sprint("attempt-", n)))
	w, err := b.Member(tb.Context(), 0)
	require.NoError(tb, err)
	reused = writeParts(tb, w, parts)
	_, err = w.Commit(tb.Context(), testReport(), CommitStatus{})
	require.NoError(tb, err)
	require.NoError(tb, b.Close())
	got, err := readMember(tb.Context(), open(tb, store, m.restore, Options{}), b.Plan().ID, 0)
	require.NoError(tb, err)
	want := []byte{}
	for _, p := range parts {
		want = append(want, p.data...)
	}
	require.True(tb, bytes.Equal(want, got["tree"]), "%d bytes came back of %d", len(got["tree"]), len(want))
	return reused
}

// TestSections: whatever the parts of a stream are, each is taken over by
// itself, from wherever in the stream it was, and the stream reads back exactly.
func TestSections(t *testing.T) {
	m := encryptedMode(t)
	rapid.Check(t, func(rt *rapid.T) {
		store := initStore(t, m)
		parts := make([]section, rapid.IntRange(0, 8).Draw(rt, "parts"))
		var remembered int64
		for i := range parts {
			parts[i] = drawPart(rt, i)
			if parts[i].key != "" {
				remembered += int64(len(parts[i].data))
			}
		}
		require.Zero(rt, backUpParts(t, store, m, 0, parts))
		parts = rapid.Permutation(parts).Draw(rt, "order")
		require.Equal(rt, remembered, backUpParts(t, store, m, 1, parts))
		if len(parts) > 0 {
			parts[0].fingerprint, parts[0].data = "changed", []byte("something else")
			parts[0].cut = 3
			backUpParts(t, store, m, 2, parts)
		}
	})
}

// TestManySections: more than a stream hands over at once, so that one of them
// is handed over in the middle.
func TestManySections(t *testing.T) {
	m := encryptedMode(t)
	store := initStore(t, m)
	var parts []section
	var size int64
	for i := range 2*segmentBlock + 100 {
		p := section{key: fmt.Sprint("file ", i), fingerprint: "f", data: fmt.Appendf(nil, "content of %d", i), cut: 7}
		if i%500 == 0 {
			p.data = append(p.data, make([]byte, holeMin)...)
		}
		size += int64(len(p.data))
		parts = append(parts, p)
	}
	require.Zero(t, backUpParts(t, store, m, 0, parts))
	require.Equal(t, size, backUpParts(t, store, m, 1, parts))
	parts[700].fingerprint = "changed"
	require.Equal(t, size-int64(len(parts[700].data)), backUpParts(t, store, m, 2, parts))
}

// TestForgottenSection: what was read of something that changed meanwhile is in
// the stream, and nobody takes it over.
func TestForgottenSection(t *testing.T) {
	m := encryptedMode(t)
	store := initStore(t, m)
	b := begin(t, store, m, testPlan(0, 0), "attempt-1")
	w, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	s, err := w.Create(t.Context(), "tree", StreamOptions{})
	require.NoError(t, err)
	for _, key := range []string{"kept", "changing", "empty", "last"} {
		require.NoError(t, s.Section(&Remember{Key: key, Fingerprint: []byte("f")}))
		if key == "empty" {
			continue
		}
		_, err = s.Write([]byte(key))
		require.NoError(t, err)
		if key == "changing" {
			s.Forget()
		}
	}
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Section(nil), ErrClosed)
	require.ErrorIs(t, s.Cut(), ErrClosed)
	_, err = w.Commit(t.Context(), testReport(), CommitStatus{})
	require.NoError(t, err)
	require.NoError(t, b.Close())
	b = begin(t, store, m, testPlan(1, 0), "attempt-2")
	w, err = b.Member(t.Context(), 0)
	require.NoError(t, err)
	for key, want := range map[string]bool{"kept": true, "changing": false, "empty": false, "last": true} {
		_, found, err := w.Recall(t.Context(), key, []byte("f"))
		require.NoError(t, err)
		require.Equal(t, want, found, key)
	}
	require.NoError(t, b.Close())
}

// TestReuseAllOrNothing: where one chunk of two is lost, no byte is appended.
func TestReuseAllOrNothing(t *testing.T) {
	m := encryptedMode(t)
	store := initStore(t, m)
	data := randomBytes(7, 30*chunkMax) // several packs
	backUpParts(t, store, m, 0, []section{{key: "large", fingerprint: "f", data: data}})
	lost := ""
	for o, err := range store.List(t.Context(), "sets/"+testPlan(0, 0).Set.String()+"/packs/") {
		require.NoError(t, err)
		lost = o.Key
	}
	require.NoError(t, store.Delete(t.Context(), lost))
	b := begin(t, store, m, testPlan(1, 0), "attempt-2")
	w, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	e, found, err := w.Recall(t.Context(), "large", []byte("f"))
	require.NoError(t, err)
	require.True(t, found)
	s, err := w.Create(t.Context(), "tree", StreamOptions{})
	require.NoError(t, err)
	require.ErrorIs(t, s.ReuseAll(e), ErrNotReusable)
	require.Zero(t, w.Stats().Reused)
	_, err = s.Write(data)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	_, err = w.Commit(t.Context(), testReport(), CommitStatus{})
	require.NoError(t, err)
	require.NoError(t, b.Close())
	got, err := readMember(t.Context(), open(t, store, m.restore, Options{}), b.Plan().ID, 0)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got["tree"]))
}
