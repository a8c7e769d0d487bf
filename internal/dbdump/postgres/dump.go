package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// dump is one run of Dump.
type dump struct {
	engine    *Engine
	opts      Options
	log       *slog.Logger
	out       *writer
	server    server
	databases []*databaseDump
	roles     []string
	spaces    []string
	report    record.Report
}

// databaseDump is the part of a dump that one database is.
type databaseDump struct {
	databaseInfo
	holder    *session
	holding   sync.Mutex // of the holder, while workers are at work
	snapshot  string
	point     string
	chosen    *selection
	relations []*relation
	inventory []namedObject
	roles     []string
	secret    bool
	sequences bool
	large     largeObjects
	pre, post bool // whether there is such a stream
}

// omittedAlways are in no dump.
var omittedAlways = []string{
	"statistics of the planner: run ANALYZE after a load",
	"the templates template0 and template1",
	"files of the server: configuration, access rules, WAL, replication slots",
}

// AlwaysOmitted tells whether a line of Report.Omitted is in that of every dump.
func AlwaysOmitted(line string) bool {
	return slices.Contains(omittedAlways, line) || slices.Contains(omittedFromBase, line)
}

// Dump implements dbdump.Engine.
func (e *Engine) Dump(ctx context.Context, w dbdump.Sink) (record.Report, error) {
	d := &dump{engine: e, opts: e.opts, log: e.opts.Logger, out: &writer{sink: w}}
	d.report = record.Report{Engine: "postgres", Layout: Layout, Flavor: "postgresql", Consistency: "snapshot", Omitted: slices.Clone(omittedAlways)}
	defer d.close()
	if err := d.run(ctx); err != nil {
		return record.Report{}, fmt.Errorf("dump %s: %w", e.opts.Address, err)
	}
	d.report.Bytes = d.out.bytes.Load()
	return d.report, nil
}

// run is the order of things.
func (d *dump) run(ctx context.Context) error {
	admin, err := d.engine.admin(ctx)
	if err != nil {
		return err
	}
	defer admin.abandon()
	if err := d.prepare(ctx, admin); err != nil {
		return err
	}
	roles, err := rolesFingerprint(ctx, admin)
	if err != nil {
		return err
	}
	if d.report.Coordinates, err = readCoordinates(ctx, admin, d.server); err != nil {
		return err
	}
	for _, db := range d.databases {
		if err := d.hold(ctx, db); err != nil {
			return err
		}
	}
	if d.report.CapturedAt, err = serverClock(ctx, admin); err != nil {
		return err
	}
	if err := d.writeRoles(ctx, admin, roles); err != nil {
		return err
	}
	for _, db := range d.databases {
		if err := d.writeDatabase(ctx, db); err != nil {
			return err
		}
	}
	d.assemble()
	return nil
}

// prepare is everything that needs no snapshot.
func (d *dump) prepare(ctx context.Context, admin *session) (err error) {
	if d.server, err = detect(ctx, admin); err != nil {
		return err
	}
	d.report.Version = d.server.version
	for _, name := range []string{"pg_dump", "pg_dumpall"} {
		if err := d.engine.checkProgram(ctx, name, d.server.major); err != nil {
			return err
		}
	}
	list, closed, err := readDatabases(ctx, admin, d.opts.Filter)
	if err != nil {
		return err
	}
	for _, name := range closed {
		d.omit("database " + name + ": it takes no connections")
	}
	if len(list) == 0 {
		d.warn("nothing of the server is selected: it holds no such database")
	}
	for _, info := range list {
		d.databases = append(d.databases, &databaseDump{databaseInfo: info})
	}
	if left := d.opts.Filter.Exclude; len(left) > 0 {
		d.omit("what the filter leaves out: " + strings.Join(left, ", "))
	}
	if len(d.opts.Filter.Include) > 0 {
		d.omit("roles and tablespaces, and of databases that are not selected whole extensions, large objects and what else is in no schema: the dump is filtered")
	}
	return nil
}

// writeDatabase writes one database, with its holder's snapshot, and makes sure
// that the holder, and with it the locks, lived until the end.
func (d *dump) writeDatabase(ctx context.Context, db *databaseDump) error {
	if err := d.writeContent(ctx, db); err != nil {
		return err
	}
	if err := db.holder.exec(ctx, "COMMIT"); err != nil {
		return fmt.Errorf("the connection that held the snapshot and the locks was lost: %w", err)
	}
	err := db.holder.Close()
	db.holder = nil
	return err
}

// close ends what a failed dump has left open.
func (d *dump) close() {
	for _, db := range d.databases {
		if db.holder != nil {
			db.holder.abandon()
		}
	}
}

func (d *dump) warn(message string) {
	d.log.Warn(message)
	d.report.Warnings = append(d.report.Warnings, message)
}

func (d *dump) omit(what string) { d.report.Omitted = append(d.report.Omitted, what) }

// withCause adds why the context ended to an error that comes of it.
func withCause(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if err == nil || cause == nil || errors.Is(err, cause) {
		return err
	}
	return errors.Join(cause, err)
}
