package repository

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
	"keepset/internal/storage"
	"keepset/internal/storage/dir"
)

// peak samples what the Go runtime holds of the system's memory until stop
// is called, which returns the most it was, in bytes.
func peak() (stop func() uint64) {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	done, result := make(chan struct{}), make(chan uint64)
	go func() {
		var most uint64
		for {
			metrics.Read(samples)
			most = max(most, samples[0].Value.Uint64()-samples[1].Value.Uint64())
			select {
			case <-done:
				result <- most
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return func() uint64 { close(done); return <-result }
}

// unique is a source of bytes that never repeat and do not compress.
type unique struct {
	block   []byte
	counter uint64
}

func newUnique(seed uint64) *unique {
	return &unique{block: randomBytes(seed, 3<<20), counter: seed << 40}
}

func (u *unique) next() []byte {
	for i := 0; i < len(u.block); i += 4 << 10 {
		u.counter++
		binary.LittleEndian.PutUint64(u.block[i:], u.counter*0x9E3779B97F4A7C15)
	}
	return u.block
}

// within makes the collector keep the process below a bound, as the programs do
// in a container: by itself it lets garbage double what is in use, and when
// that is taken away depends on the machine.
func within(t *testing.T, limit int64) {
	before := debug.SetMemoryLimit(limit)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
}

// TestMemoryOfWriting pins the bound that Options promises: hundreds of
// megabytes (gigabytes in a soak) that never repeat, in four streams at a time, well below 200 MiB for the whole process.
func TestMemoryOfWriting(t *testing.T) {
	const streams, limit = 4, 190 << 20
	perStream := int64(192<<20) / slowdown
	if os.Getenv("KEEPSET_SOAK") != "" {
		perStream = 2 << 30
	}
	m := encryptedMode(t)
	store := newDiscard(initStore(t, m))
	r := open(t, store, m.writer, Options{Checkpoint: 200 * time.Millisecond})
	b, err := r.Begin(t.Context(), testPlan(0, 0), "attempt-1")
	require.NoError(t, err)
	w, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	within(t, limit-20<<20)
	debug.FreeOSMemory() // what tests before this one have left
	stop := peak()
	var wg sync.WaitGroup
	for i := range streams {
		wg.Go(func() {
			s, err := w.Create(t.Context(), fmt.Sprintf("data/%d", i), StreamOptions{})
			if err != nil {
				t.Error(err)
				return
			}
			source := newUnique(uint64(i + 1))
			for written := int64(0); written < perStream; {
				n, err := s.Write(source.next())
				if err != nil {
					t.Error(err)
					return
				}
				written += int64(n)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	commit, err := w.Commit(t.Context(), testReport(), CommitStatus{})
	require.NoError(t, err)
	require.NoError(t, b.Close())
	most := stop()
	t.Logf("measured: %d MiB written, %d MiB stored, %d MiB of memory at most", commit.Bytes>>20, commit.Stored>>20, most>>20)
	require.GreaterOrEqual(t, commit.Stored, streams*perStream, "the data was to be incompressible")
	require.Less(t, most, uint64(limit))
}

// TestMemoryOfReading: eight streams at a time, that lie side by side in the
// same packs, within ReadBytes and a chunk or two each; and every byte is
// asked for little more than once.
func TestMemoryOfReading(t *testing.T) {
	const streams, limit = 8, 180 << 20
	perStream := int64(64<<20) / slowdown
	m := encryptedMode(t)
	base, err := dir.New(dir.Options{Path: t.TempDir()})
	require.NoError(t, err)
	_, err = Init(t.Context(), base, InitOptions{Keys: m.writer})
	require.NoError(t, err)
	id := writeLarge(t, base, m, streams, perStream)
	store := &counting{Store: base}
	r := open(t, store, m.restore, Options{})
	info, err := r.Backup(t.Context(), testSet, id)
	require.NoError(t, err)
	within(t, limit-20<<20)
	debug.FreeOSMemory()
	stop := peak()
	member, err := r.OpenMember(t.Context(), info, 0)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for i := range streams {
		wg.Go(func() {
			body, err := member.Open(t.Context(), fmt.Sprintf("data/%d", i))
			if err != nil {
				t.Error(err)
				return
			}
			n, err := io.Copy(io.Discard, body)
			if err = errors.Join(err, body.Close()); err != nil || n < perStream {
				t.Errorf("%d bytes: %v", n, err)
			}
		})
	}
	wg.Wait()
	require.NoError(t, member.Close())
	most := stop()
	t.Logf("measured: %d MiB read in %d requests of %d MiB, %d MiB of memory at most", streams*perStream>>20, store.gets.Load(), store.bytes.Load()>>20, most>>20)
	require.Less(t, most, uint64(limit))
	require.Less(t, store.bytes.Load(), 3*streams*perStream)
}

func writeLarge(t *testing.T, store storage.Store, m mode, streams int, perStream int64) record.BackupID {
	t.Helper()
	b, err := open(t, store, m.writer, Options{}).Begin(t.Context(), testPlan(0, 0), "attempt-1")
	require.NoError(t, err)
	w, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	writers := make([]*StreamWriter, streams)
	sources := make([]*unique, streams)
	for i := range writers {
		writers[i], err = w.Create(t.Context(), fmt.Sprintf("data/%d", i), StreamOptions{})
		require.NoError(t, err)
		sources[i] = newUnique(uint64(i + 1))
	}
	for written := int64(0); written < perStream; written += int64(len(sources[0].block)) {
		for i, s := range writers {
			_, err := s.Write(sources[i].next())
			require.NoError(t, err)
		}
	}
	for _, s := range writers {
		require.NoError(t, s.Close())
	}
	_, err = w.Commit(t.Context(), testReport(), CommitStatus{})
	require.NoError(t, err)
	require.NoError(t, b.Close())
	return b.Plan().ID
}

// TestStreamsThatWaitDoNotBlockOthers: many are open, one is read.
func TestStreamsThatWaitDoNotBlockOthers(t *testing.T) {
	m := plainMode()
	store := initStore(t, m)
	want := make(content)
	for i := range 12 {
		want[fmt.Sprintf("data/%02d", i)] = randomBytes(uint64(i+1), 3<<20)
	}
	id := writeBackup(t, open(t, store, m.writer, small()), want)
	r := open(t, store, m.restore, Options{ReadBytes: 1 << 20})
	info, err := r.Backup(t.Context(), testSet, id)
	require.NoError(t, err)
	member, err := r.OpenMember(t.Context(), info, 0)
	require.NoError(t, err)
	bodies := make(map[string]io.ReadCloser)
	for name := range want {
		bodies[name], err = member.Open(t.Context(), name)
		require.NoError(t, err)
	}
	for _, name := range sortedKeys(want) {
		got, err := io.ReadAll(bodies[name])
		require.NoError(t, err)
		require.True(t, bytes.Equal(want[name], got), name)
		require.NoError(t, bodies[name].Close())
	}
	require.NoError(t, member.Close())
}
