package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

func (r *retrying) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	g := &resuming{store: r.store, attempts: r.begin("get", key), key: key, offset: offset, left: length}
	g.open = func() error {
		reader, err := g.store.Get(ctx, key, g.offset, g.left)
		g.reader = reader
		return err
	}
	g.again = func(err error) error { return g.attempts.again(ctx, err) }
	if err := r.do(ctx, "get", key, g.open); err != nil {
		return nil, err
	}
	return g, nil
}

// resuming is a reader that opens the object again where it broke off.
type resuming struct {
	store    Store
	attempts *attempts
	key      string
	offset   int64
	left     int64 // -1 to the end of the object
	open     func() error
	again    func(error) error

	reader io.ReadCloser // nil after a failure
	failed error         // the last word: every later Read returns it
	closed bool
}

func (g *resuming) Read(p []byte) (int, error) {
	if g.closed {
		return 0, fmt.Errorf("get object %q: %w", g.key, fs.ErrClosed)
	}
	if g.failed != nil {
		return 0, g.failed
	}
	for {
		n, err := g.readOnce(p)
		if n > 0 {
			g.attempts.progress()
		}
		if err == nil || errors.Is(err, io.EOF) {
			return n, err
		}
		if g.failed != nil {
			return n, g.failed
		}
		if n > 0 && !Permanent(err) {
			return n, nil // the next call opens again
		}
		if err := g.again(err); err != nil {
			g.failed = err
			return n, err
		}
	}
}

// readOnce reads from the open reader or from a new one at the same offset.
func (g *resuming) readOnce(p []byte) (int, error) {
	if g.reader == nil {
		if err := g.open(); err != nil {
			return 0, err
		}
	}
	n, err := g.reader.Read(p)
	g.offset += int64(n)
	if g.left > 0 {
		g.left -= int64(n)
	}
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	if g.left == 0 {
		// Everything came, and then the store says that it was wrong: that is not
		// cured by reading nothing more.
		g.failed = err
		return n, err
	}
	// The reader has failed; that it cannot be closed either would say nothing new.
	_ = g.drop()
	return n, err
}

// drop closes a broken reader.
func (g *resuming) drop() error {
	reader := g.reader
	g.reader = nil
	if reader == nil {
		return nil
	}
	return reader.Close()
}

func (g *resuming) Close() error {
	g.closed = true
	return g.drop()
}
