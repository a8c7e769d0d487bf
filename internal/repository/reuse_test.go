package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"keepset/internal/record"
	"keepset/internal/storage"
)

// testBlock is the block size of the volumes of these tests.
const testBlock = 64 << 10

func blockOptions(fingerprint string) StreamOptions {
	return StreamOptions{Fixed: testBlock, Remember: &Remember{Key: "volume", Fingerprint: []byte(fingerprint)}}
}

// source is a stream of which some ranges are as they were.
type source struct {
	data []byte
	same func(offset int64) bool // whether the block there is
}

// writeFrom writes a volume as a block copy does: what is the same is reused,
// where that is refused it is read. It returns how much was refused.
func writeFrom(s *StreamWriter, e *Remembered, from source) (refused int, err error) {
	for at := 0; at < len(from.data); at += testBlock {
		block := from.data[at:min(at+testBlock, len(from.data))]
		if e != nil && from.same(int64(at)) {
			n, err := s.Reuse(e, int64(at), int64(len(block)))
			if err == nil {
				continue
			}
			if !errors.Is(err, ErrNotReusable) {
				return refused, err
			}
			refused++
			block = block[n:]
		}
		if _, err := s.Write(block); err != nil {
			return refused, err
		}
	}
	return refused, s.Close()
}

// backUpVolume takes a backup of one volume, reusing what is remembered of it.
func backUpVolume(t testing.TB, store storage.Store, m mode, n int, fingerprint string, from source) (record.BackupID, Stats, int) {
	t.Helper()
	b := begin(t, store, m, testPlan(n, 0), "attempt-1")
	w, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	e, _, err := w.Recall(t.Context(), "volume", nil)
	require.NoError(t, err)
	s, err := w.Create(t.Context(), "disk", blockOptions(fingerprint))
	require.NoError(t, err)
	refused, err := writeFrom(s, e, from)
	require.NoError(t, err)
	stats := w.Stats()
	commit, err := w.Commit(t.Context(), testReport(), CommitStatus{})
	require.NoError(t, err)
	require.EqualValues(t, len(from.data), commit.Bytes)
	require.NoError(t, b.Close())
	return b.Plan().ID, stats, refused
}

func requireVolume(t testing.TB, store storage.Store, m mode, id record.BackupID, want []byte) {
	t.Helper()
	got, err := readMember(t.Context(), open(t, store, m.restore, Options{}), id, 0)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got["disk"]))
}

// drawBlock draws what a block may be: content, zeros, and both within one.
func drawBlock(rt *rapid.T) []byte {
	block := make([]byte, testBlock)
	switch rapid.IntRange(0, 3).Draw(rt, "kind") {
	case 0:
	case 1:
		copy(block[rapid.IntRange(0, testBlock-1).Draw(rt, "at"):], "a few bytes")
	default:
		copy(block, randomBytes(rapid.Uint64Range(1, 1<<20).Draw(rt, "seed"), rapid.SampledFrom([]int{1, 5000, testBlock}).Draw(rt, "length")))
	}
	return block
}

// TestAnyMixtureOfReuseAndWrites reads back exactly, its checksum included,
// over several backups that each reuse the one before.
func TestAnyMixtureOfReuseAndWrites(t *testing.T) {
	for _, m := range modes(t) {
		t.Run(m.name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) { anyMixture(t, rt, m) })
		})
	}
}

func anyMixture(t *testing.T, rt *rapid.T, m mode) {
	store := initStore(t, m)
	volume := make([]byte, rapid.IntRange(0, 5*testBlock).Draw(rt, "size"))
	for at := 0; at < len(volume); at += testBlock {
		copy(volume[at:], drawBlock(rt))
	}
	id, _, _ := backUpVolume(t, store, m, 0, "0", source{data: volume})
	requireVolume(t, store, m, id, volume)
	for n := range 2 {
		b := begin(t, store, m, testPlan(n+1, 0), "attempt-1")
		w, err := b.Member(t.Context(), 0)
		require.NoError(rt, err)
		e, found, err := w.Recall(t.Context(), "volume", fmt.Append(nil, n))
		require.NoError(rt, err)
		require.True(rt, found)
		require.EqualValues(rt, len(volume), e.Size())
		s, err := w.Create(t.Context(), "disk", blockOptions(fmt.Sprint(n+1)))
		require.NoError(rt, err)
		volume = mix(rt, s, e, volume)
		require.NoError(rt, s.Close())
		_, err = w.Commit(t.Context(), testReport(), CommitStatus{})
		require.NoError(rt, err)
		require.NoError(rt, b.Close())
		requireVolume(t, store, m, b.Plan().ID, volume)
	}
}

