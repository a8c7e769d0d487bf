package mysql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// deferRows is how many rows a table must have for its secondary keys to be built after the load: below, the second
// statement costs more than it saves.
const deferRows = 20_000

// bulkStreams is how many streams a table may have for MariaDB's bulk load, which takes a table's rows in one
// statement on one connection and sorts them through temporary files of the server: quicker than several connections
// until the table is so large that it would keep a single one busy for long and fill the temporary directory.
const bulkStreams = 64

// loadSchemas creates the databases; those of which only some tables are loaded may be there already.
func (l *loader) loadSchemas(ctx context.Context) error {
	return l.session(ctx, func(s *session) error {
		for _, o := range l.plan.schemas {
			if !l.plan.whole[o.Target] {
				exists := 0
				query := "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME=" + quoteString(o.Target)
				if err := s.queryRow(ctx, query, &exists); err != nil {
					return err
				}
				if exists > 0 {
					continue
				}
			}
			statements, err := l.statements(ctx, o.DDL)
			if err != nil {
				return err
			}
			if err := l.editAll(statements, o, nil); err != nil {
				return err
			}
			if err := l.runStatements(ctx, s, "", statements); err != nil {
				return fmt.Errorf("create %s: %w", o, err)
			}
		}
		return nil
	})
}

func (l *loader) loadSequences(ctx context.Context) error {
	return l.parallel(ctx, len(l.plan.sequences), func(ctx context.Context, s *session, i int) error {
		return l.loadScript(ctx, s, l.plan.sequences[i], nil)
	})
}

// createTables creates all tables without what waits for their rows.
func (l *loader) createTables(ctx context.Context) error {
	l.warnOfMemory()
	l.keys = make([]string, len(l.plan.tables))
	l.foreign = make([]string, len(l.plan.tables))
	return l.parallel(ctx, len(l.plan.tables), func(ctx context.Context, s *session, i int) error {
		o := l.plan.tables[i]
		created := false
		err := l.loadScript(ctx, s, o, func(statement string, quote quoting) (string, error) {
			if !isCreateTable(statement, quote) {
				// A default may be a date that the source took under that mode.
				return strings.Replace(statement, "sql_mode = "+preambleMode, "sql_mode = '"+laxSQLMode+"'", 1), nil
			}
			if created {
				return "", fmt.Errorf("stream %s creates two tables", o.DDL)
			}
			created = true
			ddl, err := splitTable(statement, quote, l.deferKeys(o))
			if err != nil {
				return "", err
			}
			l.keys[i], l.foreign[i] = alterAdd(o, ddl.keys), alterAdd(o, ddl.foreign)
			return ddl.create, nil
		})
		if err != nil {
			return err
		}
		if !created {
			return fmt.Errorf("create %s: stream %s holds no CREATE TABLE statement", o, o.DDL)
		}
		return nil
	})
}

// isCreateTable reports whether the statement creates a table.
func isCreateTable(statement string, quote quoting) bool {
	l := lexer{text: statement, quote: quote}
	for i := 0; ; i++ {
		tok, ok, err := l.next()
		switch {
		case err != nil || !ok:
			return false
		case i == 0 && !tok.is(statement, "CREATE"):
			return false
		case tok.is(statement, "TABLE"):
			return true
		case i > 0 && !tok.is(statement, "OR") && !tok.is(statement, "REPLACE"):
			return false
		}
	}
}

// warnOfMemory says which tables of a seed will be empty when it has become a pod.
func (l *loader) warnOfMemory() {
	var tables []string
	for _, o := range l.plan.tables {
		if strings.EqualFold(o.Attributes[AttrEngine], "MEMORY") && o.Rows != 0 {
			tables = append(tables, o.String())
		}
	}
	if l.opts.Seed && len(tables) > 0 {
		l.warn("tables of engine MEMORY will be empty when the seed has stopped, and a follower breaks where its upstream changes or deletes a row in one of them: %s", shorten(tables))
	}
}

// alterAdd writes the statement that adds the definitions, "" when there are none.
func alterAdd(o loadObject, definitions []string) string {
	if len(definitions) == 0 {
		return ""
	}
	return "ALTER TABLE " + quoteQualified(o.Target, o.Name) + " ADD " + strings.Join(definitions, ", ADD ")
}

// deferKeys tells whether the table's secondary keys are better built when its rows are there.
func (l *loader) deferKeys(o loadObject) bool {
	return o.Rows >= deferRows && strings.EqualFold(o.Attributes[AttrEngine], "InnoDB") &&
		o.Attributes[AttrSystemVersioned] == "" && !l.bulk(o)
}

