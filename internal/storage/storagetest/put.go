package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/storage"
)

var errNotExist = fs.ErrNotExist

func testRoundTrip(t *testing.T, s storage.Store) {
	data := []byte("what was written is what is read")
	put(t, s, "sets/ns/db/plan", data)

	require.Equal(t, data, get(t, s, "sets/ns/db/plan", 0, -1))
	o, err := s.Stat(t.Context(), "sets/ns/db/plan")
	require.NoError(t, err)
	require.Equal(t, "sets/ns/db/plan", o.Key)
	require.EqualValues(t, len(data), o.Size)
	require.WithinDuration(t, time.Now(), o.LastModified, time.Hour)
	for listed, err := range s.List(t.Context(), "") {
		require.NoError(t, err)
		require.Equal(t, o.Key, listed.Key)
		require.Equal(t, o.Size, listed.Size)
		require.True(t, o.LastModified.Equal(listed.LastModified), "stat says %v, list %v", o.LastModified, listed.LastModified)
		require.Equal(t, o.Class, listed.Class)
	}
	require.Equal(t, []string{"sets/ns/db/plan"}, list(t, s, ""))
}

func testEmptyObject(t *testing.T, s storage.Store) {
	put(t, s, "empty", nil)
	require.Empty(t, get(t, s, "empty", 0, -1))
	require.Empty(t, get(t, s, "empty", 0, 0))
	o, err := s.Stat(t.Context(), "empty")
	require.NoError(t, err)
	require.Zero(t, o.Size)
	require.Equal(t, []string{"empty"}, list(t, s, ""))
	require.ErrorIs(t, s.Put(t.Context(), "empty", bytes.NewReader(nil)), storage.ErrExists)
}

func testLargeObject(t *testing.T, s storage.Store) {
	data := randomBytes(LargeSize, 1)
	put(t, s, "packs/large", data)
	// Not require.Equal: its message for 40 MB would take minutes.
	require.True(t, bytes.Equal(data, get(t, s, "packs/large", 0, -1)))
	require.True(t, bytes.Equal(data[30<<20:31<<20], get(t, s, "packs/large", 30<<20, 1<<20)))
}

func testWrittenOnce(t *testing.T, s storage.Store) {
	put(t, s, "commits/1", []byte("first"))
	for _, second := range []string{"second", "first", ""} {
		err := s.Put(t.Context(), "commits/1", bytes.NewReader([]byte(second)))
		require.ErrorIs(t, err, storage.ErrExists)
		require.ErrorContains(t, err, "commits/1")
	}
	require.Equal(t, "first", string(get(t, s, "commits/1", 0, -1)))
}

func testBodyFromStart(t *testing.T, s storage.Store) {
	body := bytes.NewReader([]byte("whole body"))
	_, err := body.Seek(6, io.SeekStart)
	require.NoError(t, err)
	require.NoError(t, s.Put(t.Context(), "k", body))
	require.Equal(t, "whole body", string(get(t, s, "k", 0, -1)))
}

func testFailingBody(t *testing.T, s storage.Store) {
	boom := errors.New("source is broken")
	for _, at := range []int64{0, 1, 1 << 20} {
		body := &brokenBody{ReadSeeker: bytes.NewReader(randomBytes(2<<20, 2)), at: at, fail: func() error { return boom }}
		err := s.Put(t.Context(), "packs/broken", body)
		require.ErrorIs(t, err, boom, "fails at byte %d", at)
		requireAbsent(t, s, "packs/broken")
	}
	put(t, s, "packs/broken", []byte("the key is still free"))
}

func testShortBody(t *testing.T, s storage.Store) {
	body := &brokenBody{ReadSeeker: bytes.NewReader(randomBytes(2<<20, 3)), at: 1 << 20, fail: func() error { return io.EOF }}
	require.Error(t, s.Put(t.Context(), "packs/short", body))
	requireAbsent(t, s, "packs/short")
}

