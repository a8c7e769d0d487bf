package postgres

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/dbdumptest"
	"keepset/internal/record"
	"keepset/test/servers"
)

// partitioned are tables with partitions by range, two levels deep and in two
// schemas, by list and by hash, and everything that hangs on them.
var partitioned = []string{
	"CREATE TYPE public.mood AS ENUM ('sad', 'ok', 'happy')", "CREATE SCHEMA parts",
	"CREATE TABLE public.part (k int, v text NOT NULL, CHECK (length(v) < 99), PRIMARY KEY (k)) PARTITION BY RANGE (k)", "CREATE INDEX part_v ON public.part (v)",
	"CREATE TABLE public.part_1 PARTITION OF public.part FOR VALUES FROM (0) TO (10)",
	"CREATE TABLE public.part_2 PARTITION OF public.part FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (k)",
	"CREATE TABLE parts.part_2_a PARTITION OF public.part_2 FOR VALUES FROM (10) TO (15)",
	"CREATE TABLE parts.part_2_b PARTITION OF public.part_2 FOR VALUES FROM (15) TO (20)",
	"CREATE TABLE public.part_d PARTITION OF public.part DEFAULT",
	"INSERT INTO public.part SELECT g, 'v' || g FROM generate_series(1, 25) g",
	"CREATE TABLE public.listed (m public.mood, at timestamptz DEFAULT '2026-01-01', v text) PARTITION BY LIST (m)",
	"CREATE TABLE public.listed_sad PARTITION OF public.listed FOR VALUES IN ('sad', NULL)", "CREATE TABLE public.listed_ok PARTITION OF public.listed FOR VALUES IN ('ok')",
	"INSERT INTO public.listed VALUES ('sad', DEFAULT, 'a'), ('ok', DEFAULT, 'b'), (NULL, DEFAULT, 'c')",
	"CREATE TABLE public.hashed (m public.mood, v text) PARTITION BY HASH (m)", "CREATE INDEX ON public.hashed (v)",
	"CREATE TABLE public.hashed_0 PARTITION OF public.hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
	"CREATE TABLE public.hashed_1 PARTITION OF public.hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
	"INSERT INTO public.hashed SELECT unnest(enum_range(NULL::public.mood)), g::text FROM generate_series(1, 9) g",
	"CREATE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
	"CREATE TRIGGER tell AFTER INSERT ON public.part FOR EACH ROW EXECUTE FUNCTION public.tell()",
	"CREATE TABLE public.other (a int)", "INSERT INTO public.other VALUES (7)",
}

// partWorld is a server with partitioned tables in a database, a whole backup of
// it, and how that is as the server's own program says.
type partWorld struct {
	*servers.Postgres
	memory *dbdumptest.Memory
	report record.Report
	before map[string]string
}

func newPartWorld(t *testing.T, start func(testing.TB, ...servers.PostgresOption) *servers.Postgres) *partWorld {
	t.Helper()
	w := &partWorld{Postgres: start(t)}
	w.Exec(t, "postgres", "CREATE DATABASE app")
	w.Exec(t, "app", partitioned...)
	w.memory, w.report = dumpOf(t, options(w.Postgres))
	w.before = describe(t, w.Postgres, false)
	return w
}

// load loads a part of the backup into a server.
func (w *partWorld) load(t *testing.T, target *servers.Postgres, replace bool, include ...string) (record.Report, error) {
	t.Helper()
	o := options(target)
	o.Load.Replace, o.Load.Filter.Include = replace, include
	return newEngine(t, o).Load(t.Context(), w.memory.Source(w.report))
}

