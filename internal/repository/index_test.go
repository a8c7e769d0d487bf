package repository

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
)

// fakeChunks fills a part of the index with chunks of a pack that exists.
func fakeChunks(seed, n int, name hash) []partEntry {
	entries := make([]partEntry, n)
	for i := range entries {
		entries[i] = partEntry{
			id: contentRef(fmt.Appendf(nil, "%d/%d", seed, i)).SHA256,
			at: location{at: uint32(i), stored: 1, length: 1000}, name: name, size: 1 << 20,
		}
	}
	return entries
}

// TestIndexWithinABudget: with room for few of its parts the index still
// finds nearly every chunk of a backup that is repeated in order, and stays
// within its budget.
func TestIndexWithinABudget(t *testing.T) {
	const parts, rows = 12, 20_000 / raceScale
	m := plainMode()
	r := open(t, initStore(t, m), m.writer, Options{IndexBytes: 3 * rows * partRow})
	table := newPacks()
	x := newIndex(r, layout{testSet}, table)
	lists := make([][]partEntry, parts)
	for p := range lists {
		name := hash{byte(p + 1)}
		table.stored(table.known(name, 1<<20), name, 1<<20)
		lists[p] = fakeChunks(p, rows, name)
		order := append([]partEntry(nil), lists[p]...) // encodePart sorts
		plain := encodePart([nonceSize]byte{byte(p)}, order)
		parsed, err := parsePart(plain)
		require.NoError(t, err)
		ref, err := r.putSealed(t.Context(), x.layout.parts(), plain, nil)
		require.NoError(t, err)
		x.add(ref, parsed, false, false)
	}
	require.LessOrEqual(t, x.loaded, x.budget)
	missed := 0
	for _, list := range lists {
		for _, e := range list {
			c, err := x.find(t.Context(), e.id, 1000)
			require.NoError(t, err)
			require.LessOrEqual(t, x.loaded, x.budget)
			if c == nil {
				missed++
				continue
			}
			require.Equal(t, e.at.at, c.where.at)
		}
	}
	t.Logf("%d of %d chunks missed", missed, parts*rows)
	require.Less(t, missed, parts*200, "about 64 at each change of the part")
	c, err := x.find(t.Context(), lists[0][0].id, 999)
	require.NoError(t, err)
	require.Nil(t, c, "a chunk of another length is another chunk")
}

// TestPartsDoNotPileUp: many backups later the newest one still needs few
// parts, and everything in them can be found.
func TestPartsDoNotPileUp(t *testing.T) {
	m := plainMode()
	store := initStore(t, m)
	c := make(content)
	var last record.Commit
	for n := range 40 / raceScale {
		c[fmt.Sprintf("day/%02d", n)] = randomBytes(uint64(100+n), 300<<10)
		r := open(t, store, m.writer, small())
		b, err := r.Begin(t.Context(), testPlan(n, 0), "attempt-1")
		require.NoError(t, err)
		last = writeMember(t, b, 0, c)
		require.NoError(t, b.Close())
		require.Less(t, last.Stored, int64(310<<10), "day %d", n)
	}
	refs, err := open(t, store, m.writer, small()).readRefs(t.Context(), layout{testSet}, &last)
	require.NoError(t, err)
	require.LessOrEqual(t, len(refs.Parts), manySmall+2)
	require.Len(t, refs.Packs, 40/raceScale)
}

// TestUnusedRowsAreLeftBehind: a part of which little is in use is not kept.
func TestUnusedRowsAreLeftBehind(t *testing.T) {
	m := encryptedMode(t)
	store := initStore(t, m)
	c := make(content)
	for i := range 40 {
		c[fmt.Sprintf("s/%02d", i)] = randomBytes(uint64(i+1), 1000)
	}
	writeBackup(t, open(t, store, m.writer, small()), c)
	old := keysBelow(t, store, layout{testSet}.parts())
	require.Len(t, old, 1)
	for i := range 35 {
		delete(c, fmt.Sprintf("s/%02d", i))
	}
	for n := 1; n <= 2; n++ {
		r := open(t, store, m.writer, small())
		b, err := r.Begin(t.Context(), testPlan(n, 0), "attempt-1")
		require.NoError(t, err)
		commit := writeMember(t, b, 0, c)
		require.NoError(t, b.Close())
		require.Zero(t, commit.Stored, "backup %d", n)
		refs, err := r.readRefs(t.Context(), layout{testSet}, &commit)
		require.NoError(t, err)
		require.Len(t, refs.Parts, 1)
		require.False(t, strings.HasSuffix(old[0], refs.Parts[0].SHA256.String()))
		rows, err := r.readPart(t.Context(), layout{testSet}, refs.Parts[0])
		require.NoError(t, err)
		require.Equal(t, 5, rows.len())
	}
}

// TestManyRows: more small chunks than a part has rows, in one run; the next
// backup finds them all.
func TestManyRows(t *testing.T) {
	const streams = (maxPartRows + maxPartRows/4) / raceScale
	m := plainMode()
	store := initStore(t, m)
	var first, second record.Commit
	for n, commit := range []*record.Commit{&first, &second} {
		b, err := open(t, store, m.writer, Options{}).Begin(t.Context(), testPlan(n, 0), "attempt-1")
		require.NoError(t, err)
		w, err := b.Member(t.Context(), 0)
		require.NoError(t, err)
		for i := range streams {
			s, err := w.Create(t.Context(), fmt.Sprintf("s/%06d", i), StreamOptions{})
			require.NoError(t, err)
			_, err = fmt.Fprintf(s, "row %d of a tiny table", i)
			require.NoError(t, err)
			require.NoError(t, s.Close())
		}
		*commit, err = w.Commit(t.Context(), testReport(), CommitStatus{})
		require.NoError(t, err)
		require.NoError(t, b.Close())
	}
	require.Positive(t, first.Stored)
	require.Zero(t, second.Stored)
	refs, err := open(t, store, m.writer, Options{}).readRefs(t.Context(), layout{testSet}, &second)
	require.NoError(t, err)
	require.LessOrEqual(t, len(refs.Parts), 3)
	require.LessOrEqual(t, len(refs.Maps), 2+streams/pieceSegments)
}