// mix writes a new volume out of ranges of the old one, in any order, and new blocks.
func mix(rt *rapid.T, s *StreamWriter, e *Remembered, old []byte) []byte {
	var volume []byte
	for range rapid.IntRange(0, 6).Draw(rt, "runs") {
		switch blocks := len(old) / testBlock; rapid.IntRange(0, 3).Draw(rt, "run") {
		case 0:
			n := rapid.IntRange(0, 2).Draw(rt, "zeros") * testBlock
			require.NoError(rt, s.Zeros(int64(n)))
			volume = append(volume, make([]byte, n)...)
		case 1:
			block := drawBlock(rt)
			_, err := s.Write(block)
			require.NoError(rt, err)
			volume = append(volume, block...)
		default:
			if blocks == 0 {
				continue
			}
			first := rapid.IntRange(0, blocks-1).Draw(rt, "first")
			from, to := first*testBlock, rapid.IntRange(first, blocks).Draw(rt, "end")*testBlock
			n, err := s.Reuse(e, int64(from), int64(to-from))
			require.NoError(rt, err)
			require.EqualValues(rt, to-from, n)
			volume = append(volume, old[from:to]...)
		}
	}
	return volume
}

// TestChunksOfBlocksEndAtMultiples, whatever holes lie before them: a later
// backup reuses them block by block.
func TestChunksOfBlocksEndAtMultiples(t *testing.T) {
	m := plainMode()
	store := initStore(t, m)
	data := randomBytes(1, 8*testBlock)
	clear(data[testBlock-3000 : 2*testBlock+500]) // a hole from within a block into one
	clear(data[3*testBlock+10 : 4*testBlock+10])
	id, _, _ := backUpVolume(t, store, m, 0, "a", source{data: data})
	_, stats, refused := backUpVolume(t, store, m, 1, "b", source{data: data, same: func(int64) bool { return true }})
	require.Zero(t, refused)
	require.EqualValues(t, len(data), stats.Reused)
	require.Zero(t, stats.Read+stats.New)
	requireVolume(t, store, m, id, data)
}

// TestOnlyChangedBlocksTravel: the second backup of a volume of 64 MiB whose
// provider names three changed blocks.
func TestOnlyChangedBlocksTravel(t *testing.T) {
	const blockSize = 512 << 10
	for _, m := range modes(t) {
		t.Run(m.name, func(t *testing.T) {
			store := initStore(t, m)
			volume := randomBytes(1, 64<<20)
			clear(volume[5*blockSize : 9*blockSize])
			options := func(f string) StreamOptions {
				return StreamOptions{Fixed: blockSize, Remember: &Remember{Key: "vol-1", Fingerprint: []byte(f)}}
			}
			first := begin(t, store, m, testPlan(0, 0), "attempt-1")
			w, err := first.Member(t.Context(), 0)
			require.NoError(t, err)
			s, err := w.Create(t.Context(), "disk", options("snap-1"))
			require.NoError(t, err)
			require.NoError(t, writeAll(s, volume))
			_, err = w.Commit(t.Context(), testReport(), CommitStatus{})
			require.NoError(t, err)
			require.NoError(t, first.Close())

			second := begin(t, store, m, testPlan(1, 0), "attempt-1")
			w, err = second.Member(t.Context(), 0)
			require.NoError(t, err)
			e, found, err := w.Recall(t.Context(), "vol-1", nil)
			require.NoError(t, err)
			require.True(t, found)
			require.Equal(t, "snap-1", string(e.Fingerprint()))
			s, err = w.Create(t.Context(), "disk", options("snap-2"))
			require.NoError(t, err)
			at := int64(0)
			for i, block := range []int64{6, 40, 127} {
				copy(volume[block*blockSize:], randomBytes(uint64(100+i), blockSize))
				n, err := s.Reuse(e, at, block*blockSize-at)
				require.NoError(t, err)
				require.Equal(t, block*blockSize-at, n)
				_, err = s.Write(volume[block*blockSize : (block+1)*blockSize])
				require.NoError(t, err)
				at = (block + 1) * blockSize
			}
			require.NoError(t, s.Close())
			commit, err := w.Commit(t.Context(), testReport(), CommitStatus{})
			require.NoError(t, err)
			require.NoError(t, second.Close())
			stats := w.Stats()
			t.Logf("measured: of %d bytes %d were read and %d reused; %d stored", commit.Bytes, stats.Read, stats.Reused, commit.Stored)
			require.EqualValues(t, 3*blockSize, stats.Read)
			require.EqualValues(t, 3*blockSize, stats.New)
			require.EqualValues(t, 64<<20-3*blockSize, stats.Reused)
			require.Less(t, commit.Stored, int64(3*blockSize+1<<10))
			requireVolume(t, store, m, second.Plan().ID, volume)
		})
	}
}

