package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// editFunc changes a statement before it is run; nil leaves it out.
type editFunc func(code []byte, st statement) []byte

// eachStatement reads a stream of statements.
func (l *loader) eachStatement(ctx context.Context, stream string, fn func(code []byte, st statement) error) (err error) {
	r, err := l.source.Open(ctx, stream)
	if err != nil {
		return fmt.Errorf("open stream %s: %w", stream, err)
	}
	defer func() {
		if closeErr := r.Close(); err == nil && closeErr != nil {
			err = fmt.Errorf("read stream %s: %w", stream, closeErr)
		}
	}()
	counted := &countingReader{r: r, n: &l.bytes}
	scan := newScanner(counted, "stream "+stream)
	for {
		p, err := scan.next()
		switch {
		case err != nil:
			return err
		case p.kind == pieceEnd:
			return nil
		case p.kind == pieceMeta:
			return fmt.Errorf("stream %s holds a command to psql: %q", stream, shortened(string(p.code)))
		}
		if err := fn(p.code, understand(p.code)); err != nil {
			return err
		}
	}
}

// runStream runs the statements of a stream one after the other.
func (l *loader) runStream(ctx context.Context, s *session, stream string, edit editFunc) error {
	return l.eachStatement(ctx, stream, func(code []byte, st statement) error {
		if code = edit(code, st); code == nil {
			return nil
		}
		return s.run(ctx, code, st)
	})
}

// run runs a statement of a script, which an error does not repeat: it may hold
// a password.
func (s *session) run(ctx context.Context, code []byte, st statement) error {
	if _, err := s.conn.Exec(ctx, string(code)).ReadAll(); err != nil {
		return s.scriptError(ctx, st, err)
	}
	return nil
}

func (s *session) scriptError(ctx context.Context, st statement, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = errors.Join(cause, err)
	}
	if sentinel := sentinelOf(err); sentinel != nil {
		return fmt.Errorf("%s: %w: %w", st.describe(), sentinel, explained(err))
	}
	return fmt.Errorf("%s: %w", st.describe(), explained(err))
}

// forTarget leaves out and changes what the target cannot do: it has no such
// tablespace.
func (l *loader) forTarget(code []byte, st statement) []byte {
	const set = "SET default_tablespace = "
	if st.kind != stmtSession || !strings.HasPrefix(string(code), set) {
		return code
	}
	tokens := tokensOf(code[len(set):], 1)
	if len(tokens) == 0 || !tokens[0].name || l.spaces[tokens[0].text] {
		return code
	}
	l.warn("tablespace %q is not on the target: what was in it goes to the default one", tokens[0].text)
	l.spaces[tokens[0].text] = false
	return []byte(set + "'';")
}

// ofPart tells whether an error of a statement may pass when only a part of a
// database is loaded, since it speaks of what is not in the part or is there
// already. Rows are compared all the same.
func ofPart(err error, st statement, postData bool) bool {
	switch state := sqlState(err); state {
	case stateSchemaExists:
		return true
	case "42723", "42710", "42P07": // so is the function, type or relation
		return st.kind != "table" && st.kind != "view" && st.kind != stmtSequence
	case stateUndefinedTable, stateUndefinedObject, stateUndefinedRoutine, stateUndefinedSchema:
		return postData || st.verb == "grant" || st.verb == "revoke"
	}
	return false
}

// countingReader counts what it reads.
type countingReader struct {
	r io.Reader
	n interface{ Add(int64) int64 }
}

// Read implements io.Reader.
func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}
