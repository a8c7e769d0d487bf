package mysql

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/test/servers"
)

// prepared is a dump that is about to ask for its lock.
func prepared(t testing.TB, o Options) *dump {
	t.Helper()
	e := newEngine(t, o)
	server, err := e.server(t.Context())
	require.NoError(t, err)
	d := &dump{opts: e.opts, log: e.opts.Logger, server: server, layouts: map[*table]*tableLayout{}, known: map[string]bool{}}
	d.sessions = &sessions{engine: e, setup: slices.Concat(activateRoles(server), dumpSetup(server))}
	ctx := context.WithoutCancel(t.Context())
	t.Cleanup(func() { d.sessions.close(ctx, true) })
	require.NoError(t, d.prepare(t.Context()))
	return d
}

// names of the tables and triggers.
func (c *catalog) names() []string {
	var names []string
	for _, s := range c.schemas {
		for _, t := range s.tables {
			names = append(names, t.name)
		}
		for _, o := range s.code {
			names = append(names, o.name)
		}
	}
	return names
}

// An ALTER TABLE that waits for the lock to end has its table locked meanwhile, and the server shows neither the table
// nor its triggers: nothing is wrong with it, and nothing is left out of the dump.
func TestAnAlterThatWaitsForTheLockIsNoDefect(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(testing.TB, ...servers.MySQLOption) *servers.MySQL{"10.11": servers.MariaDB, "11.8": servers.MariaDB118} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			s.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, v INT)", "INSERT INTO app.t VALUES (1, 1)",
				"CREATE TRIGGER app.tr BEFORE INSERT ON app.t FOR EACH ROW SET NEW.v = 1", "CREATE TABLE app.u (id INT)")
			ctx := t.Context()
			d := prepared(t, options(t, s))
			reader, err := s.DB(t).Conn(ctx)
			require.NoError(t, err)
			defer reader.Close() //nolint:errcheck // its statements' results are checked
			for _, q := range []string{"BEGIN", "SELECT * FROM app.t"} {
				_, err = reader.ExecContext(ctx, q)
				require.NoError(t, err)
			}
			altered := make(chan error, 1)
			db := s.DB(t)
			go func() {
				_, err := db.ExecContext(ctx, "ALTER TABLE app.t ADD UNIQUE KEY later (v), ALGORITHM=INPLACE")
				altered <- err
			}()
			waiting := func(lock string) func() bool {
				return func() bool {
					return s.Value(t, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'ALTER TABLE%' AND STATE LIKE 'Waiting for "+lock+"%'") == "1"
				}
			}
			waitFor(t, "the ALTER to wait for the reader", waiting("table metadata lock"))
			for _, q := range []string{"BACKUP STAGE START", "BACKUP STAGE FLUSH", stageBlockDDL} {
				require.NoError(t, d.coordinator.exec(ctx, q))
			}
			_, err = reader.ExecContext(ctx, "COMMIT")
			require.NoError(t, err)
			waitFor(t, "the ALTER to wait for the stage", waiting("backup lock"))

			err = d.readCatalogAgain(ctx, &lock{writers: true, since: time.Now()})
			require.ErrorIs(t, err, errBusy)
			require.ErrorIs(t, err, dbdump.ErrDrift)
			require.NotContains(t, err.Error(), "repair")
			require.Equal(t, []string{"t", "u", "tr"}, d.catalog.names(), "what was seen before is still believed")
			require.False(t, d.catalogHeld)

			require.NoError(t, d.coordinator.exec(ctx, "BACKUP STAGE END"))
			require.NoError(t, <-altered)
			l, err := d.acquire(ctx, LockBackupStage)
			require.NoError(t, err, "the catalog is read again between two attempts")
			require.True(t, d.catalogHeld)
			require.Equal(t, []string{"t", "u", "tr"}, d.catalog.names())
			require.Len(t, d.catalog.schemas[0].tables[0].keys, 2, "the new definition is the one that is dumped")
			require.NoError(t, d.unlock(ctx, l))
			require.NoError(t, d.checkDrift(ctx))
		})
	}
}

// What BACKUP STAGE does not lock may be created after the recipe was chosen.
func TestAnAriaTableThatAppearsChangesTheLock(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]string{
		"created": "CREATE TABLE app.late (id INT) ENGINE=Aria TRANSACTIONAL=1",
		"changed": "ALTER TABLE app.late ENGINE=Aria TRANSACTIONAL=1",
	} {
		t.Run(name, func(t *testing.T) { ariaAppears(t, name == "changed", late) })
	}
}

func ariaAppears(t *testing.T, exists bool, late string) {
	s := servers.MariaDB(t)
	s.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY)")
	if exists {
		s.Exec(t, "CREATE TABLE app.late (id INT)")
	}
	d := prepared(t, options(t, s))
	mode, err := d.chooseLock()
	require.NoError(t, err)
	require.Equal(t, LockBackupStage, mode)
	s.Exec(t, late)
	l, err := d.acquireAny(t.Context(), mode)
	require.NoError(t, err)
	require.Equal(t, "ftwrl", l.recipe)
	require.Equal(t, []string{"late", "t"}, d.catalog.names())
	require.False(t, d.catalogHeld, "this lock lets DDL go on once it is released")
	_, err = s.DB(t).ExecContext(t.Context(), "SET STATEMENT lock_wait_timeout = 1 FOR INSERT INTO app.late VALUES (1)")
	require.ErrorContains(t, err, "Lock wait timeout")
	require.NoError(t, d.unlock(t.Context(), l))
	s.Exec(t, "INSERT INTO app.late VALUES (1)")
}

// While others wait, the catalog is read again only where that is quick, and never beyond the time that the lock may be held.
func TestTheSecondCatalogDoesNotHoldUpOthers(t *testing.T) {
	t.Parallel()
	s := servers.MariaDB(t)
	s.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY)")
	d := prepared(t, options(t, s))
	s.Exec(t, "CREATE TABLE app.new (id INT PRIMARY KEY)")
	d.catalogTook = slowCatalog + time.Second
	d.catalogHeld = true // an earlier attempt has read it
	l, err := d.acquire(t.Context(), LockBackupStage)
	require.NoError(t, err)
	require.Equal(t, []string{"t"}, d.catalog.names())
	require.False(t, d.catalogHeld)
	require.NoError(t, d.unlock(t.Context(), l))
	require.ErrorIs(t, d.checkDrift(t.Context()), dbdump.ErrDrift, "the end of the dump finds it")

	d.catalogTook = time.Millisecond
	err = d.readCatalogAgain(t.Context(), &lock{writers: true, since: time.Now().Add(-d.opts.LockHold)})
	require.ErrorIs(t, err, dbdump.ErrLockTimeout)
}
