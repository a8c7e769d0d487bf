package postgres

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump/dbdumptest"
	"keepset/internal/record"
	"keepset/test/servers"
)

// version is a version of PostgreSQL under test.
type version struct {
	name  string
	start func(testing.TB, ...servers.PostgresOption) *servers.Postgres
}

func versions() []version {
	return []version{{"15", servers.Postgres15}, {"18", servers.Postgres18}}
}

// options are those of an engine for the administrator of a server.
func options(s *servers.Postgres) Options {
	return Options{
		Address: s.Addr, User: s.User, Password: s.Password, Programs: Local{Dir: s.Programs}, Workers: 3,
		ConnectTimeout: time.Minute, // a busy machine is no reason to fail
	}
}

// otherDefaults are settings that must not show in what is dumped or loaded.
func otherDefaults() servers.PostgresOption {
	return servers.WithPostgresConfig("datestyle='German'", "intervalstyle='iso_8601'", "timezone='Asia/Kathmandu'", "extra_float_digits=-5",
		"bytea_output='escape'", "standard_conforming_strings=off", "escape_string_warning=off", "search_path='nowhere'", "client_encoding='LATIN1'",
		"default_transaction_isolation='serializable'", "default_transaction_read_only=on", "xmloption='document'", "row_security=on",
		"statement_timeout='30s'", "quote_all_identifiers=on", "check_function_bodies=on")
}

