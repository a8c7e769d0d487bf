package mysql

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	mysqldriver "github.com/go-sql-driver/mysql"
)

// maxScript bounds the text of one .sql stream: a table with thousands of columns or partitions, the accounts of a
// large server, a routine of many megabytes all fit well.
const maxScript = 256 << 20

// read returns the whole text of an .sql stream.
func (l *loader) read(ctx context.Context, stream string) (string, error) {
	r, err := l.source.Open(ctx, stream)
	if err != nil {
		return "", fmt.Errorf("open stream %s: %w", stream, err)
	}
	var text strings.Builder
	_, err = io.Copy(&text, io.LimitReader(r, maxScript+1))
	if closeErr := r.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return "", fmt.Errorf("read stream %s: %w", stream, err)
	}
	if text.Len() > maxScript {
		return "", fmt.Errorf("read stream %s: longer than %d bytes", stream, maxScript)
	}
	l.bytes.Add(int64(text.Len()))
	return text.String(), nil
}

// statements returns the statements of an .sql stream.
func (l *loader) statements(ctx context.Context, stream string) ([]string, error) {
	text, err := l.read(ctx, stream)
	if err != nil {
		return nil, err
	}
	list, err := splitScript(text)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", stream, err)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("stream %s: holds no statement", stream)
	}
	return list, nil
}

// begin brings the session back into its initial state and makes schema its default, as a script expects it.
func (l *loader) begin(ctx context.Context, s *session, schema string) error {
	if err := s.exec(ctx, l.settings.always); err != nil {
		return err
	}
	if schema == "" {
		return nil
	}
	return s.exec(ctx, "USE "+quoteIdentifier(schema))
}

// run executes the statements of a script with the object's schema as the default database.
func (l *loader) runStatements(ctx context.Context, s *session, schema string, statements []string) error {
	if err := l.begin(ctx, s, schema); err != nil {
		return err
	}
	for _, statement := range statements {
		if err := s.exec(ctx, statement); err != nil {
			return privilegeError(err, "the account of the load lacks a privilege")
		}
	}
	return nil
}

// editFunc changes a statement before it is run, which the server will read by the given quoting rules.
type editFunc func(statement string, quote quoting) (string, error)

// loadScript creates an object from its stream. With edit, each statement passes through it first.
func (l *loader) loadScript(ctx context.Context, s *session, o loadObject, edit editFunc) error {
	statements, err := l.statements(ctx, o.DDL)
	if err != nil {
		return fmt.Errorf("create %s: %w", o, err)
	}
	if err := l.editAll(statements, o, edit); err != nil {
		return err
	}
	err = l.runStatements(ctx, s, o.Target, statements)
	if again, trustErr := l.trustCreators(ctx, s, err); trustErr != nil {
		return fmt.Errorf("create %s: %w: %w", o, err, trustErr)
	} else if again {
		err = l.runStatements(ctx, s, o.Target, statements)
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", o, err)
	}
	l.progress(Progress{Schema: o.Target, Objects: 1})
	return nil
}

// editAll renames databases in the statements and applies edit.
func (l *loader) editAll(statements []string, o loadObject, edit editFunc) error {
	var err error
	quote := quoting{}
	for i, statement := range statements {
		next := quote.after(statement)
		if len(l.opts.Rename) > 0 {
			if statements[i], err = l.renameIn(statement, quote, o); err != nil {
				return fmt.Errorf("rename database in %s: %w", o, err)
			}
		}
		if edit != nil {
			if statements[i], err = edit(statements[i], quote); err != nil {
				return fmt.Errorf("create %s: %w", o, err)
			}
		}
		quote = next
	}
	return nil
}

// rootError returns the server's own error, without the statement that caused it.
func rootError(err error) error {
	if server, ok := errors.AsType[*mysqldriver.MySQLError](err); ok {
		return server
	}
	return err
}
