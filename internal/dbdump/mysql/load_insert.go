package mysql

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"keepset/internal/dbdump"
)

// insertBytes is how long an INSERT statement is when the rows allow it. Longer ones gain nothing.
const insertBytes = 1 << 20

// insertReadBuffer is how much of a stream is read at a time.
const insertReadBuffer = 256 << 10

// insertRows sends the rows as INSERT statements of many rows each, for servers that do not allow LOAD DATA LOCAL. The
// statements are strict, a value that does not fit is an error, or else their warnings are.
//
// The fields of a .tsv stream are escaped as a string literal is, but for the quote: a row becomes SQL by copying.
func (l *loader) insertRows(ctx context.Context, s *session, o loadObject, r io.Reader) (int64, error) {
	enums := emptyEnumsOf(o.Columns)
	if enums.any() {
		if err := s.exec(ctx, "SET SESSION sql_mode = '"+laxSQLMode+"'"); err != nil {
			return 0, err
		}
	}
	in := &inserter{session: s, enums: enums, prefix: insertPrefix(o), limit: min(insertBytes, l.maxPacket-packetRoom), most: l.maxPacket - packetRoom}
	encodings := make([]string, len(o.Columns))
	for i, c := range o.Columns {
		encodings[i] = c.Encoding
	}
	lines := bufio.NewReaderSize(r, insertReadBuffer)
	var line []byte
	for {
		var err error
		if line, err = readLine(lines, line[:0]); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return 0, err
		}
		if err := in.add(ctx, line, encodings); err != nil {
			return 0, err
		}
	}
	return in.rows, in.flush(ctx)
}

// packetRoom is what a packet holds beside the statement, generously.
const packetRoom = 64

// insertKeep is the most memory that is kept for the next row or statement: one long row must not hold its for good.
const insertKeep = 8 << 20

// insertPrefix writes INSERT up to and with VALUES.
func insertPrefix(o loadObject) []byte {
	b := []byte("INSERT INTO " + quoteQualified(o.Target, o.Name) + " (")
	for i, c := range o.Columns {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, quoteIdentifier(c.Name)...)
	}
	return append(b, ") VALUES "...)
}

// readLine appends the next line without its end to buf. A stream whose last line has no end was cut off.
func readLine(r *bufio.Reader, buf []byte) ([]byte, error) {
	for {
		part, err := r.ReadSlice('\n')
		buf = append(buf, part...)
		switch {
		case err == nil:
			return buf[:len(buf)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(buf) > 0:
			return nil, fmt.Errorf("%w: the stream ends within a row", dbdump.ErrMismatch)
		default:
			return nil, err
		}
	}
}

// inserter collects rows into statements.
type inserter struct {
	session *session
	enums   *emptyEnums
	prefix  []byte
	limit   int64 // length at which a statement is sent
	most    int64 // length that the server takes
	buf     []byte
	row     []byte
	pending int64
	rows    int64
}

// add puts a line of a .tsv stream into the current statement.
func (in *inserter) add(ctx context.Context, line []byte, encodings []string) error {
	var err error
	if in.row, err = appendRow(in.row[:0], line, encodings); err != nil {
		return err
	}
	if in.pending > 0 && int64(len(in.buf)+1+len(in.row)) > in.limit {
		if err := in.flush(ctx); err != nil {
			return err
		}
	}
	if need := int64(len(in.prefix) + len(in.row)); need > in.most {
		return fmt.Errorf("a row of %d bytes is longer than the server takes in a statement (max_allowed_packet %d): "+
			"raise max_allowed_packet, or set local_infile to ON", need, in.most+packetRoom)
	}
	if in.pending == 0 {
		in.buf = append(in.buf[:0], in.prefix...)
	} else {
		in.buf = append(in.buf, ',')
	}
	in.buf = append(in.buf, in.row...)
	in.enums.count(line)
	in.pending++
	if cap(in.row) > insertKeep {
		in.row = nil
	}
	return nil
}

// flush sends the current statement.
func (in *inserter) flush(ctx context.Context) error {
	if in.pending == 0 {
		return nil
	}
	result, err := in.session.ExecContext(ctx, string(in.buf))
	if err != nil {
		return in.session.queryError(string(in.prefix)+"...", err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return err
	}
	if n != in.pending {
		return fmt.Errorf("%w: %d of %d rows arrived", dbdump.ErrMismatch, n, in.pending)
	}
	if err := checkWarnings(ctx, in.session, in.enums); err != nil {
		return err
	}
	in.enums.sent = 0
	in.rows += n
	in.pending = 0
	if cap(in.buf) > insertKeep {
		in.buf = nil
	}
	return nil
}

// appendRow turns a line into a parenthesised list of literals.
func appendRow(dst, line []byte, encodings []string) ([]byte, error) {
	dst = append(dst, '(')
	for i, encoding := range encodings {
		field, rest, more := bytes.Cut(line, []byte{'\t'})
		if more != (i < len(encodings)-1) {
			return nil, fmt.Errorf("%w: a row has %d fields, want %d", dbdump.ErrMismatch, i+1+bytes.Count(rest, []byte{'\t'}), len(encodings))
		}
		line = rest
		if i > 0 {
			dst = append(dst, ',')
		}
		if len(field) == 2 && field[0] == '\\' && field[1] == 'N' {
			dst = append(dst, "NULL"...)
			continue
		}
		if err := checkField(field, encoding); err != nil {
			return nil, err
		}
		switch encoding {
		case EncodingHex:
			dst = append(append(append(dst, "x'"...), field...), '\'')
		case EncodingJSON:
			dst = appendLiteral(append(dst, "_utf8mb4"...), field)
		case EncodingDouble:
			dst = appendLiteral(dst, field)
		default:
			dst = appendLiteral(append(dst, "_binary"...), field)
		}
	}
	return append(dst, ')'), nil
}

// checkField makes sure that a field is one that the layout can have. With any other digit or escape the literal that
// is made of it might end elsewhere than the field, and the rest of the row would be SQL.
func checkField(field []byte, encoding string) error {
	if encoding == EncodingHex {
		for _, c := range field {
			if strings.IndexByte(hexDigits, c) < 0 {
				return fmt.Errorf("%w: a row has the byte %q among hexadecimal digits", dbdump.ErrMismatch, c)
			}
		}
		return nil
	}
	for {
		i := bytes.IndexByte(field, '\\')
		if i < 0 {
			return nil
		}
		if i+1 == len(field) || strings.IndexByte(`0btnrZ\`, field[i+1]) < 0 {
			return fmt.Errorf("%w: a row has an escape that no dump writes: %.4q", dbdump.ErrMismatch, field[i:])
		}
		field = field[i+2:]
	}
}

// appendLiteral writes an escaped field as a string literal.
func appendLiteral(dst, field []byte) []byte {
	dst = append(dst, '\'')
	for {
		i := bytes.IndexByte(field, '\'')
		if i < 0 {
			return append(append(dst, field...), '\'')
		}
		dst = append(append(dst, field[:i]...), "''"...)
		field = field[i+1:]
	}
}
