package mysql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"keepset/internal/dbdump"
)

// The recipes that make a consistent point. Each is bounded: a lock is asked
// for in short attempts, so that a long query of somebody else never makes the
// whole server queue up behind us, and all attempts together take no longer
// than Options.LockWait.
//
// MariaDB, "backup-stage": BACKUP STAGE START, FLUSH, BLOCK_DDL,
// BLOCK_COMMIT; consistent reads are opened; BACKUP STAGE END. Commits wait
// during the last stage only. DDL waits from BLOCK_DDL to END, and the catalog is
// read again in between (lock_catalog.go); DDL after END that changes or drops what is dumped is
// found at the end of the dump.
//
// That holds up nobody who changes rows of a transactional Aria table (TRANSACTIONAL=1,
// the engine's default): BLOCK_COMMIT lets them pass, and a table whose rows
// change cannot be locked. Where there is one, MariaDB gets "ftwrl".
//
// MySQL 8 and 9, "ftwrl": FLUSH TABLES WITH READ LOCK; consistent reads are
// opened; LOCK INSTANCE FOR BACKUP; UNLOCK TABLES. The backup lock is kept
// to the end of the dump: it lets rows change and keeps definitions as they are.
//
// MySQL 5.7, and MariaDB when told or with Aria tables: FLUSH TABLES WITH READ LOCK alone; DDL is
// found at the end.
//
// Without the privilege for either, or where the server denies it all the same
// as managed services do, "lock-tables": LOCK TABLES ... READ on
// every table of the dump. Other tables and accounts may still change, so the
// replication position is compared around the moment.
//
// A lock belongs to the coordinator's connection. When this process dies the
// connection ends, and with it the lock; when the whole machine vanishes,
// wait_timeout ends it.

// lockAttempt is how long one attempt may make others wait.
const lockAttempt = 5 * time.Second

// lockGrace is what the server adds to LockHold before it ends the
// coordinator's idle connection by itself.
const lockGrace = 30 * time.Second

// lock is a held consistent point.
type lock struct {
	// recipe is its name in the report.
	recipe string
	// writers tells whether writers are held up.
	writers bool
	// definitions tells whether definitions are kept as they are after release.
	definitions bool
	// since is when writers began to wait.
	since time.Time
	// global tells whether the lock covers every table of the server.
	global bool
	// instance tells whether LOCK INSTANCE FOR BACKUP is to be taken on release.
	instance bool
	// release lets writers go on.
	release []string
}

// chooseLock turns LockAuto into what the server and the account allow.
func (d *dump) chooseLock() (LockMode, error) {
	mode := d.opts.LockMode
	reload := d.grants.has("RELOAD") || d.grants.has("FLUSH_TABLES")
	switch mode {
	case LockAuto:
		switch {
		case reload && d.server.MariaDB() && !d.catalog.hasAria():
			return LockBackupStage, nil
		case reload:
			return LockFTWRL, nil
		default:
			return LockTables, nil
		}
	case LockBackupStage:
		if !d.server.MariaDB() {
			return "", fmt.Errorf("lock mode %s: only MariaDB has backup stages; use ftwrl or auto", mode)
		}
	}
	return mode, nil
}

// hasAria tells whether a table of the dump has rows that BACKUP STAGE does not keep as they are.
func (c *catalog) hasAria() bool {
	for t := range c.tables() {
		if t.base() && t.structureOnly == "" && strings.EqualFold(t.engine, "Aria") {
			return true
		}
	}
	return false
}

// acquireAny is acquire; what auto has chosen and the server denies makes room for what needs no privilege.
func (d *dump) acquireAny(ctx context.Context, mode LockMode) (*lock, error) {
	l, err := d.acquire(ctx, mode)
	if d.opts.LockMode != LockAuto || mode == LockTables || !errors.Is(err, dbdump.ErrPrivilege) {
		return l, err
	}
	d.warn(fmt.Sprintf("the account has RELOAD, and the server denies the lock %s all the same: tables were locked one by one", mode))
	d.log.Debug("lock denied", "error", err)
	return d.acquire(ctx, LockTables)
}

