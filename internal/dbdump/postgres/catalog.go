package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// relation is a table, view or sequence, as the catalog has it.
type relation struct {
	oid          string
	schema, name string
	// kind is pg_class's: r table, p partitioned table, v view, m materialized
	// view, S sequence, f foreign table.
	kind      string
	unlogged  bool
	heap      bool
	size      int64  // of its main file, bytes
	extension string // that it belongs to, and that makes it
	condition string
	ownedBy   [2]string
	root      [2]string // topmost parent where rows are given to it
	columns   []column
	// parents are the tables that it inherits from, or is a partition of.
	parents   []*relation
	partition bool
	bound     string // of a partition, as ATTACH PARTITION takes it

	noRows string // why its rows are not in the dump
	parts  int
	rows   int64
	data   []string
}

type column struct{ name, kind string }

func (r *relation) qualified() string { return quoteQualified(r.schema, r.name) }

// stores tells whether it has rows of its own.
func (r *relation) stores() bool { return r.kind == "r" }

// namedObject is an object of which the report says that it is there.
type namedObject struct{ kind, schema, name, version string }

// userSchemas leaves out the server's own schemas and those of temporary tables.
const userSchemas = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"

// relationQuery lists the relations of a database. It is asked before they are
// locked, and waits for nobody who has locked one. What an extension has made is
// listed only where the extension says that its rows are the user's.
const relationQuery = `SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, COALESCE(am.amname, ''), COALESCE(x.extname, ''),
 COALESCE(x.extcondition[pg_catalog.array_position(x.extconfig, c.oid)], ''), COALESCE(tn.nspname, ''), COALESCE(t.relname, '')
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam
LEFT JOIN pg_catalog.pg_depend e ON e.classid = 'pg_catalog.pg_class'::regclass AND e.objid = c.oid AND e.objsubid = 0 AND e.deptype = 'e'
LEFT JOIN pg_catalog.pg_extension x ON x.oid = e.refobjid
LEFT JOIN pg_catalog.pg_depend o ON c.relkind = 'S' AND o.classid = 'pg_catalog.pg_class'::regclass AND o.objid = c.oid
 AND o.refclassid = 'pg_catalog.pg_class'::regclass AND o.refobjsubid > 0 AND o.deptype IN ('a', 'i')
LEFT JOIN pg_catalog.pg_class t ON t.oid = o.refobjid
LEFT JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND ` + userSchemas + `
 AND (x.oid IS NULL OR c.oid = ANY (x.extconfig))
ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"`

