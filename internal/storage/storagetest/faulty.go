package storagetest

import (
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"
	"time"

	"keepset/internal/storage"
)

// Operation is a method of [storage.Store].
type Operation string

// The operations.
const (
	Put    Operation = "put"
	Get    Operation = "get"
	Stat   Operation = "stat"
	List   Operation = "list"
	Delete Operation = "delete"
)

// Fault is something that goes wrong.
type Fault struct {
	// On is the operation; empty means all.
	On Operation
	// Prefix of the keys concerned.
	Prefix string
	// Skip lets that many matching calls pass first.
	Skip int
	// Times is how many calls fail then; 0 means 1, and -1 all.
	Times int
	// Delay passes before anything else happens, unless ctx ends.
	Delay time.Duration
	// Err is what the caller gets; nil only delays.
	Err error
	// After performs the operation and then fails, as when a reply is lost.
	After bool
	// At fails a Get after that many bytes of its range, a List after that many
	// objects and a Put, without effect, after that many bytes of its body, if it is not 0.
	At int64
	// Lag shows a List the store as it was so long ago, and Disorder in no order. They
	// break the contract of [storage.Store], and come without an error.
	Lag      time.Duration
	Disorder bool
}

// Faulty is a store that fails as told. It is safe for concurrent use.
type Faulty struct {
	store storage.Store

	mu     sync.Mutex
	faults []*Fault
	choose func(Operation, string) Fault
	now    func() time.Time
	calls  map[Operation]int
	gone   []tombstone
}

var _ storage.Store = (*Faulty)(nil)

// NewFaulty returns s, faultless until Inject is called.
func NewFaulty(s storage.Store) *Faulty {
	return &Faulty{store: s, calls: map[Operation]int{}, now: time.Now}
}

// Clock is the store's, by which lists lag, where that is not the wall clock.
func (f *Faulty) Clock(now func() time.Time) { f.now = now }

// Inject adds faults. Of several that match a call the first one happens.
func (f *Faulty) Inject(faults ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fault := range faults {
		if fault.Times == 0 {
			fault.Times = 1
		}
		f.faults = append(f.faults, &fault)
	}
}

// Choose has choose say what happens to each call that no injected fault matches; the
// zero Fault lets it pass. It is asked by one goroutine at a time.
func (f *Faulty) Choose(choose func(on Operation, key string) Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.choose = choose
}

// Heal removes all faults.
func (f *Faulty) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults, f.choose = nil, nil
}

// Calls returns how often an operation was called, with or without success.
func (f *Faulty) Calls(o Operation) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[o]
}

// next counts the call and returns the fault that happens to it; its Err is
// nil when there is none.
func (f *Faulty) next(ctx context.Context, on Operation, key string) (Fault, error) {
	if err := ctx.Err(); err != nil {
		return Fault{}, fmt.Errorf("%s object %q: %w", on, key, err)
	}
	fault := f.take(on, key)
	if fault.Delay > 0 {
		timer := time.NewTimer(fault.Delay)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return fault, fmt.Errorf("%s object %q: %w", on, key, ctx.Err())
		case <-timer.C:
		}
	}
	if fault.Err != nil {
		fault.Err = fmt.Errorf("%s object %q: %w", on, key, fault.Err)
	}
	if !fault.After && fault.At == 0 {
		return fault, fault.Err
	}
	return fault, nil
}

func (f *Faulty) take(on Operation, key string) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[on]++
	for _, fault := range f.faults {
		if fault.On != "" && fault.On != on || !strings.HasPrefix(key, fault.Prefix) || fault.Times == 0 {
			continue
		}
		if fault.Skip > 0 {
			fault.Skip--
			continue
		}
		if fault.Times > 0 {
			fault.Times--
		}
		return *fault
	}
	if f.choose != nil {
		return f.choose(on, key)
	}
	return Fault{}
}

// Put implements [storage.Store].
func (f *Faulty) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	fault, err := f.next(ctx, Put, key)
	if err != nil {
		return err
	}
	if fault.Err != nil && fault.At > 0 {
		if _, err := io.CopyN(io.Discard, body, fault.At); err != nil {
			return err
		}
		return fault.Err
	}
	if err := f.store.Put(ctx, key, body); err != nil {
		return err
	}
	return fault.Err
}

// Get implements [storage.Store].
func (f *Faulty) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	fault, err := f.next(ctx, Get, key)
	if err != nil {
		return nil, err
	}
	r, err := f.store.Get(ctx, key, offset, length)
	if err != nil || fault.Err == nil {
		return r, err
	}
	return &brokenReader{ReadCloser: r, left: fault.At, err: fault.Err}, nil
}

// Stat implements [storage.Store].
func (f *Faulty) Stat(ctx context.Context, key string) (storage.Object, error) {
	fault, err := f.next(ctx, Stat, key)
	if err != nil {
		return storage.Object{}, err
	}
	o, err := f.store.Stat(ctx, key)
	if err == nil && fault.Err != nil {
		return storage.Object{}, fault.Err
	}
	return o, err
}

// List implements [storage.Store].
func (f *Faulty) List(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		fault, err := f.next(ctx, List, prefix)
		if err != nil {
			yield(storage.Object{}, err)
			return
		}
		seen := int64(0)
		for o, err := range f.list(ctx, prefix, fault) {
			if fault.Err != nil && seen == fault.At {
				yield(storage.Object{}, fault.Err)
				return
			}
			seen++
			if !yield(o, err) || err != nil {
				return
			}
		}
		if fault.Err != nil {
			yield(storage.Object{}, fault.Err)
		}
	}
}

// Delete implements [storage.Store].
func (f *Faulty) Delete(ctx context.Context, key string) error {
	fault, err := f.next(ctx, Delete, key)
	if err != nil {
		return err
	}
	was, err := f.store.Stat(ctx, key)
	if err := f.store.Delete(ctx, key); err != nil {
		return err
	}
	if err == nil {
		f.bury(was)
	}
	return fault.Err
}

// brokenReader fails after left bytes.
type brokenReader struct {
	io.ReadCloser
	left int64
	err  error
}

func (b *brokenReader) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, b.err
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	return n, err
}
