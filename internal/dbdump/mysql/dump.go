package mysql

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// dump is one run of Dump.
type dump struct {
	opts     Options
	log      *slog.Logger
	server   Server
	grants   *grants
	sessions *sessions
	out      *writer
	// coordinator holds the lock; workers hold the consistent reads, and so
	// does planner, which looks for boundaries ahead of them.
	coordinator, planner *session
	workers              []*session
	catalog              *catalog
	accounts             string // fingerprint
	// catalogHeld tells that the catalog was read when nothing could change it:
	// what is created afterwards is no part of the dump.
	catalogHeld bool
	// catalogTook is how long the last reading of the catalog took.
	catalogTook     time.Duration
	definitionsHeld bool
	// idle is after how much silence the server ends the coordinator by itself; zero: when a lock may not be held any
	// longer, and lockGrace.
	idle time.Duration

	buffers sync.Pool
	mu      sync.Mutex
	layouts map[*table]*tableLayout
	// known are the tables and views of the dump, as schema.name.
	known map[string]bool
	// memory are the tables of engine MEMORY.
	memory []string
	// server-wide objects and accounts, as found.
	serverObjects bool
	users         []userObject
	report        record.Report
}

// Dump writes everything that the options select to w.
func (e *Engine) Dump(ctx context.Context, w dbdump.Sink) (report record.Report, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d := &dump{
		opts: e.opts, log: e.opts.Logger, out: &writer{sink: w},
		layouts: map[*table]*tableLayout{}, known: map[string]bool{},
		buffers: sync.Pool{New: func() any { return &rowWriter{buf: make([]byte, 0, flushAt+flushAt/4)} }},
	}
	if d.server, err = e.server(ctx); err != nil {
		return record.Report{}, err
	}
	d.sessions = &sessions{engine: e, setup: slices.Concat(activateRoles(d.server), dumpSetup(d.server))}
	defer func() { d.sessions.close(ctx, err != nil) }()
	d.report = record.Report{Engine: "mysql", Layout: Layout, Flavor: d.server.Flavor, Version: d.server.Version}
	if err := d.run(ctx, cancel); err != nil {
		return record.Report{}, withCause(ctx, err)
	}
	d.report.Bytes = d.out.bytes.Load()
	return d.report, nil
}

// run is the order of things. The comments of lock.go say why it is this one.
func (d *dump) run(ctx context.Context, cancel context.CancelCauseFunc) error {
	if err := d.prepare(ctx); err != nil {
		return err
	}
	if err := d.consistentPoint(ctx); err != nil {
		return err
	}
	stop := d.keepAlive(ctx, cancel)
	defer stop()
	if err := d.writeDefinitions(ctx); err != nil {
		return err
	}
	if err := d.writeTables(ctx, func(t *table) bool { return !t.done }, d.planner); err != nil {
		return err
	}
	if err := d.checkCounts(ctx); err != nil {
		return err
	}
	stop()
	if err := d.checkDrift(ctx); err != nil {
		return err
	}
	return d.assemble()
}

// prepare is everything that needs no lock.
func (d *dump) prepare(ctx context.Context) (err error) {
	if d.coordinator, err = d.sessions.get(ctx); err != nil {
		return err
	}
	if d.grants, err = readGrants(ctx, d.coordinator, d.server); err != nil {
		return err
	}
	if err := d.checkPrivileges(); err != nil {
		return err
	}
	if d.server.MariaDB() && (d.grants.has("BINLOG ADMIN") || d.grants.has("SUPER")) {
		// With the binary log on, MariaDB keeps locks on definitions beyond
		// the return to a savepoint, see scoped. The sessions only read.
		d.sessions.setup = append(d.sessions.setup, "SET SESSION sql_log_bin = 0")
	}
	if d.catalog, err = d.readCatalog(ctx, d.coordinator); err != nil {
		return err
	}
	if err := d.judgeTables(); err != nil {
		return err
	}
	if d.accounts, err = d.accountsFingerprint(ctx, d.coordinator); err != nil {
		return err
	}
	for range d.opts.Workers {
		s, err := d.sessions.get(ctx)
		if err != nil {
			return err
		}
		d.workers = append(d.workers, s)
	}
	d.planner, err = d.sessions.get(ctx)
	return err
}

// judgeTables says what will not be dumped with its rows, and refuses what the
// policy does not allow.
func (d *dump) judgeTables() error {
	if len(d.catalog.schemas) == 0 {
		d.warn("the server holds no database apart from its own")
	}
	d.memory = nil
	clear(d.known)
	for t := range d.catalog.tables() {
		d.known[t.schema.name+"."+t.name] = true
		if t.structureOnly != "" {
			d.omit(fmt.Sprintf("rows of table %s: %s", t, t.structureOnly))
			continue
		}
		if !d.server.MariaDB() && !d.typesKnown() && slices.ContainsFunc(t.columns, func(c column) bool { return c.dataType == "json" }) {
			d.warn("MySQL before 8.0.4 cannot tell decimals, dates and bytes inside JSON documents from numbers and strings: they are kept as these")
		}
		if t.versioned() && !t.keepsHistory() {
			d.omit(fmt.Sprintf("history of table %s: it is versioned by transaction numbers, which mean nothing in another server; current rows are kept", t))
		}
		if t.keepsHistory() && !d.server.AtLeast(10, 11, 0) {
			d.warn(fmt.Sprintf("table %s: its history is in the backup, but only MariaDB 10.11 and later can be given it: a server like this one gets the current rows", t))
		}
		if strings.EqualFold(t.engine, "MEMORY") {
			d.memory = append(d.memory, t.String())
		}
		if t.base() && !t.transactional && (d.opts.NonTransactional == NonTransactionalRefuse || d.opts.LockMode == LockNone) {
			return fmt.Errorf("table %s has engine %s, which has no consistent reads, and the options do not allow to read it under the lock: exclude it, convert it to InnoDB, or choose the lock policy", t, t.engine)
		}
	}
	return nil
}

