package postgres

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"keepset/internal/dbdump"
)

// rowsTask is one stream of rows.
type rowsTask struct {
	table  string // that has to be locked
	copy   string // COPY ... TO STDOUT, without its options
	stream string
	done   func(rows int64, exists bool) // called under a lock
}

// writeRows writes all rows of a database, on several connections.
func (d *dump) writeRows(ctx context.Context, db *databaseDump) error {
	tasks := d.rowsTasks(db)
	if len(tasks) == 0 {
		return nil
	}
	var mu sync.Mutex
	queue := make(chan rowsTask)
	group, ctx := errgroup.WithContext(ctx)
	for range min(d.opts.Workers, len(tasks)) {
		group.Go(func() error {
			s, err := d.worker(ctx, db)
			if err != nil {
				return err
			}
			defer s.abandon()
			for t := range queue {
				rows, exists, err := d.runTask(ctx, s, db, t)
				if err != nil {
					return err
				}
				mu.Lock()
				t.done(rows, exists)
				mu.Unlock()
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(queue)
		for _, t := range tasks {
			select {
			case queue <- t:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	return group.Wait()
}

// worker opens a session that sees the database's snapshot.
func (d *dump) worker(ctx context.Context, db *databaseDump) (*session, error) {
	s, err := d.engine.connect(ctx, db.name)
	if err != nil {
		return nil, err
	}
	if err = s.exec(ctx, beginRead); err == nil {
		err = s.exec(ctx, "SET TRANSACTION SNAPSHOT "+quoteString(db.snapshot))
	}
	if err != nil {
		s.abandon()
		return nil, err
	}
	return s, nil
}

// rowsTasks are the pieces of all tables, those of the largest first, so that no
// worker is left alone with one at the end.
func (d *dump) rowsTasks(db *databaseDump) []rowsTask {
	tables := slices.DeleteFunc(slices.Clone(db.relations), func(r *relation) bool { return !r.stores() || r.noRows != "" })
	slices.SortStableFunc(tables, func(a, b *relation) int { return cmp.Compare(b.size, a.size) })
	tasks := d.largeObjectTasks(db)
	for _, r := range tables {
		tasks = append(tasks, d.tableTasks(db, r)...)
	}
	return tasks
}

// tableTasks cuts a table into ranges of blocks, of which the last one has no
// end: blocks that are added later hold nothing that the snapshot sees, and it
// costs nothing to look.
func (d *dump) tableTasks(db *databaseDump, r *relation) []rowsTask {
	done := func(stream string) func(int64, bool) {
		return func(rows int64, exists bool) {
			r.rows += rows
			if exists {
				r.data = append(r.data, stream)
			}
		}
	}
	names := make([]string, len(r.columns))
	for i, c := range r.columns {
		names[i] = quoteIdentifier(c.name)
	}
	list := strings.Join(names, ", ")
	if list != "" {
		list = " (" + list + ")"
	}
	ranges := blockRanges(r.size, d.server.blockSize, d.opts.ChunkBytes)
	if !r.heap || r.condition != "" || len(ranges) == 1 {
		r.parts = 1
		from := r.qualified() + list
		if r.condition != "" {
			from = fmt.Sprintf("(SELECT %s FROM ONLY %s %s)", strings.Join(names, ", "), r.qualified(), r.condition)
		}
		stream := dataStream(db.name, r.schema, r.name, 0)
		return []rowsTask{{table: r.qualified(), copy: from, stream: stream, done: done(stream)}}
	}
	r.parts = len(ranges)
	var tasks []rowsTask
	for i, where := range ranges {
		stream := dataStream(db.name, r.schema, r.name, i)
		tasks = append(tasks, rowsTask{
			table:  r.qualified(),
			copy:   fmt.Sprintf("(SELECT %s FROM ONLY %s WHERE %s)", strings.Join(names, ", "), r.qualified(), where),
			stream: stream, done: done(stream),
		})
	}
	return tasks
}

// blockRanges are conditions on ctid that cut a table of so many bytes into
// pieces; one, which may be ignored, for a table of a single piece.
func blockRanges(size, block, piece int64) []string {
	blocks := max(1, piece/block)
	var ranges []string
	for from := int64(0); from == 0 || from*block < size; from += blocks {
		where := fmt.Sprintf("ctid >= '(%d,0)'", from)
		if (from+blocks)*block < size {
			where += fmt.Sprintf(" AND ctid < '(%d,0)'", from+blocks)
		}
		ranges = append(ranges, where)
	}
	return ranges
}

// runTask writes one stream of rows over a worker's session. Where somebody waits
// to change the table, a new lock would queue up behind him, who waits for the
// holder: then the holder, which has its lock, reads the rows itself.
func (d *dump) runTask(ctx context.Context, s *session, db *databaseDump, t rowsTask) (rows int64, exists bool, _ error) {
	if t.table != "" {
		err := s.exec(ctx, "SAVEPOINT keepset; LOCK TABLE ONLY "+t.table+" IN ACCESS SHARE MODE NOWAIT; RELEASE SAVEPOINT keepset")
		if sqlState(err) == stateLockNotAvailable {
			if err := s.exec(ctx, "ROLLBACK TO SAVEPOINT keepset; RELEASE SAVEPOINT keepset"); err != nil {
				return 0, false, err
			}
			db.holding.Lock()
			defer db.holding.Unlock()
			return d.copyOut(ctx, db.holder, db, t)
		}
		if err != nil {
			return 0, false, err
		}
	}
	return d.copyOut(ctx, s, db, t)
}

// copyOut writes one stream of rows and counts them as the server does.
func (d *dump) copyOut(ctx context.Context, s *session, db *databaseDump, t rowsTask) (rows int64, exists bool, _ error) {
	out := d.out.create(ctx, t.stream, dbdump.StreamOptions{})
	query := "COPY " + t.copy + " TO STDOUT WITH (FORMAT text, ENCODING " + quoteString(db.encoding) + ")"
	tag, err := s.conn.CopyTo(ctx, out, query)
	if err != nil {
		err = s.queryError(ctx, query, err)
	}
	exists, err = out.end(err)
	return tag.RowsAffected(), exists, err
}

// checkCounts asks, in the snapshot, how many rows each table has that was cut
// into pieces, and compares.
func (d *dump) checkCounts(ctx context.Context, db *databaseDump) error {
	for _, r := range db.relations {
		if r.parts < 2 {
			continue
		}
		rows, err := db.holder.number(ctx, "SELECT count(*) FROM ONLY "+r.qualified())
		if err != nil {
			return err
		}
		if rows != r.rows {
			return fmt.Errorf("table %s of database %s: %d rows were written but the server counts %d in the same snapshot", r.qualified(), db.name, r.rows, rows)
		}
	}
	return nil
}
