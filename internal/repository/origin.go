package repository

import (
	"context"
	"fmt"

	"keepset/internal/record"
)

// claimOrigin writes the set's origin, or compares it. An origin that names
// nobody, which is what versions before --origin wrote and what a writer writes
// that only guesses its name, is adopted by the first one that is sure. Nothing
// is ever overwritten, so the adoption is an object of its own, and that one counts.
func (r *Repository) claimOrigin(ctx context.Context, l layout, origin string) error {
	stored, err := r.readOrigin(ctx, l, l.adopted())
	if isNotExist(err) {
		stored, err = r.readOrigin(ctx, l, l.origin())
	}
	if isNotExist(err) {
		mine := origin
		if r.options.GuessedOrigin {
			mine = ""
		}
		stored, err = r.writeOrigin(ctx, l, l.origin(), mine)
	}
	if err == nil && stored == "" && r.options.GuessedOrigin {
		return nil
	}
	if err == nil && stored == "" && origin != "" {
		stored, err = r.writeOrigin(ctx, l, l.adopted(), origin)
	}
	if err != nil {
		return fmt.Errorf("claim the set: %w", err)
	}
	if stored == origin {
		return nil
	}
	return fmt.Errorf("%w: the backups of %s come from origin %q, and this is %q; if this cluster has taken the other's place, or is the same with another CA, give --origin %s; "+
		"if both live, use another set name or another repository", ErrOrigin, l.set, stored, origin, stored)
}

func (r *Repository) readOrigin(ctx context.Context, l layout, key string) (string, error) {
	data, err := getAll(ctx, r.store, key)
	if err != nil {
		return "", err
	}
	var stored record.Origin
	if _, err := record.Decode(data, &stored, nil); err != nil {
		return "", fmt.Errorf("read %s: %w", key, err)
	}
	if stored.Set != l.set {
		return "", fmt.Errorf("%w: %s is that of %s; use another repository", ErrOrigin, key, stored.Set)
	}
	return stored.Origin, nil
}

// writeOrigin returns what is stored then: another may have been faster.
func (r *Repository) writeOrigin(ctx context.Context, l layout, key, origin string) (string, error) {
	mine := record.Origin{Header: record.NewHeader(record.KindOrigin), Set: l.set, Origin: origin}
	data, err := record.Encode(&mine, r.keys.Writer)
	if err != nil {
		return "", err
	}
	if err := putContent(ctx, r.store, key, data); err != nil {
		return "", err
	}
	return r.readOrigin(ctx, l, key)
}