func testCancelledPut(t *testing.T, s storage.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	body := &brokenBody{ReadSeeker: bytes.NewReader(randomBytes(8<<20, 4)), at: 4 << 20, fail: func() error { cancel(); return nil }}
	err := s.Put(ctx, "packs/cancelled", body)
	require.ErrorIs(t, err, context.Canceled)
	requireAbsent(t, s, "packs/cancelled")
}

func testBodyNotReadLater(t *testing.T, s storage.Store) {
	put(t, s, "taken", []byte("x"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	puts := map[string]func(body io.ReadSeeker) error{
		"success":   func(body io.ReadSeeker) error { return s.Put(t.Context(), "free", body) },
		"exists":    func(body io.ReadSeeker) error { return s.Put(t.Context(), "taken", body) },
		"cancelled": func(body io.ReadSeeker) error { return s.Put(ctx, "cancelled", body) },
	}
	for name, put := range puts {
		body := &watchedBody{ReadSeeker: bytes.NewReader(randomBytes(8<<20, 5))}
		if name == "cancelled" {
			body.onRead = cancel
		}
		err := put(body)
		body.returned.Store(true)
		if name == "success" {
			require.NoError(t, err)
		} else {
			require.Error(t, err)
		}
		// The next request makes whoever still works on the last one run.
		_, err = s.Stat(t.Context(), "taken")
		require.NoError(t, err)
		require.Zero(t, body.late.Load(), "%s: body was read after Put had returned", name)
	}
}

func testConcurrentWriters(t *testing.T, s storage.Store) {
	for round := range 4 {
		key := fmt.Sprintf("race/%d", round)
		const writers = 16
		results := make([]error, writers)
		var start, done sync.WaitGroup
		start.Add(1)
		for i := range writers {
			done.Go(func() {
				start.Wait()
				results[i] = s.Put(t.Context(), key, bytes.NewReader(writerData(i)))
			})
		}
		start.Done()
		done.Wait()

		winner := -1
		for i, err := range results {
			if err == nil {
				require.Equal(t, -1, winner, "writers %d and %d both won", winner, i)
				winner = i
				continue
			}
			require.ErrorIs(t, err, storage.ErrExists, "writer %d", i)
		}
		require.NotEqual(t, -1, winner, "nobody won")
		require.True(t, bytes.Equal(writerData(winner), get(t, s, key, 0, -1)), "the object is not the winner's")
	}
}

// writerData differs in length as well, so that a mixture would show.
func writerData(i int) []byte { return randomBytes(256<<10+i, byte(i)) }

func testManyWriters(t *testing.T, s storage.Store) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 8 {
				key := fmt.Sprintf("dir%d/%d", j, i)
				assert.NoError(t, s.Put(t.Context(), key, bytes.NewReader([]byte(key))))
				got, err := tryGet(t.Context(), s, key, 0, -1)
				assert.NoError(t, err)
				assert.Equal(t, key, string(got))
				if i%2 == 0 {
					assert.NoError(t, s.Delete(t.Context(), key))
				}
			}
		})
	}
	wg.Wait()
	require.Len(t, list(t, s, ""), 32)
}

// brokenBody calls fail when reading has come to byte at, and ends with its
// error unless that is nil.
type brokenBody struct {
	io.ReadSeeker
	at   int64
	pos  int64
	fail func() error
}

func (b *brokenBody) Seek(offset int64, whence int) (int64, error) {
	n, err := b.ReadSeeker.Seek(offset, whence)
	b.pos = n
	return n, err
}

func (b *brokenBody) Read(p []byte) (int, error) {
	if b.pos >= b.at {
		if err := b.fail(); err != nil {
			return 0, err
		}
	} else if int64(len(p)) > b.at-b.pos {
		p = p[:b.at-b.pos]
	}
	n, err := b.ReadSeeker.Read(p)
	b.pos += int64(n)
	return n, err
}

// watchedBody counts reads after returned was set.
type watchedBody struct {
	io.ReadSeeker
	onRead   func()
	returned atomic.Bool
	late     atomic.Int64
}

func (w *watchedBody) Read(p []byte) (int, error) {
	if w.returned.Load() {
		w.late.Add(1)
	}
	if w.onRead != nil {
		w.onRead()
	}
	return w.ReadSeeker.Read(p)
}
