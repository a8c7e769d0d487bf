package mysql

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"golang.org/x/sync/errgroup"

	"keepset/internal/dbdump"
)

// tables are all base tables, sequences and views, schema by schema.
func (c *catalog) tables() iter.Seq[*table] {
	return func(yield func(*table) bool) {
		for _, s := range c.schemas {
			for _, t := range s.tables {
				if !yield(t) {
					return
				}
			}
		}
	}
}

// work runs tasks on all workers until produce has returned and its tasks are
// done, or one has failed.
func (d *dump) work(ctx context.Context, produce func(ctx context.Context, emit func(task) error) error) error {
	outer := ctx
	group, ctx := errgroup.WithContext(outer)
	tasks := make(chan task)
	for _, s := range d.workers {
		group.Go(func() error {
			for t := range tasks {
				if err := s.scoped(ctx, t); err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(tasks)
		return produce(ctx, func(t task) error {
			select {
			case tasks <- t:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	})
	return withCause(outer, group.Wait())
}

// withCause adds to an error why the context ended, where that is what failed
// the work: the reason is what users and callers want to know.
func withCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		return errors.Join(cause, err)
	}
	return err
}

// task is done by whichever worker is free, on its session.
type task func(ctx context.Context, s *session) error

// scoped runs a task between a savepoint and the return to it. That keeps the
// consistent read, and gives back the locks on definitions which the task's
// queries took: held to the end of the transaction, they would make DDL wait
// for the whole dump, and everybody else's queries queue up behind the DDL.
func (s *session) scoped(ctx context.Context, t task) error {
	if err := s.exec(ctx, "SAVEPOINT keepset"); err != nil {
		return err
	}
	if err := t(ctx, s); err != nil {
		return err
	}
	return s.exec(ctx, "ROLLBACK TO SAVEPOINT keepset")
}

// writeTables writes definition and rows of the base tables that fit selects.
// The largest come first, so that no worker is left alone with one at the end.
func (d *dump) writeTables(ctx context.Context, fit func(*table) bool, planner *session) error {
	var tables []*table
	for t := range d.catalog.tables() {
		if t.base() && fit(t) {
			t.done = true
			tables = append(tables, t)
		}
	}
	slices.SortStableFunc(tables, func(a, b *table) int { return int(min(1, max(-1, b.size-a.size))) })
	return d.work(ctx, func(ctx context.Context, emit func(task) error) error {
		for _, t := range tables {
			// The definition goes with the first piece: small tables, which
			// are most, cost one task.
			definition := func(ctx context.Context, s *session) error { return d.writeTable(ctx, s, t) }
			if t.structureOnly != "" {
				if err := emit(definition); err != nil {
					return err
				}
				continue
			}
			err := d.planTable(ctx, planner, t, func(p piece) error {
				before := definition
				definition = nil
				return emit(func(ctx context.Context, s *session) error {
					if before != nil {
						if err := before(ctx, s); err != nil {
							return err
						}
					}
					return d.dumpPiece(ctx, s, p)
				})
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// writeTable writes the definition of a table.
func (d *dump) writeTable(ctx context.Context, s *session, t *table) error {
	ddl, err := d.showCreateTable(ctx, s, t)
	if err != nil {
		return err
	}
	script := newScript()
	if !d.server.MariaDB() {
		// A server that insists on primary keys, or makes its own, would
		// build another table.
		script.add("/*!80013 SET SESSION sql_require_primary_key = 0 */")
		script.add("/*!80030 SET SESSION sql_generate_invisible_primary_key = 0 */")
	}
	script.add("/*M!100103 SET SESSION check_constraint_checks = 0 */")
	script.add(ddl)
	if err := d.out.script(ctx, objectStream(t.schema.name, "tables", t.name), dbdump.StreamOptions{}, script); err != nil {
		return err
	}
	t.autoIncrement = nextAutoIncrement(ddl)
	d.progress(Progress{Schema: t.schema.name, Table: t.name, Objects: 1})
	return nil
}

// checkCounts asks the server, in the consistent read, how many rows each
// table has that was cut into several pieces, and compares.
func (d *dump) checkCounts(ctx context.Context) error {
	return d.work(ctx, func(_ context.Context, emit func(task) error) error {
		for t := range d.catalog.tables() {
			layout := d.layouts[t]
			if layout == nil || len(layout.streams)+len(layout.typed) < 2 || !t.transactional {
				continue
			}
			err := emit(func(ctx context.Context, s *session) error { return d.checkCount(ctx, s, t, layout.rows) })
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (d *dump) checkCount(ctx context.Context, s *session, t *table, written int64) error {
	var rows int64
	if err := s.queryRow(ctx, "SELECT COUNT(*) FROM "+t.from("", nil), &rows); err != nil {
		return err
	}
	if rows != written {
		return fmt.Errorf("table %s: %d rows were written but the server counts %d in the same consistent read", t, written, rows)
	}
	return nil
}
