package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// ExactReader returns a reader of exactly n bytes of r: an earlier end is
// io.ErrUnexpectedEOF, later bytes are not read, and reading fails once ctx has ended.
// Closing it closes r. Stores return it from Get.
func ExactReader(ctx context.Context, r io.ReadCloser, n int64) io.ReadCloser {
	return &exactReader{check: ctx.Err, r: r, left: n}
}

type exactReader struct {
	check func() error
	r     io.ReadCloser
	left  int64
}

func (e *exactReader) Read(p []byte) (int, error) {
	if err := e.check(); err != nil {
		return 0, err
	}
	if e.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > e.left {
		p = p[:e.left]
	}
	n, err := e.r.Read(p)
	e.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = nil
		if e.left > 0 {
			err = fmt.Errorf("%d bytes missing: %w", e.left, io.ErrUnexpectedEOF)
		}
	}
	return n, err
}

func (e *exactReader) Close() error { return e.r.Close() }

// BodySize returns the number of bytes in body and leaves it at its start.
func BodySize(body io.ReadSeeker) (int64, error) {
	size, err := body.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, fmt.Errorf("find the end of the body: %w", err)
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return 0, fmt.Errorf("rewind the body: %w", err)
	}
	return size, nil
}

// CopyBody copies size bytes of body, from its start, to w, and fails when
// the body is shorter or longer than that, when it fails, or when ctx ends.
func CopyBody(ctx context.Context, w io.Writer, body io.ReadSeeker, size int64) error {
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("rewind the body: %w", err)
	}
	buf := make([]byte, min(max(size, 1), 256<<10))
	var done int64
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := body.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			done += int64(n)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%w at byte %d: %w", errBody, done, err)
		}
	}
	if done != size {
		return fmt.Errorf("%w: it has %d bytes instead of %d: %w", errBody, done, size, io.ErrUnexpectedEOF)
	}
	return nil
}
