package repository

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"filippo.io/age"

	"keepset/internal/record"
	"keepset/internal/storage"
)

// This file stores and reads the objects that are named after their content.

// putSealed stores content under the name of its stored bytes.
func (r *Repository) putSealed(ctx context.Context, prefix string, plain []byte, to age.Recipient) (record.ObjectRef, error) {
	data, name, err := r.codec.seal(plain, to)
	if err != nil {
		return record.ObjectRef{}, err
	}
	if err := putContent(ctx, r.store, prefix+name.String(), data); err != nil {
		return record.ObjectRef{}, err
	}
	return record.ObjectRef{SHA256: name, Size: int64(len(data))}, nil
}

// getContent reads an object and compares it with its name.
func (r *Repository) getContent(ctx context.Context, key string, ref record.ObjectRef) ([]byte, error) {
	data, err := getAll(ctx, r.store, key)
	if err != nil {
		return nil, err
	}
	if sum := hash(sha256.Sum256(data)); sum != ref.SHA256 {
		return nil, fmt.Errorf("%w: %s has %d bytes with the hash %s", ErrDamaged, key, len(data), sum)
	}
	return data, nil
}

// readPart reads a part of the index.
func (r *Repository) readPart(ctx context.Context, l layout, ref record.ObjectRef) (*partRows, error) {
	data, err := r.getContent(ctx, l.part(ref.SHA256), ref)
	if err != nil {
		return nil, err
	}
	plain, err := r.codec.open(data, r.secrets.index)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", l.part(ref.SHA256), err)
	}
	return parsePart(plain)
}

// readRefs reads and checks the refs that a commit names.
func (r *Repository) readRefs(ctx context.Context, l layout, c *record.Commit) (record.Refs, error) {
	var refs record.Refs
	key := l.ref(c.Refs)
	data, err := r.getContent(ctx, key, record.ObjectRef{SHA256: c.Refs, Size: c.RefsSize})
	if err != nil {
		return refs, err
	}
	if _, err := record.Decode(data, &refs, nil); err != nil {
		return record.Refs{}, fmt.Errorf("read %s: %w", key, err)
	}
	if refs.Backup != c.Backup || refs.Set != c.Set || refs.Ordinal != c.Ordinal || refs.Attempt != c.Attempt {
		return record.Refs{}, fmt.Errorf("%w: %s belongs to ordinal %d of %s", ErrForged, key, refs.Ordinal, refs.Backup)
	}
	return refs, nil
}

// putContent stores an object that is named after its content. One of that
// name is this one, after a lost reply: a listing compares sizes before a commit.
func putContent(ctx context.Context, store storage.Store, key string, data []byte) error {
	err := store.Put(ctx, key, bytes.NewReader(data))
	if err != nil && !errors.Is(err, storage.ErrExists) {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return nil
}
