package repository

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/storage/dir"
)

// volumeChunks are consecutive chunks of 512 KiB of a volume that nobody wrote,
// 32 to a pack.
func volumeChunks(first, n int) ([]partEntry, []memoSegment) {
	entries, segments := make([]partEntry, n), make([]memoSegment, n)
	for i := range entries {
		var b [16]byte
		binary.LittleEndian.PutUint64(b[:], uint64(first+i))
		id := contentRef(b[:]).SHA256
		binary.LittleEndian.PutUint64(b[8:], uint64((first+i)/32)+1)
		entries[i] = partEntry{
			id: id, at: location{at: uint32(i % 32 << 19), stored: 512 << 10, length: 512 << 10},
			name: contentRef(b[8:]).SHA256, size: 16 << 20,
		}
		segments[i] = memoSegment{id: id, length: 512 << 10, crc: uint32(i)}
	}
	return entries, segments
}

// writeVolumeBase commits a backup of a volume of so many chunks whose packs
// exist in listings only.
func writeVolumeBase(t *testing.T, store *discard, m mode, chunks int) {
	t.Helper()
	b := begin(t, store, m, testPlan(0, 0), "attempt-1")
	w, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	x := b.pipeline.index
	at, err := w.memos.begin("volume")
	require.NoError(t, err)
	for first := 0; first < chunks; first += maxPartRows {
		entries, segments := volumeChunks(first, min(maxPartRows, chunks-first))
		for i := range entries {
			store.sizes[b.layout.pack(entries[i].name)] = entries[i].size
		}
		for len(segments) > 0 {
			row := memo{memoAt: at, segments: segments[:min(segmentBlock, len(segments))], fingerprint: []byte("snap-1")}
			segments = segments[len(row.segments):]
			row.last = len(segments) == 0 && first+maxPartRows >= chunks
			require.NoError(t, w.memos.add(t.Context(), &row))
			at.offset += row.size()
		}
		plain := encodePart([nonceSize]byte{byte(first >> 16)}, entries)
		rows, err := parsePart(plain)
		require.NoError(t, err)
		ref, err := b.r.putSealed(t.Context(), b.layout.parts(), plain, b.r.partRecipient())
		require.NoError(t, err)
		x.mu.Lock()
		x.add(ref, rows, true, false)
		x.mu.Unlock()
	}
	_, err = w.Commit(t.Context(), testReport(), CommitStatus{})
	require.NoError(t, err)
	require.NoError(t, b.Close())
}

