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

// streamRows runs a query and calls fn with the text of every row's fields; nil
// is NULL, and the bytes are valid during the call. It returns nil only when
// the server said that the result ended: a cut connection is an error.
func (s *session) streamRows(ctx context.Context, query string, fn func([][]byte) error) error {
	err := s.Raw(func(conn any) error {
		var err error
		if s.wire != nil {
			err = s.streamWire(ctx, query, fn)
		} else {
			err = streamDriver(ctx, conn, query, fn)
		}
		if err != nil && (errorNumber(err) == 0 || ctx.Err() != nil) {
			// Reading to the end of a result that nobody wants could take
			// hours: the connection is given up instead.
			return errors.Join(err, driver.ErrBadConn)
		}
		return err
	})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// streamDriver streams through the driver, which sees to TLS, on its own
// interface: that spares database/sql's conversions and copies.
func streamDriver(ctx context.Context, conn any, query string, fn func([][]byte) error) error {
	q, ok := conn.(driver.QueryerContext)
	if !ok {
		return errors.New("the driver's connection takes no queries")
	}
	rows, err := q.QueryContext(ctx, query, nil)
	if err != nil {
		return err
	}
	values := make([]driver.Value, len(rows.Columns()))
	fields := make([][]byte, len(values))
	var scratch []byte
	for {
		err := rows.Next(values)
		if errors.Is(err, io.EOF) {
			return rows.Close()
		}
		if err == nil {
			scratch, err = asText(values, fields, scratch[:0])
		}
		if err == nil {
			err = fn(fields)
		}
		if err != nil {
			return err
		}
	}
}

// asText undoes the driver's parsing of numbers. scratch takes their digits.
func asText(values []driver.Value, fields [][]byte, scratch []byte) ([]byte, error) {
	for i, v := range values {
		start := len(scratch)
		switch v := v.(type) {
		case nil:
			fields[i] = nil
			continue
		case []byte:
			if fields[i] = v; v == nil {
				fields[i] = []byte{}
			}
			continue
		case int64:
			scratch = strconv.AppendInt(scratch, v, 10)
		case uint64:
			scratch = strconv.AppendUint(scratch, v, 10)
		case float64:
			scratch = appendDouble(scratch, v)
		default:
			return scratch, fmt.Errorf("the driver returned a value of type %T", v)
		}
		fields[i] = scratch[start:len(scratch):len(scratch)]
	}
	return scratch, nil
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
	sum    checksum
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
func (w *rowWriter) add(values [][]byte) error {
	if w.typed != nil {
		for _, types := range values[len(w.encodings):] {
			if types != nil {
				return w.typed.add(values)
			}
		}
	}
	buf, start := w.buf, len(w.buf)
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
	w.sum.add(w.buf[start:])
	w.rows++
	if len(w.buf) >= flushAt {
		return w.flush()
	}
	return nil
}

// appendField writes one value as its column's encoding says.
func appendField(buf, v []byte, e fieldEncoding) ([]byte, error) {
	if v == nil {
		return append(buf, '\\', 'N'), nil
	}
	switch e {
	case fieldRaw:
		return appendEscaped(buf, v), nil
	case fieldHex:
		return appendHex(buf, v), nil
	case fieldYear:
		if len(v) == 1 {
			// The text "0" would be read as the year 2000.
			return append(buf, "0000"...), nil
		}
		return append(buf, v...), nil
	}
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil {
		return buf, fmt.Errorf("the server sent %q as a number: %w", v, err)
	}
	if e == fieldFloat {
		return appendFloat(buf, f), nil
	}
	return appendDouble(buf, f), nil
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
	typed, sum := "", w.sum
	if w.typed != nil {
		err = w.typed.finish(err)
		if w.typed.stream != nil {
			typed = w.typed.name
			done.Rows += w.typed.rows
			sum += w.typed.sum
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
	p.layout.add(name, typed, done.Rows, sum)
	return done, nil
}
