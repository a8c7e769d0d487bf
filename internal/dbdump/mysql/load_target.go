package mysql

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"keepset/internal/dbdump"
)

// prepareTarget asks the target what it is, refuses what must not be overwritten, and drops what is to be replaced.
func (l *loader) prepareTarget(ctx context.Context) error {
	s, err := l.engine.openSession(ctx)
	if err != nil {
		return err
	}
	if err := l.prepareWith(ctx, s); err != nil {
		l.abandon(s)
		return err
	}
	s.Close()
	return nil
}

// prepareWith is prepareTarget over a session of its own.
func (l *loader) prepareWith(ctx context.Context, s *session) (err error) {
	if l.server, err = detect(ctx, s); err != nil {
		return err
	}
	if err := l.checkServer(ctx, s); err != nil {
		return err
	}
	if l.settings, err = planSettings(ctx, s, !l.opts.Follower && !l.opts.SkipBinlog); err != nil {
		return err
	}
	if err := l.settings.prepare(ctx, s); err != nil {
		return err
	}
	conflicts, err := l.conflicts(ctx, s)
	if err != nil {
		return err
	}
	if len(conflicts) > 0 && !l.opts.Replace && !l.opts.Seed {
		return fmt.Errorf("%w: it holds %s: load into an empty server, or choose to replace", dbdump.ErrNotEmpty, shorten(conflicts))
	}
	existing, err := l.databases(ctx, s)
	if err != nil {
		return err
	}
	if l.opts.Seed && !l.opts.Replace {
		if err := l.checkOthers(ctx, s, existing); err != nil {
			return err
		}
	}
	if err := l.liftReadOnly(ctx, s); err != nil {
		return err
	}
	return l.drop(ctx, s, existing)
}

// checkServer refuses a target that cannot take the dump, and learns how rows can travel.
func (l *loader) checkServer(ctx context.Context, s *session) error {
	if l.dump.Flavor != l.server.Flavor {
		return fmt.Errorf("the dump is of %s %s, the target is %s %s: definitions are not translated between the two",
			l.dump.Flavor, l.dump.Version, l.server.Flavor, l.server.Version)
	}
	if newer(l.dump.Version, l.server.Version) {
		l.warn("the target is %s %s, older than the dump's %s: what it does not know will fail", l.server.Flavor, l.server.Version, l.dump.Version)
	}
	if err := l.plan.checkCase(l.server); err != nil {
		return err
	}
	for name, whole := range maps.Clone(l.plan.whole) {
		l.plan.whole[l.server.fold(name)] = whole
	}
	if l.opts.Follower || l.opts.Isolated {
		if err := checkIsolated(ctx, s, l.server); err != nil {
			return err
		}
	}
	var localInfile bool
	if err := s.queryRow(ctx, "SELECT @@GLOBAL.local_infile, @@max_allowed_packet", &localInfile, &l.maxPacket); err != nil {
		return err
	}
	if l.server.MariaDB() {
		if err := l.askHistory(ctx, s); err != nil {
			return err
		}
	}
	l.insert = l.opts.Rows == RowsInsert || !localInfile
	if l.opts.Rows == RowsLoadData && !localInfile {
		return fmt.Errorf("the server does not allow LOAD DATA LOCAL: set its local_infile to ON, or let the load choose")
	}
	return nil
}

// newer tells whether version a is of a later release series than b.
func newer(a, b string) bool {
	_, x, errX := parseVersion(a)
	_, y, errY := parseVersion(b)
	return errX == nil && errY == nil && x/100 > y/100
}

