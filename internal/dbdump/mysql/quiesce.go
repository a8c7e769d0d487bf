package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// A server is held still for a cut of its volumes by FLUSH TABLES WITH READ LOCK, on both families.
//
// MariaDB's BACKUP STAGE, which a dump prefers and MariaDB documents for volume snapshots, leaves more to chance: it stops
// statements at their commit. CREATE USER, GRANT and changes of Aria tables have changed their tables by then, so that
// a copy is right only if Aria's recovery takes that back (on 10.11 it did), whoever reads such a table waits behind
// them, we included, and one that gives up waiting (lock_wait_timeout) has changed the server without a trace in
// the binary log. FLUSH TABLES WITH READ LOCK lets none of these begin. It also closes the tables that are not InnoDB's: their
// files are whole, not marked as in use, and need no recovery. DDL waits for it as well, so that LOCK INSTANCE FOR
// BACKUP has nothing to add.
//
// It says nothing of what is still in memory. What the settings of the server let it keep there, commits in InnoDB's log
// (innodb_flush_log_at_trx_commit) and the end of the binary log (sync_binlog), is written out under the lock: see
// settle. InnoDB's pages go on being written; a cut of one moment is to them what a power cut is, and two moments are not.

// recipeCut is the recipe's name in the report.
const recipeCut = "snapshot-ftwrl"

// holding says how the connection that holds a server still is watched.
type holding struct {
	// probe is the time between two signs of life, and answer how long the server may take to return one.
	probe, answer time.Duration
	// idle is after how much silence the server ends the connection by itself, in whole seconds: so much longer may it
	// hold writers up when our node is gone.
	idle time.Duration
}

// A sign of life touches no disk, so that cutting volumes does not delay it.
var defaultHolding = holding{probe: 2 * time.Second, answer: 8 * time.Second, idle: 10 * time.Second}

// quickNames is how long listing the names of tables may take for it to be done again under the lock.
const quickNames = time.Second

// quiesce is one run of Quiesce.
type quiesce struct {
	*dump
	holding
	bound time.Duration
	cut   func(context.Context) error
	// namesTook is how long it took to list the names.
	namesTook time.Duration
	// unsynced are the tables whose files only the node's kernel brings to the volume.
	unsynced []string
}

// Quiesce implements dbdump.Quiescer.
func (e *Engine) Quiesce(ctx context.Context, bound time.Duration, cut func(context.Context) error) (report record.Report, err error) {
	if bound < time.Second {
		return record.Report{}, fmt.Errorf("hold %s still: at most for %s is too short: allow a second or more", e.opts.Address, bound)
	}
	switch e.opts.LockMode {
	case LockAuto, LockFTWRL:
	default:
		return record.Report{}, fmt.Errorf("hold %s still: lock mode %s does not keep every change away while volumes are cut; use %s or %s", e.opts.Address, e.opts.LockMode, LockFTWRL, LockAuto)
	}
	opts := e.opts
	opts.LockHold, opts.Filter = bound, Filter{}
	d := &dump{opts: opts, log: opts.Logger, idle: e.holding.idle}
	if d.server, err = e.server(ctx); err != nil {
		return record.Report{}, err
	}
	d.sessions = &sessions{engine: e, setup: slices.Concat(activateRoles(d.server), dumpSetup(d.server))}
	defer func() { d.sessions.close(ctx, err != nil) }()
	d.report = record.Report{Engine: "mysql", Layout: Layout, Flavor: d.server.Flavor, Version: d.server.Version, Consistency: recipeCut}
	q := &quiesce{dump: d, holding: e.holding, bound: bound, cut: cut}
	if err := q.run(ctx); err != nil {
		return record.Report{}, fmt.Errorf("hold %s still: %w", e.opts.Address, withCause(ctx, err))
	}
	return d.report, nil
}

