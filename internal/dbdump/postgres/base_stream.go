package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// errBase says that the server's answer to BASE_BACKUP is none.
var errBase = errors.New("the server's base backup cannot be read")

// archiveHead announces what the bytes after it are: the archive of a
// tablespace, whose location is path ("" for the data directory), or the manifest.
type archiveHead struct {
	manifest   bool
	name, path string
}

// baseStream takes the server's answer to BASE_BACKUP apart: small results, the
// archives one after the other, which Read reads each to its end, the manifest,
// and small results again. (PostgreSQL 15 and later: one copy for all of them.)
type baseStream struct {
	ctx  context.Context //nolint:containedctx // io.Reader has no other way to get one
	conn *pgconn.PgConn

	results [][]row
	// rest of the last message, valid until the next one.
	rest []byte
	// head is what begins next, nil while it is not known.
	head *archiveHead
	// copied: the copy has ended.
	copied bool
	// warnings are what the server warns of, the first of them.
	warnings []string
}

// mostWarnings bounds them: there may be one for each damaged page.
const mostWarnings = 20

// begin sends the command, and returns the results that come before the data.
func (b *baseStream) begin(command string) ([][]row, error) {
	b.conn.Frontend().SendQuery(&pgproto3.Query{String: command})
	if err := b.conn.Frontend().Flush(); err != nil {
		return nil, err
	}
	m, err := b.small()
	if err != nil {
		return nil, err
	}
	if _, ok := m.(*pgproto3.CopyOutResponse); !ok {
		return nil, fmt.Errorf("%w: it has no data", errBase)
	}
	return b.taken(), nil
}

// end returns the results that come after the data.
func (b *baseStream) end() ([][]row, error) {
	m, err := b.small()
	if err != nil {
		return nil, err
	}
	if _, ok := m.(*pgproto3.ReadyForQuery); !ok {
		return nil, fmt.Errorf("%w: %T after its end", errBase, m)
	}
	return b.taken(), nil
}

func (b *baseStream) taken() [][]row {
	results := b.results
	b.results = nil
	return results
}

// small collects rows up to a message that is none.
func (b *baseStream) small() (pgproto3.BackendMessage, error) {
	for {
		m, err := b.message()
		if err != nil {
			return nil, err
		}
		switch m := m.(type) {
		case *pgproto3.RowDescription:
			b.results = append(b.results, nil)
		case *pgproto3.DataRow:
			if len(b.results) == 0 {
				return nil, fmt.Errorf("%w: a row of nothing", errBase)
			}
			values := make(row, len(m.Values))
			for i, v := range m.Values {
				values[i] = bytes.Clone(v)
			}
			last := len(b.results) - 1
			b.results[last] = append(b.results[last], values)
		case *pgproto3.CommandComplete:
		default:
			return m, nil
		}
	}
}

// message is the next message that says something.
func (b *baseStream) message() (pgproto3.BackendMessage, error) {
	for {
		m, err := b.conn.ReceiveMessage(b.ctx)
		if err != nil {
			return nil, err
		}
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			return nil, pgconn.ErrorResponseToPgError(m)
		case *pgproto3.NoticeResponse:
			b.warned(m)
		case *pgproto3.ParameterStatus:
		default:
			return m, nil
		}
	}
}

// warned keeps a warning. With one the server says what it leaves out, other
// than sockets, and what it could not check.
func (b *baseStream) warned(m *pgproto3.NoticeResponse) {
	if m.SeverityUnlocalized != "WARNING" || strings.Contains(m.Message, "/.s.PGSQL.") || len(b.warnings) >= mostWarnings {
		return
	}
	b.warnings = append(b.warnings, m.Message)
}

// next goes to the next archive, or to the manifest; io.EOF after the last.
func (b *baseStream) next() (archiveHead, error) {
	for b.head == nil && !b.copied {
		if err := b.receive(); err != nil {
			return archiveHead{}, err
		}
		if len(b.rest) > 0 {
			return archiveHead{}, fmt.Errorf("%w: data that belongs to nothing", errBase)
		}
	}
	if b.head == nil {
		return archiveHead{}, io.EOF
	}
	head := *b.head
	b.head = nil
	return head, nil
}

// Read reads the current archive.
func (b *baseStream) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		if b.head != nil || b.copied {
			return 0, io.EOF
		}
		if err := b.receive(); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// receive takes the next message of the copy.
func (b *baseStream) receive() error {
	m, err := b.message()
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *pgproto3.CopyData:
		return b.data(m.Data)
	case *pgproto3.CopyDone:
		b.copied = true
		return nil
	default:
		return fmt.Errorf("%w: %T in the middle of it", errBase, m)
	}
}

// data reads a message's first byte, which says what the others are.
func (b *baseStream) data(message []byte) error {
	if len(message) == 0 {
		return fmt.Errorf("%w: an empty message", errBase)
	}
	switch body := message[1:]; message[0] {
	case 'd':
		b.rest = body
	case 'p': // how far it is
	case 'm':
		b.head = &archiveHead{manifest: true}
	case 'n':
		name, body, named := bytes.Cut(body, []byte{0})
		path, body, placed := bytes.Cut(body, []byte{0})
		if !named || !placed || len(body) > 0 || len(name) == 0 {
			return fmt.Errorf("%w: an archive without a name", errBase)
		}
		b.head = &archiveHead{name: string(name), path: string(path)}
	default:
		return fmt.Errorf("%w: a message of kind %q", errBase, message[0])
	}
	return nil
}
