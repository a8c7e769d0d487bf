package mysql

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"

	mysqldriver "github.com/go-sql-driver/mysql"

	"keepset/internal/dbdump"
)

// rowJob is a part of a table's rows that one connection loads in one transaction.
type rowJob struct {
	table   loadObject
	streams []string
	state   *tableState
}

// tableState is what the jobs of a table share.
type tableState struct {
	jobs atomic.Int64  // still to be finished
	rows atomic.Int64  // read from the backup and loaded, or left out on purpose
	past *atomic.Int64 // of these, rows of the past
	keys string        // the statement that adds the keys afterwards
}

// rowJobs cuts the rows of all tables into jobs.
func (l *loader) rowJobs() []rowJob {
	var lists [][]rowJob
	l.past = make([]atomic.Int64, len(l.plan.tables))
	for i, o := range l.plan.tables {
		if o.Attributes[AttrStructureOnly] != "" {
			continue
		}
		state := &tableState{keys: l.keys[i], past: &l.past[i]}
		var list []rowJob
		switch {
		case len(o.Data) == 0:
		case l.bulk(o) || !transactional(o):
			// One statement sorts everything, or locks the whole table anyway.
			list = []rowJob{{table: o, streams: o.Data, state: state}}
		default:
			for _, stream := range o.Data {
				list = append(list, rowJob{table: o, streams: []string{stream}, state: state})
			}
		}
		for stream := range strings.FieldsSeq(o.Attributes[AttrTyped]) {
			list = append(list, rowJob{table: o, streams: []string{stream}, state: state})
		}
		if len(list) == 0 { // no rows: their number and the keys remain
			list = []rowJob{{table: o, state: state}}
		}
		state.jobs.Store(int64(len(list)))
		lists = append(lists, list)
	}
	return interleave(lists, cap(l.idle))
}

// interleave takes jobs from as many tables at a time as there are workers, in turn, so that they seldom meet in the
// same table and yet each table is finished, and gets its keys, early. The tables with most jobs come first.
func interleave(lists [][]rowJob, workers int) []rowJob {
	slices.SortStableFunc(lists, func(a, b []rowJob) int { return len(b) - len(a) })
	var jobs []rowJob
	var open [][]rowJob
	for len(lists) > 0 || len(open) > 0 {
		for len(open) < workers && len(lists) > 0 {
			open, lists = append(open, lists[0]), lists[1:]
		}
		left := open[:0]
		for _, list := range open {
			jobs = append(jobs, list[0])
			if len(list) > 1 {
				left = append(left, list[1:])
			}
		}
		open = left
	}
	return jobs
}

// transactional reports whether a statement on the table can be rolled back and tried again.
func transactional(o loadObject) bool {
	return strings.EqualFold(o.Attributes[AttrEngine], "InnoDB")
}

// loadRows does one job, and when it was the table's last one finishes the table.
func (l *loader) loadRows(ctx context.Context, s *session, job rowJob) error {
	if len(job.streams) > 0 {
		load := func() error { return l.loadInTransaction(ctx, s, job) }
		if transactional(job.table) {
			once := load
			load = func() error { return l.again(ctx, once) }
		}
		if err := load(); err != nil {
			return err
		}
	}
	if job.state.jobs.Add(-1) > 0 {
		return nil
	}
	if rows := job.state.rows.Load(); job.table.Rows >= 0 && rows != job.table.Rows {
		return fmt.Errorf("%w: %d rows were loaded, the backup has %d", dbdump.ErrMismatch, rows, job.table.Rows)
	}
	if job.state.keys != "" {
		if err := l.again(ctx, func() error { return s.exec(ctx, job.state.keys) }); err != nil {
			return fmt.Errorf("add keys: %w", privilegeError(err, "the account of the load lacks a privilege"))
		}
	}
	l.progress(Progress{Schema: job.table.Target, Table: job.table.Name, Objects: 1})
	return nil
}