// run is the order of things.
func (q *quiesce) run(ctx context.Context) (err error) {
	if q.coordinator, err = q.sessions.get(ctx); err != nil {
		return err
	}
	if q.grants, err = readGrants(ctx, q.coordinator, q.server); err != nil {
		return err
	}
	if err := q.require(q.quiesceNeeds()); err != nil {
		return err
	}
	begin := time.Now() //nolint:forbidigo // elapsed time
	if err := q.readNames(ctx); err != nil {
		return err
	}
	q.namesTook = time.Since(begin)
	restart, err := q.settleReplica(ctx, q.coordinator)
	if err != nil {
		return err
	}
	err = errors.Join(q.hold(ctx), restart(context.WithoutCancel(ctx)))
	q.warnOfTables()
	return err
}

// quiesceNeeds are the privileges that it takes.
func (q *quiesce) quiesceNeeds() []need {
	return append(q.positionNeeds(),
		need{[]string{"RELOAD"}, "lock by FLUSH TABLES WITH READ LOCK"},
		need{[]string{"PROCESS"}, "see what holds up the lock"},
		need{[]string{"SHOW VIEW", "SELECT"}, "see the names and engines of tables"})
}

// hold locks, has the volumes cut, and lets writers go on whatever came of it.
func (q *quiesce) hold(ctx context.Context) error {
	l, err := q.acquire(ctx, LockFTWRL)
	if err != nil {
		return fmt.Errorf("wait for the lock: %w", err)
	}
	l.recipe, l.instance = recipeCut, false // nothing is left to be kept from changing after release
	cause := fmt.Errorf("%w: it was held for %s, as long as it may be, and the volumes were not cut; writers go on; see what the cut waited for, or allow more time",
		dbdump.ErrLockTimeout, q.bound)
	held, cancel := context.WithDeadlineCause(ctx, l.since.Add(q.bound), cause)
	defer cancel()
	held, lose := context.WithCancelCause(held)
	defer lose(nil)
	err = q.read(held)
	if err == nil {
		err = q.cutHeld(held, lose, l)
	}
	if held.Err() != nil {
		err = withCause(held, errors.Join(context.Cause(held), err))
	}
	return errors.Join(err, q.letGo(ctx, l))
}

// read brings the disk up to date and reads what the report says of the moment.
func (q *quiesce) read(ctx context.Context) error {
	if err := q.settle(ctx); err != nil {
		return err
	}
	var err error
	if q.report.Coordinates, err = q.readCoordinates(ctx, q.coordinator); err != nil {
		return err
	}
	if q.namesTook < quickNames {
		if err := q.readNames(ctx); err != nil {
			return err
		}
	}
	q.report.CapturedAt, err = serverClock(ctx, q.coordinator)
	return err
}

// serverClock asks for the server's time.
func serverClock(ctx context.Context, s *session) (time.Time, error) {
	var now string
	if err := s.queryRow(ctx, "SELECT UTC_TIMESTAMP(6)", &now); err != nil {
		return time.Time{}, err
	}
	t, err := time.Parse("2006-01-02 15:04:05.999999", now)
	if err != nil {
		return t, fmt.Errorf("read the server's clock: %w", err)
	}
	return t, nil
}

// cutHeld calls cut. When the hold ends before that returns, writers do not wait for it any longer.
func (q *quiesce) cutHeld(ctx context.Context, lose context.CancelCauseFunc, l *lock) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("the cut ended without saying how")
		defer func() { done <- err }()
		err = q.cut(ctx)
	}()
	stop := q.watch(ctx, lose)
	defer stop()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	stop()
	err := q.letGo(ctx, l)
	return errors.Join(err, <-done)
}

// watch shows the server that we live, and ends the hold when the server does not show that it does.
func (q *quiesce) watch(ctx context.Context, lose context.CancelCauseFunc) (stop func()) {
	return repeat(ctx, q.probe, func() bool {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), q.answer)
		defer cancel()
		err := q.coordinator.exec(ctx, "DO 1")
		if err != nil {
			lose(fmt.Errorf("the connection that holds the lock was lost while the volumes were being cut: %w", err))
		}
		return err == nil
	})
}

// letGo lets writers go on, once. Where the connection does not do that any more, closing the sessions does.
func (q *quiesce) letGo(ctx context.Context, l *lock) error {
	if l.release == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	err := q.unlock(ctx, l)
	l.release = nil
	return err
}