// acquire takes the lock on the coordinator.
func (d *dump) acquire(ctx context.Context, mode LockMode) (*lock, error) {
	idle := seconds(cmp.Or(d.idle, d.opts.LockHold+lockGrace))
	if err := d.coordinator.exec(ctx, fmt.Sprintf("SET SESSION wait_timeout = %d", idle)); err != nil {
		return nil, err
	}
	d.catalogHeld = false
	var steps, undo []string
	l := &lock{recipe: string(mode), writers: true, global: true}
	switch mode {
	case LockBackupStage:
		// START waits for other backups only, FLUSH and BLOCK_DDL for
		// statements that write to non-transactional tables and for DDL.
		steps = []string{"BACKUP STAGE START", "BACKUP STAGE FLUSH", stageBlockDDL, "BACKUP STAGE BLOCK_COMMIT"}
		undo = []string{"BACKUP STAGE END"}
		l.release = undo
	case LockFTWRL:
		steps, undo = []string{"FLUSH TABLES WITH READ LOCK"}, []string{"UNLOCK TABLES"}
		l.release = undo
		l.instance = !d.server.MariaDB() && d.server.AtLeast(8, 0, 0)
	case LockTables:
		l.global = false
		steps, undo = d.lockTables(), []string{"UNLOCK TABLES"}
		l.release = undo
	case LockNone:
		l.writers, l.global = false, false
		return l, nil
	}
	err := d.attempts(ctx, l, steps, undo)
	if errors.Is(err, errAria) {
		return d.acquire(ctx, LockFTWRL)
	}
	return l, err
}

