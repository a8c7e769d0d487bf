package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// loader is one load: what is loaded, where to, and what has been done so far.
//
// The order is that of needs. Roles come first, since everything has an owner;
// then, database by database, the database itself, what comes before rows, the
// rows and large objects on several connections, the positions of sequences, the
// comparison of the rows, and only then indexes, constraints and triggers, which
// must not see a row arrive.
//
// A load that fails leaves what it has done: it is repeated with LoadOptions.Replace.
type loader struct {
	engine *Engine
	opts   LoadOptions
	source dbdump.Source
	dump   record.Report
	plan   *loadPlan
	server server
	log    *slog.Logger
	// spaces are the target's tablespaces.
	spaces map[string]bool

	mu       sync.Mutex
	warnings []string

	rows, bytes atomic.Int64
}

// Load implements dbdump.Engine.
func (e *Engine) Load(ctx context.Context, source dbdump.Source) (record.Report, error) {
	plan, err := planLoad(source.Report(), e.opts.Load)
	if err != nil {
		return record.Report{}, fmt.Errorf("plan load into %s: %w", e.opts.Address, err)
	}
	l := &loader{engine: e, opts: e.opts.Load, source: source, dump: source.Report(), plan: plan, log: e.opts.Logger}
	if err := l.run(ctx); err != nil {
		return record.Report{}, fmt.Errorf("load into %s: %w", e.opts.Address, err)
	}
	return l.report(), nil
}

// run is the order of the steps.
func (l *loader) run(ctx context.Context) error {
	admin, err := l.admin(ctx)
	if err != nil {
		return err
	}
	defer admin.abandon()
	if l.server, err = detect(ctx, admin); err != nil {
		return err
	}
	if l.server.standby {
		return errors.New("the target is a standby, which takes no changes: load into its primary")
	}
	if major := majorOf(l.dump.Version); l.server.major < major {
		l.warn("the target is PostgreSQL %s, older than the dump's %s: what it does not know will fail", l.server.version, l.dump.Version)
	}
	if err := l.checkTarget(ctx, admin); err != nil {
		return err
	}
	if err := l.loadRoles(ctx, admin); err != nil {
		return err
	}
	if err := l.checkRoles(ctx, admin); err != nil {
		return err
	}
	for _, db := range l.plan.databases {
		if err := l.loadDatabase(ctx, admin, db); err != nil {
			return withCause(ctx, fmt.Errorf("database %s: %w", db.target, err))
		}
	}
	return nil
}

// admin connects to a database that is never loaded: another one may have to be dropped.
func (l *loader) admin(ctx context.Context) (*session, error) {
	s, err := l.engine.connect(ctx, "template1")
	switch sqlState(err) {
	case stateNoDatabase, stateNoPrivilege, "55000": // 55000: it takes no connections
		return l.engine.connect(ctx, "postgres")
	}
	return s, err
}

// report says what was done.
func (l *loader) report() record.Report {
	r := record.Report{
		Engine: l.dump.Engine, Layout: l.dump.Layout, Flavor: l.dump.Flavor, Version: l.server.version, CapturedAt: l.dump.CapturedAt,
		Coordinates: l.dump.Coordinates, Omitted: l.dump.Omitted, Warnings: l.warnings, Rows: l.rows.Load(), Bytes: l.bytes.Load(),
	}
	r.Objects = append(r.Objects, l.plan.roles...)
	for _, db := range l.plan.databases {
		for _, o := range db.objects {
			if db.target != db.name {
				o.Schema = db.target
				if schema := o.Attributes[AttrSchema]; schema != "" {
					o.Schema += "." + schema
				}
				if o.Kind == KindDatabase {
					o.Name = db.target
				}
			}
			r.Objects = append(r.Objects, o)
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
	if !slices.Contains(l.warnings, text) { // what is looked at twice is said once
		l.warnings = append(l.warnings, text)
	}
}

// majorOf is the major version of "15.20", 0 for what is none.
func majorOf(version string) int {
	n := 0
	for _, c := range version {
		if c < '0' || c > '9' || n > 999 {
			break
		}
		n = n*10 + int(c-'0')
	}
	return n
}
