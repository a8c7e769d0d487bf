package mysql

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// loader is one load: what is loaded, where to, and what has been done so far.
//
// The order is that of needs. Accounts come first, since definers must exist; then schemas, sequences and tables with
// the keys that cannot wait; then the rows, table by table, each followed by its remaining keys and by the comparison
// of its rows; then foreign keys, routines, views and triggers, which must not see a row arrive; grants that waited
// for an object; and last, when everything has been compared, events, which start to run when they exist.
//
// A load that fails leaves what it has done: it is repeated with LoadOptions.Replace.
type loader struct {
	engine   *Engine
	opts     LoadOptions
	source   dbdump.Source
	dump     record.Report
	plan     *loadPlan
	server   Server
	settings sessionSettings
	log      *slog.Logger

	// insert is set when the server does not take LOAD DATA LOCAL.
	insert bool
	// takesHistory tells whether rows of the past can be given to the target, and latest what it calls the end of a
	// row of the present.
	takesHistory bool
	latest       string
	// past counts each table's rows of the past, by position in plan.tables.
	past []atomic.Int64
	// maxPacket is the longest statement that the server takes.
	maxPacket int64
	// idle are the sessions that no worker uses.
	idle chan *session
	// keys and foreign are the ALTER TABLE statements that wait for the rows of a table and for those of all, by
	// position in plan.tables; "" for none.
	keys, foreign []string
	// grants are statements on accounts that failed because an object was not there yet.
	grants []grant

	mu       sync.Mutex
	changed  globals
	warnings []string
	// broken are sessions in which something failed. The server may still be at work for them.
	broken []*session

	rows, bytes atomic.Int64
}

// Load implements dbdump.Engine.
func (e *Engine) Load(ctx context.Context, source dbdump.Source) (record.Report, error) {
	plan, err := planLoad(source.Report(), e.opts.Load)
	if err != nil {
		return record.Report{}, fmt.Errorf("plan load into %s: %w", e.opts.Address, err)
	}
	l := &loader{
		engine: e, opts: e.opts.Load, source: source, dump: source.Report(), plan: plan, log: e.opts.Logger,
		idle: make(chan *session, e.opts.Workers),
	}
	for range e.opts.Workers {
		l.idle <- nil // opened when it is first needed
	}
	err = l.run(ctx)
	l.closeSessions()
	if err != nil {
		// The server does not notice a closed socket while it builds keys or waits for a lock, and would hold up
		// whoever repeats the load.
		(&sessions{engine: e}).kill(context.WithoutCancel(ctx), l.broken)
		return record.Report{}, fmt.Errorf("load into %s: %w", e.opts.Address, err)
	}
	return l.report(), nil
}

// run is the order of the steps.
func (l *loader) run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, l.restoreGlobals(ctx)) }()
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"target", l.prepareTarget},
		{"accounts", l.loadAccounts},
		{"server objects", l.loadServerObjects},
		{"schemas", l.loadSchemas},
		{"sequences", l.loadSequences},
		{"tables", l.createTables},
		{"rows", l.loadTables},
		{"foreign keys", l.addForeignKeys},
		{"grants on tables", l.retryGrants},
		{"routines", l.loadRoutines},
		{"grants on routines", l.retryGrants},
		{"views", l.loadViews},
		{"grants on views", l.finishGrants},
		{"triggers", l.loadTriggers},
		{"comparison", l.compare},
		{"events", l.loadEvents},
	} {
		start := time.Now() //nolint:forbidigo // a duration for the log
		if err := step.run(ctx); err != nil {
			return err
		}
		l.log.Debug("load step done", "step", step.name, "seconds", time.Since(start).Seconds())
	}
	return nil
}

// report says what was done.
func (l *loader) report() record.Report {
	r := record.Report{
		Engine: l.dump.Engine, Layout: l.dump.Layout, Flavor: l.server.Flavor, Version: l.server.Version,
		CapturedAt: l.dump.CapturedAt, Coordinates: l.dump.Coordinates,
		Omitted: l.dump.Omitted, Warnings: l.warnings, Rows: l.rows.Load(), Bytes: l.bytes.Load(),
	}
	p := l.plan
	r.Objects = append(r.Objects, p.users...)
	for _, list := range [][]loadObject{p.server, p.schemas, p.sequences, p.tables, p.routines, p.views, p.triggers, p.events} {
		for _, object := range list {
			object.Object.Schema = object.Target
			if object.Kind == KindSchema {
				object.Object.Name = object.Target
			}
			r.Objects = append(r.Objects, object.Object)
		}
	}
	return r
}

// warn records something that the user should know of though the load goes on.
func (l *loader) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	l.log.Warn(text)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.warnings = append(l.warnings, text)
}

// progress tells what was done since the last call.
func (l *loader) progress(p Progress) {
	if l.engine.opts.Progress != nil {
		l.engine.opts.Progress(p)
	}
}

// session runs fn with a session of the target that nobody else uses.
func (l *loader) session(ctx context.Context, fn func(*session) error) error {
	var s *session
	select {
	case s = <-l.idle:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s == nil {
		var err error
		if s, err = l.open(ctx); err != nil {
			l.idle <- nil
			return err
		}
	}
	err := fn(s)
	if err != nil {
		// Whatever state it is in, the next one starts afresh.
		l.abandon(s)
		s = nil
	}
	l.idle <- s
	return err
}

// abandon closes a session in which something failed.
func (l *loader) abandon(s *session) {
	s.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = append(l.broken, s)
}

// open makes a session that has every setting a load needs.
func (l *loader) open(ctx context.Context) (*session, error) {
	s, err := l.engine.openSession(ctx)
	if err != nil {
		return nil, err
	}
	if err := l.settings.prepare(ctx, s); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// closeSessions ends all sessions; no worker may be running.
func (l *loader) closeSessions() {
	for range cap(l.idle) {
		if s := <-l.idle; s != nil {
			s.Close()
		}
	}
}

// parallel runs fn for each index below n, as many at once as there are workers, and stops at the first error.
func (l *loader) parallel(ctx context.Context, n int, fn func(ctx context.Context, s *session, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(n, cap(l.idle)) {
		group.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || ctx.Err() != nil {
					return ctx.Err()
				}
				if err := l.session(ctx, func(s *session) error { return fn(ctx, s, i) }); err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}
