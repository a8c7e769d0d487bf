package postgres

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What a statement is about decides which part of a dump it belongs to.
func TestUnderstand(t *testing.T) {
	for code, want := range map[string]statement{
		`CREATE TABLE public.t (a int DEFAULT x.f());`:                                    {verb: "create", kind: "table", schema: "public", name: "t"},
		`CREATE UNLOGGED TABLE "S s"."t""x" (a int);`:                                     {verb: "create", kind: "table", schema: "S s", name: `t"x`},
		`CREATE FOREIGN TABLE s.far (a int) SERVER x;`:                                    {verb: "create", kind: "table", schema: "s", name: "far"},
		`CREATE FOREIGN DATA WRAPPER w HANDLER s.h;`:                                      {verb: "create", kind: "foreign data", schema: "s", name: "h"},
		`CREATE UNIQUE INDEX i ON ONLY s.t USING btree (lower(a));`:                       {verb: "create", kind: "index", schema: "s", name: "t", parent: "t"},
		`ALTER INDEX s.i ATTACH PARTITION s.j;`:                                           {verb: "alter", kind: "index", schema: "s", name: "i"},
		`ALTER TABLE ONLY s.t ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES o.p(a);`:        {verb: "alter", kind: "table", schema: "s", name: "t"},
		`CREATE TRIGGER g BEFORE UPDATE OF a ON s.t FOR EACH ROW EXECUTE FUNCTION o.f();`: {verb: "create", kind: "trigger", schema: "s", name: "t"},
		`CREATE CONSTRAINT TRIGGER g AFTER INSERT ON s.t EXECUTE FUNCTION o.f();`:         {verb: "create", kind: "trigger", schema: "s", name: "t"},
		`CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION s.f();`:               {verb: "create", kind: "event trigger", schema: "s", name: "f"},
		`CREATE POLICY p ON s.t TO app USING ((a = 1));`:                                  {verb: "create", kind: "policy", schema: "s", name: "t"},
		`CREATE RULE r AS ON INSERT TO s.v DO INSTEAD (SELECT 1; SELECT o.f());`:          {verb: "create", kind: "rule", schema: "s", name: "v"},
		`CREATE STATISTICS s.st (ndistinct) ON a, b FROM s.t;`:                            {verb: "create", kind: "statistics", schema: "s", name: "st", parent: "t"},
		`CREATE OR REPLACE VIEW s.v AS SELECT 1;`:                                         {verb: "create", kind: "view", schema: "s", name: "v"},
		`CREATE MATERIALIZED VIEW s.v AS SELECT 1 WITH NO DATA;`:                          {verb: "create", kind: "view", schema: "s", name: "v"},
		`REFRESH MATERIALIZED VIEW s.v;`:                                                  {verb: "refresh", kind: "view", schema: "s", name: "v"},
		`CREATE FUNCTION s.f(a int) RETURNS int LANGUAGE sql AS 'SELECT 1';`:              {verb: "create", kind: "function", schema: "s", name: "f"},
		`CREATE OPERATOR s.+ (FUNCTION = o.f);`:                                           {verb: "create", kind: "operator", schema: "s", name: "+"},
		`COMMENT ON COLUMN s.t.c IS 'on table x.y';`:                                      {verb: "comment", kind: "column", schema: "s", name: "t"},
		`COMMENT ON TRIGGER g ON s.t IS 'x';`:                                             {verb: "comment", kind: "trigger", schema: "s", name: "t"},
		`GRANT SELECT(a),UPDATE(b) ON TABLE s.t TO app;`:                                  {verb: "grant", kind: "table", schema: "s", name: "t"},
		`GRANT USAGE ON SCHEMA s TO app;`:                                                 {verb: "grant", kind: "schema", name: "s"},
		`GRANT CONNECT ON DATABASE d TO app;`:                                             {verb: "grant", kind: "database", name: "d"},
		`GRANT grp TO app GRANTED BY postgres;`:                                           {verb: "grant"},
		`ALTER ROLE app IN DATABASE d SET work_mem TO '6MB';`:                             {verb: "alter", kind: "role", name: "app"},
		`ALTER LARGE OBJECT 4711 OWNER TO postgres;`:                                      {verb: "alter", kind: "large object", name: "object"},
		`SELECT pg_catalog.lo_create('4711');`:                                            {verb: "select"},
		`SELECT pg_catalog.set_config('search_path', '', false);`:                         {verb: "select", kind: "session"},
		`SET row_security = off;`:                                                         {verb: "set", kind: "session"},
		`ALTER DEFAULT PRIVILEGES FOR ROLE o IN SCHEMA s GRANT SELECT ON TABLES TO app;`:  {verb: "alter", kind: "default", name: "o"},
	} {
		require.Equal(t, want, understand([]byte(code)), code)
	}
	require.Equal(t, "i", indexName([]byte(`CREATE UNIQUE INDEX i ON ONLY s.t USING btree (a);`)))
	require.Equal(t, "c d", constraintName([]byte("ALTER TABLE ONLY s.t\n    ADD CONSTRAINT \"c d\" PRIMARY KEY (a);")))
	require.Empty(t, constraintName([]byte(`ALTER TABLE s.t ENABLE ROW LEVEL SECURITY;`)))
}

