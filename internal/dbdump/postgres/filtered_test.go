package postgres

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/dbdumptest"
	"keepset/internal/record"
	"keepset/test/servers"
)

// entangled are tables, views, routines and types that need each other.
var entangled = []string{
	"CREATE EXTENSION citext", "CREATE SCHEMA kinds", "CREATE TYPE kinds.mood AS ENUM ('sad', 'ok')", "CREATE DOMAIN kinds.feeling AS kinds.mood CHECK (VALUE <> 'sad')",
	"CREATE TABLE public.log (k int, v text, PRIMARY KEY (k)) PARTITION BY RANGE (k)", "CREATE TABLE public.log_1 PARTITION OF public.log FOR VALUES FROM (0) TO (10)",
	"CREATE TABLE public.log_2 PARTITION OF public.log FOR VALUES FROM (10) TO (20)", "INSERT INTO public.log SELECT g, 'v' FROM generate_series(1, 15) g",
	"CREATE TABLE public.base (id int PRIMARY KEY, v text)", "INSERT INTO public.base VALUES (1, 'x')",
	"CREATE VIEW public.v AS SELECT id FROM public.base", "CREATE VIEW public.vv AS SELECT id + 1 AS n FROM public.v", "GRANT SELECT ON public.vv TO PUBLIC",
	"CREATE MATERIALIZED VIEW public.mv AS SELECT n FROM public.vv", "CREATE INDEX ON public.mv (n)", "CREATE RULE r AS ON INSERT TO public.v DO INSTEAD NOTHING",
	"CREATE FUNCTION public.of_base() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM public.base; END", "COMMENT ON FUNCTION public.of_base() IS 'f'",
	"CREATE FUNCTION public.of_row(b public.base) RETURNS int LANGUAGE sql AS 'SELECT 1'",
	"CREATE TABLE public.alone (a int)", "INSERT INTO public.alone VALUES (7)", "CREATE VIEW public.of_alone AS SELECT a FROM public.alone",
	"CREATE FUNCTION kinds.double(x int) RETURNS int LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT x * 2; END",
	"CREATE TABLE public.needy (id int DEFAULT kinds.double(2), f kinds.feeling, m kinds.mood[], c citext, CHECK (kinds.double(id) > 0))", "INSERT INTO public.needy VALUES (DEFAULT, 'ok', '{sad,ok}', 'A')",
	"CREATE TYPE kinds.span AS RANGE (SUBTYPE = time, MULTIRANGE_TYPE_NAME = kinds.spans)", "CREATE TABLE public.spanned (s kinds.spans)", "INSERT INTO public.spanned VALUES ('{[1:00,2:00]}')",
	"CREATE FOREIGN DATA WRAPPER fdw", "CREATE SERVER elsewhere FOREIGN DATA WRAPPER fdw", "CREATE FOREIGN TABLE public.far (a int) SERVER elsewhere",
	"CREATE TABLE public.child (b int) INHERITS (public.base)", "CREATE SEQUENCE public.numbers", "CREATE TABLE public.numbered (id int DEFAULT nextval('public.numbers'))",
	"CREATE TABLE public.rows (b public.base)", "CREATE TABLE public.counted (n bigint DEFAULT public.of_base())",
	"CREATE FUNCTION public.of_base(factor int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
	"CREATE EXTENSION pg_stat_statements", "CREATE EXTENSION pg_trgm", "CREATE EXTENSION btree_gist",
	"CREATE FUNCTION kinds.lowered(v text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower(v)'", "CREATE TABLE public.searched (v text, n int, EXCLUDE USING gist (n WITH =))",
	"CREATE INDEX ON public.searched USING gin (v gin_trgm_ops)", "CREATE UNIQUE INDEX ON public.searched (kinds.lowered(v))", "INSERT INTO public.searched VALUES ('A', 1)",
	"CREATE OPERATOR CLASS kinds.plain FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 btint4cmp(int, int)", "CREATE INDEX ON public.alone (a kinds.plain)",
	"CREATE TABLE public.refers (id int REFERENCES public.base)", "INSERT INTO public.refers VALUES (1)",
}