// files are remembered streams by name; the fingerprint is the content's.
func writeFiles(ctx context.Context, w *MemberWriter, files content) error {
	for _, name := range sortedKeys(files) {
		data := files[name]
		fingerprint := contentRef(data).SHA256
		e, found, err := w.Recall(ctx, name, fingerprint[:])
		if err != nil {
			return err
		}
		s, err := w.Create(ctx, name, StreamOptions{Remember: &Remember{Key: name, Fingerprint: fingerprint[:]}})
		if err != nil {
			return err
		}
		if found {
			n, err := s.Reuse(e, 0, e.Size())
			if err != nil && !errors.Is(err, ErrNotReusable) {
				s.Abort(err)
				return err
			}
			data = data[n:]
		}
		if err := writeAll(s, data); err != nil {
			return err
		}
	}
	return nil
}

func backUpFiles(t testing.TB, store storage.Store, m mode, n int, files content) (record.BackupID, Stats) {
	t.Helper()
	b := begin(t, store, m, testPlan(n, 0), "attempt-1")
	w, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	require.NoError(t, writeFiles(t.Context(), w, files))
	_, err = w.Commit(t.Context(), testReport(), CommitStatus{})
	require.NoError(t, err)
	require.NoError(t, b.Close())
	return b.Plan().ID, w.Stats()
}

func someFiles() content {
	files := content{"empty": {}, "large": randomBytes(1, 6<<20/raceScale), "holes": append(text(2, 100<<10), make([]byte, 3<<20)...)}
	for i := range 300 {
		files[fmt.Sprintf("small/%03d", i)] = text(uint64(10+i), 20+7*i)
	}
	return files
}

// TestUnchangedFilesAreNotRead, by a writer that cannot read the store either.
func TestUnchangedFilesAreNotRead(t *testing.T) {
	for _, m := range modes(t) {
		t.Run(m.name, func(t *testing.T) {
			store := initStore(t, m)
			files := someFiles()
			backUpFiles(t, store, m, 0, files)
			for n := 1; n <= 3; n++ {
				changed := text(uint64(1000+n), 5000)
				files[fmt.Sprintf("small/%03d", 40*n)] = changed
				added := text(uint64(2000+n), 700)
				files[fmt.Sprintf("new/%d", n)] = added
				delete(files, fmt.Sprintf("small/%03d", 41*n))
				id, stats := backUpFiles(t, store, m, n, files)
				require.EqualValues(t, len(changed)+len(added), stats.Read)
				got, err := readMember(t.Context(), open(t, store, m.restore, Options{}), id, 0)
				require.NoError(t, err)
				requireContent(t, files, got)
			}
			report := verifyAll(t, open(t, store, m.restore, Options{}), VerifyOptions{ReadData: 100})
			require.Empty(t, report.Damages)
		})
	}
}

