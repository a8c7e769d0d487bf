package postgres

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"

	"keepset/internal/record"
)

// largeObjects are those of one database. pg_dump counts even their definitions
// as rows since version 17, so both are written here: statements that create
// them with their owners, rights and comments, and their content, which lies in
// one table of the server's, whose rows are pieces of objects.
type largeObjects struct {
	number int64
	size   int64
	rows   int64
	data   []string
}

func readLargeObjects(ctx context.Context, s *session) (l largeObjects, err error) {
	if l.number, err = s.number(ctx, "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata"); err != nil {
		return l, err
	}
	l.size, err = s.number(ctx, "SELECT pg_catalog.pg_relation_size('pg_catalog.pg_largeobject')")
	return l, err
}

// largeObjectTasks are the pieces of the content.
func (d *dump) largeObjectTasks(db *databaseDump) []rowsTask {
	if db.large.number == 0 {
		return nil
	}
	var tasks []rowsTask
	for i, where := range blockRanges(db.large.size, d.server.blockSize, d.opts.ChunkBytes) {
		stream := largeObjectStream(db.name, i)
		tasks = append(tasks, rowsTask{
			// A row holds a quarter of a block.
			copy:   fmt.Sprintf("(SELECT loid, pageno::pg_catalog.int8 * %d, data FROM pg_catalog.pg_largeobject WHERE %s)", d.server.blockSize/4, where),
			stream: stream, done: func(rows int64, exists bool) {
				db.large.rows += rows
				if exists {
					db.large.data = append(db.large.data, stream)
				}
			},
		})
	}
	return tasks
}

// largeObjectStatements are what creates them, in the order in which it has to be
// run: rights are given by whom they were given, the owner's first.
const largeObjectStatements = `WITH o AS (SELECT m.oid, m.lomacl, m.lomowner, r.rolname AS owner
 FROM pg_catalog.pg_largeobject_metadata m JOIN pg_catalog.pg_roles r ON r.oid = m.lomowner)
SELECT oid, 0 AS step, 0 AS n, format('SELECT pg_catalog.lo_create(%L);', oid) AS code FROM o
UNION ALL SELECT oid, 1, 0, format('ALTER LARGE OBJECT %s OWNER TO %I;', oid, owner) FROM o
UNION ALL SELECT oid, 2, 0, format('REVOKE ALL ON LARGE OBJECT %s FROM %I;', oid, owner) FROM o WHERE lomacl IS NOT NULL
UNION ALL SELECT o.oid, 3, a.n,
 CASE WHEN a.grantor <> o.lomowner THEN format(E'SET SESSION AUTHORIZATION %I;\n', g.rolname) ELSE '' END ||
 format('GRANT %s ON LARGE OBJECT %s TO %s', a.privilege_type, o.oid, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(t.rolname) END) ||
 CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION;' ELSE ';' END ||
 CASE WHEN a.grantor <> o.lomowner THEN E'\nRESET SESSION AUTHORIZATION;' ELSE '' END
 FROM o, pg_catalog.aclexplode(o.lomacl) WITH ORDINALITY AS a (grantor, grantee, privilege_type, is_grantable, n)
 LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantor LEFT JOIN pg_catalog.pg_roles t ON t.oid = a.grantee
UNION ALL SELECT o.oid, 4, 0, format('COMMENT ON LARGE OBJECT %s IS %L;', o.oid, d.description)
 FROM o JOIN pg_catalog.pg_description d ON d.objoid = o.oid AND d.classoid = 'pg_catalog.pg_largeobject'::pg_catalog.regclass
UNION ALL SELECT o.oid, 5, 0, format('SECURITY LABEL FOR %I ON LARGE OBJECT %s IS %L;', l.provider, o.oid, l.label)
 FROM o JOIN pg_catalog.pg_seclabel l ON l.objoid = o.oid AND l.classoid = 'pg_catalog.pg_largeobject'::pg_catalog.regclass
ORDER BY 1, 2, 3`

// writeLargeObjects writes the statements behind those of pg_dump. A right whose
// giver or receiver is no role any more has no statement, which is an error.
func (d *dump) writeLargeObjects(ctx context.Context, db *databaseDump, to io.Writer) error {
	if db.large.number == 0 {
		return nil
	}
	s, err := d.worker(ctx, db)
	if err != nil {
		return err
	}
	defer s.abandon()
	if db.encoding == "SQL_ASCII" { // as the rest of the script
		if err := s.exec(ctx, "SET client_encoding = 'SQL_ASCII'"); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(to, "\n"); err != nil {
		return err
	}
	created := int64(0)
	err = s.each(ctx, largeObjectStatements, func(r row) error {
		if r.null(3) {
			return fmt.Errorf("large object %s of database %s has a right of a role that does not exist: revoke it", r.at(0), db.name)
		}
		if r.at(1) == "0" {
			created++
		}
		_, err := io.WriteString(to, r.at(3)+"\n")
		return err
	})
	if err == nil && created != db.large.number {
		err = fmt.Errorf("database %s: %d of %d large objects have an owner that exists", db.name, created, db.large.number)
	}
	return err
}

// object is what the report says of them.
func (l *largeObjects) object(db string) record.Object {
	slices.Sort(l.data)
	return record.Object{
		Kind: KindLargeObjects, Schema: db, Name: strconv.FormatInt(l.number, 10), Data: l.data, Rows: l.rows,
		Columns:    []record.Column{{Name: "loid", Type: "oid"}, {Name: "offset", Type: "bigint"}, {Name: "data", Type: "bytea"}},
		Attributes: map[string]string{AttrDatabase: db},
	}
}
