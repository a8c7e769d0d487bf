package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// loadTask is one stream of rows and where it goes.
type loadTask struct {
	stream string
	copy   string // COPY ... FROM STDIN, without its options; "" for large objects
	rows   *atomic.Int64
}

// loadRows loads the rows of all selected tables, on several connections, and
// compares how many the server took with how many were dumped.
func (l *loader) loadRows(ctx context.Context, db *loadDatabase) error {
	var tasks []loadTask
	counts := map[int]*atomic.Int64{}
	for i, o := range db.objects {
		if o.Kind != KindTable && o.Kind != KindLargeObjects || o.Rows < 0 {
			continue
		}
		counts[i] = &atomic.Int64{}
		for _, stream := range o.Data {
			t := loadTask{stream: stream, rows: counts[i]}
			if o.Kind == KindTable {
				t.copy = db.copyInto(o)
			}
			tasks = append(tasks, t)
		}
	}
	if err := l.runTasks(ctx, db, tasks); err != nil {
		return err
	}
	for i, o := range db.objects {
		if counts[i] == nil {
			continue
		}
		if got := counts[i].Load(); got != o.Rows {
			return fmt.Errorf("%w: %s %s.%s: %d rows were loaded, %d were dumped", dbdump.ErrMismatch, o.Kind, o.Schema, o.Name, got, o.Rows)
		}
		l.rows.Add(o.Rows)
	}
	return nil
}

// copyInto is where the rows of a table go, with their columns: the table
// itself, or, where it may have to be another partition here, the topmost one
// above it that is loaded.
func (db *loadDatabase) copyInto(o record.Object) string {
	columns := make([]string, len(o.Columns))
	for i, c := range o.Columns {
		columns[i] = c.Name
	}
	to := qualifiedName(o)
	if root := db.rootOf(o); root != "" {
		to = root
	}
	return to + columnList(columns)
}

// rootOf is the table to which the rows of a partition are given, quoted; "" when
// that is the partition itself.
func (db *loadDatabase) rootOf(o record.Object) string {
	above := unquoteNames(o.Attributes[AttrPartitionOf])
	if root := o.Attributes[AttrRoot]; root == "" {
		return ""
	} else if len(above) == 0 { // a dump that does not say what is between them
		above = unquoteNames(root)
	}
	for _, table := range slices.Backward(above) {
		if db.creates(table) {
			return quoteQualified(table[0], table[1])
		}
	}
	return ""
}