// readRelations lists the relations of a database, with their parents.
func readRelations(ctx context.Context, s *session) ([]*relation, error) {
	var list []*relation
	err := s.each(ctx, relationQuery, func(r row) error {
		rel := &relation{
			oid: r.at(0), schema: r.at(1), name: r.at(2), kind: r.at(3), unlogged: r.at(4) == "u", heap: r.at(5) == "heap",
			extension: r.at(6), condition: r.at(7), ownedBy: [2]string{r.at(8), r.at(9)},
		}
		list = append(list, rel)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, readParents(ctx, s, list)
}

// columnQuery lists the columns that COPY gives. Generated ones are computed
// again when rows are loaded.
const columnQuery = `SELECT a.attrelid, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND c.relkind = 'r' AND ` + userSchemas + `
ORDER BY a.attrelid, a.attnum`

// rootQuery finds the partitions that may belong elsewhere in another server:
// those below a table that is partitioned by hash, since the hash of a value may
// depend on what is not in the dump (the numbers of an enumeration, a collation).
// Their rows are given to the topmost parent.
const rootQuery = `WITH RECURSIVE up (leaf, parent, hashed) AS (
 SELECT i.inhrelid, i.inhparent, p.partstrat = 'h' FROM pg_catalog.pg_inherits i
 JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition AND c.relkind = 'r'
 JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = i.inhparent
 UNION ALL
 SELECT up.leaf, i.inhparent, up.hashed OR p.partstrat = 'h' FROM up JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.parent
 JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = i.inhparent)
SELECT up.leaf, n.nspname, c.relname FROM up JOIN pg_catalog.pg_class c ON c.oid = up.parent AND NOT c.relispartition
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE up.hashed`

// readSizes reads how large the tables are, which takes locks like ours.
func readSizes(ctx context.Context, s *session, byOID map[string]*relation) error {
	var tables []string
	for oid, r := range byOID {
		if r.stores() {
			tables = append(tables, oid)
		}
	}
	if len(tables) == 0 {
		return nil
	}
	q := "SELECT t.oid, pg_catalog.pg_relation_size(t.oid) FROM pg_catalog.unnest('{" + strings.Join(tables, ",") + "}'::pg_catalog.oid[]) AS t (oid)"
	return s.each(ctx, q, func(r row) (err error) {
		byOID[r.at(0)].size, err = r.int(1)
		return err
	})
}

// readDetails completes the relations that a snapshot has, and that are locked.
func readDetails(ctx context.Context, s *session, list []*relation) error {
	byOID := make(map[string]*relation, len(list))
	for _, r := range list {
		byOID[r.oid] = r
	}
	if err := readSizes(ctx, s, byOID); err != nil {
		return err
	}
	err := s.each(ctx, columnQuery, func(r row) error {
		if rel := byOID[r.at(0)]; rel != nil {
			rel.columns = append(rel.columns, column{name: r.at(1), kind: r.at(2)})
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := readBounds(ctx, s, byOID); err != nil {
		return err
	}
	return s.each(ctx, rootQuery, func(r row) error {
		if rel := byOID[r.at(0)]; rel != nil {
			rel.root = [2]string{r.at(1), r.at(2)}
		}
		return nil
	})
}

// notOfExtension leaves out what an extension has made.
const notOfExtension = "NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = '%[1]s'::regclass AND d.objid = %[2]s.oid AND d.deptype = 'e')"

// inventoryQueries list what is no relation: kind, schema, name, version.
var inventoryQueries = []string{
	"SELECT '" + KindExtension + "', n.nspname, x.extname, x.extversion FROM pg_catalog.pg_extension x JOIN pg_catalog.pg_namespace n ON n.oid = x.extnamespace " +
		`WHERE x.oid >= 16384 ORDER BY x.extname COLLATE "C"`,
	"SELECT '" + KindSchema + "', n.nspname, n.nspname, '' FROM pg_catalog.pg_namespace n WHERE " + userSchemas + " AND " +
		fmt.Sprintf(notOfExtension, "pg_catalog.pg_namespace", "n") + ` ORDER BY n.nspname COLLATE "C"`,
	"SELECT '" + KindRoutine + "', n.nspname, pg_catalog.concat(p.proname, '(', pg_catalog.pg_get_function_identity_arguments(p.oid), ')'), '' " +
		"FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE " + userSchemas + " AND " +
		fmt.Sprintf(notOfExtension, "pg_catalog.pg_proc", "p") + ` ORDER BY n.nspname COLLATE "C", p.proname COLLATE "C", p.oid`,
}

// nameOfRoutine is a routine's name without its arguments.
func nameOfRoutine(identity string) string {
	name, _, _ := strings.Cut(identity, "(")
	return name
}

// readInventory lists what is selected besides relations.
func readInventory(ctx context.Context, s *session, chosen *selection) ([]namedObject, error) {
	var list []namedObject
	for _, q := range inventoryQueries {
		err := s.each(ctx, q, func(r row) error {
			o := namedObject{kind: r.at(0), schema: r.at(1), name: r.at(2), version: r.at(3)}
			switch {
			case o.kind == KindExtension && !chosen.has(thing{anExtension, "", o.name}):
			case o.kind == KindSchema && !chosen.schema(o.schema):
			case o.kind == KindRoutine && !chosen.has(thing{aRoutine, o.schema, nameOfRoutine(o.name)}):
			default:
				list = append(list, o)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// rolesInUse lists the roles without which the database's definitions cannot be
// created: those that own something or are named in rights. What the bootstrap
// superuser owns is not on record as such, so it is looked for.
const rolesInUse = `SELECT DISTINCT r.rolname FROM pg_catalog.pg_roles r, pg_catalog.pg_database b
WHERE b.datname = pg_catalog.current_database() AND (r.oid = b.datdba
 OR EXISTS (SELECT FROM pg_catalog.pg_shdepend d WHERE d.refclassid = 'pg_catalog.pg_authid'::regclass AND d.refobjid = r.oid
  AND (d.dbid = b.oid OR d.dbid = 0 AND d.classid = 'pg_catalog.pg_database'::regclass AND d.objid = b.oid))
 OR EXISTS (SELECT FROM pg_catalog.pg_db_role_setting g WHERE g.setdatabase = b.oid AND g.setrole = r.oid)
 OR r.oid = 10 AND (EXISTS (SELECT FROM pg_catalog.pg_class WHERE relowner = 10 AND oid >= 16384)
  OR EXISTS (SELECT FROM pg_catalog.pg_proc WHERE proowner = 10 AND oid >= 16384)
  OR EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspowner = 10 AND oid >= 16384)))
ORDER BY 1`

// readRolesInUse returns them.
func readRolesInUse(ctx context.Context, s *session) ([]string, error) {
	var roles []string
	err := s.each(ctx, rolesInUse, func(r row) error {
		roles = append(roles, r.at(0))
		return nil
	})
	return roles, err
}

// databaseInfo is a database of the server.
type databaseInfo struct{ name, encoding string }

// readDatabases lists the databases of the server that the filter selects, and
// those that cannot be dumped though it does.
func readDatabases(ctx context.Context, s *session, f Filter) (list []databaseInfo, closed []string, err error) {
	const q = "SELECT datname, pg_catalog.pg_encoding_to_char(encoding), datallowconn FROM pg_catalog.pg_database " +
		`WHERE datname NOT IN ('template0', 'template1') ORDER BY datname COLLATE "C"`
	err = s.each(ctx, q, func(r row) error {
		switch {
		case !f.Database(r.at(0)):
		case r.at(2) != "t":
			closed = append(closed, r.at(0))
		default:
			list = append(list, databaseInfo{name: r.at(0), encoding: r.at(1)})
		}
		return nil
	})
	return list, closed, err
}

// sameRelations tells whether two lists hold the same tables under the same names.
func sameRelations(a, b []*relation) bool {
	return slices.EqualFunc(lockable(a), lockable(b), func(x, y *relation) bool { return x.oid == y.oid && x.qualified() == y.qualified() })
}

// lockable are the relations that LOCK TABLE takes: tables.
func lockable(list []*relation) []*relation {
	return slices.DeleteFunc(slices.Clone(list), func(r *relation) bool { return r.kind != "r" && r.kind != "p" })
}

// columnList is a list for COPY, in parentheses; "" when there are no columns to name.
func columnList(names []string) string {
	if len(names) == 0 {
		return ""
	}
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = quoteIdentifier(n)
	}
	return " (" + strings.Join(quoted, ", ") + ")"
}
