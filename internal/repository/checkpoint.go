package repository

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"keepset/internal/record"
)

// checkpoints notes from time to time what has been uploaded, and takes over
// what other pods of this backup have noted. It ends with ctx.
func (b *Backup) checkpoints(ctx context.Context) {
	defer close(b.done)
	ticker := time.NewTicker(b.r.options.Checkpoint)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		// A checkpoint that fails costs the next attempt some bytes. The
		// store's failure will meet the members soon enough.
		if err := b.checkpoint(ctx); err != nil && ctx.Err() == nil {
			b.r.log.Warn("checkpoint failed", "backup", b.plan.ID, "error", err)
		}
	}
}

func (b *Backup) checkpoint(ctx context.Context) error {
	if err := b.absorb(ctx); err != nil {
		return err
	}
	if err := b.listNewPacks(ctx); err != nil {
		return err
	}
	x := b.pipeline.index
	if err := x.seal(ctx, true); err != nil {
		return err
	}
	parts := x.own()
	memos, count, err := b.sealMemos(ctx)
	if err != nil {
		return err
	}
	ordinal, active := b.active()
	if len(parts)+count == b.noted || !active {
		return nil
	}
	c := record.Checkpoint{
		Header: record.NewHeader(record.KindCheckpoint), Repository: b.r.config.Repository,
		Backup: b.plan.ID, Set: b.plan.Set, Ordinal: ordinal, Attempt: b.attempt, Sequence: b.sequence,
		Parts: mergeRefs(parts, b.previous), Memos: memos,
	}
	data, err := record.Encode(&c, b.r.keys.Writer)
	if err != nil {
		return err
	}
	if err := put(ctx, b.r.store, b.layout.checkpoint(b.plan.ID, ordinal, b.attempt, b.sequence), data); err != nil {
		return fmt.Errorf("store checkpoint: %w", err)
	}
	b.sequence++
	b.noted = len(parts) + count
	return nil
}

// sealMemos returns the memos of the members that are being written, and how
// many objects they are.
func (b *Backup) sealMemos(ctx context.Context) (list []record.MemberMemos, count int, err error) {
	b.mu.Lock()
	members := slices.Clone(b.members)
	b.mu.Unlock()
	all := maps.Clone(b.remembered)
	for _, w := range members {
		refs, err := w.memos.seal(ctx, memoWorth)
		if err != nil {
			return nil, 0, err
		}
		ordinal := w.planned.Ordinal
		all[ordinal] = mergeRefs(all[ordinal], refs)
	}
	for _, ordinal := range slices.Sorted(maps.Keys(all)) {
		if objects := all[ordinal]; len(objects) > 0 {
			list = append(list, record.MemberMemos{Ordinal: ordinal, Objects: objects})
			count += len(objects)
		}
	}
	return list, count, nil
}

// active is the ordinal of a member that is being written.
func (b *Backup) active() (int, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.members) == 0 {
		return 0, false
	}
	return b.members[0].planned.Ordinal, true
}

// mergeRefs puts two lists together, in order and without repetitions.
func mergeRefs(a, b []record.ObjectRef) []record.ObjectRef {
	list := append(slices.Clone(a), b...)
	slices.SortFunc(list, compareRefs)
	return slices.CompactFunc(list, func(x, y record.ObjectRef) bool { return x.SHA256 == y.SHA256 })
}
