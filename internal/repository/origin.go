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
	n, stored, err := r.lastOrigin(ctx, l)
	if err == nil && n < 0 {
		mine := origin
		if r.options.GuessedOrigin {
			mine = ""
		}
		stored, err = r.writeOrigin(ctx, l, l.origin(), mine)
		n = 0
	}
	if err == nil && stored == "" && r.options.GuessedOrigin {
		return nil
	}
	if err == nil && stored == "" && origin != "" {
		stored, err = r.writeOrigin(ctx, l, l.originAt(n+1), origin)
	}
	if err != nil {
		return fmt.Errorf("claim the set: %w", err)
	}
	if stored == origin {
		return nil
	}
	return fmt.Errorf("%w: the backups of %s come from origin %q, and this is %q; if this cluster has taken the other's place, or is the same with another CA, backup adopt makes them its own, or give --origin %s to each run; "+
		"if both live, use another set name or another repository", ErrOrigin, l.set, stored, origin, stored)
}

// lastOrigin returns the origin that counts and its number; -1 when there is none.
func (r *Repository) lastOrigin(ctx context.Context, l layout) (n int, origin string, err error) {
	n = -1
	for object, err := range r.store.List(ctx, l.origin()) {
		if err != nil {
			return n, "", fmt.Errorf("list the origins of %s: %w", l.set, err)
		}
		if at, ok := l.parseOriginKey(object.Key); ok {
			n = max(n, at)
		}
	}
	if n < 0 {
		return n, "", nil
	}
	origin, err = r.readOrigin(ctx, l, l.originAt(n))
	return n, origin, err
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