// TestLostPackIsReadAgain: a pack that is not listed refuses what lies in it,
// and the backup ends right.
func TestLostPackIsReadAgain(t *testing.T) {
	for _, m := range modes(t) {
		t.Run(m.name, func(t *testing.T) {
			store := initStore(t, m)
			volume := randomBytes(1, 100*testBlock) // six packs
			backUpVolume(t, store, m, 0, "a", source{data: volume})
			packs := keysBelow(t, store, layout{testSet}.packs())
			require.NoError(t, store.Delete(t.Context(), packs[1]))
			replace(t, store, packs[2], readObject(t, store, packs[2])[1:])
			id, stats, refused := backUpVolume(t, store, m, 1, "b", source{data: volume, same: func(int64) bool { return true }})
			require.Positive(t, refused)
			require.EqualValues(t, refused*testBlock, stats.Read)
			require.Positive(t, stats.Reused)
			requireVolume(t, store, m, id, volume)

			// Over the whole stream at once, it ends where it must.
			require.NoError(t, store.Delete(t.Context(), keysBelow(t, store, layout{testSet}.packs())[0]))
			b := begin(t, store, m, testPlan(2, 0), "attempt-1")
			defer func() { require.NoError(t, b.Close()) }()
			w, err := b.Member(t.Context(), 0)
			require.NoError(t, err)
			e, _, err := w.Recall(t.Context(), "volume", []byte("b"))
			require.NoError(t, err)
			s, err := w.Create(t.Context(), "disk", blockOptions("c"))
			require.NoError(t, err)
			n, err := s.Reuse(e, 0, e.Size())
			require.ErrorIs(t, err, ErrNotReusable)
			require.Zero(t, n%testBlock)
			require.NoError(t, writeAll(s, volume[n:]))
			_, err = w.Commit(t.Context(), testReport(), CommitStatus{})
			require.NoError(t, err)
			requireVolume(t, store, m, b.Plan().ID, volume)
		})
	}
}

func condemn(t *testing.T, store storage.Store, p record.Prune) {
	t.Helper()
	p.Header, p.Set = record.NewHeader(record.KindPrune), testSet
	data, err := record.Encode(&p, nil)
	require.NoError(t, err)
	replace(t, store, layout{testSet}.prunes()+"20261120T120000Z", data)
}

// TestCondemnedIsNotReused: neither a pack nor a memo that is about to go.
func TestCondemnedIsNotReused(t *testing.T) {
	l := layout{testSet}
	same := source{data: randomBytes(1, 60*testBlock), same: func(int64) bool { return true }}
	hashes := func(t *testing.T, store storage.Store, prefix string) (list []hash) {
		for _, key := range keysBelow(t, store, prefix) {
			h, ok := parseHashKey(key, prefix)
			require.True(t, ok)
			list = append(list, h)
		}
		return list
	}
	for _, m := range modes(t) {
		store := initStore(t, m)
		backUpVolume(t, store, m, 0, "a", same)
		packs := hashes(t, store, l.packs())[:1]
		condemn(t, store, record.Prune{Packs: packs})
		id, stats, refused := backUpVolume(t, store, m, 1, "b", same)
		require.Positive(t, refused)
		require.Positive(t, stats.Reused)
		requireVolume(t, store, m, id, same.data)
		info, err := open(t, store, m.restore, Options{}).Backup(t.Context(), testSet, id)
		require.NoError(t, err)
		c := info.Members[0].Commit
		refs, err := open(t, store, m.restore, Options{}).readRefs(t.Context(), l, &c)
		require.NoError(t, err)
		for _, ref := range refs.Packs {
			require.NotContains(t, packs, ref.SHA256)
		}

		var memos []hash
		for _, ref := range refs.Memos {
			memos = append(memos, ref.SHA256)
		}
		require.Len(t, memos, 1)
		condemn(t, store, record.Prune{Packs: packs, Parts: memos})
		_, stats, _ = backUpVolume(t, store, m, 2, "c", same)
		require.Zero(t, stats.Reused)
		require.Zero(t, stats.New, "the chunks are known all the same")
		// A record that cannot be read may condemn anything.
		replace(t, store, l.prunes()+"20261120T130000Z", []byte("?"))
		_, stats, _ = backUpVolume(t, store, m, 3, "d", same)
		require.Zero(t, stats.Reused+stats.Deduplicated)
	}
}

