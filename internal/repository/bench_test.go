package repository

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"keepset/internal/storage"
)

// sysbenchRows is the text of a sysbench table: digits, half of them random.
func sysbenchRows(n int) []byte {
	b := make([]byte, 0, n+256)
	random := randomBytes(9, n)
	digits := func(count int) {
		for range count {
			b = append(b, '0'+random[0]%10)
			random = random[1:]
		}
	}
	for i := 0; len(b) < n && len(random) > 256; i++ {
		b = fmt.Appendf(b, "%d\t", i)
		digits(7)
		b = append(b, '\t')
		for g := range 10 {
			if g > 0 {
				b = append(b, '-')
			}
			digits(11)
		}
		b = append(b, '\t')
		for g := range 5 {
			if g > 0 {
				b = append(b, '-')
			}
			digits(11)
		}
		b = append(b, '\n')
	}
	return b
}

func BenchmarkChunker(b *testing.B) {
	data := sysbenchRows(64 << 20)
	c := newChunker(newGearTable(), testChunker(), 0)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		for rest := data; len(rest) > 0; {
			n, _ := c.next(rest)
			rest = rest[n:]
		}
	}
}

func BenchmarkSHA256(b *testing.B) {
	data := sysbenchRows(1 << 20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		_ = sha256.Sum256(data)
	}
}

func BenchmarkCompress(b *testing.B) {
	data := sysbenchRows(1 << 20)
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithAllLitEntropyCompression(true))
	require.NoError(b, err)
	var out []byte
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		out = e.EncodeAll(data, out[:0])
	}
	b.ReportMetric(float64(len(data))/float64(len(out)), "ratio")
}

func BenchmarkDecompress(b *testing.B) {
	data := sysbenchRows(1 << 20)
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	require.NoError(b, err)
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	require.NoError(b, err)
	packed := e.EncodeAll(data, nil)
	var out []byte
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		out, err = d.DecodeAll(packed, out[:0])
		require.NoError(b, err)
	}
}

// cpuSeconds that this process has used, which other load does not change.
func cpuSeconds(b testing.TB) float64 {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// BenchmarkWrite is the whole way from a stream to a store that discards packs.
func BenchmarkWrite(b *testing.B) {
	data := sysbenchRows(256 << 20)
	for _, m := range modes(b) {
		for _, verify := range []bool{true, false} {
			b.Run(fmt.Sprintf("%s/verify=%t", m.name, verify), func(b *testing.B) {
				benchmarkWrite(b, m, verify, data)
			})
		}
	}
}

func benchmarkWrite(b *testing.B, m mode, verify bool, data []byte) {
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	var cpu float64
	runs := 0
	for b.Loop() {
		b.StopTimer()
		runs++
		store := newDiscard(initStore(b, m))
		r := open(b, store, m.writer, Options{NoExtraVerify: !verify})
		backup, err := r.Begin(b.Context(), testPlan(0, 0), "attempt-1")
		require.NoError(b, err)
		before := cpuSeconds(b)
		b.StartTimer()
		w, err := backup.Member(b.Context(), 0)
		require.NoError(b, err)
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				part := data[i*len(data)/4 : (i+1)*len(data)/4]
				s, err := w.Create(b.Context(), fmt.Sprintf("data/%d", i), StreamOptions{})
				if err == nil {
					err = writeAll(s, part)
				}
				if err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
		_, err = w.Commit(b.Context(), testReport(), CommitStatus{})
		require.NoError(b, err)
		require.NoError(b, backup.Close())
		cpu += cpuSeconds(b) - before
	}
	b.ReportMetric(float64(runs)*float64(len(data))/1e6/cpu, "MB/cpu-s")
}

func writeAll(s *StreamWriter, data []byte) error {
	for len(data) > 0 {
		n := min(len(data), 64<<10)
		if _, err := s.Write(data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return s.Close()
}

// discard keeps everything but the bytes of packs.
type discard struct {
	storage.Store
	mu    sync.Mutex
	sizes map[string]int64
}

func newDiscard(s storage.Store) *discard { return &discard{Store: s, sizes: make(map[string]int64)} }

var errDiscarded = errors.New("the bytes of this pack were discarded")

func (d *discard) isPack(key string) bool {
	_, ok := parseHashKey(key, layout{testSet}.packs())
	return ok
}

func (d *discard) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	if !d.isPack(key) {
		return d.Store.Put(ctx, key, body)
	}
	size, err := io.Copy(io.Discard, body)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sizes[key] = size
	return err
}

func (d *discard) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if d.isPack(key) {
		return nil, errDiscarded
	}
	return d.Store.Get(ctx, key, offset, length)
}

func (d *discard) Stat(ctx context.Context, key string) (storage.Object, error) {
	if d.isPack(key) {
		return storage.Object{}, fs.ErrNotExist
	}
	return d.Store.Stat(ctx, key)
}

func (d *discard) List(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	if prefix != (layout{testSet}).packs() {
		return d.Store.List(ctx, prefix)
	}
	return func(yield func(storage.Object, error) bool) {
		d.mu.Lock()
		keys := sortedKeys(d.sizes)
		d.mu.Unlock()
		for _, key := range keys {
			if !yield(storage.Object{Key: key, Size: d.sizes[key], LastModified: time.Now()}, nil) {
				return
			}
		}
	}
}
