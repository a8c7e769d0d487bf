package storage

import (
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
)

// WithPrefix returns the part of s below prefix, a valid key, as a store of
// its own: its key "a" is "prefix/a" in s.
func WithPrefix(s Store, prefix string) (Store, error) {
	if err := CheckKey(prefix); err != nil {
		return nil, fmt.Errorf("prefix: %w", err)
	}
	return &prefixed{store: s, prefix: prefix + "/"}, nil
}

type prefixed struct {
	store  Store
	prefix string
}

func (p *prefixed) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	return p.store.Put(ctx, p.prefix+key, body)
}

func (p *prefixed) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	return p.store.Get(ctx, p.prefix+key, offset, length)
}

func (p *prefixed) Stat(ctx context.Context, key string) (Object, error) {
	o, err := p.store.Stat(ctx, p.prefix+key)
	o.Key = strings.TrimPrefix(o.Key, p.prefix)
	return o, err
}

func (p *prefixed) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for o, err := range p.store.List(ctx, p.prefix+prefix) {
			o.Key = strings.TrimPrefix(o.Key, p.prefix)
			if !yield(o, err) {
				return
			}
		}
	}
}

func (p *prefixed) Delete(ctx context.Context, key string) error {
	return p.store.Delete(ctx, p.prefix+key)
}

func (p *prefixed) Probe(ctx context.Context, key string, body io.ReadSeeker) (Guarantee, error) {
	return Probe(ctx, p.store, p.prefix+key, body)
}

func (p *prefixed) Holds(ctx context.Context, key string, body io.ReadSeeker) (same, known bool, err error) {
	return compare(ctx, p.store, p.prefix+key, body)
}

func (p *prefixed) Remove(ctx context.Context, key string) (kept bool, err error) {
	return Remove(ctx, p.store, p.prefix+key)
}
