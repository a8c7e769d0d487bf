package storage_test

import (
	"bytes"
	"context"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/storage"
	"keepset/internal/storage/mem"
)

func TestBandwidthIsSharedByAllStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const perSecond, streams, size = 1 << 20, 4, 5 << 20
		s := storage.WithBandwidth(mem.New(mem.Options{}), storage.Bandwidth{Upload: perSecond, Download: 2 * perSecond})
		each := func(do func(key string)) time.Duration {
			start := time.Now()
			var wg sync.WaitGroup
			for i := range streams {
				wg.Go(func() { do(string(rune('a' + i))) })
			}
			wg.Wait()
			return time.Since(start)
		}
		up := each(func(key string) {
			if err := s.Put(t.Context(), key, bytes.NewReader(make([]byte, size))); err != nil {
				t.Error(err)
			}
		})
		require.InDelta(t, (streams * size / perSecond * time.Second).Seconds(), up.Seconds(), 0.5)
		down := each(func(key string) {
			if _, err := read(t.Context(), s, key, 0, -1); err != nil {
				t.Error(err)
			}
		})
		require.InDelta(t, up.Seconds()/2, down.Seconds(), 0.5)
	})
}

func TestBandwidthZeroIsUnlimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storage.WithBandwidth(mem.New(mem.Options{}), storage.Bandwidth{})
		start := time.Now()
		require.NoError(t, s.Put(t.Context(), "k", bytes.NewReader(make([]byte, 1<<20))))
		_, err := read(t.Context(), s, "k", 0, -1)
		require.NoError(t, err)
		require.Zero(t, time.Since(start))
	})
}

func TestBandwidthWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storage.WithBandwidth(mem.New(mem.Options{}), storage.Bandwidth{Upload: 1000})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		start := time.Now()
		err := s.Put(ctx, "k", bytes.NewReader(make([]byte, 1<<20)))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.LessOrEqual(t, time.Since(start), 2*time.Second)
	})
}

// A store that hashes the body before it sends it must not pay for it twice.
func TestUnlimitedSeesThroughTheDecorators(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &hashingStore{Store: mem.New(mem.Options{})}
		for _, s := range []storage.Store{
			storage.WithRetry(storage.WithBandwidth(inner, storage.Bandwidth{Upload: 1000}), storage.Retry{}),
			storage.WithBandwidth(storage.WithRetry(inner, storage.Retry{}), storage.Bandwidth{Upload: 1000}),
		} {
			start := time.Now()
			require.NoError(t, s.Put(t.Context(), "k", bytes.NewReader(make([]byte, 10_000))))
			require.Zero(t, time.Since(start))
		}
	})
}

type hashingStore struct{ storage.Store }

func (hashingStore) Put(_ context.Context, _ string, body io.ReadSeeker) error {
	_, err := io.Copy(io.Discard, storage.Unlimited(body))
	return err
}