// loadInTransaction loads a job's streams all or not at all.
func (l *loader) loadInTransaction(ctx context.Context, s *session, job rowJob) error {
	if err := l.begin(ctx, s, job.table.Target); err != nil {
		return err
	}
	if l.server.MariaDB() && !l.bulk(job.table) {
		// Without checks the first statement would lock the whole table for its bulk load, and the others would wait.
		if err := s.exec(ctx, "SET SESSION unique_checks=ON"); err != nil {
			return err
		}
	}
	if err := s.exec(ctx, "START TRANSACTION"); err != nil {
		return err
	}
	reader := &streamReader{ctx: ctx, source: l.source, streams: job.streams}
	rows, past, err := l.loadStreams(ctx, s, job, reader)
	err = errors.Join(err, reader.Close())
	if err == nil {
		err = s.exec(ctx, "COMMIT")
	}
	if err != nil {
		_, _ = s.ExecContext(context.WithoutCancel(ctx), "ROLLBACK") // the error that matters is known already
		return privilegeError(err, "the account of the load lacks a privilege")
	}
	job.state.past.Add(past)
	job.state.rows.Add(rows)
	l.rows.Add(rows)
	l.bytes.Add(reader.bytes)
	l.progress(Progress{Schema: job.table.Target, Table: job.table.Name, Rows: rows, Bytes: reader.bytes})
	return nil
}

// loadStreams sends the rows by the method that fits, and returns how many arrived, and how many of them are history.
func (l *loader) loadStreams(ctx context.Context, s *session, job rowJob, r io.Reader) (rows, past int64, err error) {
	switch {
	case strings.HasSuffix(job.streams[0], ".sql"):
		rows, err = l.loadTyped(ctx, s, job.table, r)
	case hasHistory(job.table):
		return l.loadHistory(ctx, s, job.table, r)
	case l.insert:
		rows, err = l.insertRows(ctx, s, job.table, r)
	default:
		rows, err = l.loadData(ctx, s, job.table, r)
	}
	return rows, 0, err
}