// TestFilteredDump: a dump with a filter can be loaded into an empty server, and says what it lacks.
func TestFilteredDump(t *testing.T) {
	for _, v := range versions() {
		t.Run(v.name, func(t *testing.T) {
			source := v.start(t)
			source.Exec(t, "postgres", "CREATE DATABASE logs")
			source.Exec(t, "logs", entangled...)
			dump := func(include, exclude string) (record.Report, *servers.Postgres, error) {
				o := options(source)
				for list, to := range map[string]*[]string{include: &o.Filter.Include, exclude: &o.Filter.Exclude} {
					if list != "" {
						*to = strings.Split(list, " ")
					}
				}
				return loadElsewhere(t, v, o)
			}
			// What needs the table that is left out, and cannot be without.
			const dependants = " logs.public.child logs.public.rows logs.public.counted"
			for _, c := range []struct {
				name, include, exclude string
				query, want            string
				omitted                []string
			}{
				{
					"a partition", "logs", "logs.public.log_2", "SELECT (SELECT count(*) FROM public.log), (SELECT a FROM public.alone), (SELECT n FROM public.mv)", "9|7|2",
					[]string{"partitions of tables that are there, which the filter leaves out: logs.public.log_2"},
				},
				{
					"a partitioned table", "", "logs.public.log", "SELECT to_regclass('public.log_1') IS NULL, (SELECT a FROM public.of_alone)", "t|7", nil,
				},
				{
					"a table that others need", "logs", "logs.public.base" + dependants,
					"SELECT (SELECT a FROM public.of_alone), (SELECT count(*) FROM public.log), to_regclass('public.vv') IS NULL, to_regproc('public.of_base') IS NULL, (SELECT id FROM public.refers)", "7|15|t|t|1",
					[]string{
						"view logs.public.v needs table logs.public.base, which the filter leaves out: it is left out as well", "view logs.public.vv needs view logs.public.v,",
						"view logs.public.mv needs view logs.public.vv,", "function logs.public.of_base() needs table logs.public.base, which the filter leaves out: it is left out as well, with every other routine of its name", "function logs.public.of_row(public.base) needs table",
					},
				},
				{
					"one table", "logs.public.needy", "", "SELECT n::text, c = 'a' FROM public.needy n", "(4,ok,\"{sad,ok}\",A)|t", nil,
				},
				{
					"a multirange", "logs.public.spanned", "", "SELECT s FROM public.spanned", "{[01:00:00,02:00:00]}", nil,
				},
				{
					"one schema", "logs.public", "", "SELECT (SELECT count(*) FROM public.log), (SELECT f FROM public.needy), (SELECT count(*) FROM public.base), public.of_base(), (SELECT n FROM public.vv)", "15|ok|1|1|2",
					[]string{"foreign table logs.public.far needs server logs.elsewhere, which the filter leaves out"},
				},
				{
					"what indexes are made by", "logs.public.searched", "",
					"SELECT (SELECT count(*) FROM pg_index WHERE indrelid = 'public.searched'::regclass), (SELECT count(*) FROM pg_extension WHERE extname = 'pg_stat_statements')", "3|0", nil,
				},
				{
					"an index that cannot be", "logs.public.alone", "", "SELECT a, (SELECT count(*) FROM pg_index WHERE indrelid = 'public.alone'::regclass) FROM public.alone", "7|0", nil,
				},
				{
					"an extension that nothing needs", "logs.public", "logs.public.searched", "SELECT count(*) FROM pg_extension WHERE extname IN ('pg_stat_statements', 'pg_trgm')", "0", nil,
				},
				{
					"one partition", "logs.public.log_1", "", "SELECT count(*) FROM public.log_1", "9", []string{"that table logs.public.log_1 is a partition of logs.public.log"},
				},
			} {
				t.Run(c.name, func(t *testing.T) {
					report, target, err := dump(c.include, c.exclude)
					require.NoError(t, err)
					require.Equal(t, c.want, target.Rows(t, "logs", c.query)[0])
					for _, want := range c.omitted {
						require.Contains(t, strings.Join(report.Omitted, "\n"), want)
					}
				})
			}
			for _, c := range []struct{ include, exclude, who, what string }{
				{"logs", "logs.public.base logs.public.rows logs.public.counted", "table logs.public.child needs", "table logs.public.base"},
				{"logs.public.child", "", "table logs.public.child needs", "table logs.public.base"},
				{"logs.public.numbered", "", "table logs.public.numbered needs", "sequence logs.public.numbers"},
				{"logs.public.rows", "", "table logs.public.rows needs", "table logs.public.base"},
				{"logs.public.counted", "", "function logs.public.of_base() needs", "table logs.public.base"},
				{"logs.public.vv", "", "view logs.public.vv needs", "view logs.public.v"},
				{"logs", "logs.kinds", "table logs.public.needy needs", "logs.kinds.mood"},
			} {
				t.Run(c.include+" without "+c.exclude, func(t *testing.T) {
					_, _, err := dump(c.include, c.exclude)
					require.ErrorIs(t, err, dbdump.ErrSelection)
					require.ErrorContains(t, err, c.who)
					require.ErrorContains(t, err, c.what)
				})
			}
		})
	}
}

// loadElsewhere dumps, and loads the dump into an empty server.
func loadElsewhere(t *testing.T, v version, o Options) (record.Report, *servers.Postgres, error) {
	t.Helper()
	memory := dbdumptest.NewMemory()
	report, err := newEngine(t, o).Dump(t.Context(), memory)
	if err != nil {
		return report, nil, err
	}
	target := v.start(t)
	_, err = newEngine(t, options(target)).Load(t.Context(), memory.Source(report))
	require.NoError(t, err)
	return report, target, nil
}
