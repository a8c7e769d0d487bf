package repository

import (
	"encoding/binary"
	"fmt"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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

// TestMemoryOfWriting pins the bound that Options promises: gigabytes that
// never repeat, in four streams at a time, well below 200 MiB for the whole process.
func TestMemoryOfWriting(t *testing.T) {
	const streams, limit = 4, 190 << 20
	perStream := int64(512<<20) / slowdown
	m := encryptedMode(t)
	store := newDiscard(initStore(t, m))
	r := open(t, store, m.writer, Options{Checkpoint: 200 * time.Millisecond})
	b, err := r.Begin(t.Context(), testPlan(0, 0), "attempt-1")
	require.NoError(t, err)
	w, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
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
	t.Logf("%d MiB written, %d MiB stored, %d MiB of memory at most", commit.Bytes>>20, commit.Stored>>20, most>>20)
	require.GreaterOrEqual(t, commit.Stored, streams*perStream, "the data was to be incompressible")
	require.Less(t, most, uint64(limit))
}