// loadData sends the rows by LOAD DATA LOCAL. The server reads past what it cannot take and says so in a warning
// (LOCAL implies IGNORE), so that a warning is an error here.
func (l *loader) loadData(ctx context.Context, s *session, o loadObject, r io.Reader) (int64, error) {
	enums := emptyEnumsOf(o.Columns)
	r = enums.reader(r)
	name := "keepset-" + rand.Text()
	mysqldriver.RegisterReaderHandler(name, func() io.Reader { return struct{ io.Reader }{r} })
	defer mysqldriver.DeregisterReaderHandler(name)
	columns, set := loadColumns(o)
	query := "LOAD DATA LOCAL INFILE 'Reader::" + name + "' INTO TABLE " + quoteQualified(o.Target, o.Name) +
		" CHARACTER SET binary (" + columns + ")" + set
	result, err := s.ExecContext(ctx, query)
	if err != nil {
		return 0, s.queryError("LOAD DATA LOCAL ... INTO TABLE "+quoteQualified(o.Target, o.Name), err)
	}
	if err := checkWarnings(ctx, s, enums); err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// loadColumns writes the column list of LOAD DATA and its SET clause.
func loadColumns(o loadObject) (columns, set string) {
	var list, sets []string
	for i, c := range o.Columns {
		name, variable := quoteIdentifier(c.Name), fmt.Sprintf("@v%d", i)
		switch c.Encoding {
		case EncodingHex:
			list, sets = append(list, variable), append(sets, name+"=UNHEX("+variable+")")
		case EncodingJSON:
			list, sets = append(list, variable), append(sets, name+"=CONVERT("+variable+" USING utf8mb4)")
		default:
			list = append(list, name)
		}
	}
	if len(list) == 0 { // all columns are generated: the lines are empty, and each makes a row
		list = []string{"@v"}
	}
	if len(sets) > 0 {
		set = " SET " + strings.Join(sets, ", ")
	}
	return strings.Join(list, ","), set
}

// loadTyped runs the INSERT statements of a stream that keeps rows as SQL. The stream sets a mode in which the server
// adjusts what it does not take, such as dates that it took under another one, and only warns of it: so the mode is
// that of a load again, where it is an error.
func (l *loader) loadTyped(ctx context.Context, s *session, o loadObject, r io.Reader) (int64, error) {
	var rows int64
	mode := loadSQLMode
	if emptyEnumsOf(o.Columns).any() {
		mode = laxSQLMode
	}
	err := eachStatement(r, func(statement string, quote quoting) error {
		if len(l.opts.Rename) > 0 {
			var err error
			if statement, err = l.renameIn(statement, quote, o); err != nil {
				return err
			}
		}
		result, err := s.ExecContext(ctx, statement)
		if err != nil {
			return s.queryError(firstWords(statement)+" ...", err) // what follows is the user's data
		}
		if strings.HasPrefix(statement, "SET ") {
			return s.exec(ctx, "SET SESSION sql_mode = '"+mode+"'") // which reads quotes and backslashes as the stream's
		}
		if mode == laxSQLMode {
			enums := emptyEnumsOf(o.Columns)
			enums.sent = int64(strings.Count(statement, "''"))
			if err := checkWarnings(ctx, s, enums); err != nil {
				return err
			}
		}
		n, err := result.RowsAffected()
		rows += n
		return err
	})
	return rows, err
}

// checkWarnings makes an error of what the last statement warned of, but for the empty values of enums.
func checkWarnings(ctx context.Context, s *session, enums *emptyEnums) error {
	var first string
	count := 0
	err := s.each(ctx, "SHOW WARNINGS", func(r row) error {
		if harmlessWarning(r.at(1)) || enums.excuses(r.at(1), r.at(2)) {
			return nil
		}
		if count++; count == 1 {
			first = fmt.Sprintf("%s %s: %s", strings.ToLower(r.at(0)), r.at(1), r.at(2))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if count > 0 {
		return fmt.Errorf("%w: the server adjusted or left out values: %s (and %d more)", dbdump.ErrMismatch, first, count-1)
	}
	return enums.check(ctx, s)
}

// harmlessWarning tells warnings of deprecated syntax and types, which change no value.
func harmlessWarning(code string) bool {
	return slices.Contains([]string{"1287", "1681", "3719", "3778", "4079"}, code)
}

// streamReader reads streams one after the other. Each is closed, and its end believed, before the next is opened.
type streamReader struct {
	ctx     context.Context //nolint:containedctx // io.Reader has no other way to get one
	source  dbdump.Source
	streams []string
	current io.ReadCloser
	last    byte // of what was read of the current stream
	bytes   int64
}

// Read implements io.Reader.
func (r *streamReader) Read(p []byte) (int, error) {
	for {
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
		if r.current == nil {
			if len(r.streams) == 0 {
				return 0, io.EOF
			}
			var err error
			r.last = 0
			if r.current, err = r.source.Open(r.ctx, r.streams[0]); err != nil {
				return 0, fmt.Errorf("open stream %s: %w", r.streams[0], err)
			}
		}
		n, err := r.current.Read(p)
		r.bytes += int64(n)
		if n > 0 {
			r.last = p[n-1]
		}
		switch {
		case err == nil:
			return n, nil
		case !errors.Is(err, io.EOF):
			return n, fmt.Errorf("read stream %s: %w", r.streams[0], err)
		case r.last != '\n':
			// The server would take what is there of the last row for a whole one.
			return n, fmt.Errorf("%w: stream %s ends within a row", dbdump.ErrMismatch, r.streams[0])
		}
		if err := r.Close(); err != nil {
			return n, err
		}
		r.streams = r.streams[1:]
		if n > 0 {
			return n, nil
		}
	}
}

// Close closes the stream that is open.
func (r *streamReader) Close() error {
	if r.current == nil {
		return nil
	}
	err := r.current.Close()
	r.current = nil
	if err != nil {
		return fmt.Errorf("close stream %s: %w", r.streams[0], err)
	}
	return nil
}