// TestPartitionedTable: a partitioned table that is named comes with all its partitions.
func TestPartitionedTable(t *testing.T) {
	for _, v := range versions() {
		t.Run(v.name, func(t *testing.T) {
			w := newPartWorld(t, v.start)
			for _, table := range []string{"part", "listed", "hashed"} {
				w.Exec(t, "app", "DELETE FROM public."+table)
				_, err := w.load(t, w.Postgres, true, "app.public."+table)
				require.NoError(t, err)
				same(t, w.before, describe(t, w.Postgres, false))
			}
			_, err := w.load(t, w.Postgres, false, "app.public.part_2")
			require.ErrorIs(t, err, dbdump.ErrNotEmpty)
			_, err = w.load(t, w.Postgres, true, "app.public.part_2")
			require.NoError(t, err, "one that is a partition itself, too")
			same(t, w.before, describe(t, w.Postgres, false))

			target := v.start(t)
			target.Exec(t, "postgres", "CREATE DATABASE app")
			loaded, err := w.load(t, target, false, "app.public.part")
			require.NoError(t, err)
			require.EqualValues(t, 25, loaded.Rows)
			require.Equal(t, "25", target.Value(t, "app", "SELECT count(*) FROM public.part"))
			require.Equal(t, "0", target.Value(t, "app", "SELECT count(*) FROM pg_class WHERE relname = 'other'"))
		})
	}
}

// TestBackupOfPartitionedTable: the same in a backup of one table.
func TestBackupOfPartitionedTable(t *testing.T) {
	w := newPartWorld(t, servers.Postgres15)
	o := options(w.Postgres)
	o.Filter = Filter{Include: []string{"app.public.part"}}
	memory, report := dumpOf(t, o)
	require.EqualValues(t, 25, report.Rows)
	target := servers.Postgres15(t)
	_, err := newEngine(t, options(target)).Load(t.Context(), memory.Source(report))
	require.NoError(t, err)
	const rows = "SELECT string_agg(p::text, ';' ORDER BY k) FROM public.part p"
	require.Equal(t, w.Value(t, "app", rows), target.Value(t, "app", rows))
	for _, object := range report.Objects {
		if object.Name == "part_2_a" {
			require.True(t, Filter{Include: []string{"app.*.part"}}.Object(object), "an export of the table has it")
			require.False(t, Filter{Exclude: []string{"app.*.part"}}.Object(object))
		}
	}
}

// TestPartitionAlone: a single partition takes its place again, whatever it is a partition of.
func TestPartitionAlone(t *testing.T) {
	for _, v := range versions() {
		t.Run(v.name, func(t *testing.T) {
			w := newPartWorld(t, v.start)
			for _, name := range []string{"public.part_1", "parts.part_2_a", "public.part_d", "public.listed_sad", "public.hashed_0", "public.hashed_1"} {
				w.Exec(t, "app", "DELETE FROM "+name)
				loaded, err := w.load(t, w.Postgres, true, "app."+name)
				require.NoError(t, err, name)
				require.Empty(t, loaded.Warnings)
			}
			same(t, w.before, describe(t, w.Postgres, false))
			w.Exec(t, "app", "DROP TABLE public.part_1, parts.part_2_a, public.listed_ok")
			_, err := w.load(t, w.Postgres, false, "app.public.part_1", "app.parts.part_2_a", "app.public.listed_ok")
			require.NoError(t, err, "several at once, which the tables lack")
			same(t, w.before, describe(t, w.Postgres, false))

			target := v.start(t)
			target.Exec(t, "postgres", "CREATE DATABASE app")
			loaded, err := w.load(t, target, false, "app.public.part_1")
			require.NoError(t, err)
			require.Contains(t, strings.Join(loaded.Warnings, "\n"), "table app.public.part_1 was a partition of app.public.part, which the target does not have")
			require.Equal(t, "9", target.Value(t, "app", "SELECT count(*) FROM public.part_1"))
		})
	}
}

// TestBackupOfPartition: a backup of nothing but a partition knows its place.
func TestBackupOfPartition(t *testing.T) {
	w := newPartWorld(t, servers.Postgres15)
	o := options(w.Postgres)
	o.Filter = Filter{Include: []string{"app.public.part_1"}}
	w.memory, w.report = dumpOf(t, o)
	require.NotContains(t, string(w.memory.Bytes("databases/app/pre-data.sql")), "ATTACH", "by hand it is a table of its own")
	w.Exec(t, "app", "DELETE FROM public.part_1")
	_, err := w.load(t, w.Postgres, true)
	require.NoError(t, err)
	same(t, w.before, describe(t, w.Postgres, false))
	target := servers.Postgres15(t)
	loaded, err := w.load(t, target, false)
	require.NoError(t, err)
	require.Len(t, loaded.Warnings, 1)
	require.Equal(t, "9", target.Value(t, "app", "SELECT count(*) FROM public.part_1"))
}

