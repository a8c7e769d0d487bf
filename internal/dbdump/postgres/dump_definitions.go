package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"keepset/internal/dbdump"
)

// The lines with which the programs say that they are done.
const (
	dumpComplete    = "-- PostgreSQL database dump complete"
	dumpAllComplete = "-- PostgreSQL database cluster dump complete"
)

// writeContent writes everything of one database: definitions and rows at once,
// since programs and workers read the same snapshot.
func (d *dump) writeContent(ctx context.Context, db *databaseDump) error {
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error { return d.writeDefinitions(inner, db) })
	group.Go(func() error { return d.writeRows(inner, db) })
	if err := group.Wait(); err != nil {
		return withCause(ctx, err)
	}
	if err := d.checkCounts(ctx, db); err != nil {
		return err
	}
	return d.writeSequences(ctx, db)
}

// writeDefinitions runs pg_dump once for what comes before the rows and once
// for what comes after them.
func (d *dump) writeDefinitions(ctx context.Context, db *databaseDump) (err error) {
	opts := dbdump.StreamOptions{Secret: db.secret}
	own := d.out.create(ctx, databaseStream(db.name, "database.sql"), dbdump.StreamOptions{})
	pre := d.out.create(ctx, databaseStream(db.name, "pre-data.sql"), opts)
	err = d.runScript(ctx, d.dumpProgram(db, "pre-data"), dumpComplete, "database "+db.name, &sorter{selection: db.chosen, database: own, other: pre})
	if err == nil {
		err = d.writeLargeObjects(ctx, db, pre)
	}
	_, err = own.end(err)
	if db.pre, err = pre.end(err); err != nil {
		return err
	}
	post := d.out.create(ctx, databaseStream(db.name, "post-data.sql"), opts)
	err = d.runScript(ctx, d.dumpProgram(db, "post-data"), dumpComplete, "database "+db.name, &sorter{selection: db.chosen, other: post})
	db.post, err = post.end(err)
	return err
}

// dumpProgram is pg_dump for one section of a database. Definitions are written
// in UTF-8 where the database has an encoding at all. Large objects are not its
// matter, see largeObjects.
func (d *dump) dumpProgram(db *databaseDump, section string) Program {
	args := []string{
		"--section=" + section, "--no-blobs", "--snapshot=" + db.snapshot, fmt.Sprintf("--lock-wait-timeout=%d", d.opts.LockWait.Milliseconds()),
	}
	if section == "pre-data" {
		args = append(args, "--create")
	}
	if db.encoding != "SQL_ASCII" {
		args = append(args, "--encoding=UTF8")
	}
	return Program{Name: "pg_dump", Major: d.server.major, Args: args, Server: d.engine.serverFor(db.name)}
}

// runScript runs a program that writes a script about something, and gives its
// pieces to the sorter.
func (d *dump) runScript(ctx context.Context, p Program, complete, about string, to *sorter) (err error) {
	out := d.engine.output(ctx, p)
	defer func() { err = errors.Join(err, out.Close()) }()
	scan := newScanner(out, "the output of "+p.Name)
	done := false
	for {
		next, err := scan.next()
		if err != nil {
			return withCause(ctx, err)
		}
		// Only what is no statement: a literal may hold such a line too.
		done = next.kind != pieceStatement && (done || hasLine(next.text, complete))
		if err := to.take(next); err != nil {
			return err
		}
		if next.kind == pieceEnd {
			break
		}
	}
	if !done {
		return fmt.Errorf("run %s: %w", p.Name, errTruncated)
	}
	d.passOn(about, p.Name, out.words.String())
	return nil
}

// passOn warns of what a program has said beside a script that it calls complete:
// what its account may not see it leaves out, and says so in this way only.
func (d *dump) passOn(about, program, words string) {
	if !strings.Contains(words, program+": ") { // of its own, not a notice of the server's
		return
	}
	if text := about + ": " + words; !slices.Contains(d.report.Warnings, text) {
		d.warn(text)
	}
}

// hasLine tells whether one of the lines is this one.
func hasLine(text []byte, line string) bool {
	for l := range bytes.Lines(text) {
		if string(bytes.TrimRight(l, "\r\n")) == line {
			return true
		}
	}
	return false
}

