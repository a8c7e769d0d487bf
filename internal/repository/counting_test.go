package repository

import (
	"context"
	"io"
	"sync/atomic"

	"keepset/internal/storage"
)

// counting counts requests for bytes.
type counting struct {
	storage.Store
	gets  atomic.Int64
	bytes atomic.Int64
}

func (c *counting) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	c.gets.Add(1)
	if length > 0 {
		c.bytes.Add(length)
	}
	return c.Store.Get(ctx, key, offset, length)
}