// TestReplaceLeavesAll: what would take along something that does not come back is refused, and a definition that
// fails costs nothing: everything is as it was.
func TestReplaceLeavesAll(t *testing.T) {
	w := newPartWorld(t, servers.Postgres15)
	for _, c := range []struct {
		name, include string
		setup, undo   string
		refused       bool
		want          []string
	}{
		{
			"a partition that the backup has not", "app.public.part", "CREATE TABLE public.part_3 PARTITION OF public.part FOR VALUES FROM (30) TO (40); INSERT INTO public.part VALUES (31, 'x')",
			"DROP TABLE public.part_3", true,
			[]string{"app.public.part is to be replaced", "app.public.part_3, which is a partition of it"},
		},
		{
			"one below a partition", "app.public.part", "CREATE TABLE parts.more PARTITION OF public.part_2 DEFAULT", "DROP TABLE parts.more",
			true,
			[]string{"app.public.part_2 is to be replaced", "app.parts.more"},
		},
		{
			"an heir", "app.public.other", "CREATE TABLE public.heir () INHERITS (public.other)", "DROP TABLE public.heir",
			true,
			[]string{"app.public.other is to be replaced", "app.public.heir, which inherits"},
		},
		{
			"what has become a partition", "app.public.other", "CREATE TABLE public.new (a int) PARTITION BY LIST (a); ALTER TABLE public.new ATTACH PARTITION public.other DEFAULT",
			"ALTER TABLE public.new DETACH PARTITION public.other; DROP TABLE public.new", true,
			[]string{"app.public.other is to be replaced", "a partition of app.public.new"},
		},
		{
			"a type that is gone", "app.public.listed", "ALTER TYPE public.mood RENAME TO feeling", "ALTER TYPE public.feeling RENAME TO mood", false, []string{"mood"},
		},
		{
			"a view on the table", "app.public.other", "CREATE VIEW public.v AS SELECT a FROM public.other", "DROP VIEW public.v", false, []string{"public.v"},
		},
		{
			"a partition whose place is taken", "app.public.part_1", "ALTER TABLE public.part DETACH PARTITION public.part_1; CREATE TABLE public.new PARTITION OF public.part FOR VALUES FROM (5) TO (10)",
			"DROP TABLE public.new; ALTER TABLE public.part ATTACH PARTITION public.part_1 FOR VALUES FROM (0) TO (10)", false,
			[]string{"nothing was changed"},
		},
		{
			"a partition of a table that has another column", "app.public.part_1", "ALTER TABLE public.part ADD w int NOT NULL DEFAULT 1", "ALTER TABLE public.part DROP w", false, []string{"nothing was changed"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.Exec(t, "app", c.setup)
			before := describe(t, w.Postgres, false)
			_, err := w.load(t, w.Postgres, true, c.include)
			require.Equal(t, c.refused, errors.Is(err, dbdump.ErrSelection), "%v", err)
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
			same(t, before, describe(t, w.Postgres, false))
			w.Exec(t, "app", c.undo)
		})
	}
	same(t, w.before, describe(t, w.Postgres, false))
}

// TestIdleSession: a session that sits in an empty database, as a monitoring program does in postgres, is not in the way.
func TestIdleSession(t *testing.T) {
	source, target := servers.Postgres15(t), servers.Postgres15(t)
	source.Exec(t, "postgres", "CREATE TABLE public.t (a int)", "INSERT INTO public.t VALUES (1)", "CREATE DATABASE app")
	memory, report := dumpOf(t, options(source))
	idle := target.Connect(t, "postgres")
	loaded, err := newEngine(t, options(target)).Load(t.Context(), memory.Source(report))
	require.NoError(t, err)
	require.Len(t, loaded.Warnings, 1)
	require.Contains(t, loaded.Warnings[0], "the empty database postgres is made anew")
	require.Equal(t, "1", target.Value(t, "postgres", "SELECT a FROM public.t"))
	_, err = idle.Exec(t.Context(), "SELECT 1").ReadAll()
	require.Error(t, err)
	idle = target.Connect(t, "postgres")
	_, err = newEngine(t, options(target)).Load(t.Context(), memory.Source(report))
	require.ErrorIs(t, err, dbdump.ErrNotEmpty)
	require.ErrorContains(t, err, "--replace, in a Job KEEPSET_REPLACE=true")
	_, err = idle.Exec(t.Context(), "SELECT 1").ReadAll()
	require.NoError(t, err, "where there is something nobody is disturbed")
	require.NoError(t, idle.Close(t.Context()))
}

