package mysql

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// The rows of a system-versioned table of MariaDB come with their times. The row of the present is the one that ends at
// the latest time that its server knows, and that time moved with version 11.5: taken as it is, the present of an older
// server would be history in a newer one, where a query does not see it. And servers before 10.11 cannot be given
// history at all; they get the present.

// latestTimes are what MariaDB calls the end of a row of the present: before 11.5, and since.
var latestTimes = []string{"2038-01-19 03:14:07.999999", "2106-02-07 06:28:15.999999"}

// period is where a table's rows say since when and until when they were the present.
type period struct{ start, end string }

// hasHistory tells whether the rows of the past are in the dump.
func hasHistory(o loadObject) bool { return o.Attributes[AttrSystemVersioned] == "history" }

// askHistory asks the target what it can be given, and what it calls the end of a row of the present.
func (l *loader) askHistory(ctx context.Context, s *session) error {
	l.takesHistory = l.server.AtLeast(10, 11, 0)
	var late bool
	if err := s.queryRow(ctx, "SELECT FROM_UNIXTIME(2147483648) IS NOT NULL", &late); err != nil {
		return fmt.Errorf("ask for the target's latest time: %w", err)
	}
	l.latest = latestTimes[0]
	if late {
		l.latest = latestTimes[1]
	}
	return nil
}

// loadHistory sends the rows of a system-versioned table. It returns how many there are, and how many of them are
// history; where the target takes none, these are counted although they were left out.
func (l *loader) loadHistory(ctx context.Context, s *session, o loadObject, r io.Reader) (rows, past int64, err error) {
	p, err := readPeriod(ctx, s, o)
	if err != nil {
		return 0, 0, err
	}
	position := func(name string) int {
		return slices.IndexFunc(o.Columns, func(c record.Column) bool { return c.Name == name })
	}
	reader := &historyReader{lines: bufio.NewReaderSize(r, insertReadBuffer), start: position(p.start), end: position(p.end), latest: l.latest, keep: l.takesHistory}
	if reader.start < 0 || reader.end < 0 {
		return 0, 0, fmt.Errorf("%w: its rows lack the columns %s and %s", dbdump.ErrMismatch, quoteIdentifier(p.start), quoteIdentifier(p.end))
	}
	if !l.takesHistory {
		o.Columns = slices.DeleteFunc(slices.Clone(o.Columns), func(c record.Column) bool { return c.Name == p.start || c.Name == p.end })
	}
	if l.insert {
		rows, err = l.insertRows(ctx, s, o, reader)
	} else {
		rows, err = l.loadData(ctx, s, o, reader)
	}
	if err == nil && rows != reader.sent {
		err = fmt.Errorf("%w: the server took %d rows of %d", dbdump.ErrMismatch, rows, reader.sent)
	}
	return reader.read, reader.past, err
}

// readPeriod asks for the names of the columns, which a table may have chosen for itself.
func readPeriod(ctx context.Context, s *session, o loadObject) (period, error) {
	p := period{"row_start", "row_end"}
	err := s.each(ctx, "SELECT COLUMN_NAME, GENERATION_EXPRESSION FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = "+quoteString(o.Target)+
		" AND TABLE_NAME = "+quoteString(o.Name)+" AND GENERATION_EXPRESSION IN ('ROW START', 'ROW END')", func(r row) error {
		if strings.EqualFold(r.at(1), "ROW START") {
			p.start = r.at(0)
		} else {
			p.end = r.at(0)
		}
		return nil
	})
	return p, err
}

// historyReader passes the lines of a .tsv stream on as the target wants them.
type historyReader struct {
	lines      *bufio.Reader
	start, end int    // positions of the period's columns
	latest     string // the end of the rows of the present, on the target
	keep       bool   // the target takes history; else it gets the present without its times

	read, past, sent int64 // rows; those of history; those passed on

	line, out, left []byte // left is what is to be read of out
	fields          [][]byte
}

// Read implements io.Reader.
func (r *historyReader) Read(p []byte) (int, error) {
	for len(r.left) == 0 {
		var err error
		if r.line, err = readLine(r.lines, r.line[:0]); err != nil {
			return 0, err
		}
		if err := r.convert(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

// convert makes out of line; out is empty for a row that is left out.
func (r *historyReader) convert() error {
	r.fields, r.out = r.fields[:0], r.out[:0]
	for field := range bytes.SplitSeq(r.line, []byte{'\t'}) {
		r.fields = append(r.fields, field)
	}
	if len(r.fields) <= max(r.start, r.end) {
		return fmt.Errorf("%w: a row has %d fields, too few to hold its times", dbdump.ErrMismatch, len(r.fields))
	}
	r.read++
	present := slices.Contains(latestTimes, string(r.fields[r.end]))
	if !present {
		r.past++
	}
	if present || r.keep {
		for i, field := range r.fields {
			switch {
			case !r.keep && (i == r.start || i == r.end):
				continue
			case present && i == r.end:
				field = []byte(r.latest)
			}
			r.out = append(append(r.out, field...), '\t')
		}
		// A table may have no other columns than its times: the line of such a row is empty.
		r.out = append(bytes.TrimSuffix(r.out, []byte{'\t'}), '\n')
		r.sent++
	}
	r.left = r.out
	return nil
}
