package repository

import (
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"

	"keepset/internal/storage"
)

// unseeing is a store whose listing does not show a prefix yet.
type unseeing struct {
	storage.Store
	prefix string
}

func (u *unseeing) List(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		for o, err := range u.Store.List(ctx, prefix) {
			if !strings.HasPrefix(o.Key, u.prefix) && !yield(o, err) {
				return
			}
		}
	}
}

// interrupting is a store that does something else before one of its calls.
// It is for callers that make one call at a time.
type interrupting struct {
	storage.Store
	calls, at int
	do        func()
}

func (s *interrupting) call() {
	if s.calls == s.at {
		s.do()
	}
	s.calls++
}

func (s *interrupting) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	s.call()
	return s.Store.Put(ctx, key, body)
}

func (s *interrupting) List(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	s.call()
	return s.Store.List(ctx, prefix)
}

func (s *interrupting) Delete(ctx context.Context, key string) error {
	s.call()
	return s.Store.Delete(ctx, key)
}

// guarded is a store that lets an account read and write only keys that
// contain one of some names. No names: it does not ask.
type guarded struct {
	storage.Store
	reads, writes []string
}

func allowed(key string, names []string) bool {
	return len(names) == 0 || slices.ContainsFunc(names, func(name string) bool { return strings.Contains(key, name) })
}

func (g *guarded) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if !allowed(key, g.reads) {
		return nil, fmt.Errorf("get %s: %w", key, storage.ErrDenied)
	}
	return g.Store.Get(ctx, key, offset, length)
}

// Stat is a read to object storage.
func (g *guarded) Stat(ctx context.Context, key string) (storage.Object, error) {
	if !allowed(key, g.reads) {
		return storage.Object{}, fmt.Errorf("stat %s: %w", key, storage.ErrDenied)
	}
	return g.Store.Stat(ctx, key)
}

func (g *guarded) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	if !allowed(key, g.writes) {
		return fmt.Errorf("put %s: %w", key, storage.ErrDenied)
	}
	return g.Store.Put(ctx, key, body)
}

// noting is a store that notes what is deleted, in order.
type noting struct {
	storage.Store
	mu      sync.Mutex
	deleted []string
}

func (n *noting) Delete(ctx context.Context, key string) error {
	n.mu.Lock()
	n.deleted = append(n.deleted, key)
	n.mu.Unlock()
	return n.Store.Delete(ctx, key)
}
