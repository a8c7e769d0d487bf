package mysql

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/test/servers"
)

// MariaDB's purge threads open tables with indexed virtual columns, and the handles that they leave behind do not know
// when the table was created: the catalog knows it all the same, and no change is seen where there is none.
func TestPurgeOfVirtualColumnsIsNoDrift(t *testing.T) {
	t.Parallel()
	s := servers.MariaDB(t)
	s.Exec(t, "CREATE DATABASE d",
		"CREATE TABLE d.l (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, p INT, g INT GENERATED ALWAYS AS (p % 7) VIRTUAL, KEY g (g))")
	ctx := t.Context()
	e := newEngine(t, options(t, s))
	server, err := e.server(ctx)
	require.NoError(t, err)
	d := &dump{opts: e.opts, log: e.opts.Logger, server: server}
	d.sessions = &sessions{engine: e, setup: slices.Concat(activateRoles(server), dumpSetup(server))}
	defer d.sessions.close(ctx, false)
	c, err := d.sessions.get(ctx)
	require.NoError(t, err)
	first, err := d.readCatalog(ctx, c)
	require.NoError(t, err)
	const told = "SELECT COALESCE(CREATE_TIME, '') FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'd' AND TABLE_NAME = 'l'"
	for range 5 {
		leavePurgeHandle(t, s)
		require.Empty(t, s.Value(t, told), "the handle is the purge's: if not, the test shows nothing")
		later, err := d.readCatalog(ctx, c)
		require.NoError(t, err)
		require.Empty(t, first.differences(later))
		require.Equal(t, first.creationTimes(), later.creationTimes(), "the time is found out all the same")
	}
	leavePurgeHandle(t, s)
	s.Exec(t, "DO SLEEP(1.1)", "ALTER TABLE d.l ALTER COLUMN p SET DEFAULT 5") // shows in nothing but the time, which counts seconds
	later, err := d.readCatalog(ctx, c)
	require.NoError(t, err)
	require.Equal(t, []string{"table `d`.`l` changed"}, first.differences(later))
}

// leavePurgeHandle makes the purge the only one that has opened d.l: rows are deleted while a consistent read keeps them
// from being purged, and all handles are closed before it ends.
func leavePurgeHandle(t testing.TB, s *servers.MySQL) {
	t.Helper()
	reader, err := s.DB(t).Conn(t.Context())
	require.NoError(t, err)
	defer reader.Close() //nolint:errcheck // its statements' results are checked
	s.Exec(t, "INSERT INTO d.l (p) VALUES (1), (2), (3)", "SET GLOBAL innodb_max_purge_lag_wait = 0")
	_, err = reader.ExecContext(t.Context(), "START TRANSACTION WITH CONSISTENT SNAPSHOT")
	require.NoError(t, err)
	s.Exec(t, "DELETE FROM d.l", "FLUSH TABLES")
	_, err = reader.ExecContext(t.Context(), "COMMIT")
	require.NoError(t, err)
	s.Exec(t, "SET GLOBAL innodb_max_purge_lag_wait = 0")
}

// A time of creation counts when both readings have it.
func TestCreationTimesAreComparedWhenBothAreKnown(t *testing.T) {
	t.Parallel()
	at := func(created string) *catalog {
		sc := &schema{name: "d"}
		sc.tables = []*table{{schema: sc, name: "l", kind: "BASE TABLE", engine: "InnoDB", created: created}}
		return &catalog{schemas: []*schema{sc}}
	}
	for _, c := range []struct {
		was, is string
		want    []string
	}{
		{"2026-11-20 15:00:00", "2026-11-20 15:00:00", nil},
		{"2026-11-20 15:00:00", "", nil},
		{"", "2026-11-20 15:00:00", nil},
		{"", "", nil},
		{"2026-11-20 15:00:00", "2026-11-20 15:00:01", []string{"table `d`.`l` changed"}},
	} {
		require.Equal(t, c.want, at(c.was).differences(at(c.is)), fmt.Sprintf("%q, then %q", c.was, c.is))
	}
}
