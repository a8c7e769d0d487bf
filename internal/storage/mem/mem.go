// Package mem is a store in memory, for tests and dry runs.
//
// [Store] passes the same conformance suite as the stores that keep data, so
// what holds on it holds on them: it takes the place of a mock.
package mem

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"keepset/internal/storage"
)

// Options of [New].
type Options struct {
	// Now is the store's clock, from which LastModified comes; nil is the
	// wall clock.
	Now func() time.Time
}

// Store keeps objects in memory. Its zero value is not usable; use [New].
type Store struct {
	now func() time.Time

	mu      sync.RWMutex
	objects map[string]object
}

type object struct {
	data     []byte
	modified time.Time
}

var _ interface {
	storage.Store
	storage.Prober
} = (*Store)(nil)

// New returns an empty store.
func New(o Options) *Store {
	if o.Now == nil {
		o.Now = time.Now //nolint:forbidigo // this store's clock
	}
	return &Store{now: o.Now, objects: map[string]object{}}
}

// Put implements [storage.Store].
func (s *Store) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	if err := check(ctx, key); err != nil {
		return fmt.Errorf("put object %q: %w", key, err)
	}
	size, err := storage.BodySize(body)
	if err != nil {
		return fmt.Errorf("put object %q: %w", key, err)
	}
	var b bytes.Buffer
	b.Grow(int(size))
	if err := storage.CopyBody(ctx, &b, body, size); err != nil {
		return fmt.Errorf("put object %q: %w", key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.objects[key]; ok {
		return fmt.Errorf("put object %q: %w", key, storage.ErrExists)
	}
	s.objects[key] = object{data: b.Bytes(), modified: s.now()}
	return nil
}

// Get implements [storage.Store].
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	o, err := s.find(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("get object %q: %w", key, err)
	}
	n, err := storage.CheckRange(key, offset, length, int64(len(o.data)))
	if err != nil {
		return nil, err
	}
	r := io.NopCloser(bytes.NewReader(o.data[offset:]))
	return storage.ExactReader(ctx, r, n), nil
}

// Stat implements [storage.Store].
func (s *Store) Stat(ctx context.Context, key string) (storage.Object, error) {
	o, err := s.find(ctx, key)
	if err != nil {
		return storage.Object{}, fmt.Errorf("stat object %q: %w", key, err)
	}
	return o.describe(key), nil
}

// List implements [storage.Store]. It shows the store as it is when the
// iteration begins.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		found, err := s.match(prefix)
		if err != nil {
			yield(storage.Object{}, fmt.Errorf("list objects: %w", err))
			return
		}
		for _, o := range found {
			if err := ctx.Err(); err != nil {
				yield(storage.Object{}, fmt.Errorf("list objects %q: %w", prefix, err))
				return
			}
			if !yield(o, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(storage.Object{}, fmt.Errorf("list objects %q: %w", prefix, err))
		}
	}
}

// Delete implements [storage.Store].
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := check(ctx, key); err != nil {
		return fmt.Errorf("delete object %q: %w", key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, key)
	return nil
}

// Probe implements [storage.Prober].
func (s *Store) Probe(ctx context.Context, key string, _ io.ReadSeeker) (storage.Guarantee, error) {
	if _, err := s.Stat(ctx, key); err != nil {
		return storage.GuaranteeUnknown, err
	}
	return storage.GuaranteeAtomic, nil
}

func (s *Store) find(ctx context.Context, key string) (object, error) {
	if err := check(ctx, key); err != nil {
		return object{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	o, ok := s.objects[key]
	if !ok {
		return object{}, fs.ErrNotExist
	}
	return o, nil
}

func (s *Store) match(prefix string) ([]storage.Object, error) {
	if _, err := storage.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found []storage.Object
	for key, o := range s.objects {
		if strings.HasPrefix(key, prefix) {
			found = append(found, o.describe(key))
		}
	}
	slices.SortFunc(found, func(a, b storage.Object) int { return strings.Compare(a.Key, b.Key) })
	return found, nil
}

func (o object) describe(key string) storage.Object {
	return storage.Object{Key: key, Size: int64(len(o.data)), LastModified: o.modified}
}

func check(ctx context.Context, key string) error {
	if err := storage.CheckKey(key); err != nil {
		return err
	}
	return ctx.Err()
}