// conflicts lists what the target holds that the load must not touch unless told.
func (l *loader) conflicts(ctx context.Context, s *session) ([]string, error) {
	// Everything counts when everything is loaded; else only what the load would create.
	everything := l.opts.Filter.Empty()
	created := make(map[string]bool)
	for _, list := range [][]loadObject{l.plan.tables, l.plan.views, l.plan.sequences} {
		for _, o := range list {
			created[l.server.fold(quoteQualified(o.Target, o.Name))] = true
		}
	}
	var found []string
	note := func(schema, name, what string) {
		whole, ours := l.plan.whole[l.server.fold(schema)]
		if everything && len(l.opts.Rename) == 0 || ours && (whole || created[l.server.fold(quoteQualified(schema, name))]) {
			found = append(found, what+" "+quoteQualified(schema, name))
		}
	}
	for _, q := range []string{
		"SELECT TABLE_SCHEMA, TABLE_NAME, LOWER(TABLE_TYPE) FROM information_schema.TABLES WHERE TABLE_SCHEMA NOT IN " + systemSchemaList,
		"SELECT ROUTINE_SCHEMA, ROUTINE_NAME, LOWER(ROUTINE_TYPE) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA NOT IN " + systemSchemaList,
		"SELECT EVENT_SCHEMA, EVENT_NAME, 'event' FROM information_schema.EVENTS WHERE EVENT_SCHEMA NOT IN " + systemSchemaList,
	} {
		err := s.each(ctx, q, func(r row) error {
			note(r.at(0), r.at(1), strings.TrimPrefix(r.at(2), "base "))
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

const systemSchemaList = "('mysql','information_schema','performance_schema','sys')"

// shorten lists the first few of many.
func shorten(list []string) string {
	const most = 8
	if len(list) <= most {
		return strings.Join(list, ", ")
	}
	return strings.Join(list[:most], ", ") + " and " + strconv.Itoa(len(list)-most) + " more"
}

// databases lists the databases of the target that are not the server's own, sorted.
func (l *loader) databases(ctx context.Context, s *session) ([]string, error) {
	var list []string
	err := s.each(ctx, "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA", func(r row) error {
		if !systemSchema(r.at(0)) {
			list = append(list, r.at(0))
		}
		return nil
	})
	slices.Sort(list)
	return list, err
}

// checkOthers refuses a seed in which a database that the backup lacks has rows: its volume may have been in use before
// its claim was made. What the backup holds as well is replaced, and a database without rows is no loss.
func (l *loader) checkOthers(ctx context.Context, s *session, existing []string) error {
	for _, schema := range existing {
		if l.plan.whole[l.server.fold(schema)] {
			continue
		}
		var tables []string
		err := s.each(ctx, "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND TABLE_SCHEMA = "+
			quoteString(schema), func(r row) error {
			tables = append(tables, quoteQualified(schema, r.at(0)))
			return nil
		})
		if err != nil {
			return err
		}
		for _, table := range tables {
			var rows bool
			if err := s.queryRow(ctx, "SELECT EXISTS (SELECT 1 FROM "+table+")", &rows); err != nil {
				return privilegeError(err, "see whether the seed is new")
			}
			if rows {
				return fmt.Errorf("%w: a seed on a new volume holds no data, and table %s, which is not in the backup, has rows: "+
					"see where the volume comes from, or choose to replace what it holds (--replace)", dbdump.ErrNotEmpty, table)
			}
		}
	}
	return nil
}

// drop removes what is replaced: whole databases where they are loaded whole, else the tables that come again. A
// database that holds nothing is no loss and goes as well, to get the dump's own character set.
func (l *loader) drop(ctx context.Context, s *session, existing []string) error {
	if l.opts.Seed {
		return l.empty(ctx, s, existing)
	}
	for _, schema := range l.plan.schemas {
		if !slices.ContainsFunc(existing, func(name string) bool { return l.server.fold(name) == l.server.fold(schema.Target) }) {
			continue
		}
		if l.plan.whole[schema.Target] {
			if err := s.exec(ctx, "DROP DATABASE "+quoteIdentifier(schema.Target)); err != nil {
				return privilegeError(err, "replace "+schema.String())
			}
			continue
		}
		if !l.opts.Replace {
			continue // none of them was there, and one that has come since is not ours
		}
		if err := l.dropTables(ctx, s, schema.Target); err != nil {
			return err
		}
	}
	return nil
}

// empty drops every database of a seed: those that the image or its scripts have made, too.
func (l *loader) empty(ctx context.Context, s *session, existing []string) error {
	for _, schema := range existing {
		if !l.plan.whole[l.server.fold(schema)] {
			l.warn("database %s, which the target had, was dropped: the backup does not hold it", quoteIdentifier(schema))
		}
		if err := s.exec(ctx, "DROP DATABASE "+quoteIdentifier(schema)); err != nil {
			return privilegeError(err, "empty the seed")
		}
	}
	return nil
}

// dropTables drops those tables, views and sequences of the schema that the load creates.
func (l *loader) dropTables(ctx context.Context, s *session, schema string) error {
	for _, drop := range []struct {
		what string
		list []loadObject
	}{{"VIEW", l.plan.views}, {"TABLE", l.plan.tables}, {"SEQUENCE", l.plan.sequences}} {
		for _, o := range drop.list {
			if o.Target != schema {
				continue
			}
			if err := s.exec(ctx, "DROP "+drop.what+" IF EXISTS "+quoteQualified(schema, o.Name)); err != nil {
				return privilegeError(err, "replace "+o.String())
			}
		}
	}
	return nil
}
