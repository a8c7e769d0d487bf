package repository

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"keepset/internal/record"
)

// streamBytes draws content with runs of zeros of all lengths around the
// limits, random bytes, and repetitions.
func streamBytes(rt *rapid.T) []byte {
	var b []byte
	for range rapid.IntRange(0, 6).Draw(rt, "runs") {
		n := rapid.SampledFrom([]int{1, 17, probe - 1, probe, probe + 1, holeMin - 1, holeMin, holeMin + 1, 3 * holeMin, 300 << 10}).Draw(rt, "length")
		switch rapid.IntRange(0, 3).Draw(rt, "kind") {
		case 0, 1:
			b = append(b, make([]byte, n)...)
		case 2:
			b = append(b, randomBytes(rapid.Uint64Range(1, 9).Draw(rt, "seed"), n)...)
		default:
			b = append(b, bytes.Repeat([]byte{7, 0}, n/2)...)
		}
	}
	return b
}

// TestAnyStreamsComeBack writes whatever, in whatever portions, and reads it back.
func TestAnyStreamsComeBack(t *testing.T) {
	for _, m := range modes(t) {
		t.Run(m.name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) { anyStreams(t, rt, m) })
		})
	}
}

func anyStreams(t *testing.T, rt *rapid.T, m mode) {
	store := initStore(t, m)
	o := small()
	o.PackBytes = rapid.SampledFrom([]int{1 << 10, 200 << 10, 1 << 20}).Draw(rt, "pack")
	b, err := open(t, store, m.writer, o).Begin(t.Context(), testPlan(0, 0), "attempt-1")
	require.NoError(rt, err)
	defer func() { require.NoError(rt, b.Close()) }()
	w, err := b.Member(t.Context(), 0)
	require.NoError(rt, err)
	want := make(content)
	for i := range rapid.IntRange(0, 4).Draw(rt, "streams") {
		name, data := fmt.Sprintf("stream/%d", i), streamBytes(rt)
		want[name] = data
		s, err := w.Create(t.Context(), name, StreamOptions{
			Secret: rapid.Bool().Draw(rt, "secret"),
			Fixed:  rapid.SampledFrom([]int{0, 0, 64 << 10, 512 << 10}).Draw(rt, "fixed"),
		})
		require.NoError(rt, err)
		portion := rapid.SampledFrom([]int{1000, 4096, 65536, 1 << 20}).Draw(rt, "portion")
		for part := range slices.Chunk(data, portion) {
			n, err := s.Write(part)
			require.NoError(rt, err)
			require.Len(rt, part, n)
		}
		require.NoError(rt, s.Close())
	}
	commit, err := w.Commit(t.Context(), testReport(), CommitStatus{})
	require.NoError(rt, err)
	require.LessOrEqual(rt, commit.Stored, commit.Bytes+1<<10)
	got, err := readMember(t.Context(), open(t, store, m.restore, Options{ReadBytes: 1 << 16}), b.Plan().ID, 0)
	require.NoError(rt, err)
	require.Len(rt, got, len(want))
	for name := range want {
		require.True(rt, bytes.Equal(want[name], got[name]), name)
	}
}

// TestHoles: exactly the runs of zeros that are long enough become holes,
// however the writes are cut.
func TestHoles(t *testing.T) {
	m := plainMode()
	rapid.Check(t, func(rt *rapid.T) {
		before, zeros := rapid.IntRange(0, 9000).Draw(rt, "before"), rapid.IntRange(holeMin-3, holeMin+9000).Draw(rt, "zeros")
		portion := rapid.IntRange(1, 100_000).Draw(rt, "portion")
		data := append(bytes.Repeat([]byte{1}, before), make([]byte, zeros)...)
		data = append(data, bytes.Repeat([]byte{2}, 5000)...)
		b := begin(t, initStore(t, m), m, testPlan(0, 0), "attempt-1")
		defer func() { require.NoError(rt, b.Close()) }()
		w, err := b.Member(t.Context(), 0)
		require.NoError(rt, err)
		s, err := w.Create(t.Context(), "a", StreamOptions{})
		require.NoError(rt, err)
		for part := range slices.Chunk(data, max(portion, len(data)/200)) {
			_, err := s.Write(part)
			require.NoError(rt, err)
		}
		require.NoError(rt, s.Close())
		want := 0
		if zeros >= holeMin {
			want = zeros
		}
		require.EqualValues(rt, want, w.Stats().Holes)
	})
}