// TestMemoryOfReuse pins the bound: a volume of 1 TiB (in a soak; else a quarter
// of it, with a quarter of the budgets) is taken over block by block, but for
// one in 1000, and remembered again, although neither its index nor its memos
// fit into their budgets, in a container of 256 MiB.
func TestMemoryOfReuse(t *testing.T) {
	const block = int64(512 << 10)
	chunks, index, recall, limit := 512<<10, defaultIndexBytes/4, defaultRecallBytes/4, int64(208<<20)
	if os.Getenv("KEEPSET_SOAK") != "" {
		chunks, index, recall, limit = 2<<20, defaultIndexBytes, defaultRecallBytes, 256<<20
	}
	chunks, o := chunks/slowdown, Options{IndexBytes: index / slowdown, RecallBytes: recall / slowdown}
	m := encryptedMode(t)
	base, err := dir.New(dir.Options{Path: t.TempDir()})
	require.NoError(t, err)
	_, err = Init(t.Context(), base, InitOptions{Keys: m.writer})
	require.NoError(t, err)
	store := newDiscard(base)
	writeVolumeBase(t, store, m, chunks)
	before := debug.SetMemoryLimit(limit / 10 * 9) // as a container's limit makes the program do
	defer debug.SetMemoryLimit(before)
	debug.FreeOSMemory()
	stop, cpu := peak(), cpuSeconds(t)
	b, err := open(t, store, m.writer, o).Begin(t.Context(), testPlan(1, 0), "attempt-1")
	require.NoError(t, err)
	w, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	e, found, err := w.Recall(t.Context(), "volume", nil)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, int64(chunks)*block, e.Size())
	s, err := w.Create(t.Context(), "disk", StreamOptions{Fixed: int(block), Remember: &Remember{Key: "volume", Fingerprint: []byte("snap-2")}})
	require.NoError(t, err)
	changed := randomBytes(1, int(block))
	for at := int64(0); at < e.Size(); at += block {
		if at/block%1000 == 500 {
			binary.LittleEndian.PutUint64(changed, uint64(at)+1)
			_, err = s.Write(changed)
		} else {
			_, err = s.Reuse(e, at, block)
		}
		require.NoError(t, err)
	}
	require.NoError(t, s.Close())
	require.LessOrEqual(t, b.recall.loaded, b.recall.budget)
	require.Greater(t, len(b.recall.objects), len(b.recall.recent), "not all memos are to fit")
	commit, err := w.Commit(t.Context(), testReport(), CommitStatus{})
	require.NoError(t, err)
	require.NoError(t, b.Close())
	most := stop()
	t.Logf("measured: volume of %d GiB in %d chunks, %d MiB stored, in %.1f s of processor time, %d MiB of memory at most",
		commit.Bytes>>30, chunks, commit.Stored>>20, cpuSeconds(t)-cpu, most>>20)
	require.Equal(t, e.Size(), commit.Bytes)
	require.Less(t, most, uint64(limit))
	require.Less(t, w.Stats().Read, e.Size()/1000+2*block, "nothing but what has changed was read")
}

// TestManyRememberedFiles: 200,000 small files, all within the budget and with
// room for a few of the memos only.
func TestManyRememberedFiles(t *testing.T) {
	files := 200_000 / slowdown
	if os.Getenv("KEEPSET_SOAK") != "" {
		files *= 5
	}
	m := encryptedMode(t)
	store := initStore(t, m)
	for n, budget := range []int{0, 0, 3 << 20} {
		cpu := cpuSeconds(t)
		b, err := open(t, store, m.writer, Options{RecallBytes: budget}).Begin(t.Context(), testPlan(n, 0), "attempt-1")
		require.NoError(t, err)
		w, err := b.Member(t.Context(), 0)
		require.NoError(t, err)
		missed := 0
		for i := range files {
			path := fmt.Sprintf("claim/data/%03d/%06d", i/1000, i)
			stat := fmt.Appendf(make([]byte, 0, 40), "%40d", i)
			e, found, err := w.Recall(t.Context(), path, stat)
			require.NoError(t, err)
			s, err := w.Create(t.Context(), path, StreamOptions{Remember: &Remember{Key: path, Fingerprint: stat}})
			require.NoError(t, err)
			if found {
				_, err = s.Reuse(e, 0, e.Size())
			} else {
				missed++
				_, err = fmt.Fprintf(s, "file %d, which is small", i)
			}
			require.NoError(t, err)
			require.NoError(t, s.Close())
		}
		commit, err := w.Commit(t.Context(), testReport(), CommitStatus{})
		require.NoError(t, err)
		require.NoError(t, b.Close())
		var memos int64
		refs, err := b.r.readRefs(t.Context(), b.layout, &commit)
		require.NoError(t, err)
		for _, ref := range refs.Memos {
			memos += ref.Size
		}
		t.Logf("measured: run %d of %d files in %.1f s of processor time: %d read, %d bytes stored, %d bytes of memos in %d objects",
			n+1, files, cpuSeconds(t)-cpu, missed, commit.Stored, memos, len(refs.Memos))
		switch {
		case n == 0:
			require.Equal(t, files, missed)
		case budget == 0:
			require.Zero(t, missed)
			require.Zero(t, commit.Stored)
		default:
			require.Less(t, missed, files/1000+1, "what does not fit is asked for in order")
		}
	}
}
