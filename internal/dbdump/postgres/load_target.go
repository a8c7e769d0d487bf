package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"keepset/internal/dbdump"
)

// checkTarget refuses a target that holds what would be overwritten, before
// anything is touched.
func (l *loader) checkTarget(ctx context.Context, admin *session) error {
	existing, err := names(ctx, admin, "SELECT datname FROM pg_catalog.pg_database")
	if err != nil {
		return err
	}
	spaces, err := names(ctx, admin, "SELECT spcname FROM pg_catalog.pg_tablespace")
	if err != nil {
		return err
	}
	l.spaces = map[string]bool{}
	for _, name := range spaces {
		l.spaces[name] = true
	}
	var found []string
	for _, db := range l.plan.databases {
		conflicts, err := l.checkDatabase(ctx, db, slices.Contains(existing, db.target))
		if err != nil {
			return err
		}
		found = append(found, conflicts...)
	}
	return occupied(found)
}

// occupied refuses a target that holds what is listed.
func occupied(found []string) error {
	if len(found) == 0 {
		return nil
	}
	return fmt.Errorf("%w: it holds %s: load into an empty server, or choose to replace what it holds (--replace, in a Job KEEPSET_REPLACE=true)",
		dbdump.ErrNotEmpty, few(found))
}

// checkDatabase lists what a database of the target holds that may not be
// touched, and refuses a part that does not fit in.
func (l *loader) checkDatabase(ctx context.Context, db *loadDatabase, there bool) (conflicts []string, err error) {
	if db.whole && (l.opts.Replace || !there) {
		return nil, nil
	}
	var relations []*relation
	if there {
		s, err := l.engine.connect(ctx, db.target)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, s.Close()) }()
		if relations, err = readRelations(ctx, s); err != nil {
			return nil, err
		}
		if !l.opts.Replace {
			if conflicts, err = l.conflicts(ctx, s, db, relations); err != nil || len(conflicts) > 0 {
				return conflicts, err
			}
		}
	}
	if db.whole {
		return nil, nil
	}
	return nil, l.checkPart(db, relations)
}

// conflicts lists what a database of the target holds that the load would touch:
// everything when it is made anew, else what comes again.
func (l *loader) conflicts(ctx context.Context, s *session, db *loadDatabase, relations []*relation) (found []string, err error) {
	for _, r := range relations {
		if db.whole || db.creates(r.key()) {
			found = append(found, relationKinds[r.kind]+" "+tableLabel(db.target, r.schema, r.name))
		}
	}
	if !db.whole {
		return found, nil
	}
	inventory, err := readInventory(ctx, s, newSelection(Filter{}, db.target))
	if err != nil {
		return nil, err
	}
	for _, o := range inventory {
		if o.kind != KindSchema || o.name != "public" {
			found = append(found, o.kind+" "+db.target+"."+o.name)
		}
	}
	number, err := s.value(ctx, "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata")
	if err == nil && number != "0" {
		found = append(found, number+" large objects in "+db.target)
	}
	return found, err
}

// few lists the first of many.
func few(list []string) string {
	const most = 8
	if len(list) <= most {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
}

// checkRoles refuses a load whose owners are not there.
func (l *loader) checkRoles(ctx context.Context, admin *session) error {
	existing, err := names(ctx, admin, "SELECT rolname FROM pg_catalog.pg_roles")
	if err != nil {
		return err
	}
	var missing []string
	for _, db := range l.plan.databases {
		for role := range strings.SplitSeq(db.self.Attributes[AttrRoles], "\n") {
			if db.whole && role != "" && !slices.Contains(existing, role) && !slices.Contains(missing, role) {
				missing = append(missing, role)
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("the target does not have the roles %s, which own or may use something in the backup: create them, or load the roles of the backup too (--with-users)", few(missing))
}

// prepareDatabase makes a database anew, or makes sure that there is one for a part.
func (l *loader) prepareDatabase(ctx context.Context, admin *session, db *loadDatabase) error {
	existing, err := admin.value(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = "+quoteString(db.target)+")")
	if err != nil {
		return err
	}
	there := existing == "t"
	if there && !db.whole {
		// The same for a part: what a table that is replaced would take along, such as a
		// partition, may be younger than the first look.
		db.drops, db.attach = nil, nil
		found, err := l.checkDatabase(ctx, db, true)
		return errors.Join(err, occupied(found))
	}
	if there {
		// It was empty when the load began, other databases ago: a program that came
		// back with its server may have made its tables since.
		found, err := l.checkDatabase(ctx, db, true)
		if err = errors.Join(err, occupied(found)); err != nil {
			return err
		}
		if err := l.dropDatabase(ctx, admin, db.target); err != nil {
			return fmt.Errorf("make room: %w", err)
		}
	}
	return l.runStream(ctx, admin, db.self.DDL, func(code []byte, _ statement) []byte {
		if db.target == db.name {
			return code
		}
		return renameDatabase(code, db.name, db.target)
	})
}

// dropDatabase drops a database that is replaced, or that is empty: that is no
// loss, and it goes to get the dump's encoding and locale. Sessions in it, such as
// that of a monitoring program in postgres, are ended and may come again.
func (l *loader) dropDatabase(ctx context.Context, admin *session, name string) error {
	drop := "DROP DATABASE " + quoteIdentifier(name)
	if l.opts.Replace {
		if err := admin.exec(ctx, "ALTER DATABASE "+quoteIdentifier(name)+" IS_TEMPLATE false"); err != nil {
			return err
		}
		return admin.exec(ctx, drop+" WITH (FORCE)")
	}
	err := admin.exec(ctx, drop)
	if sqlState(err) != stateObjectInUse {
		return err
	}
	if err := admin.exec(ctx, drop+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("sessions are in the empty database %s and cannot be ended by this account, end them first: %w", name, err)
	}
	l.warn("the empty database %s is made anew, and the sessions that were in it have been ended", name)
	return nil
}