// bulk tells whether MariaDB will sort the table's rows by itself: the first statement that inserts into an empty
// InnoDB table with unique_checks and foreign_key_checks off builds all its indexes that way (MariaDB 10.7 and later).
//
// Not for columns of long values: MariaDB 10.11 hangs when a value in such a load is larger than its buffer pool.
func (l *loader) bulk(o loadObject) bool {
	return l.server.MariaDB() && l.server.AtLeast(10, 7, 0) && !l.insert && transactional(o) &&
		o.Attributes[AttrPartitioned] == "" && o.Attributes[AttrSystemVersioned] == "" && len(o.Data) <= bulkStreams &&
		!slices.ContainsFunc(o.Columns, func(c record.Column) bool { return longType(c.Type) })
}

// longType reports whether values of the type may be larger than a server's memory likes.
func longType(columnType string) bool {
	name, _, _ := strings.Cut(strings.ToLower(columnType), " ")
	switch name {
	case "longblob", "longtext", "mediumblob", "mediumtext", "json", "geometry", "geometrycollection", "linestring", "polygon",
		"multipoint", "multilinestring", "multipolygon":
		return true
	}
	return false
}

// loadTables loads the rows of all tables. A table's streams are loaded side by side where that is possible; whoever
// loads the last one adds the table's keys.
func (l *loader) loadTables(ctx context.Context) error {
	jobs := l.rowJobs()
	group, ctx := errgroup.WithContext(ctx)
	queue := make(chan rowJob)
	for range min(len(jobs), cap(l.idle)) {
		group.Go(func() error {
			for job := range queue {
				if err := l.session(ctx, func(s *session) error { return l.loadRows(ctx, s, job) }); err != nil {
					return fmt.Errorf("load rows of %s: %w", job.table, err)
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(queue)
		for _, job := range jobs {
			select {
			case queue <- job:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	return group.Wait()
}

// addForeignKeys adds the foreign keys that waited for all tables and their keys. Two of them may want to lock the
// same tables in opposite order: the server picks a victim, which tries again.
func (l *loader) addForeignKeys(ctx context.Context) error {
	var waiting []int
	for i, statement := range l.foreign {
		if statement != "" {
			waiting = append(waiting, i)
		}
	}
	return l.parallel(ctx, len(waiting), func(ctx context.Context, s *session, n int) error {
		i := waiting[n]
		if err := l.begin(ctx, s, l.plan.tables[i].Target); err != nil {
			return err
		}
		if err := l.again(ctx, func() error { return s.exec(ctx, l.foreign[i]) }); err != nil {
			return fmt.Errorf("add foreign keys of %s: %w", l.plan.tables[i], privilegeError(err, "the account of the load lacks a privilege"))
		}
		return nil
	})
}

// again runs fn, and again when the server chose it as the victim of a deadlock.
func (l *loader) again(ctx context.Context, fn func() error) error {
	const most = 10
	for try := 1; ; try++ {
		err := fn()
		if n := errorNumber(err); n != errDeadlock && n != errLockWaitTimeout || try == most || ctx.Err() != nil {
			return err
		}
		l.log.Debug("deadlock, trying again", "try", try)
	}
}

// compare counts the rows of every table on the target.
func (l *loader) compare(ctx context.Context) error {
	return l.parallel(ctx, len(l.plan.tables), func(ctx context.Context, s *session, i int) error {
		o := l.plan.tables[i]
		if o.Rows < 0 || o.Attributes[AttrStructureOnly] != "" {
			return nil
		}
		if err := l.begin(ctx, s, ""); err != nil {
			return err
		}
		past := l.past[i].Load()
		if err := l.compareRows(ctx, s, o, "", o.Rows-past); err != nil || !hasHistory(o) {
			return err
		}
		all := o.Rows
		if !l.takesHistory && past > 0 {
			l.warn("%s: its history (%d rows) was left out: MariaDB before 10.11 cannot be given any", o, past)
			all -= past
		}
		return l.compareRows(ctx, s, o, " FOR SYSTEM_TIME ALL", all)
	})
}

// compareRows counts the rows of a table, or of a period of it.
func (l *loader) compareRows(ctx context.Context, s *session, o loadObject, period string, want int64) error {
	var rows int64
	if err := s.queryRow(ctx, "SELECT COUNT(*) FROM "+quoteQualified(o.Target, o.Name)+period, &rows); err != nil {
		return fmt.Errorf("count rows of %s: %w", o, err)
	}
	if rows != want {
		return fmt.Errorf("%w: %s has %d rows%s, the backup has %d", dbdump.ErrMismatch, o, rows, period, want)
	}
	return nil
}
