package repository

import (
	"context"
	"fmt"
	"slices"
	"time"

	"keepset/internal/record"
)

// A writer whose key was replaced, perhaps because it was stolen, is retired:
// what it has signed counts if the store had it by then, and not if it came
// later. The store's clock says so, which no thief sets. Readers learn of it from
// their own configuration (a time behind the key in NameTrustedWriters) and from
// the store's: that one can only take trust away, so that it need not be trusted.

// errRetired is an ErrForged, since nobody but a thief signs with such a key.
var errRetired = fmt.Errorf("%w: signed by a writer that is retired", ErrForged)

// decodeSigned reads a record that a trusted writer has signed, and that the
// store has had since then.
func (r *Repository) decodeSigned(data []byte, rec record.Record, stored time.Time) error {
	signer, err := record.Decode(data, rec, r.trusted())
	if err != nil {
		return err
	}
	if until, retired := r.retiredAt(signer); retired && stored.After(until) {
		return fmt.Errorf("%w: key %s counts until %s, and this is of %s: forged with a stolen key, or a copy (docs/keys.md)",
			errRetired, signer, until.UTC().Format(time.RFC3339), stored.UTC().Format(time.RFC3339))
	}
	return nil
}

// retiredAt is until when a writer's signatures count: the earlier of what the
// reader's configuration and the store's say.
func (r *Repository) retiredAt(writer string) (time.Time, bool) {
	until, retired := r.config.RetiredAt(writer)
	if own, given := r.keys.Until[writer]; given && (!retired || own.Before(until)) {
		return own, true
	}
	return until, retired
}

// mayWrite says why a writer may not begin anything by this configuration, nil
// when it may.
func mayWrite(c *record.Config, id string, now time.Time) error {
	until, retired := c.RetiredAt(id)
	switch {
	case len(c.Writers) == 0:
		return nil
	case slices.Contains(c.Writers, id) && (!retired || !now.After(until)):
		return nil
	case retired:
		return fmt.Errorf("%w: writer key %s was retired, nothing that it signs after %s counts; use the Secret that 'backup keys rotate-writer' or 'new-epoch' has printed (docs/keys.md)",
			ErrWrongKey, id, until.UTC().Format(time.RFC3339))
	default:
		return fmt.Errorf("%w: writer key %s is not one of the repository's writers %v", ErrWrongKey, id, c.Writers)
	}
}

// stillCounts looks whether what this writer has stored at that time counts by
// the configuration of now: the writer may have been retired since the run began.
func (r *Repository) stillCounts(ctx context.Context, stored time.Time) error {
	public := writerPublic(r.keys.Writer)
	if public == nil {
		return nil
	}
	config, _, err := loadConfig(ctx, r.store)
	if err != nil {
		return fmt.Errorf("look whether the writer still counts: %w", err)
	}
	id := record.KeyID(public)
	if until, retired := config.RetiredAt(id); retired && stored.After(until) {
		return mayWrite(&config, id, stored)
	}
	return nil
}

// signedByRetired says that a plan or commit of a backup is of a writer that is
// retired, empty when none is.
func (r *Repository) signedByRetired(ctx context.Context, l layout, info *BackupInfo) (why string, err error) {
	if len(r.config.Retired)+len(r.keys.Until) == 0 {
		return "", nil
	}
	signed := map[string]record.Record{l.plan(info.ID): &record.Plan{}}
	for ordinal, m := range info.Members {
		if m.Valid {
			signed[l.commit(info.ID, ordinal, m.Commit.Attempt)] = &record.Commit{}
		}
	}
	for key, rec := range signed {
		data, err := getAll(ctx, r.store, key)
		if err != nil {
			return "", err
		}
		signer, err := record.Decode(data, rec, r.trusted())
		if err != nil {
			return "", fmt.Errorf("read %s: %w", key, err)
		}
		if _, retired := r.retiredAt(signer); retired {
			return fmt.Sprintf("it is signed by %s, a writer that is retired: if its key was stolen, the thief may have made this backup, and a copy does not show when it was stored; compare with the original, then give --retired-writers", signer), nil
		}
	}
	return "", nil
}
