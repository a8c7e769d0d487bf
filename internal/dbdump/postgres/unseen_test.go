package postgres

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestWhatAnAccountMayNotSee: pg_dump leaves out what its account may not read, says so beside a dump that it calls
// complete, and ends with status 0. The report has to say it.
func TestWhatAnAccountMayNotSee(t *testing.T) {
	for _, v := range versions() {
		t.Run(v.name, func(t *testing.T) {
			source := v.start(t)
			source.Exec(t, "postgres", "CREATE DATABASE app", "CREATE ROLE dumper LOGIN PASSWORD 'dumps' IN ROLE pg_read_all_data", "CREATE ROLE other")
			source.Exec(t, "app", "CREATE TABLE public.t (a int)", "CREATE SUBSCRIPTION sub CONNECTION 'host=nowhere.invalid' PUBLICATION pub WITH (connect = false)",
				"CREATE FOREIGN DATA WRAPPER fdw", "CREATE SERVER elsewhere FOREIGN DATA WRAPPER fdw", "CREATE USER MAPPING FOR other SERVER elsewhere OPTIONS (password 'hunter2')")
			o := options(source)
			o.User, o.Password = "dumper", "dumps"
			memory, report := dumpOf(t, o)
			require.NotContains(t, string(memory.Bytes("databases/app/pre-data.sql")), "hunter2")
			require.NotContains(t, string(memory.Bytes("databases/app/post-data.sql")), "SUBSCRIPTION")
			assert.Contains(t, strings.Join(report.Warnings, "\n"), "subscriptions not dumped")
			assert.Contains(t, strings.Join(report.Omitted, "\n"), "user mappings")
		})
	}
}

// TestSettingsOfAllRoles: ALTER ROLE ALL is of no role and of no database, and pg_dumpall does not know it.
func TestSettingsOfAllRoles(t *testing.T) {
	for _, v := range versions() {
		t.Run(v.name, func(t *testing.T) {
			source, target := v.start(t), v.start(t)
			source.Exec(t, "postgres", "ALTER ROLE ALL SET work_mem = '7MB'", `ALTER ROLE ALL SET search_path = '$user', "a'b", public`, "CREATE DATABASE app", "ALTER DATABASE app SET work_mem = '8MB'")
			memory, report := dumpOf(t, options(source))
			load := options(target)
			load.Load.Roles = RolesKeep
			_, err := newEngine(t, load).Load(t.Context(), memory.Source(report))
			require.NoError(t, err)
			const settings = "SELECT string_agg(setconfig::text, ';') FROM pg_db_role_setting WHERE setrole = 0 AND setdatabase = 0"
			require.Equal(t, source.Value(t, "postgres", settings), target.Value(t, "postgres", settings))
			for policy, want := range map[RolePolicy]string{RolesKeep: "{work_mem=9MB}", RolesReplace: source.Value(t, "postgres", settings)} {
				target.Exec(t, "postgres", "ALTER ROLE ALL RESET ALL", "ALTER ROLE ALL SET work_mem = '9MB'")
				load.Load.Roles, load.Load.Replace = policy, true
				_, err = newEngine(t, load).Load(t.Context(), memory.Source(report))
				require.NoError(t, err)
				require.Equal(t, want, target.Value(t, "postgres", settings), policy)
			}
		})
	}
}
