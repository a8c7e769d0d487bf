package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strconv"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// flushAt is when encoded rows are handed to the stream; a row is never cut.
const flushAt = 256 << 10

// keepBuffer is the largest buffer that is kept after an exceptional row.
const keepBuffer = 4 << 20

// streamRows runs a query on the driver's own interface, which spares
// database/sql's conversions and copies, and calls fn with each row. The
// values are valid during the call. It returns nil only when the server said
// that the result ended: a cut connection is an error.
func (s *session) streamRows(ctx context.Context, query string, fn func([]driver.Value) error) error {
	err := s.Raw(func(conn any) error {
		q, ok := conn.(driver.QueryerContext)
		if !ok {
			return errors.New("the driver's connection takes no queries")
		}
		rows, err := q.QueryContext(ctx, query, nil)
		if err != nil {
			return err
		}
		dest := make([]driver.Value, len(rows.Columns()))
		for {
			err := rows.Next(dest)
			if errors.Is(err, io.EOF) {
				return rows.Close()
			}
			if err == nil {
				err = fn(dest)
			}
			if err != nil {
				// Reading to the end of a result that nobody wants could
				// take hours: the connection is given up instead.
				return errors.Join(err, driver.ErrBadConn)
			}
		}
	})
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	return nil
}

// rowWriter encodes rows into one data stream. The stream is created with the
// first row, so that there is none without rows.
type rowWriter struct {
	create    func() (*countedStream, error)
	encodings []fieldEncoding
	// typed takes the rows that text cannot carry; nil when there can be none.
	typed  *typedWriter
	stream *countedStream
	buf    []byte
	rows   int64
}

type fieldEncoding uint8

const (
	fieldRaw fieldEncoding = iota
	fieldHex
	fieldFloat
	fieldDouble
	fieldYear
)

func fieldEncodings(columns []record.Column, t *table) []fieldEncoding {
	out := make([]fieldEncoding, len(columns))
	for i, c := range columns {
		switch dataType := t.column(c.Name).dataType; {
		case c.Encoding == EncodingHex:
			out[i] = fieldHex
		case dataType == "float":
			out[i] = fieldFloat
		case dataType == "double":
			out[i] = fieldDouble
		case dataType == "year":
			out[i] = fieldYear
		}
	}
	return out
}

// add takes one row.
func (w *rowWriter) add(values []driver.Value) error {
	if w.typed != nil {
		for _, types := range values[len(w.encodings):] {
			if types != nil {
				return w.typed.add(values)
			}
		}
	}
	buf := w.buf
	for i, e := range w.encodings {
		if i > 0 {
			buf = append(buf, '\t')
		}
		var err error
		if buf, err = appendField(buf, values[i], e); err != nil {
			return err
		}
	}
	w.buf = append(buf, '\n')
	w.rows++
	if len(w.buf) >= flushAt {
		return w.flush()
	}
	return nil
}

// appendField writes one value as its column's encoding says. The driver hands
// integers and doubles out as numbers, everything else as bytes.
func appendField(buf []byte, v driver.Value, e fieldEncoding) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(buf, '\\', 'N'), nil
	case []byte:
		if e == fieldHex {
			return appendHex(buf, v), nil
		}
		return appendEscaped(buf, v), nil
	case int64:
		if e == fieldYear && v == 0 {
			// The text "0" would be read as the year 2000.
			return append(buf, "0000"...), nil
		}
		return strconv.AppendInt(buf, v, 10), nil
	case uint64:
		return strconv.AppendUint(buf, v, 10), nil
	case float64:
		if e == fieldFloat {
			return appendFloat(buf, v), nil
		}
		return appendDouble(buf, v), nil
	}
	return buf, fmt.Errorf("the driver returned a value of type %T", v)
}

func (w *rowWriter) flush() error {
	if w.stream == nil {
		st, err := w.create()
		if err != nil {
			return err
		}
		w.stream = st
	}
	if _, err := w.stream.Write(w.buf); err != nil {
		return err
	}
	if w.buf = w.buf[:0]; cap(w.buf) > keepBuffer {
		w.buf = nil
	}
	return nil
}

// finish ends the stream: whole when err is nil, given up otherwise.
func (w *rowWriter) finish(err error) error {
	if err == nil && len(w.buf) > 0 {
		err = w.flush()
	}
	if w.stream == nil {
		return err
	}
	if err != nil {
		w.stream.Abort(err)
		return err
	}
	return w.stream.Close()
}

// dumpPiece reads one piece of a table into its stream.
func (d *dump) dumpPiece(ctx context.Context, s *session, p piece) error {
	name := dataStream(p.table.schema.name, p.table.name, p.part, p.n)
	w := d.buffers.Get().(*rowWriter) //nolint:errcheck,forcetypeassert // the pool holds nothing else
	defer d.buffers.Put(w)
	*w = rowWriter{
		buf:       w.buf[:0],
		encodings: p.layout.encodings,
		create:    func() (*countedStream, error) { return d.out.create(ctx, name, dbdump.StreamOptions{}) },
	}
	if p.layout.json > 0 {
		w.typed = d.newTyped(ctx, p)
	}
	err := s.streamRows(ctx, p.query(), w.add)
	if err != nil {
		err = fmt.Errorf("read table %s: %w", p.table, err)
	}
	written, err := d.finishPiece(p, name, w, err)
	*w = rowWriter{buf: w.buf[:0]}
	if err != nil {
		return err
	}
	d.progress(written)
	return nil
}

// finishPiece ends the piece's streams and notes those that there are.
func (d *dump) finishPiece(p piece, name string, w *rowWriter, err error) (Progress, error) {
	done := Progress{Schema: p.table.schema.name, Table: p.table.name, Rows: w.rows}
	typed := ""
	if w.typed != nil {
		err = w.typed.finish(err)
		if w.typed.stream != nil {
			typed = w.typed.name
			done.Rows += w.typed.rows
			done.Bytes += w.typed.stream.written
		}
	}
	if err = w.finish(err); err != nil {
		return done, err
	}
	if w.stream == nil {
		name = ""
	} else {
		done.Bytes += w.stream.written
	}
	p.layout.add(name, typed, done.Rows)
	return done, nil
}