// TestFinishedStreamsOfAKilledAttempt are not read again by the next one; the
// one that was being written is.
func TestFinishedStreamsOfAKilledAttempt(t *testing.T) {
	for _, m := range modes(t) {
		t.Run(m.name, func(t *testing.T) {
			store := initStore(t, m)
			files := content{}
			for i := range 900 {
				files[fmt.Sprintf("small/%03d", i)] = text(uint64(i), 300+i)
			}
			plan := testPlan(0, 0)
			first := begin(t, store, m, plan, "attempt-1")
			w, err := first.Member(t.Context(), 0)
			require.NoError(t, err)
			require.NoError(t, writeFiles(t.Context(), w, files))
			s, err := w.Create(t.Context(), "volume", blockOptions("snap"))
			require.NoError(t, err)
			_, err = s.Write(randomBytes(1, 1500*testBlock)) // a row and a half
			require.NoError(t, err)
			require.NoError(t, first.pipeline.flush(t.Context()))
			require.NoError(t, first.checkpoint(t.Context()))
			require.NoError(t, first.Close())

			// Twice under one name, as a container that is restarted.
			for range 2 {
				b := begin(t, store, m, plan, "attempt-2")
				w, err = b.Member(t.Context(), 0)
				require.NoError(t, err)
				_, found, err := w.Recall(t.Context(), "volume", nil)
				require.NoError(t, err)
				require.False(t, found)
				files["another"] = append(files["another"], text(1, 200)...)
				require.NoError(t, writeFiles(t.Context(), w, files))
				require.EqualValues(t, len(files["another"]), w.Stats().Read)
				require.NoError(t, b.pipeline.flush(t.Context()))
				require.NoError(t, b.checkpoint(t.Context()))
				require.NoError(t, b.Close())
			}
			b := begin(t, store, m, plan, "attempt-3")
			w, err = b.Member(t.Context(), 0)
			require.NoError(t, err)
			require.NoError(t, writeFiles(t.Context(), w, files))
			require.Zero(t, w.Stats().Read)
			_, err = w.Commit(t.Context(), testReport(), CommitStatus{})
			require.NoError(t, err)
			require.NoError(t, b.Close())
			got, err := readMember(t.Context(), open(t, store, m.restore, Options{}), plan.ID, 0)
			require.NoError(t, err)
			requireContent(t, files, got)
		})
	}
}

