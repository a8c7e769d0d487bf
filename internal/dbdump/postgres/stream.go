package postgres

import (
	"bufio"
	"context"
	"fmt"
	"sync/atomic"

	"keepset/internal/dbdump"
)

// streamBuffer is how much is handed to a sink at a time: the server sends one
// row at a time.
const streamBuffer = 256 << 10

// writer creates the streams of one dump and counts what goes into them.
type writer struct {
	sink  dbdump.Sink
	bytes atomic.Int64
}

// lazyStream is a stream that is created with its first byte, so that what has
// no rows has no stream.
type lazyStream struct {
	ctx    context.Context //nolint:containedctx // io.Writer has no other way to get one
	writer *writer
	name   string
	opts   dbdump.StreamOptions

	stream dbdump.Stream
	buf    *bufio.Writer
}

func (w *writer) create(ctx context.Context, name string, opts dbdump.StreamOptions) *lazyStream {
	s := &lazyStream{ctx: ctx, writer: w, name: name, opts: opts}
	s.buf = bufio.NewWriterSize(sinkWriter{s}, streamBuffer)
	return s
}

// Write implements io.Writer.
func (s *lazyStream) Write(p []byte) (int, error) { return s.buf.Write(p) }

// sinkWriter is the unbuffered end of a lazyStream.
type sinkWriter struct{ *lazyStream }

// Write implements io.Writer.
func (s sinkWriter) Write(p []byte) (int, error) {
	if s.stream == nil {
		st, err := s.writer.sink.Create(s.ctx, s.name, s.opts)
		if err != nil {
			return 0, fmt.Errorf("create stream %s: %w", s.name, err)
		}
		s.stream = st
	}
	n, err := s.stream.Write(p)
	s.writer.bytes.Add(int64(n))
	if err != nil {
		return n, fmt.Errorf("write stream %s: %w", s.name, err)
	}
	return n, nil
}

// end closes the stream, or aborts it when there is an error already; exists
// tells whether anything was written at all.
func (s *lazyStream) end(err error) (exists bool, _ error) {
	if err == nil {
		err = s.buf.Flush()
	}
	if s.stream == nil {
		return false, err
	}
	if err != nil {
		s.stream.Abort(err)
		return true, err
	}
	if err := s.stream.Close(); err != nil {
		return true, fmt.Errorf("close stream %s: %w", s.name, err)
	}
	return true, nil
}
