package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"keepset/internal/record"
	"keepset/internal/storage"
)

// Nothing that is stored is ever changed, so that a backup is pinned by an
// object beside it. That there is one is what counts, whatever is in it: a pin
// that cannot be read keeps its backup all the same.

// pinned lists the backups of a set that are pinned.
func (r *Repository) pinned(ctx context.Context, l layout) (map[record.BackupID]bool, error) {
	pins := make(map[record.BackupID]bool)
	for object, err := range r.store.List(ctx, l.pins()) {
		if err != nil {
			return nil, fmt.Errorf("list pins of %s: %w", l.set, err)
		}
		if id, ok := l.parsePinKey(object.Key); ok {
			pins[id] = true
		}
	}
	return pins, nil
}

// Pin keeps a backup from every later prune. One that is pinned already stays
// as it is. ErrNoBackup when there is none of that ID, ErrCondemned when a
// prune is about to delete it.
func (r *Repository) Pin(ctx context.Context, set record.SetID, id record.BackupID, reason string) error {
	if r.options.AcceptCopiedTimes {
		return fmt.Errorf("pin a backup: %w", ErrReadOnly)
	}
	info, err := r.Backup(ctx, set, id)
	if err != nil {
		return err
	}
	if info.Condemned {
		return fmt.Errorf("%w: a pin of %s would come too late", ErrCondemned, id)
	}
	pin := record.Pin{
		Header: record.NewHeader(record.KindPin), Repository: r.config.Repository, Set: set, Backup: id,
		CreatedAt: r.options.Clock().UTC(), Reason: reason,
	}
	data, err := record.Encode(&pin, nil)
	if err != nil {
		return err
	}
	err = r.store.Put(ctx, layout{set}.pin(id), bytes.NewReader(data))
	if err != nil && !errors.Is(err, storage.ErrExists) {
		return fmt.Errorf("pin %s: %w", id, err)
	}
	// A prune that had listed the pins before has condemned it by now, or sees this one.
	if info, err = r.Backup(ctx, set, id); err != nil {
		return fmt.Errorf("look at the pinned backup: %w", err)
	}
	if info.Condemned {
		return fmt.Errorf("%w: a prune has condemned %s while it was pinned; look at it once the prune has ended", ErrCondemned, id)
	}
	return nil
}

// Unpin lets prunes decide on a backup again. One that is not pinned is no error.
func (r *Repository) Unpin(ctx context.Context, set record.SetID, id record.BackupID) error {
	if r.options.AcceptCopiedTimes {
		return fmt.Errorf("unpin a backup: %w", ErrReadOnly)
	}
	if err := errors.Join(set.Validate(), id.Validate()); err != nil {
		return err
	}
	if err := r.store.Delete(ctx, layout{set}.pin(id)); err != nil {
		return fmt.Errorf("unpin %s: %w", id, err)
	}
	return nil
}