// warnOfMemory says what becomes of MEMORY tables, whose rows a server loses whenever it stops.
func (d *dump) warnOfMemory() {
	if len(d.memory) > 0 {
		d.warn(fmt.Sprintf("tables of engine MEMORY lose their rows when their server stops, as a seed does before its pod starts: a follower then breaks at the next change of a row in %s; "+
			"convert them to InnoDB, or leave them out of replication (replicate-wild-ignore-table)", shorten(d.memory)))
	}
}

// consistentPoint locks, opens the consistent reads, reads all that has to be
// read under the lock, and lets writers go on.
func (d *dump) consistentPoint(ctx context.Context) error {
	mode, err := d.chooseLock()
	if err != nil {
		return err
	}
	restart, err := d.settleReplica(ctx, d.coordinator)
	if err != nil {
		return err
	}
	err = d.underLock(ctx, mode)
	d.warnOfMemory()
	return errors.Join(err, restart(context.WithoutCancel(ctx)))
}

func (d *dump) underLock(ctx context.Context, mode LockMode) error {
	l, err := d.acquireAny(ctx, mode)
	if err != nil {
		return err
	}
	if err := d.whileLocked(ctx, l); err != nil {
		return err
	}
	d.report.Consistency = l.recipe
	err = d.unlock(ctx, l)
	d.definitionsHeld = l.definitions
	return err
}

// whileLocked does what has to be done before writers go on, in bounded time.
func (d *dump) whileLocked(ctx context.Context, l *lock) error {
	ctx, cancel := d.held(ctx, l)
	defer cancel()
	err := d.openReads(ctx, l)
	if err == nil {
		err = d.readSequences(ctx, d.coordinator)
	}
	if err == nil && l.writers {
		err = d.writeTables(ctx, func(t *table) bool { return !t.transactional }, d.planner)
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	return withCause(ctx, err)
}

// openReads opens the consistent read of every worker and reads the
// coordinates of that moment. Where no lock covers the whole server, the
// position must not have moved meanwhile.
func (d *dump) openReads(ctx context.Context, l *lock) error {
	const start = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
	limit := time.Now().Add(d.opts.LockHold) //nolint:forbidigo // elapsed time
	for {
		before, err := d.readCoordinates(ctx, d.coordinator)
		if err != nil {
			return err
		}
		for _, s := range append(slices.Clone(d.workers), d.planner) {
			if err := s.exec(ctx, start); err != nil {
				return fmt.Errorf("open a consistent read: %w", err)
			}
		}
		if d.report.CapturedAt, err = serverClock(ctx, d.coordinator); err != nil {
			return err
		}
		d.report.Coordinates = before
		if l.global {
			return nil
		}
		if before.File == "" && before.GTID == "" {
			if l.recipe == string(LockNone) && len(d.workers) > 0 {
				return fmt.Errorf("lock mode none: %w: without a binary log there is no telling whether the %d connections see the same moment", dbdump.ErrDrift, len(d.workers)+1)
			}
			return nil
		}
		later, err := d.ownCoordinates(ctx, d.coordinator)
		if err != nil {
			return err
		}
		if later.File == before.File && later.Position == before.Position && later.GTID == before.GTID {
			return nil
		}
		if time.Now().After(limit) { //nolint:forbidigo // elapsed time
			return fmt.Errorf("%w: no lock covers the whole server (mode %s) and it never stopped writing while the consistent reads were opened; give the account RELOAD", dbdump.ErrDrift, l.recipe)
		}
	}
}

// keepAlive shows the server that the coordinator lives, so that its lock on
// definitions stays, and ends the dump when it does not.
func (d *dump) keepAlive(ctx context.Context, cancel context.CancelCauseFunc) (stop func()) {
	return repeat(ctx, lockGrace/3, func() bool {
		err := d.coordinator.exec(ctx, "DO 1")
		if err != nil {
			cancel(fmt.Errorf("the connection that holds the lock was lost: %w", err))
		}
		return err == nil
	})
}

// repeat calls f every so often until it returns false, the context ends, or stop is called, which waits for the call
// that is under way.
func repeat(ctx context.Context, every time.Duration, f func() bool) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if !f() {
				return
			}
		}
	}()
	return sync.OnceFunc(func() { close(done); <-ended })
}

func (d *dump) warn(message string) {
	d.log.Warn(message)
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Contains(d.report.Warnings, message) {
		d.report.Warnings = append(d.report.Warnings, message)
	}
}

func (d *dump) omit(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Contains(d.report.Omitted, what) {
		d.report.Omitted = append(d.report.Omitted, what)
	}
}

func (d *dump) progress(p Progress) {
	if d.opts.Progress != nil {
		d.opts.Progress(p)
	}
}
