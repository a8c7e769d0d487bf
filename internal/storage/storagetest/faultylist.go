package storagetest

import (
	"context"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"keepset/internal/storage"
)

// tombstone is an object that was deleted, and when: a listing that lags still shows it.
type tombstone struct {
	storage.Object
	at time.Time
}

func (f *Faulty) bury(o storage.Object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = append(f.gone, tombstone{o, f.now()})
}

// list is the store's listing, as far as the fault lets it be that.
func (f *Faulty) list(ctx context.Context, prefix string, fault Fault) iter.Seq2[storage.Object, error] {
	if fault.Lag == 0 && !fault.Disorder {
		return f.store.List(ctx, prefix)
	}
	return func(yield func(storage.Object, error) bool) {
		objects, err := f.listed(ctx, prefix, fault.Lag)
		if fault.Disorder {
			rand.Shuffle(len(objects), func(i, j int) { objects[i], objects[j] = objects[j], objects[i] })
		}
		for _, o := range objects {
			if !yield(o, nil) {
				return
			}
		}
		if err != nil {
			yield(storage.Object{}, err)
		}
	}
}

// listed is what a listing showed so long ago, in order.
func (f *Faulty) listed(ctx context.Context, prefix string, lag time.Duration) ([]storage.Object, error) {
	then := f.now().Add(-lag)
	var objects []storage.Object
	for o, err := range f.store.List(ctx, prefix) {
		if err != nil {
			return objects, err
		}
		if !o.LastModified.After(then) {
			objects = append(objects, o)
		}
	}
	if lag == 0 {
		return objects, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range f.gone {
		if strings.HasPrefix(o.Key, prefix) && !o.LastModified.After(then) && o.at.After(then) {
			objects = append(objects, o.Object)
		}
	}
	slices.SortFunc(objects, func(a, b storage.Object) int { return strings.Compare(a.Key, b.Key) })
	return objects, nil
}
