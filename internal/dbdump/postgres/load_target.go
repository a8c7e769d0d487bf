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
	if l.opts.Replace {
		return nil
	}
	var found []string
	for _, db := range l.plan.databases {
		if !slices.Contains(existing, db.target) {
			continue
		}
		conflicts, err := l.conflicts(ctx, db)
		if err != nil {
			return err
		}
		found = append(found, conflicts...)
	}
	if len(found) > 0 {
		return fmt.Errorf("%w: it holds %s: load into an empty server, or choose to replace", dbdump.ErrNotEmpty, few(found))
	}
	return nil
}

// conflicts lists what a database of the target holds that the load would touch:
// everything when it is made anew, else what comes again.
func (l *loader) conflicts(ctx context.Context, db *loadDatabase) (found []string, err error) {
	s, err := l.engine.connect(ctx, db.target)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	relations, err := readRelations(ctx, s, Filter{})
	if err != nil {
		return nil, err
	}
	for _, r := range relations {
		if db.whole || db.creates(r) {
			found = append(found, relationKinds[r.kind]+" "+db.target+"."+r.schema+"."+r.name)
		}
	}
	if !db.whole {
		return found, nil
	}
	inventory, err := readInventory(ctx, s, Filter{})
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

// creates tells whether the load makes a relation of that name.
func (db *loadDatabase) creates(r *relation) bool {
	for _, o := range db.objects {
		if o.Name == r.name && o.Attributes[AttrSchema] == r.schema && slices.Contains([]string{KindTable, KindView, KindSequence, KindForeignTable}, o.Kind) {
			return true
		}
	}
	return false
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

// prepareDatabase makes a database anew, or makes sure that there is one and
// drops what comes again.
func (l *loader) prepareDatabase(ctx context.Context, admin *session, db *loadDatabase) error {
	existing, err := admin.value(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = "+quoteString(db.target)+")")
	if err != nil {
		return err
	}
	there := existing == "t"
	if there && !db.whole {
		return l.dropSelected(ctx, db)
	}
	if there {
		// An empty database is no loss, and goes as well, to get the dump's encoding and locale.
		force := ""
		if l.opts.Replace {
			force = " WITH (FORCE)"
			if err := admin.exec(ctx, "ALTER DATABASE "+quoteIdentifier(db.target)+" IS_TEMPLATE false"); err != nil {
				return err
			}
		}
		if err := admin.exec(ctx, "DROP DATABASE "+quoteIdentifier(db.target)+force); err != nil {
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

// dropSelected drops the relations that come again; what depends on one keeps it.
func (l *loader) dropSelected(ctx context.Context, db *loadDatabase) error {
	if !l.opts.Replace {
		return nil
	}
	s, err := l.engine.connect(ctx, db.target)
	if err != nil {
		return err
	}
	defer s.abandon()
	relations, err := readRelations(ctx, s, Filter{})
	if err != nil {
		return err
	}
	words := map[string]string{"r": "TABLE", "p": "TABLE", "v": "VIEW", "m": "MATERIALIZED VIEW", "S": "SEQUENCE", "f": "FOREIGN TABLE"}
	var drops []string
	for _, kind := range []string{"v", "m", "r", "p", "f", "S"} {
		var list []string
		for _, r := range relations {
			if r.kind == kind && !r.extension && db.creates(r) {
				list = append(list, r.qualified())
			}
		}
		if len(list) > 0 { // together, since they may depend on each other
			drops = append(drops, "DROP "+words[kind]+" IF EXISTS "+strings.Join(list, ", "))
		}
	}
	for _, drop := range drops {
		if err := s.exec(ctx, drop); err != nil {
			return fmt.Errorf("replace: %w", err)
		}
	}
	return nil
}
