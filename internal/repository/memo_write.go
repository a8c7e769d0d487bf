package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"keepset/internal/record"
)

// Remember says that a later backup may take the stream over without reading
// it, when it has the same key and is, by its fingerprint, still the same.
type Remember struct {
	// Key names what the stream is read from, within its member: a claim and a
	// path, or a volume. It is not stored; an HMAC of it is.
	Key string
	// Fingerprint is any bytes that change whenever the content does, at most
	// 255: a file's stat, a volume snapshot's ID. Who may read the index reads it.
	Fingerprint []byte
}

func (r *Remember) check(secret bool) error {
	switch {
	case r == nil:
		return nil
	case secret:
		return errors.New("a secret stream cannot be remembered: its checksums would give it away")
	case r.Key == "" || len(r.Fingerprint) > maxFingerprint:
		return fmt.Errorf("remembered as %q with a fingerprint of %d bytes: the key must not be empty, and %d bytes are the most", r.Key, len(r.Fingerprint), maxFingerprint)
	}
	return nil
}

// memoWriter gathers the memos of one member and stores an object whenever
// there are enough of them. It holds one object, whatever the number of streams.
type memoWriter struct {
	r       *Repository
	layout  layout
	ordinal int

	mu     sync.Mutex
	run    [nonceSize]byte
	begun  bool
	number uint32
	stream uint32
	rows   []encodedMemo
	size   int
	stored []record.ObjectRef
}

const (
	// memoTarget is how many bytes of memos make an object: about 10,000
	// small files, or 26,000 chunks of a long stream.
	memoTarget = 1 << 20
	// memoWorth is how many bytes of memos are worth an object of their own at
	// a checkpoint. The streams of fewer are read again after a crash.
	memoWorth = 64 << 10
)

func newMemoWriter(b *Backup, ordinal int) *memoWriter {
	return &memoWriter{r: b.r, layout: b.layout, ordinal: ordinal}
}

// begin returns the place of a stream's first row.
func (w *memoWriter) begin(key string) (memoAt, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.begun {
		if _, err := io.ReadFull(w.r.options.Random, w.run[:]); err != nil {
			return memoAt{}, fmt.Errorf("make name of memos: %w", err)
		}
		w.begun = true
	}
	w.stream++
	return memoAt{key: w.r.memoKey(w.ordinal, key), stream: w.stream}, nil
}

// add takes a row.
func (w *memoWriter) add(ctx context.Context, m *memo) error {
	data := appendMemo(make([]byte, 0, memoRow+len(m.fingerprint)+len(m.segments)*memoChunk), m)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rows = append(w.rows, encodedMemo{m.memoAt, data})
	w.size += len(data)
	if w.size < memoTarget {
		return nil
	}
	return w.store(ctx)
}

// seal stores what has been gathered, if it is at least so many bytes, and
// returns all objects so far in order of their names.
func (w *memoWriter) seal(ctx context.Context, worth int) ([]record.ObjectRef, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.rows) > 0 && w.size >= worth {
		if err := w.store(ctx); err != nil {
			return nil, err
		}
	}
	list := slices.Clone(w.stored)
	slices.SortFunc(list, compareRefs)
	return list, nil
}

// store needs w.mu.
func (w *memoWriter) store(ctx context.Context) error {
	plain := encodeMemos(w.run, w.number, w.rows)
	if _, err := parseMemos(plain); err != nil {
		return fmt.Errorf("memos just made: %w", err)
	}
	ref, err := w.r.putSealed(ctx, w.layout.parts(), plain, w.r.partRecipient())
	if err != nil {
		return fmt.Errorf("store memos: %w", err)
	}
	w.stored = append(w.stored, ref)
	w.number++
	w.rows, w.size = w.rows[:0], 0
	return nil
}
