package mysql

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"keepset/internal/dbdump"
)

// script is a .sql stream being put together. It is small: it stays in memory
// until it is written as a whole.
type script struct {
	b strings.Builder
}

// preamble is what every script sets first, so that it means the same in any
// session of any server: no converting, no strictness, no checks.
const preamble = "SET NAMES utf8mb4;\n" +
	"SET SESSION sql_mode = " + preambleMode + ", time_zone = '+00:00', foreign_key_checks = 0, unique_checks = 0" +
	" /*M!110500 , character_set_collations = '' */;\n" // MariaDB alone reads this

// preambleMode is its sql_mode, as it stands there.
const preambleMode = "'NO_AUTO_VALUE_ON_ZERO'"

func newScript() *script {
	s := &script{}
	s.b.WriteString(preamble)
	return s
}

// add appends a statement. Where the statement itself holds a semicolon, the
// mysql client is told another delimiter, one that does not occur in it.
func (s *script) add(statement string) {
	statement = strings.TrimRight(statement, " \t\r\n")
	if !strings.Contains(statement, ";") {
		s.b.WriteString(statement)
		s.b.WriteString(";\n")
		return
	}
	delimiter := "$$"
	for i := 1; strings.Contains(statement, delimiter) || strings.HasSuffix(statement, "$"); i++ {
		delimiter = fmt.Sprintf("#%d#", i)
		if !strings.Contains(statement, delimiter) {
			break
		}
	}
	fmt.Fprintf(&s.b, "DELIMITER %s\n%s\n%s\nDELIMITER ;\n", delimiter, statement, delimiter)
}

// addf is add with formatting.
func (s *script) addf(format string, args ...any) { s.add(fmt.Sprintf(format, args...)) }

// writer creates the streams of one dump and counts what goes into them.
type writer struct {
	sink  dbdump.Sink
	bytes atomic.Int64
}

// script writes a whole script as one stream.
func (w *writer) script(ctx context.Context, name string, opts dbdump.StreamOptions, s *script) error {
	st, err := w.create(ctx, name, opts)
	if err != nil {
		return err
	}
	if _, err := st.Write([]byte(s.b.String())); err != nil {
		st.Abort(err)
		return err
	}
	return st.Close()
}

// create opens a stream; its Write and Close errors name it.
func (w *writer) create(ctx context.Context, name string, opts dbdump.StreamOptions) (*countedStream, error) {
	st, err := w.sink.Create(ctx, name, opts)
	if err != nil {
		return nil, fmt.Errorf("create stream %s: %w", name, err)
	}
	return &countedStream{Stream: st, name: name, total: &w.bytes}, nil
}

type countedStream struct {
	dbdump.Stream
	name    string
	written int64
	total   *atomic.Int64
}

func (s *countedStream) Write(p []byte) (int, error) {
	n, err := s.Stream.Write(p)
	s.written += int64(n)
	s.total.Add(int64(n))
	if err != nil {
		return n, fmt.Errorf("write stream %s: %w", s.name, err)
	}
	return n, nil
}

func (s *countedStream) Close() error {
	if err := s.Stream.Close(); err != nil {
		return fmt.Errorf("close stream %s: %w", s.name, err)
	}
	return nil
}
