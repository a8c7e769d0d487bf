package mysql

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// An ENUM holds number 0, which reads as "", where a server that was not strict was given what is no member. Such a
// value comes back as it went in: by giving it what is no member. No mode of any server does that without a warning,
// and a strict INSERT is refused. So the empty fields are counted on their way, and as many warnings are let pass.

// laxSQLMode is loadSQLMode for statements that must not be strict. Their warnings have to be looked at.
const laxSQLMode = "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES"

// errTruncated is the warning: the value is none of the column's type.
const errTruncated = "1265"

// emptyEnums are the ENUM columns of a table of which "" is no member, and how often it was sent to them.
type emptyEnums struct {
	columns []int // positions
	names   []string
	sent    int64
}

// emptyEnumsOf finds them among columns.
func emptyEnumsOf(columns []record.Column) *emptyEnums {
	e := &emptyEnums{}
	for i, c := range columns {
		if len(c.Type) > 5 && strings.EqualFold(c.Type[:5], "enum(") && !hasEmptyMember(c.Type) {
			e.columns, e.names = append(e.columns, i), append(e.names, c.Name)
		}
	}
	return e
}

// hasEmptyMember tells whether "" is one of the members. A type that cannot be read is taken for one that has it:
// then nothing is let pass.
func hasEmptyMember(enum string) bool {
	tokens, err := tokenize(enum, quoting{noBackslash: true})
	return err != nil || slices.ContainsFunc(tokens, func(t token) bool { return t.kind == tokenString && enum[t.start:t.end] == "''" })
}

// any tells whether the table has such a column.
func (e *emptyEnums) any() bool { return len(e.columns) > 0 }

// count counts the empty fields of a line of a .tsv stream, given without its end.
func (e *emptyEnums) count(line []byte) {
	if !e.any() {
		return
	}
	column, start := 0, 0
	for i := 0; i <= len(line); i++ {
		if i < len(line) && line[i] != '\t' {
			continue
		}
		if i == start && slices.Contains(e.columns, column) {
			e.sent++
		}
		column, start = column+1, i+1
	}
}

// reader counts what is read of a .tsv stream.
func (e *emptyEnums) reader(r io.Reader) io.Reader {
	if !e.any() {
		return r
	}
	return &enumReader{Reader: r, enums: e}
}

// enumReader remembers, from one piece to the next, where in a row it is.
type enumReader struct {
	io.Reader
	enums  *emptyEnums
	column int
	within bool // something of the field has come
}

// Read implements io.Reader.
func (r *enumReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	for _, c := range p[:n] { // an escaped tab or line break is a letter here
		if c != '\t' && c != '\n' {
			r.within = true
			continue
		}
		if !r.within && slices.Contains(r.enums.columns, r.column) {
			r.enums.sent++
		}
		r.column, r.within = r.column+1, false
		if c == '\n' {
			r.column = 0
		}
	}
	return n, err
}

// excuses tells whether a warning is that of an empty field.
func (e *emptyEnums) excuses(code, message string) bool {
	return code == errTruncated && e.sent > 0 && slices.ContainsFunc(e.names, func(name string) bool { return strings.Contains(message, "'"+name+"'") })
}

// check makes sure that there are no more warnings than empty fields: the server lists the first of them only.
func (e *emptyEnums) check(ctx context.Context, s *session) error {
	if e.sent == 0 {
		return nil
	}
	var count int64
	if err := s.queryRow(ctx, "SHOW COUNT(*) WARNINGS", &count); err != nil {
		return err
	}
	if count > e.sent {
		return fmt.Errorf("%w: the server warned %d times, of %d empty values in columns of type ENUM", dbdump.ErrMismatch, count, e.sent)
	}
	return nil
}