// fixture are the statements that make one object of every kind, in database shop.
var fixture = []string{
	"CREATE EXTENSION hstore", "CREATE EXTENSION citext",
	`CREATE SCHEMA "Näme; x"`, "COMMENT ON SCHEMA \"Näme; x\" IS 'a\\b '' \n\\connect evil\n'",
	"CREATE TYPE public.mood AS ENUM ('sad', 'ok', 'happy')", "CREATE DOMAIN public.positive AS int CHECK (VALUE > 0)",
	"CREATE TYPE public.pair AS (a int, b text)",
	`CREATE TABLE public.customer (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, email citext UNIQUE, h hstore,
	 total numeric(20,4) DEFAULT 0, twice numeric GENERATED ALWAYS AS (total * 2) STORED, m public.mood, p public.positive, CHECK (length(name) < 1000))`,
	"INSERT INTO public.customer OVERRIDING SYSTEM VALUE VALUES (100, 'first', 'A@x', 'a=>1,b=>NULL', 1.5, DEFAULT, 'ok', 3)",
	"INSERT INTO public.customer (name, total) VALUES (E'tab\\t nl\\n back\\\\ \\\\N', -0.0001), ('', NULL), ('\\N', 'NaN')",
	`CREATE TABLE public.types (i2 smallint, f4 real, f8 double precision, n numeric, m money, b boolean, t text, vc varchar(5), c char(5), by bytea,
	 d date, ti time, ttz timetz, ts timestamp, tz timestamptz, iv interval, u uuid, j json, jb jsonb, x xml, ip inet, mac macaddr, bits bit(3), vb varbit,
	 pt point, poly polygon, r int4range, mr int4multirange, a int[], a2 text[][], pr public.pair, ts2 tsvector, o oid, lsn pg_lsn)`,
	`INSERT INTO public.types VALUES (-32768, 'NaN', 1e-300, 12345678901234567890.123456789, 12.34, true, 'é€😀', 'abc', 'ab', '\x00ff0a5c09',
	 '4713-01-01 BC', '24:00', '12:00:00+05:45', 'infinity', '2026-02-28 23:59:59.999999+05:45', '1 year -2 days 03:04:05.6', gen_random_uuid(),
	 '{"a" :1, "a":2}', '{"b": 1e10}', '<a>x</a><b/>', '::1/64', '08:00:2b:01:02:03', B'101', B'1', '(0.1,-0)', '((0,0),(1,1),(1,0))', '[1,5)', '{[1,2),[5,6)}',
	 '[0:1]={1,NULL}', '{{a,"b,c"},{"NULL",NULL}}', ROW(1, 'q"'), 'a:1 b:2A', 4294967295, '16/B374D848')`, "INSERT INTO public.types DEFAULT VALUES",
	"INSERT INTO public.types (f4, f8) VALUES (0.1, 0.1), ('-0', '-Infinity'), (3.4028235e38, 5e-324)",
	"CREATE TABLE public.empty (a int)", "CREATE TABLE public.no_columns ()", "INSERT INTO public.no_columns DEFAULT VALUES", "INSERT INTO public.no_columns DEFAULT VALUES",
	`CREATE TABLE "Näme; x"."ta""ble.X" ("co""l" int PRIMARY KEY, "select" text)`, `INSERT INTO "Näme; x"."ta""ble.X" VALUES (1, 'x'), (2, NULL)`,
	"CREATE TABLE public.part (k int, v text, PRIMARY KEY (k)) PARTITION BY RANGE (k)",
	"CREATE TABLE public.part_1 PARTITION OF public.part FOR VALUES FROM (0) TO (10)", "CREATE TABLE public.part_d PARTITION OF public.part DEFAULT",
	"INSERT INTO public.part SELECT g, 'v' || g FROM generate_series(1, 25) g",
	"CREATE TABLE public.hashed (m public.mood, v text) PARTITION BY HASH (m)",
	"CREATE TABLE public.hashed_0 PARTITION OF public.hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
	"CREATE TABLE public.hashed_1 PARTITION OF public.hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
	"INSERT INTO public.hashed VALUES ('sad', 'a'), ('ok', 'b'), ('happy', 'c')",
	"CREATE TABLE public.parent (a int)", "CREATE TABLE public.child (b int) INHERITS (public.parent)", "INSERT INTO public.parent VALUES (1)", "INSERT INTO public.child VALUES (2, 3)",
	"CREATE TABLE public.orders (id serial PRIMARY KEY, customer bigint REFERENCES public.customer, note text, EXCLUDE USING gist (int4range(id, id + 1) WITH &&))",
	"INSERT INTO public.orders (customer, note) VALUES (100, 'x'), (NULL, NULL)",
	"CREATE INDEX orders_note ON public.orders (lower(note)) WHERE note IS NOT NULL", "COMMENT ON INDEX public.orders_note IS 'i'",
	"CREATE STATISTICS public.st ON customer, note FROM public.orders",
	"CREATE SEQUENCE public.alone INCREMENT -7 MINVALUE -1000", "SELECT nextval('public.alone'), nextval('public.alone')", "CREATE SEQUENCE public.untouched START 5",
	"CREATE UNLOGGED TABLE public.unlogged (a int)", "INSERT INTO public.unlogged VALUES (7)",
	"CREATE FUNCTION public.atomic(x int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN x > 0 THEN 1 ELSE 2 END; SELECT x; END",
	"CREATE FUNCTION public.body() RETURNS trigger LANGUAGE plpgsql AS $q$ BEGIN -- ; '\n RAISE NOTICE 'a;b'; RETURN NEW; END $q$",
	"CREATE PROCEDURE public.proc(INOUT a int) LANGUAGE plpgsql AS $$ BEGIN a := a + 1; COMMIT; END $$",
	"CREATE AGGREGATE public.agg(int) (SFUNC = int4pl, STYPE = int)", "CREATE CAST (public.pair AS text) WITH INOUT",
	"CREATE OPERATOR public.=#= (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)",
	"CREATE TRIGGER tr BEFORE UPDATE OF note ON public.orders FOR EACH ROW EXECUTE FUNCTION public.body()", "COMMENT ON TRIGGER tr ON public.orders IS 'it''s'",
	"CREATE VIEW public.v AS SELECT id, name FROM public.customer", "CREATE MATERIALIZED VIEW public.mv AS SELECT count(*) AS n FROM public.orders", "CREATE UNIQUE INDEX ON public.mv (n)",
	"CREATE RULE r AS ON INSERT TO public.v DO INSTEAD (INSERT INTO public.customer (name) VALUES (new.name); SELECT 1)",
	"ALTER TABLE public.orders ENABLE ROW LEVEL SECURITY", "ALTER TABLE public.orders FORCE ROW LEVEL SECURITY",
	"CREATE POLICY mine ON public.orders FOR SELECT TO app USING (note = CURRENT_USER)",
	"CREATE FOREIGN DATA WRAPPER fdw", "CREATE SERVER elsewhere FOREIGN DATA WRAPPER fdw", "CREATE USER MAPPING FOR app SERVER elsewhere OPTIONS (password 'hunter2')",
	"CREATE FOREIGN TABLE public.far (a int) SERVER elsewhere",
	"GRANT SELECT (id, name), UPDATE (name) ON public.customer TO app WITH GRANT OPTION", "GRANT USAGE ON SCHEMA \"Näme; x\" TO app", "ALTER TABLE public.empty OWNER TO owner",
	"ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA public GRANT SELECT ON TABLES TO app", "CREATE PUBLICATION pub FOR TABLE public.orders",
	"CREATE FUNCTION public.ev() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'", "CREATE EVENT TRIGGER ev ON ddl_command_end EXECUTE FUNCTION public.ev()",
	"SET ROLE app; GRANT SELECT (id) ON public.customer TO reader; RESET ROLE",
	"SELECT lo_create(4711)", "SELECT lo_from_bytea(4712, decode(repeat('00ff0a5c', 3000), 'hex'))", "SELECT lo_put(lo_create(4713), 1000000, 'end')",
	"GRANT SELECT ON LARGE OBJECT 4712 TO app WITH GRANT OPTION", "SET ROLE app; GRANT SELECT ON LARGE OBJECT 4712 TO reader; RESET ROLE",
	"GRANT UPDATE ON LARGE OBJECT 4713 TO PUBLIC", "ALTER LARGE OBJECT 4711 OWNER TO owner", "REVOKE ALL ON LARGE OBJECT 4711 FROM owner",
	"COMMENT ON LARGE OBJECT 4712 IS 'lo'",
	"COMMENT ON COLUMN public.customer.name IS 'c'", "COMMENT ON TABLE public.customer IS E'line\\n\\\\! rm -rf /'",
}