// sorter puts the pieces of a script where they belong: what concerns the
// database as such is run in another one; what is not selected goes nowhere.
type sorter struct {
	selection *selection // nil: everything
	database  *lazyStream
	other     *lazyStream

	connected bool
	// authorization is a SET SESSION AUTHORIZATION, which goes where the
	// statement goes that follows it; borrowed is where that was, for the RESET.
	authorization []byte
	borrowed      *lazyStream
}

func (s *sorter) take(p piece) (err error) {
	switch p.kind {
	case pieceMeta:
		return s.meta(p)
	case pieceEnd:
		_, err = s.other.Write(p.text)
		return err
	default:
		return s.statement(p)
	}
}

// meta drops what pg_dump says to psql, and refuses what it would not say: names
// in the database must not make psql do anything when the script is run by hand.
func (s *sorter) meta(p piece) error {
	word, _, _ := strings.Cut(strings.TrimRight(string(p.code), "\r\n"), " ")
	switch {
	case word == `\restrict`, word == `\unrestrict`:
	case word == `\connect` && s.database != nil:
		s.connected = true
	default:
		return fmt.Errorf("the script holds a command to psql that does not belong there: %q", shortened(string(p.code)))
	}
	_, err := s.to().Write(p.text[:len(p.text)-len(p.code)])
	return err
}

// to is where goes what says nothing of where it belongs.
func (s *sorter) to() *lazyStream {
	if s.database != nil && !s.connected {
		return s.database
	}
	return s.other
}

func (s *sorter) statement(p piece) error {
	switch {
	case bytes.HasPrefix(p.code, []byte("SET SESSION AUTHORIZATION ")):
		s.authorization, s.borrowed = bytes.Clone(p.text), nil
		return nil
	case bytes.HasPrefix(p.code, []byte("RESET SESSION AUTHORIZATION")):
		to := s.borrowed
		s.authorization, s.borrowed = nil, nil
		if to == nil {
			return nil
		}
		_, err := to.Write(p.text)
		return err
	}
	to := s.to()
	st := understand(p.code)
	if s.database != nil && ofDatabase(st) {
		to = s.database
	} else if s.selection != nil && !s.selection.wants(p.code, st) {
		return nil
	}
	if s.authorization != nil {
		if _, err := to.Write(s.authorization); err != nil {
			return err
		}
		s.authorization, s.borrowed = nil, to
	}
	_, err := to.Write(p.text)
	return err
}

// ofDatabase tells statements that concern the database as such: they work from
// any database, and have to be changed when it gets another name.
func ofDatabase(st statement) bool {
	return st.kind == stmtDatabase || st.verb == "alter" && st.kind == "role"
}

// writeSequences writes the positions of all sequences. They are not part of a
// snapshot: each is at least what it was there, as it has to be.
func (d *dump) writeSequences(ctx context.Context, db *databaseDump) error {
	var sequences []*relation
	for _, r := range db.relations {
		if r.kind == "S" && r.noRows == "" {
			sequences = append(sequences, r)
		}
	}
	if len(sequences) == 0 {
		return nil
	}
	db.sequences = true
	out := d.out.create(ctx, databaseStream(db.name, "sequences.sql"), dbdump.StreamOptions{})
	_, err := out.Write([]byte("SET client_encoding = 'UTF8';\nSET standard_conforming_strings = on;\n"))
	const batch = 100
	for err == nil && len(sequences) > 0 {
		n := min(batch, len(sequences))
		err = positions(ctx, db.holder, sequences[:n], out)
		sequences = sequences[n:]
	}
	_, err = out.end(err)
	return err
}

func positions(ctx context.Context, s *session, sequences []*relation, out *lazyStream) error {
	queries := make([]string, len(sequences))
	for i, r := range sequences {
		queries[i] = fmt.Sprintf("SELECT %d, last_value, is_called FROM %s", i, r.qualified())
	}
	values := make([]string, len(sequences))
	err := s.each(ctx, strings.Join(queries, " UNION ALL "), func(r row) error {
		i, err := r.int(0)
		if err != nil {
			return err
		}
		values[i] = fmt.Sprintf("SELECT pg_catalog.setval(%s, %s, %t);\n", quoteString(sequences[i].qualified()), r.at(1), r.at(2) == "t")
		return nil
	})
	if err != nil {
		return err
	}
	_, err = out.Write([]byte(strings.Join(values, "")))
	return err
}
