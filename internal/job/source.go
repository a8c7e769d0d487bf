package job

import (
	"context"
	"io"
	"sync/atomic"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// countingSource counts the bytes that an engine reads, for progress.
type countingSource struct {
	source dbdump.Source
	bytes  atomic.Int64
}

func (s *countingSource) Report() record.Report { return s.source.Report() }

func (s *countingSource) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	r, err := s.source.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &countingReader{r, &s.bytes}, nil
}

type countingReader struct {
	io.ReadCloser
	bytes *atomic.Int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.bytes.Add(int64(n))
	return n, err
}