// meddling is a source that does something when its first stream of the database app is opened.
type meddling struct {
	dbdump.Source
	once *sync.Once
	do   func()
}

func (m meddling) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	if strings.HasPrefix(name, "databases/app/") {
		m.once.Do(m.do)
	}
	return m.Source.Open(ctx, name)
}

// TestFilledMeanwhile: a database that was empty when the load began, and is not when its turn comes, is left as it is.
func TestFilledMeanwhile(t *testing.T) {
	source, target := servers.Postgres15(t), servers.Postgres15(t)
	source.Exec(t, "postgres", "CREATE TABLE public.t (a int)", "CREATE DATABASE app")
	source.Exec(t, "app", "CREATE TABLE public.t (a int)")
	memory, report := dumpOf(t, options(source))
	program := target.Connect(t, "postgres")
	m := meddling{memory.Source(report), &sync.Once{}, func() {
		_, err := program.Exec(t.Context(), "CREATE TABLE public.migrated (a int)").ReadAll()
		require.NoError(t, err)
	}}
	_, err := newEngine(t, options(target)).Load(t.Context(), m)
	require.ErrorIs(t, err, dbdump.ErrNotEmpty)
	require.ErrorContains(t, err, "postgres.public.migrated")
	_, err = program.Exec(t.Context(), "INSERT INTO public.migrated VALUES (1)").ReadAll()
	require.NoError(t, err, "its session goes on")
	require.NoError(t, program.Close(t.Context()))
}

// TestReplacePublished: a table that is dropped leaves its publications without a word.
func TestReplacePublished(t *testing.T) {
	w := newPartWorld(t, versions()[0].start)
	w.Exec(t, "app", "CREATE PUBLICATION pub FOR TABLE public.other, public.part_d", "CREATE PUBLICATION every FOR ALL TABLES",
		`CREATE SUBSCRIPTION "su b" CONNECTION 'host=nowhere.invalid' PUBLICATION p WITH (connect = false)`,
		"INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate) SELECT oid, 'public.other'::regclass, 'r' FROM pg_subscription")
	loaded, err := w.load(t, w.Postgres, true, "app.public.other")
	require.NoError(t, err)
	require.Equal(t, "part_d", w.Value(t, "app", "SELECT string_agg(tablename, ',') FROM pg_publication_tables WHERE pubname = 'pub'"))
	require.Len(t, loaded.Warnings, 2)
	require.Contains(t, loaded.Warnings[0], `table "public"."other" was replaced, and is in publication "pub" no more`)
	require.Contains(t, loaded.Warnings[1], `ALTER SUBSCRIPTION "su b" REFRESH PUBLICATION`)
}

// TestPartitionedMeanwhile: a partition that has been made since the load began, databases ago, is not dropped with
// the table that is replaced.
func TestPartitionedMeanwhile(t *testing.T) {
	w := newPartWorld(t, servers.Postgres15)
	w.Exec(t, "postgres", "CREATE DATABASE zoo")
	w.Exec(t, "zoo", "CREATE TABLE public.part (k int) PARTITION BY LIST (k)")
	memory, report := dumpOf(t, options(w.Postgres))
	o := options(w.Postgres)
	o.Load.Replace, o.Load.Filter.Include = true, []string{"app.public.other", "zoo.public.part"}
	source := meddling{Source: memory.Source(report), once: &sync.Once{}, do: func() {
		w.Exec(t, "zoo", "CREATE TABLE public.young PARTITION OF public.part DEFAULT", "INSERT INTO public.part VALUES (1)")
	}}
	_, err := newEngine(t, o).Load(t.Context(), source)
	require.ErrorIs(t, err, dbdump.ErrSelection)
	require.ErrorContains(t, err, "zoo.public.young, which is a partition of it")
	require.Equal(t, "1", w.Value(t, "zoo", "SELECT k FROM public.part"))
	require.Equal(t, "7", w.Value(t, "app", "SELECT a FROM public.other"))
}
