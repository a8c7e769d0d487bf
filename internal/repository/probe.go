package repository

import (
	"bytes"
	"context"

	"keepset/internal/storage"
)

// WriteGuarantee asks the store of a repository what its writes guarantee, by
// writing the configuration once more. It needs no right that Init does not
// need, and changes nothing.
func WriteGuarantee(ctx context.Context, store storage.Store) (storage.Guarantee, error) {
	data, err := getAll(ctx, store, keyConfig(0))
	if err != nil {
		return storage.GuaranteeUnknown, err
	}
	return storage.Probe(ctx, store, keyConfig(0), bytes.NewReader(data))
}