// TestStreamsOfOneKey are kept apart, also when each has several rows.
func TestStreamsOfOneKey(t *testing.T) {
	m := plainMode()
	store := initStore(t, m)
	size := 1300 * testBlock / raceScale
	one, two := randomBytes(1, size), randomBytes(2, size)
	first := begin(t, store, m, testPlan(0, 0), "attempt-1")
	w, err := first.Member(t.Context(), 0)
	require.NoError(t, err)
	a, err := w.Create(t.Context(), "one", blockOptions("1"))
	require.NoError(t, err)
	b, err := w.Create(t.Context(), "two", blockOptions("2"))
	require.NoError(t, err)
	for at := 0; at < size; at += testBlock {
		_, err = a.Write(one[at:min(size, at+testBlock)])
		require.NoError(t, err)
		_, err = b.Write(two[at:min(size, at+testBlock)])
		require.NoError(t, err)
	}
	require.NoError(t, errors.Join(a.Close(), b.Close()))
	gone, err := w.Create(t.Context(), "gone", StreamOptions{Remember: &Remember{Key: "gone"}})
	require.NoError(t, err)
	gone.Forget()
	require.NoError(t, writeAll(gone, one[:1000]))
	_, err = w.Commit(t.Context(), testReport(), CommitStatus{})
	require.NoError(t, err)
	require.NoError(t, first.Close())

	second := begin(t, store, m, testPlan(1, 0, 1), "attempt-1")
	w, err = second.Member(t.Context(), 0)
	require.NoError(t, err)
	for fingerprint, want := range map[string][]byte{"1": one, "2": two} {
		e, found, err := w.Recall(t.Context(), "volume", []byte(fingerprint))
		require.NoError(t, err)
		require.True(t, found)
		s, err := w.Create(t.Context(), fingerprint, StreamOptions{})
		require.NoError(t, err)
		_, err = s.Reuse(e, 0, e.Size())
		require.NoError(t, err)
		require.NoError(t, s.Close())
		defer func() {
			got, err := readMember(t.Context(), open(t, store, m.restore, Options{}), second.Plan().ID, 0)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got[fingerprint]))
		}()
	}
	for _, key := range []string{"gone", "never"} {
		_, found, err := w.Recall(t.Context(), key, nil)
		require.NoError(t, err)
		require.False(t, found)
	}
	other, err := second.Member(t.Context(), 1)
	require.NoError(t, err)
	_, found, err := other.Recall(t.Context(), "volume", nil)
	require.NoError(t, err)
	require.False(t, found, "no member is given another one's")
	_, err = w.Commit(t.Context(), testReport(), CommitStatus{})
	require.NoError(t, err)
	other.Abort()
	require.NoError(t, second.Close())
}

// TestWhatReuseRefuses: ranges that are not there, or that cut a chunk, and
// streams that must not be.
func TestWhatReuseRefuses(t *testing.T) {
	m := plainMode()
	store := initStore(t, m)
	data := randomBytes(1, 4*testBlock)
	backUpVolume(t, store, m, 0, "a", source{data: data})
	b := begin(t, store, m, testPlan(1, 0), "attempt-1")
	defer func() { require.NoError(t, b.Close()) }()
	w, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	e, found, err := w.Recall(t.Context(), "volume", nil)
	require.NoError(t, err)
	require.True(t, found)
	s, err := w.Create(t.Context(), "disk", blockOptions("b"))
	require.NoError(t, err)
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {0, e.Size() + 1}, {e.Size() + 1, 0}, {1, testBlock}, {0, testBlock - 1}, {testBlock + 5, 3}} {
		n, err := s.Reuse(e, r[0], r[1])
		require.ErrorIs(t, err, ErrNotReusable, "%v", r)
		require.Zero(t, n)
	}
	n, err := s.Reuse(e, testBlock, testBlock+1)
	require.ErrorIs(t, err, ErrNotReusable)
	require.EqualValues(t, testBlock, n, "what can be reused is")
	n, err = s.Reuse(e, 0, 0)
	require.NoError(t, err)
	require.Zero(t, n)
	require.Error(t, s.Zeros(-1))
	require.NoError(t, s.Close())
	_, err = s.Reuse(e, 0, testBlock)
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorIs(t, s.Zeros(1), ErrClosed)

	for _, o := range []StreamOptions{
		{Secret: true, Remember: &Remember{Key: "a"}},
		{Remember: &Remember{}},
		{Remember: &Remember{Key: "a", Fingerprint: make([]byte, maxFingerprint+1)}},
	} {
		_, err := w.Create(t.Context(), "refused", o)
		require.Error(t, err)
	}
	secret, err := w.Create(t.Context(), "secret", StreamOptions{Secret: true})
	require.NoError(t, err)
	_, err = secret.Reuse(e, 0, testBlock)
	require.ErrorIs(t, err, ErrNotReusable)
	require.NoError(t, secret.Close())
	ctx, cancel := context.WithCancel(t.Context())
	late, err := w.Create(ctx, "late", StreamOptions{})
	require.NoError(t, err)
	cancel()
	_, err = late.Reuse(e, 0, testBlock)
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, ErrNotReusable)
	_, err = io.WriteString(late, "too late")
	require.ErrorIs(t, err, context.Canceled)
}

