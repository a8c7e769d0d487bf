package repository

import (
	"context"
	"fmt"

	"keepset/internal/storage"
)

// A store that locks objects does so for a time that begins when they are stored. A backup that took
// over an old pack would be protected for what is left of that pack's time only, so
// with [Options.ReuseWithin] the old ones are stored again, as if they were condemned.

// aged says whether an object is too old to be taken over, by the store's clock.
func (b *Backup) aged(o storage.Object) bool {
	within := b.r.options.ReuseWithin
	return within > 0 && b.planTime.Sub(o.LastModified) > within
}

// findAged finds the parts that are too old. (Packs are judged as they are listed: there
// may be a million of them.)
func (b *Backup) findAged(ctx context.Context) error {
	if b.r.options.ReuseWithin <= 0 {
		return nil
	}
	b.agedParts = make(map[hash]struct{})
	for object, err := range b.r.store.List(ctx, b.layout.parts()) {
		if err != nil {
			return fmt.Errorf("list parts of the index: %w", err)
		}
		if name, ok := parseHashKey(object.Key, b.layout.parts()); ok && b.aged(object) {
			b.agedParts[name] = struct{}{}
		}
	}
	return nil
}
