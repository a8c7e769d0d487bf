package postgres

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/record"
	"keepset/test/servers"
)

// TestRoundTrip: everything comes back, object by object and value by value, in a server with other defaults.
func TestRoundTrip(t *testing.T) {
	for _, v := range versions() {
		t.Run(v.name, func(t *testing.T) {
			source := v.start(t)
			fill(t, source)
			o := options(source)
			o.ChunkBytes = 1 // every block is a piece
			memory, report := dumpOf(t, o)
			checkReport(t, report)
			require.True(t, memory.Secret("roles.sql"))
			require.True(t, memory.Secret("databases/shop/pre-data.sql"), "it holds the password of a user mapping")
			require.False(t, memory.Secret("databases/old/pre-data.sql"))

			target := v.start(t, otherDefaults())
			load := options(target)
			load.Load.Roles = RolesKeep
			loaded, err := newEngine(t, load).Load(t.Context(), memory.Source(report))
			require.NoError(t, err)
			require.Equal(t, report.Rows, loaded.Rows)
			require.Empty(t, loaded.Warnings)
			want := describe(t, source, true)
			same(t, want, describe(t, target, true))
			// What a server with other defaults says of itself is the same.
			again, report := dumpOf(t, options(target))
			third := v.start(t)
			load = options(third)
			load.Load.Roles = RolesKeep
			_, err = newEngine(t, load).Load(t.Context(), again.Source(report))
			require.NoError(t, err)
			same(t, want, describe(t, third, true))
			const next = "SET transaction_read_only = off; INSERT INTO public.customer (name) VALUES ('next') RETURNING id"
			require.Equal(t, "4", target.Value(t, "shop", next), "the identity column goes on where it was")
		})
	}
}

// same compares two descriptions, entry by entry.
func same(t *testing.T, want, got map[string]string) {
	t.Helper()
	assert.Equal(t, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)))
	for _, name := range slices.Sorted(maps.Keys(want)) {
		assert.Equal(t, want[name], got[name], name)
	}
}

func checkReport(t *testing.T, report record.Report) {
	t.Helper()
	require.Len(t, report.Coordinates.File, 24)
	require.NotZero(t, report.Coordinates.Position)
	require.NotEmpty(t, report.Coordinates.Server)
	require.Nil(t, report.Coordinates.Upstream)
	have := map[string]record.Object{}
	for _, o := range report.Objects {
		have[o.Kind+" "+o.Schema+" "+o.Name] = o
	}
	for _, name := range []string{
		"role  app", "tablespace  pg_default", "database shop shop", "extension shop.public hstore", "schema shop.Näme; x Näme; x", "routine shop.public atomic(x integer)",
		"sequence shop.public alone", "view shop.public v", "view shop.public mv", "foreign table shop.public far", "large objects shop 3", "table raw.public bytes",
	} {
		require.Contains(t, have, name)
	}
	require.EqualValues(t, 2, have["table shop.public no_columns"].Rows)
	require.EqualValues(t, 0, have["table shop.public empty"].Rows)
	require.EqualValues(t, -1, have["table shop.public part"].Rows)
	require.Equal(t, `"public"."hashed"`, have["table shop.public hashed_0"].Attributes[AttrRoot])
	require.Equal(t, `"public"."orders"`, have["sequence shop.public orders_id_seq"].Attributes[AttrOwnedBy])
	require.Equal(t, "LATIN1", have["database old old"].Attributes[AttrEncoding])
	require.NotContains(t, strings.Join(slices.Collect(maps.Keys(have)), "\n"), "hstore_out", "what an extension makes is the extension's")
	for _, c := range have["table shop.public customer"].Columns {
		require.NotEqual(t, "twice", c.Name, "a generated column is computed again")
	}
}