// A table brings everything that is on it, and nothing else.
func TestSelection(t *testing.T) {
	s := newSelection(Filter{Include: []string{"d.s.t", "d.w*"}}, "d")
	s.owners[[2]string{"s", "q"}] = [2]string{"s", "t"}
	s.know([2]string{"parts", "t_1"}, [][2]string{{"s", "t"}}, [2]string{})
	s.along[thing{aType, "kinds", "mood"}], s.along[thing{anExtension, "", "citext"}], s.without[thing{aRelation, "whole", "v"}] = true, true, true
	for _, c := range []struct {
		code string
		want bool
	}{
		{"SET row_security = off;", true},
		{"CREATE SCHEMA s;", true},
		{"CREATE SCHEMA x;", false},
		{"GRANT USAGE ON SCHEMA s TO app;", false},
		{"GRANT USAGE ON SCHEMA whole TO app;", true},
		{"CREATE EXTENSION hstore WITH SCHEMA s;", false},
		{"CREATE TABLE s.t (a int);", true},
		{"CREATE TABLE s.u (a int);", false},
		{"CREATE TYPE s.t AS ENUM ();", false},
		{"CREATE TYPE whole.t AS ENUM ();", true},
		{"CREATE SEQUENCE s.q;", true},
		{"ALTER SEQUENCE s.q OWNED BY s.t.a;", true},
		{"CREATE SEQUENCE s.r;", false},
		{"CREATE INDEX i ON s.t USING btree (a);", true},
		{"CREATE INDEX j ON s.u USING btree (a);", false},
		{"COMMENT ON INDEX s.i IS 'x';", true},
		{"COMMENT ON INDEX s.j IS 'x';", false},
		{"ALTER TABLE ONLY s.t ADD CONSTRAINT k PRIMARY KEY (a);", true},
		{"ALTER INDEX s.k ATTACH PARTITION s.i;", true},
		{"ALTER INDEX s.k ATTACH PARTITION s.j;", false},
		{"ALTER INDEX s.j ATTACH PARTITION s.i;", false},
		{"CREATE SCHEMA parts;", true},
		{"CREATE TABLE parts.t_1 (a int);", true},
		{"ALTER TABLE ONLY s.t ATTACH PARTITION parts.t_1 DEFAULT;", true},
		{"ALTER TABLE ONLY s.t ATTACH PARTITION s.u DEFAULT;", false},
		{"ALTER TABLE ONLY s.u ATTACH PARTITION s.t DEFAULT;", false},
		{"CREATE TYPE kinds.mood AS ENUM ();", true},
		{"COMMENT ON TYPE kinds.mood IS 'x';", true},
		{"CREATE DOMAIN kinds.other AS int;", false},
		{"CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA s;", true},
		{"CREATE VIEW whole.v AS SELECT 1;", false},
		{"GRANT SELECT ON TABLE whole.v TO app;", false},
		{"CREATE STATISTICS s.st ON a, b FROM s.t;", true},
		{"COMMENT ON STATISTICS s.st IS 'x';", true},
		{"CREATE PUBLICATION p;", false},
		{"ALTER PUBLICATION p ADD TABLE ONLY s.t;", false},
		{"SELECT pg_catalog.lo_create('1');", false},
		{"ALTER LARGE OBJECT 1 OWNER TO x;", false},
		{"REFRESH MATERIALIZED VIEW s.u;", false},
	} {
		require.Equal(t, c.want, s.wants([]byte(c.code), understand([]byte(c.code))), c.code)
	}
	all := newSelection(Filter{Exclude: []string{"d.s.u"}}, "d")
	for code, want := range map[string]bool{
		"CREATE TABLE s.u (a int);": false, "CREATE TABLE s.t (a int);": true, "SELECT pg_catalog.lo_create('1');": true, "CREATE EXTENSION hstore;": true,
	} {
		require.Equal(t, want, all.wants([]byte(code), understand([]byte(code))), code)
	}
}

// Indexes are built at once, what needs them comes after.
func TestBuilds(t *testing.T) {
	for code, want := range map[string]bool{
		"CREATE INDEX i ON s.t USING btree (a);": true, "ALTER TABLE ONLY s.t ADD CONSTRAINT c PRIMARY KEY (a);": true,
		"ALTER TABLE ONLY s.t ADD CONSTRAINT c UNIQUE (a);": true, "ALTER TABLE ONLY s.t ADD CONSTRAINT c EXCLUDE USING gist (a WITH &&);": true,
		"ALTER TABLE ONLY s.t ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES s.u(a);": false, "ALTER INDEX s.i ATTACH PARTITION s.j;": false,
		"CREATE TRIGGER g BEFORE INSERT ON s.t EXECUTE FUNCTION s.f();": false,
	} {
		require.Equal(t, want, builds([]byte(code), understand([]byte(code))), code)
	}
}

// Ranges of blocks follow each other without a gap, and the last has no end.
func TestBlockRanges(t *testing.T) {
	require.Equal(t, []string{"ctid >= '(0,0)'"}, blockRanges(0, 8192, 64<<20))
	require.Equal(t, []string{"ctid >= '(0,0)'"}, blockRanges(64<<20, 8192, 64<<20))
	require.Equal(t, []string{"ctid >= '(0,0)' AND ctid < '(2,0)'", "ctid >= '(2,0)' AND ctid < '(4,0)'", "ctid >= '(4,0)'"}, blockRanges(5*8192, 8192, 2*8192))
}

// The name is what pg_walfile_name gives for the same position.
func TestWALFile(t *testing.T) {
	require.Equal(t, "000000010000000000000001", walFile(26622760, 1, 16<<20))
	require.Equal(t, "000000010000000000000001", walFile(32<<20, 1, 16<<20), "the end of a segment is in it")
	require.Equal(t, "0000000A00000002000000FF", walFile(3<<32, 10, 16<<20))
	require.Equal(t, "000000010000000100000000", walFile(1<<32+1, 1, 1<<30))
}