// TestCrashWhileReusing stops the store at every call of a backup that reuses
// what it can. What it has listed can be read, and the next attempt ends right.
func TestCrashWhileReusing(t *testing.T) {
	write := func(ctx context.Context, w *MemberWriter, c content) (record.Commit, error) {
		defer w.Abort()
		if err := writeFiles(ctx, w, c); err != nil {
			return record.Commit{}, err
		}
		if err := w.b.checkpoint(ctx); err != nil {
			return record.Commit{}, err
		}
		return w.Commit(ctx, testReport(), CommitStatus{})
	}
	for _, m := range modes(t) {
		for _, lostReply := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/lostReply=%t", m.name, lostReply), func(t *testing.T) {
				calls := int64(0)
				for crashOnce(t, m, calls, lostReply, write) {
					calls += 2 * crashStep
				}
				require.Greater(t, calls, int64(25), "the test has lost its grip on the store")
			})
		}
	}
}

// TestMemosAreNeeded: a backup does not commit without them, and verify looks
// for them. Without them the next backup reads everything.
func TestMemosAreNeeded(t *testing.T) {
	for _, m := range modes(t) {
		t.Run(m.name, func(t *testing.T) {
			store := initStore(t, m)
			files := someFiles()
			backUpFiles(t, store, m, 0, files)
			r := open(t, store, m.restore, Options{})
			info, err := r.Resolve(t.Context(), testSet, Selector{})
			require.NoError(t, err)
			c := info.Members[0].Commit
			refs, err := r.readRefs(t.Context(), layout{testSet}, &c)
			require.NoError(t, err)
			require.Len(t, refs.Memos, 1)
			key := layout{testSet}.part(refs.Memos[0].SHA256)
			stored := readObject(t, store, key)
			replace(t, store, key, flip(stored, len(stored)/2))
			report := verifyAll(t, r, VerifyOptions{ReadData: 100})
			require.Equal(t, []string{key}, damagedKeys(report))
			require.Contains(t, report.Damages[0].Harmed[0].Note, "index only")
			require.NoError(t, store.Delete(t.Context(), key))
			require.Equal(t, []string{key}, damagedKeys(verifyAll(t, r, VerifyOptions{})))

			id, stats := backUpFiles(t, store, m, 1, files)
			require.Zero(t, stats.Reused)
			require.Zero(t, stats.New, "the chunks are found by their hashes")
			got, err := readMember(t.Context(), r, id, 0)
			require.NoError(t, err)
			requireContent(t, files, got)

			b := begin(t, store, m, testPlan(2, 0), "attempt-1")
			w, err := b.Member(t.Context(), 0)
			require.NoError(t, err)
			require.NoError(t, writeFiles(t.Context(), w, files))
			memos, err := w.memos.seal(t.Context(), 0)
			require.NoError(t, err)
			require.NoError(t, store.Delete(t.Context(), layout{testSet}.part(memos[0].SHA256)))
			_, err = w.Commit(t.Context(), testReport(), CommitStatus{})
			require.ErrorIs(t, err, ErrDamaged)
			require.NoError(t, b.Close())
		})
	}
}

// TestMemosOfARestartedContainer: the checkpoint of one that has written
// little does not hide what the one before it, of the same name, had finished.
func TestMemosOfARestartedContainer(t *testing.T) {
	m := encryptedMode(t)
	store := initStore(t, m)
	plan, files := testPlan(0, 0), content{}
	for i := range 900 {
		files[fmt.Sprintf("small/%03d", i)] = text(uint64(i), 300+i)
	}
	for n, c := range []content{files, {"other": randomBytes(1, 100_000)}, files} {
		b := begin(t, store, m, plan, record.AttemptID([]string{"attempt-1", "attempt-1", "attempt-2"}[n]))
		w, err := b.Member(t.Context(), 0)
		require.NoError(t, err)
		require.NoError(t, writeFiles(t.Context(), w, c))
		require.NoError(t, b.pipeline.flush(t.Context()))
		require.NoError(t, b.checkpoint(t.Context()))
		if n == 2 {
			require.Zero(t, w.Stats().Read)
		}
		require.NoError(t, b.Close())
	}
}