// TestPart: a table, a schema and a database alone, from a dump of everything, beside what is there.
func TestPart(t *testing.T) {
	source := servers.Postgres15(t)
	fill(t, source)
	memory, report := dumpOf(t, options(source))
	target := servers.Postgres15(t)
	target.Exec(t, "postgres", "CREATE ROLE app", "CREATE ROLE owner", "CREATE ROLE reader", "CREATE DATABASE shop")
	target.Exec(t, "shop", "CREATE TABLE public.mine (a int)", "INSERT INTO public.mine VALUES (1)")
	load := func(change func(*LoadOptions)) (record.Report, error) {
		o := options(target)
		change(&o.Load)
		return newEngine(t, o).Load(t.Context(), memory.Source(report))
	}
	orders := Filter{Include: []string{"shop.public.orders"}}
	loaded, err := load(func(l *LoadOptions) { l.Filter = orders })
	require.NoError(t, err)
	require.EqualValues(t, 2, loaded.Rows)
	require.NotEmpty(t, loaded.Warnings, "its foreign key leads to a table that is not there")
	const rows = "SELECT string_agg(o::text, ';' ORDER BY id) FROM public.orders o"
	require.Equal(t, source.Value(t, "shop", rows), target.Value(t, "shop", rows))
	require.Equal(t, "3", target.Value(t, "shop", "SELECT nextval('public.orders_id_seq')"))
	require.Equal(t, "1", target.Value(t, "shop", "SELECT count(*) FROM pg_policies WHERE tablename = 'orders'"))
	require.Equal(t, "3", target.Value(t, "shop", "SELECT count(*) FROM pg_indexes WHERE tablename = 'orders'"), "primary key, exclusion, index")

	_, err = load(func(l *LoadOptions) { l.Filter = orders })
	require.ErrorIs(t, err, dbdump.ErrNotEmpty)
	target.Exec(t, "shop", "DELETE FROM public.orders")
	_, err = load(func(l *LoadOptions) { l.Filter, l.Replace = orders, true })
	require.NoError(t, err)
	require.Equal(t, source.Value(t, "shop", rows), target.Value(t, "shop", rows))
	require.Equal(t, "1", target.Value(t, "shop", "SELECT a FROM public.mine"), "what was not named stays")

	_, err = load(func(l *LoadOptions) { l.Filter = Filter{Include: []string{"shop.N*"}} })
	require.NoError(t, err)
	require.Equal(t, "2", target.Value(t, "shop", `SELECT count(*) FROM "Näme; x"."ta""ble.X"`))

	_, err = load(func(l *LoadOptions) {
		l.Filter, l.Rename = Filter{Include: []string{"old"}}, map[string]string{"old": `other "one"`}
	})
	require.NoError(t, err)
	require.Equal(t, "ß;ä", target.Value(t, `other "one"`, "SELECT string_agg(ü, ';' ORDER BY ü) FROM public.umlaut"))
	require.Equal(t, "LATIN1", target.Value(t, `other "one"`, "SHOW server_encoding"))

	_, err = load(func(l *LoadOptions) { l.Filter = Filter{Include: []string{"shop.public.misspelt"}} })
	require.ErrorContains(t, err, "nothing in the backup is selected")
}

// TestDumpOfPart: a dump with filters holds what they select, and says what it lacks.
func TestDumpOfPart(t *testing.T) {
	source := servers.Postgres15(t)
	fill(t, source)
	o := options(source)
	o.Filter = Filter{Include: []string{"shop.public.orders", "old"}, Exclude: []string{"shop.public.secret"}}
	memory, report := dumpOf(t, o)
	require.NotContains(t, memory.Names(), "roles.sql")
	require.Contains(t, strings.Join(report.Omitted, "\n"), "the dump is filtered")
	pre := string(memory.Bytes("databases/shop/pre-data.sql"))
	require.Contains(t, pre, "CREATE TABLE public.orders")
	require.NotContains(t, pre, "CREATE TABLE public.customer")
	require.NotContains(t, pre, "lo_create")

	target := servers.Postgres15(t)
	target.Exec(t, "postgres", "CREATE ROLE app", "CREATE ROLE owner", "CREATE ROLE reader")
	loaded, err := newEngine(t, options(target)).Load(t.Context(), memory.Source(report))
	require.NoError(t, err)
	require.Equal(t, report.Rows, loaded.Rows)
	require.Equal(t, "2", target.Value(t, "shop", "SELECT count(*) FROM public.orders"))
}

// TestLaterVersion: a dump of 15 is loaded into 18.
func TestLaterVersion(t *testing.T) {
	source, target := servers.Postgres15(t), servers.Postgres18(t)
	fill(t, source)
	memory, report := dumpOf(t, options(source))
	o := options(target)
	o.Load.Roles = RolesReplace
	loaded, err := newEngine(t, o).Load(t.Context(), memory.Source(report))
	require.NoError(t, err)
	require.Equal(t, report.Rows, loaded.Rows)
	_, err = newEngine(t, options(target)).Load(t.Context(), memory.Source(report))
	require.ErrorIs(t, err, dbdump.ErrNotEmpty)
	o.Load.Replace = true
	_, err = newEngine(t, o).Load(t.Context(), memory.Source(report))
	require.NoError(t, err)
}

// TestStandby: a standby is dumped as its primary is, and says whom it follows.
func TestStandby(t *testing.T) {
	for _, v := range versions() {
		t.Run(v.name, func(t *testing.T) {
			primary := v.start(t)
			fill(t, primary)
			standby := primary.Standby(t)
			require.Eventually(t, func() bool {
				return standby.Value(t, "postgres", "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'") == "1"
			}, time.Minute, 50*time.Millisecond)
			_, onPrimary := dumpOf(t, options(primary))
			memory, report := dumpOf(t, options(standby))
			require.Equal(t, onPrimary.Rows-1, report.Rows, "the row of the unlogged table")
			require.Contains(t, strings.Join(report.Omitted, "\n"), "shop.public.unlogged")
			require.NotNil(t, report.Coordinates.Upstream)
			require.Equal(t, primary.Port, report.Coordinates.Upstream.Port)
			require.Equal(t, onPrimary.Coordinates.Server, report.Coordinates.Server)
			follows, err := newEngine(t, options(standby)).Replicates(t.Context())
			require.NoError(t, err)
			require.True(t, follows)
			_, err = newEngine(t, options(standby)).Load(t.Context(), memory.Source(report))
			require.ErrorContains(t, err, "standby")
		})
	}
}
