package filetree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"keepset/internal/record"
)

// OnlyFiles passes a stream of a server's files on, which are nothing but files and
// directories: ErrArchive for one that holds anything else, such as links, which
// could lead elsewhere.
func OnlyFiles(name string, stream io.ReadCloser) (io.ReadCloser, error) {
	if name != othersStream {
		return stream, nil
	}
	const enough = 64 << 10
	content, err := io.ReadAll(io.LimitReader(stream, enough))
	if err = errors.Join(err, stream.Close()); err != nil {
		return nil, err
	}
	if len(content) == enough || len(bytes.Trim(content, "\x00")) > 0 {
		return nil, fmt.Errorf("%w: it holds more than files and directories", ErrArchive)
	}
	return io.NopCloser(bytes.NewReader(content)), nil
}

// Writer makes an archive of a tree that comes as entries, one after the other,
// as from another program's archive: parents before what is in them, and
// regular files as they are. Restore reads it like that of a directory.
type Writer struct {
	ctx         context.Context //nolint:containedctx // of the one archive, as in walker
	sink        Sink
	directories archive
	others      archive
	files       *fileWriter
	tally       *tally
	broken      error
}

// NewWriter begins an archive.
func NewWriter(ctx context.Context, sink Sink) (*Writer, error) {
	s := &saver{sink: sink}
	w := &Writer{ctx: ctx, sink: sink, tally: &s.tally, files: &fileWriter{saver: s, buf: make([]byte, 0, bufferSize)}}
	var err error
	if w.directories.stream, err = sink.Create(ctx, directoriesStream); err != nil {
		return nil, err
	}
	if w.others.stream, err = sink.Create(ctx, othersStream); err != nil {
		w.directories.stream.Abort(err)
		return nil, err
	}
	return w, nil
}

// Add adds an entry, a file with its data: e.Size bytes, or it is an error.
func (w *Writer) Add(e *Entry, data io.Reader) error {
	if w.broken != nil {
		return w.broken
	}
	w.broken = w.add(e, data)
	return w.broken
}

func (w *Writer) add(e *Entry, data io.Reader) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if err := e.validate(); err != nil {
		return err
	}
	w.tally.add(e.Kind, e.Size)
	switch {
	case e.Kind == Directory:
		return w.directories.add(e)
	case e.Kind != File:
		return w.others.add(e)
	}
	return w.files.copy(w.ctx, e, data)
}

// Close ends the archive; what is in it is the object that a report has.
func (w *Writer) Close(name string) (record.Object, error) {
	err := w.broken
	if err == nil {
		err = w.files.end()
	}
	if err != nil {
		w.Abort(err)
		return record.Object{}, err
	}
	w.others.buf = append(append(w.others.buf, zeroBlock[:]...), zeroBlock[:]...)
	return w.tally.counts.object(name), errors.Join(w.directories.close(), w.others.close())
}

// Abort ends the archive, which is worth nothing.
func (w *Writer) Abort(err error) {
	if w.files.stream != nil {
		w.files.stream.Abort(err)
		w.files.stream = nil
	}
	w.directories.stream.Abort(err)
	w.others.stream.Abort(err)
}

// copy writes a file whose data comes from elsewhere.
func (w *fileWriter) copy(ctx context.Context, e *Entry, data io.Reader) (err error) {
	if w.stream == nil {
		if w.stream, err = w.create(ctx); err != nil {
			return err
		}
	}
	if w.buf, err = appendHeader(w.buf[:0], e); err != nil {
		return err
	}
	if e.Size >= cutFrom {
		if err := w.flush(); err != nil {
			return err
		}
		if err := w.stream.Cut(); err != nil {
			return err
		}
	}
	for left := e.Size; left > 0; {
		if err := w.room(1); err != nil {
			return err
		}
		space := w.buf[len(w.buf):min(int64(cap(w.buf)), int64(len(w.buf))+left)]
		n, err := io.ReadFull(data, space)
		if err != nil {
			return fmt.Errorf("read %q, of which %d of %d bytes are missing: %w", e.Name, left-int64(n), e.Size, err)
		}
		w.buf, left = w.buf[:len(w.buf)+n], left-int64(n)
	}
	if err := w.room(blockSize); err != nil {
		return err
	}
	w.buf = append(w.buf, zeroBlock[:padding(e.Size)]...)
	if err := w.flush(); err != nil {
		return err
	}
	if w.size < w.target() {
		return nil
	}
	return w.end()
}