// runTasks runs the tasks on as many sessions as there are workers.
func (l *loader) runTasks(ctx context.Context, db *loadDatabase, tasks []loadTask) error {
	if len(tasks) == 0 {
		return nil
	}
	queue := make(chan loadTask)
	group, inner := errgroup.WithContext(ctx)
	for range min(l.engine.opts.Workers, len(tasks)) {
		group.Go(func() error {
			return l.in(inner, db, func(s *session) error {
				for t := range queue {
					if err := l.runTask(inner, s, db, t); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	group.Go(func() error {
		defer close(queue)
		for _, t := range tasks {
			select {
			case queue <- t:
			case <-inner.Done():
				return context.Cause(inner)
			}
		}
		return nil
	})
	return group.Wait()
}

func (l *loader) runTask(ctx context.Context, s *session, db *loadDatabase, t loadTask) error {
	if t.copy == "" {
		return l.loadLargeObjects(ctx, s, t)
	}
	rows, err := l.copyIn(ctx, s, t.stream, t.copy, db.self.Attributes[AttrEncoding])
	t.rows.Add(rows)
	return err
}

// copyIn gives a stream of rows to the server and returns how many it took.
func (l *loader) copyIn(ctx context.Context, s *session, stream, into, encoding string) (rows int64, err error) {
	source, err := l.source.Open(ctx, stream)
	if err != nil {
		return 0, fmt.Errorf("open stream %s: %w", stream, err)
	}
	whole := &wholeLines{r: &countingReader{r: source, n: &l.bytes}}
	query := "COPY " + into + " FROM STDIN WITH (FORMAT text, ENCODING " + quoteString(encoding) + ")"
	tag, err := s.conn.CopyFrom(ctx, whole, query)
	if err != nil {
		err = s.queryError(ctx, query, err)
	}
	// The server says only that the copy was given up.
	if readErr := whole.stop(); readErr != nil {
		err = errors.Join(readErr, err)
	}
	if closeErr := source.Close(); closeErr != nil {
		err = errors.Join(closeErr, err)
	}
	if err != nil {
		return 0, fmt.Errorf("load stream %s: %w", stream, err)
	}
	return tag.RowsAffected(), nil
}

// wholeLines refuses rows that do not end in a line break, which COPY takes: a
// stream that is cut off in its last row may be a shorter row. It can be stopped:
// the driver may still be reading when a broken connection has ended a copy.
type wholeLines struct {
	mu      sync.Mutex
	r       io.Reader
	partial bool
	stopped bool
	err     error
}

var (
	errCutOff  = errors.New("the rows end in the middle of one")
	errStopped = errors.New("the copy has ended")
)

// Read implements io.Reader.
func (w *wholeLines) Read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return 0, errStopped
	}
	n, err := w.r.Read(p)
	if n > 0 {
		w.partial = p[n-1] != '\n'
	}
	if errors.Is(err, io.EOF) {
		if !w.partial {
			return n, io.EOF
		}
		err = errCutOff
	}
	w.err = err
	return n, err
}

// stop ends the reading, and returns what was wrong with the stream.
func (w *wholeLines) stop() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	return w.err
}

// loadLargeObjects writes the content of large objects, which exist. The pieces
// take a way over a temporary table, since there is no COPY into a function.
func (l *loader) loadLargeObjects(ctx context.Context, s *session, t loadTask) error {
	const create = "CREATE TEMPORARY TABLE keepset_large_objects (loid pg_catalog.oid, position pg_catalog.int8, data pg_catalog.bytea) ON COMMIT DROP"
	for _, q := range []string{"BEGIN", create} {
		if err := s.exec(ctx, q); err != nil {
			return err
		}
	}
	copied, err := l.copyIn(ctx, s, t.stream, "pg_temp.keepset_large_objects", "UTF8")
	if err != nil {
		return err
	}
	put := int64(0)
	err = s.each(ctx, "SELECT pg_catalog.lo_put(loid, position, data) FROM pg_temp.keepset_large_objects", func(row) error {
		put++
		return nil
	})
	if err != nil {
		return err
	}
	if put != copied {
		return fmt.Errorf("%w: stream %s: %d pieces of large objects were written, of %d", dbdump.ErrMismatch, t.stream, put, copied)
	}
	t.rows.Add(put)
	return s.exec(ctx, "COMMIT")
}

// compare asks the target how many rows each table has.
func (l *loader) compare(ctx context.Context, db *loadDatabase) error {
	return l.in(ctx, db, func(s *session) error {
		for _, o := range db.of(KindTable) {
			if o.Rows < 0 || db.rootOf(o) != "" {
				continue
			}
			rows, err := s.number(ctx, "SELECT count(*) FROM ONLY "+qualifiedName(o)+" "+o.Attributes[AttrCondition])
			if err != nil {
				return err
			}
			if rows != o.Rows {
				return fmt.Errorf("%w: table %s: it holds %d rows, %d were dumped", dbdump.ErrMismatch,
					tableLabel(db.target, o.Attributes[AttrSchema], o.Name), rows, o.Rows)
			}
		}
		return nil
	})
}

// countWithRows is how many of the objects are not left out for what they are.
func countWithRows(list []record.Object) int {
	n := 0
	for _, o := range list {
		if o.Attributes[AttrNoRows] == "" {
			n++
		}
	}
	return n
}
