package docs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/test/programs"
	"keepset/test/servers"
)

// TestPostgresPage runs the commands of docs/postgres.md: db0 is backed up, db1 is loaded, and db2 is filled by hand.
func TestPostgresPage(t *testing.T) {
	bin, err := programs.Build()
	require.NoError(t, err)
	page := read(t, "docs/postgres.md")
	dir := t.TempDir()
	db0, db1, db2 := servers.Postgres15(t), servers.Postgres15(t), servers.Postgres15(t)
	db0.Exec(t, "postgres", "CREATE ROLE todo LOGIN PASSWORD 'secret'", "CREATE DATABASE todo OWNER todo", page.In("sql", "Accounts"))
	db0.Exec(t, "todo", "SET ROLE todo", "CREATE TABLE public.other (id int PRIMARY KEY)", "RESET ROLE",
		page.In("sql", "Base backups"),
		"CREATE TABLE public.tasks (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text, done bool DEFAULT false, twice int GENERATED ALWAYS AS (id * 2) STORED)",
		"INSERT INTO public.tasks (what) SELECT md5(g::text) FROM generate_series(1, 1000) g", "SELECT lo_from_bytea(42, decode(repeat('00ff', 5000), 'hex'))")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "srv"), 0o700))
	names := []string{"file:///srv/", "file://" + dir + "/srv/", "=...", "=" + db0.Password}
	for name, s := range map[string]*servers.Postgres{"db0": db0, "db1": db1} {
		names = append(names, name+":5432", s.Addr)
	}
	names = append(names, "PGHOST=db2 PGPORT=5432", "PGHOST="+db2.Host+" PGPORT="+strconv.Itoa(db2.Port))
	cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -euo pipefail\n"+strings.NewReplacer(names...).Replace(page.In("sh")))
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + bin + ":" + db0.Programs + ":/usr/bin:/bin", "HOME=" + dir}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, c := range []struct {
		server   *servers.Postgres
		database string
	}{{db1, "todo"}, {db2, "todo"}, {db0, "todo_then"}} {
		const all = "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM public.tasks t"
		require.Equal(t, db0.Value(t, "todo", all), c.server.Value(t, c.database, all))
		require.Equal(t, "1001", c.server.Value(t, c.database, "INSERT INTO public.tasks (what) VALUES ('x') RETURNING id"))
		require.Equal(t, "10000", c.server.Value(t, c.database, "SELECT length(lo_get(42))"))
		require.Equal(t, "todo", c.server.Value(t, c.database, "SELECT tableowner FROM pg_tables WHERE tablename = 'other'"))
	}
	for name, recovers := range map[string]string{"copy": "f", "standby": "t"} {
		s := db0.On(t, func(data string) error {
			// The files belong to whom the server's user namespace calls itself.
			return errors.Join(os.Rename(filepath.Join(dir, "srv", name), data), exec.CommandContext(t.Context(), "chown", "-R", strconv.Itoa(os.Geteuid()), data).Run())
		})
		require.Equal(t, recovers, s.Value(t, "todo", "SELECT pg_is_in_recovery()"))
		require.Equal(t, "1000", s.Value(t, "todo", "SELECT count(*) FROM public.tasks WHERE id <= 1000"))
	}
}

// TestPostgresAccount: the account of the page is enough for a whole backup.
func TestPostgresAccount(t *testing.T) {
	bin, err := programs.Build()
	require.NoError(t, err)
	dir := t.TempDir()
	s := servers.Postgres18(t)
	s.Exec(t, "postgres", read(t, "docs/postgres.md").In("sql", "Accounts"))
	s.Exec(t, "postgres", "CREATE TABLE public.t (a int)", "INSERT INTO public.t VALUES (1)", "SELECT lo_from_bytea(42, 'x')")
	cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -eu\nbackup init\nbackup run --set s --source postgres://keepset_backup@"+s.Addr)
	cmd.Env = []string{"PATH=" + bin + ":" + s.Programs + ":/usr/bin:/bin", "HOME=" + dir, "KEEPSET_REPOSITORY=file://" + dir + "/r", "KEEPSET_SOURCE_PASSWORD=change-me"}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// TestPostgresPart: that account backs up a part, which is restored; what cannot be is refused with the code that says so.
func TestPostgresPart(t *testing.T) {
	bin, err := programs.Build()
	require.NoError(t, err)
	dir := t.TempDir()
	s, target := servers.Postgres18(t), servers.Postgres18(t)
	s.Exec(t, "postgres", read(t, "docs/postgres.md").In("sql", "Accounts"), "CREATE DATABASE logs")
	s.Exec(t, "logs", "CREATE TABLE public.log (k int) PARTITION BY LIST (k)", "CREATE TABLE public.log_1 PARTITION OF public.log FOR VALUES IN (1)",
		"CREATE TABLE public.log_2 PARTITION OF public.log FOR VALUES IN (2)", "INSERT INTO public.log VALUES (1), (2)",
		"CREATE TABLE public.base (a int)", "CREATE TABLE public.heir () INHERITS (public.base)")
	run := func(want int, script string) string {
		cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -eu\n"+script)
		cmd.Env = []string{
			"PATH=" + bin + ":" + s.Programs + ":/usr/bin:/bin", "HOME=" + dir, "KEEPSET_REPOSITORY=file://" + dir + "/r",
			"KEEPSET_SOURCE_PASSWORD=change-me", "KEEPSET_TARGET_PASSWORD=" + s.Password, "SOURCE=postgres://keepset_backup@" + s.Addr,
		}
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if want != 0 && errors.As(err, &exit) {
			err = nil
		}
		require.NoError(t, err, "%s", out)
		require.Equal(t, want, cmd.ProcessState.ExitCode(), "%s", out)
		return string(out)
	}
	run(0, "backup init\nbackup run --set s --source $SOURCE --database logs --exclude logs.public.log_2")
	run(0, "restore load --set s --ordinal 0 --database logs --target postgres://postgres@"+target.Addr)
	require.Equal(t, "1", target.Value(t, "logs", "SELECT count(*) FROM public.log"))
	out := run(64, "restore load --set s --ordinal 0 --table logs.public.log --replace --target postgres://postgres@"+s.Addr)
	require.Contains(t, out, "logs.public.log_2, which is a partition of it")
	require.Equal(t, "2", s.Value(t, "logs", "SELECT count(*) FROM public.log"))
	out = run(64, "backup run --set s --source $SOURCE --database logs.public.heir")
	require.Contains(t, out, "table logs.public.heir needs table logs.public.base, which the filter leaves out")
}