// cuts returns the chunk lengths of data when it arrives in such portions.
func cuts(data []byte, portion int, c record.Chunker) []int {
	k := newChunker(newGearTable(), c, 0)
	var lengths []int
	length := 0
	for part := range slices.Chunk(data, portion) {
		for len(part) > 0 {
			n, end := k.next(part)
			length += n
			part = part[n:]
			if end {
				lengths = append(lengths, length)
				length = 0
			}
		}
	}
	if length > 0 {
		lengths = append(lengths, length)
	}
	return lengths
}

// TestLanesCutAsBytesDo: pairs of lanes are taken of long portions alone.
func TestLanesCutAsBytesDo(t *testing.T) {
	data := randomBytes(11, 2<<20)
	for _, c := range []record.Chunker{
		{Min: 1 << 10, Average: 4 << 10, Max: 64 << 10},
		{Min: 1 << 10, Average: 32 << 10, Max: 256 << 10},
	} {
		want := cuts(data, 1, c)
		require.Greater(t, len(want), 20)
		require.Equal(t, want, cuts(data, len(data), c))
		require.Equal(t, want, cuts(data, 3*lane+1, c))
	}
}

func TestChunksDoNotDependOnPortions(t *testing.T) {
	data := text(1, 12<<20/slowdown)
	want := cuts(data, len(data), testChunker())
	require.Greater(t, len(want), 2/slowdown)
	for _, portion := range []int{1, 4095, 65536, 1<<20 + 1} {
		if portion == 1 && slowdown > 1 {
			continue
		}
		require.Equal(t, want, cuts(data, portion, testChunker()))
	}
	total := 0
	for i, n := range want {
		require.LessOrEqual(t, n, chunkMax)
		if i < len(want)-1 {
			require.GreaterOrEqual(t, n, chunkMin)
		}
		total += n
	}
	require.Equal(t, len(data), total)
}

// TestChunksFollowTheContent: an insertion changes the chunks around it only.
func TestChunksFollowTheContent(t *testing.T) {
	c := record.Chunker{Algorithm: "fastcdc", Min: 1 << 10, Average: 4 << 10, Max: 16 << 10}
	data := randomBytes(1, 1<<20)
	changed := slices.Concat(data[:400_000], []byte("inserted"), data[400_000:])
	have := make(map[uint32]bool)
	at := 0
	lengths := cuts(data, len(data), c)
	for _, n := range lengths {
		have[crc32.ChecksumIEEE(data[at:at+n])] = true
		at += n
	}
	fresh := 0
	at = 0
	for _, n := range cuts(changed, len(changed), c) {
		if !have[crc32.ChecksumIEEE(changed[at:at+n])] {
			fresh++
		}
		at += n
	}
	require.LessOrEqual(t, fresh, 4)
	average := len(data) / len(lengths)
	require.InDelta(t, c.Average, average, float64(c.Average)/2)
}

// TestManySmallStreams: 10,000 of them share frames, and reading them one
// after the other does not fetch a pack for each.
func TestManySmallStreams(t *testing.T) {
	m := encryptedMode(t)
	store := &counting{Store: initStore(t, m)}
	want := make(content)
	for i := range 10_000 / slowdown {
		want[fmt.Sprintf("data/shop/t%05d", i)] = fmt.Appendf(nil, "%d\trow of a small table\n", i)
	}
	id := writeBackup(t, open(t, store, m.writer, small()), want)
	require.LessOrEqual(t, len(keysBelow(t, store, layout{testSet}.packs())), 2)
	store.gets.Store(0)
	got, err := readMember(t.Context(), open(t, store, m.restore, Options{}), id, 0)
	require.NoError(t, err)
	requireContent(t, want, got)
	require.Less(t, store.gets.Load(), int64(40))
}

// TestReaderKeepsTheRules of io.Reader.
func TestReaderKeepsTheRules(t *testing.T) {
	m := plainMode()
	store := initStore(t, m)
	data := slices.Concat(text(1, 300<<10), make([]byte, 100<<10), text(2, 70<<10))
	id := writeBackup(t, open(t, store, m.writer, small()), content{"a": data})
	r := open(t, store, m.restore, Options{})
	info, err := r.Backup(t.Context(), testSet, id)
	require.NoError(t, err)
	member, err := r.OpenMember(t.Context(), info, 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, member.Close()) }()
	body, err := member.Open(t.Context(), "a")
	require.NoError(t, err)
	require.NoError(t, iotest.TestReader(body, data))
	require.NoError(t, body.Close())
	_, err = body.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	_, err = member.Open(t.Context(), "b")
	require.ErrorIs(t, err, ErrNoStream)
	body, err = member.Open(t.Context(), "a")
	require.NoError(t, err)
	require.NoError(t, body.Close())
	_, err = body.Read(make([]byte, 1))
	require.ErrorIs(t, err, ErrClosed)
}