// roles are those that the fixture needs, and databases what it makes.
var clusterFixture = []string{
	"CREATE ROLE owner", "CREATE ROLE grp", "CREATE ROLE reader", "CREATE ROLE app LOGIN PASSWORD 'secret' CONNECTION LIMIT 7", "GRANT grp TO app", "ALTER ROLE app SET work_mem = '7MB'",
	"CREATE DATABASE shop OWNER owner", "COMMENT ON DATABASE shop IS 'shop'", "ALTER DATABASE shop SET extra_float_digits = -3", "ALTER DATABASE shop SET default_transaction_read_only = on",
	"ALTER ROLE app IN DATABASE shop SET work_mem = '6MB'", "REVOKE ALL ON DATABASE shop FROM PUBLIC", "GRANT CONNECT ON DATABASE shop TO app",
	"CREATE DATABASE old ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0", "CREATE DATABASE bare", "CREATE DATABASE raw ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0",
}

// fill makes the fixture.
func fill(t testing.TB, s *servers.Postgres) {
	t.Helper()
	s.Exec(t, "postgres", clusterFixture...)
	s.Exec(t, "shop", append([]string{"SET default_transaction_read_only = off; SET extra_float_digits = 1"}, fixture...)...)
	s.Exec(t, "old", "SET client_encoding = 'UTF8'", "CREATE TABLE public.umlaut (ü text)", "INSERT INTO public.umlaut VALUES ('ä'), ('ß')")
	s.Exec(t, "bare", "DROP SCHEMA public", "CREATE SCHEMA s", "CREATE TABLE s.t (a int)")
	s.Exec(t, "raw", "CREATE TABLE public.bytes (b text)", `INSERT INTO public.bytes VALUES (E'\xff\xfe')`)
}

var psqlLines = regexp.MustCompile(`(?m)^\\(un)?restrict .*$`)

// plain makes a session say the same whatever the server's defaults are.
const plain = "SET extra_float_digits = 3; SET bytea_output = 'hex'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET timezone = 'UTC'; " +
	"SET search_path = ''; SET quote_all_identifiers = off; SET client_encoding = 'UTF8'; "

// describe is everything in the server, as its own pg_dump and pg_dumpall and the values themselves say.
func describe(t testing.TB, s *servers.Postgres, withRoles bool) map[string]string {
	t.Helper()
	content := map[string]string{}
	if withRoles {
		content["roles"] = run(t, s, "pg_dumpall", "--globals-only")
	}
	for _, db := range s.Rows(t, "postgres", "SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1") {
		content[db+" definitions"] = run(t, s, "pg_dump", "--schema-only", "--create", "--dbname="+db)
		// Hash partitions count as one: which of them a row is in depends on numbers that the server gives to types.
		const tables = "SELECT format('SELECT %L, encode(convert_to(x::text, current_setting(''server_encoding'')), ''escape'') FROM ONLY %s x', " +
			"coalesce((SELECT p.partrelid FROM pg_inherits i JOIN pg_partitioned_table p ON p.partrelid = i.inhparent WHERE i.inhrelid = c.oid AND p.partstrat = 'h'), c.oid)::regclass, c.oid::regclass) " +
			"FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace " +
			"WHERE c.relkind IN ('r', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1"
		queries := s.Rows(t, db, plain+tables)
		list := s.Rows(t, db, plain+"SELECT format('%I.%I', schemaname, sequencename) FROM pg_sequences ORDER BY 1")
		for _, sequence := range list {
			queries = append(queries, "SELECT "+quoteString(sequence)+", format('%s %s', last_value, is_called) FROM "+sequence)
		}
		if len(queries) > 0 {
			content[db+" rows"] = strings.Join(s.Rows(t, db, plain+strings.Join(queries, " UNION ALL ")+" ORDER BY 1, 2"), "\n")
		}
		content[db+" large objects"] = strings.Join(s.Rows(t, db, plain+"SELECT oid, md5(lo_get(oid)), length(lo_get(oid)), lomowner::regrole, lomacl, obj_description(oid, 'pg_largeobject') FROM pg_largeobject_metadata ORDER BY 1"), "\n")
	}
	return content
}

// run runs one of the server's programs.
func run(t testing.TB, s *servers.Postgres, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(s.Programs, program), append(args, "--encoding=UTF8", "--host="+s.Host, "--port="+s.Addr[strings.LastIndexByte(s.Addr, ':')+1:], "--username="+s.User)...)
	cmd.Env = []string{"PGPASSWORD=" + s.Password, "PGOPTIONS=-c quote_all_identifiers=off -c standard_conforming_strings=on"}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return psqlLines.ReplaceAllString(string(out), "")
}

// dumpOf dumps a server into memory.
func dumpOf(t testing.TB, o Options) (*dbdumptest.Memory, record.Report) {
	t.Helper()
	m := dbdumptest.NewMemory()
	report, err := newEngine(t, o).Dump(t.Context(), m)
	require.NoError(t, err)
	require.Empty(t, m.Open())
	return m, report
}

// newEngine makes an engine that is closed when the test ends.
func newEngine(t testing.TB, o Options) *Engine {
	t.Helper()
	e, err := New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e
}
