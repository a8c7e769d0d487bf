package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"keepset/internal/dbdump"
)

// holdAttempts is how often the list of tables may change between two looks at it.
const holdAttempts = 5

// beginRead begins a transaction that sees one snapshot. It has none before its
// first query, and LOCK TABLE is none.
const beginRead = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"

// hold locks the tables of a database, and then exports a snapshot.
func (d *dump) hold(ctx context.Context, db *databaseDump) error {
	var err error
	if db.holder, err = d.engine.connect(ctx, db.name); err != nil {
		return err
	}
	for range holdAttempts {
		all, err := readRelations(ctx, db.holder)
		if err != nil {
			return err
		}
		before := chosenOf(d.opts.Filter, db.name, all).relations(all)
		held, err := d.holdThese(ctx, db, before)
		if err != nil || held {
			return err
		}
		if err := db.holder.exec(ctx, "ROLLBACK"); err != nil {
			return err
		}
	}
	return fmt.Errorf("database %s: %w: tables are created, dropped or renamed all the time: %d attempts to lock them all found others than before",
		db.name, dbdump.ErrDrift, holdAttempts)
}

// holdThese locks the tables and takes the snapshot; false when the snapshot has
// other tables than those.
func (d *dump) holdThese(ctx context.Context, db *databaseDump, before []*relation) (bool, error) {
	s := db.holder
	if err := s.exec(ctx, beginRead); err != nil {
		return false, err
	}
	if err := s.exec(ctx, fmt.Sprintf("SET LOCAL lock_timeout = %d", d.opts.LockWait.Milliseconds())); err != nil {
		return false, err
	}
	if gone, err := lockTables(ctx, s, lockable(before)); err != nil || gone {
		return false, err
	}
	var err error
	if db.snapshot, err = s.value(ctx, "SELECT pg_catalog.pg_export_snapshot()"); err != nil {
		return false, err
	}
	point, err := serverClock(ctx, s)
	if err != nil {
		return false, err
	}
	db.point = point.Format(time.RFC3339Nano)
	all, err := readRelations(ctx, s)
	if err != nil {
		return false, err
	}
	db.chosen = chosenOf(d.opts.Filter, db.name, all)
	db.relations = db.chosen.relations(all)
	if !sameRelations(before, db.relations) {
		return false, nil
	}
	if err := d.settle(ctx, db, all); err != nil {
		return false, err
	}
	return true, d.describe(ctx, db)
}

// lockTables keeps tables from being changed, truncated or dropped. It tells
// whether one of them is gone already.
func lockTables(ctx context.Context, s *session, tables []*relation) (gone bool, _ error) {
	const batch = 100
	for len(tables) > 0 {
		n := min(batch, len(tables))
		names := make([]string, n)
		for i, t := range tables[:n] {
			names[i] = "ONLY " + t.qualified()
		}
		err := s.exec(ctx, "LOCK TABLE "+strings.Join(names, ", ")+" IN ACCESS SHARE MODE")
		switch sqlState(err) {
		case stateUndefinedTable, stateUndefinedSchema:
			return true, nil
		case stateLockNotAvailable:
			return false, fmt.Errorf("%w; a change of a table's definition is under way for longer than that: wait for it, or let the dump wait longer (--lock-timeout)", err)
		}
		if err != nil {
			return false, err
		}
		tables = tables[n:]
	}
	return false, nil
}

// describe reads what the snapshot says of the database apart from its rows.
func (d *dump) describe(ctx context.Context, db *databaseDump) error {
	s := db.holder
	err := readDetails(ctx, s, db.relations)
	if err != nil {
		return err
	}
	if db.inventory, err = readInventory(ctx, s, db.chosen); err != nil {
		return err
	}
	if db.roles, err = readRolesInUse(ctx, s); err != nil {
		return err
	}
	secret, err := s.value(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_user_mappings) OR "+
		"EXISTS (SELECT FROM pg_catalog.pg_subscription u JOIN pg_catalog.pg_database b ON b.oid = u.subdbid WHERE b.datname = pg_catalog.current_database())")
	if err != nil {
		return err
	}
	db.secret = secret == "t"
	if err := d.judgeMappings(ctx, db); err != nil {
		return err
	}
	for _, r := range db.relations {
		d.judge(db, r)
	}
	if d.opts.Filter.Loose(db.name) {
		db.large, err = readLargeObjects(ctx, s)
	}
	return err
}

// judgeMappings says whose options are not in the dump. The server shows none to
// who may not see them, and not that there are any.
func (d *dump) judgeMappings(ctx context.Context, db *databaseDump) error {
	if d.server.superuser {
		return nil
	}
	bare, err := db.holder.value(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_user_mappings WHERE umoptions IS NULL)")
	if err == nil && bare == "t" {
		d.omit("options of user mappings in database " + db.name + ", such as passwords: the account that dumps is no superuser, and may not read those of others")
	}
	return err
}

// judge says whose rows are not in the dump, and why.
func (d *dump) judge(db *databaseDump, r *relation) {
	name := db.name + "." + r.schema + "." + r.name
	switch {
	case r.kind == "f":
		d.omit("rows of foreign table " + name + ": they are in another server")
	case r.unlogged && d.server.standby && (r.kind == "r" || r.kind == "S"):
		r.noRows = "it is unlogged, and the server is a standby, where it cannot be read"
		d.omit("rows of " + name + ": " + r.noRows)
	}
}

// serverClock is the server's time.
func serverClock(ctx context.Context, s *session) (time.Time, error) {
	n, err := s.number(ctx, "SELECT (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000000)::pg_catalog.int8")
	return time.UnixMicro(n).UTC(), err
}