// lockTables is the statement that locks everything that is going to be read.
// Sequences are locked with the tables, whose defaults may use them.
func (d *dump) lockTables() []string {
	var names []string
	for _, s := range d.catalog.schemas {
		for _, t := range s.tables {
			if !t.view() && t.structureOnly == "" {
				names = append(names, quoteQualified(s.name, t.name)+" READ")
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []string{"LOCK TABLES " + strings.Join(names, ", ")}
}

// attempts runs the steps, again and again until they all succeed or the time
// is over. Between two attempts, those who were held up may go on.
func (d *dump) attempts(ctx context.Context, l *lock, steps, undo []string) error {
	deadline := time.Now().Add(d.opts.LockWait) //nolint:forbidigo // elapsed time, not the date
	for {
		l.since = time.Now() //nolint:forbidigo // elapsed time
		wait := min(lockAttempt, time.Until(deadline))
		if wait <= 0 {
			return d.lockTimeout(ctx, nil)
		}
		err := d.attempt(ctx, l, steps, wait)
		if err == nil {
			return nil
		}
		if e := d.coordinator.exec(context.WithoutCancel(ctx), undo[0]); e != nil && !lost(e) {
			// END without START, and the like: nothing was held.
			d.log.Debug("lock attempt undone", "error", e)
		}
		busy := errors.Is(err, errBusy)
		if !busy && errorNumber(err) != errLockWaitTimeout {
			return d.lockError(err)
		}
		d.log.Warn("lock not granted yet, others hold it up", "waited", time.Since(l.since).Round(time.Millisecond), "until", time.Until(deadline).Round(time.Second))
		if time.Until(deadline) <= time.Second {
			return d.lockTimeout(ctx, err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
		}
		if busy {
			if err := d.renewCatalog(ctx, time.Until(deadline)); err != nil {
				return err
			}
		}
	}
}

// lockError classes an error that another attempt does not help against.
func (d *dump) lockError(err error) error {
	switch errorNumber(err) {
	case errSpecificAccess, errDBAccessDenied, errTableAccessDenied, errAccessDenied:
		return fmt.Errorf("lock %s: %w: %w", d.opts.Address, dbdump.ErrPrivilege, err)
	}
	return fmt.Errorf("lock %s: %w", d.opts.Address, err)
}

// attempt runs the steps, all of them within wait.
func (d *dump) attempt(ctx context.Context, l *lock, steps []string, wait time.Duration) error {
	end := time.Now().Add(wait) //nolint:forbidigo // elapsed time
	for _, step := range steps {
		left := seconds(time.Until(end))
		if err := d.coordinator.exec(ctx, fmt.Sprintf("SET SESSION lock_wait_timeout = %d", left)); err != nil {
			return err
		}
		if err := d.coordinator.exec(ctx, step); err != nil {
			return err
		}
		if step == stageBlockDDL {
			if err := d.readCatalogAgain(ctx, l); err != nil {
				return err
			}
		}
	}
	return nil
}

// unlock lets writers go on, having made sure that definitions stay where the
// server can do that, and measures how long writers waited.
func (d *dump) unlock(ctx context.Context, l *lock) error {
	if l.instance {
		if d.grants.has("BACKUP_ADMIN") {
			if err := d.coordinator.exec(ctx, "LOCK INSTANCE FOR BACKUP"); err != nil {
				return fmt.Errorf("keep definitions from changing: %w", err)
			}
			l.definitions = true
		} else {
			d.warn("the account lacks BACKUP_ADMIN: definitions could change during the dump, and were compared at its end instead")
		}
	}
	for _, q := range l.release {
		if err := d.coordinator.exec(ctx, q); err != nil {
			return fmt.Errorf("release the lock: %w", err)
		}
	}
	if l.writers {
		held := time.Since(l.since)
		d.report.LockSeconds = held.Seconds()
		d.log.Info("lock released", "recipe", l.recipe, "held", held.Round(time.Millisecond))
	}
	return nil
}

// held makes a context that ends when the lock has been held for too long.
func (d *dump) held(ctx context.Context, l *lock) (context.Context, context.CancelFunc) {
	if !l.writers {
		return ctx, func() {}
	}
	cause := fmt.Errorf("%w: the lock was held for %s and not everything that needs it was done; exclude the large non-transactional tables, convert them to InnoDB, or allow more time",
		dbdump.ErrLockTimeout, d.opts.LockHold)
	return context.WithDeadlineCause(ctx, l.since.Add(d.opts.LockHold), cause)
}

// lockTimeout says who held us up.
func (d *dump) lockTimeout(ctx context.Context, err error) error {
	blockers := "nobody that the account may see"
	if list, e := d.longQueries(ctx); e == nil && len(list) > 0 {
		blockers = strings.Join(list, "; ")
	}
	e := fmt.Errorf("lock %s: %w: not within %s; it was kept waiting by: %s", d.opts.Address, dbdump.ErrLockTimeout, d.opts.LockWait, blockers)
	if err != nil {
		return errors.Join(e, err)
	}
	return e
}

// longQueries lists what has been running for a second or more: who and how
// long, and the first word of the statement; the rest may hold secrets.
func (d *dump) longQueries(ctx context.Context) ([]string, error) {
	var list []string
	own := d.sessions.ids()
	err := d.coordinator.each(ctx, `SELECT ID, USER, HOST, COMMAND, TIME, STATE, SUBSTRING_INDEX(TRIM(LEFT(INFO, 40)), ' ', 1)
		FROM information_schema.PROCESSLIST
		WHERE COMMAND NOT IN ('Sleep', 'Daemon', 'Binlog Dump', 'Binlog Dump GTID', 'Slave_IO', 'Slave_SQL', 'Slave_worker') AND TIME >= 1
		ORDER BY TIME DESC LIMIT 5`, func(r row) error {
		if !slices.Contains(own, r.at(0)) {
			list = append(list, fmt.Sprintf("connection %s of %s@%s, %s %s for %s s (%s)", r.at(0), r.at(1), r.at(2), r.at(3), r.at(6), r.at(4), r.at(5)))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return append(list, d.openTransactions(ctx, own)...), nil
}

// openTransactions lists transactions that idle with locks held: they show as
// Sleep in the process list. Without the PROCESS privilege there are none to see.
func (d *dump) openTransactions(ctx context.Context, own []string) []string {
	var list []string
	err := d.coordinator.each(ctx, `SELECT trx_mysql_thread_id, TIMESTAMPDIFF(SECOND, trx_started, NOW()), trx_tables_locked
		FROM information_schema.INNODB_TRX WHERE trx_mysql_thread_id > 0 ORDER BY trx_started LIMIT 5`, func(r row) error {
		if !slices.Contains(own, r.at(0)) {
			list = append(list, fmt.Sprintf("connection %s, transaction open for %s s", r.at(0), r.at(1)))
		}
		return nil
	})
	if err != nil {
		d.log.Debug("open transactions could not be listed", "error", err)
	}
	return list
}
