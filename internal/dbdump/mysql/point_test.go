package mysql

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/test/servers"
)

// On MariaDB, what is created before the lock is in the dump, and what is created after it is not: neither fails it.
// What is dumped must not change.
func TestTablesThatAppearDuringADump(t *testing.T) {
	t.Parallel()
	s := servers.MariaDB(t)
	s.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY)", "INSERT INTO app.t VALUES (1)", "CREATE TABLE app.m (id INT) ENGINE=MyISAM")
	blocker, err := s.DB(t).Conn(t.Context())
	require.NoError(t, err)
	defer blocker.Close() //nolint:errcheck // it is being thrown away
	_, err = blocker.ExecContext(t.Context(), "LOCK TABLES app.m WRITE")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		waitFor(t, "the dump to ask for the lock", func() bool {
			return s.Value(t, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'BACKUP STAGE%'") == "1"
		})
		s.Exec(t, "CREATE TABLE app.before_the_lock (id INT PRIMARY KEY)", "INSERT INTO app.before_the_lock VALUES (7)")
		_, err := blocker.ExecContext(t.Context(), "UNLOCK TABLES")
		done <- err
	}()
	sink := newMemSink()
	var once sync.Once
	sink.onWrite = func(name string, _ []byte) error {
		if strings.HasSuffix(name, ".tsv") && strings.Contains(name, "/data/t/") {
			once.Do(func() { s.Exec(t, "CREATE TABLE app.after_the_lock (id INT)", "CREATE VIEW app.v AS SELECT 1 AS one") })
		}
		return nil
	}
	o := options(t, s)
	o.LockWait = 30 * time.Second // the table is created between two attempts
	report, err := tryDump(t, o, sink)
	require.NoError(t, err)
	require.NoError(t, <-done)
	require.Equal(t, "backup-stage", report.Consistency)
	require.Len(t, sink.rows(t, object(t, report, KindTable, "app", "before_the_lock")), 1)
	require.Equal(t, "1", s.Value(t, "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_NAME='after_the_lock'"))
	for _, o := range report.Objects {
		require.NotContains(t, []string{"after_the_lock", "v"}, o.Name)
	}

	sink = newMemSink()
	sink.onWrite = func(name string, _ []byte) error {
		if strings.HasSuffix(name, ".tsv") && strings.Contains(name, "/data/t/") {
			s.Exec(t, "ALTER TABLE app.m ADD n INT")
		}
		return nil
	}
	_, err = tryDump(t, options(t, s), sink)
	require.ErrorIs(t, err, dbdump.ErrDrift)
}

// Managed services grant RELOAD and deny what it is for: the tables are locked one by one.
func TestADeniedLockMakesRoomForAnother(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		s.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY)",
			"CREATE USER poor@'%' IDENTIFIED BY 'x'", "GRANT SELECT, LOCK TABLES, PROCESS, SHOW VIEW, TRIGGER, EVENT ON *.* TO poor@'%'")
		o := options(t, s)
		o.User, o.Password = "poor", "x"
		e := newEngine(t, o)
		server, err := e.server(t.Context())
		require.NoError(t, err)
		d := &dump{opts: e.opts, log: e.opts.Logger, server: server}
		d.sessions = &sessions{engine: e, setup: slices.Concat(activateRoles(server), dumpSetup(server))}
		defer d.sessions.close(t.Context(), false)
		d.coordinator, err = d.sessions.get(t.Context())
		require.NoError(t, err)
		d.catalog, err = d.readCatalog(t.Context(), d.coordinator)
		require.NoError(t, err)
		mode := LockFTWRL
		if server.MariaDB() {
			mode = LockBackupStage
		}
		l, err := d.acquireAny(t.Context(), mode)
		require.NoError(t, err)
		require.Equal(t, string(LockTables), l.recipe)
		require.Len(t, d.report.Warnings, 1)

		d.opts.LockMode = mode // asked for by name, it is not replaced
		_, err = d.acquireAny(t.Context(), mode)
		require.ErrorIs(t, err, dbdump.ErrPrivilege)
	})
}

// A copy continues after what is in the tables, not after what MariaDB has got round to put into a variable.
func TestThePositionIsThatOfTheTables(t *testing.T) {
	t.Parallel()
	s := servers.MariaDB(t)
	s.Exec(t, "CREATE DATABASE app", "SET GLOBAL gtid_slave_pos='0-7-41,3-7-5'", "CHANGE MASTER TO MASTER_HOST='nowhere', MASTER_USE_GTID=slave_pos",
		"INSERT INTO mysql.gtid_slave_pos (domain_id, sub_id, server_id, seq_no) VALUES (0, 1000, 8, 42)")
	_, report := dumpWith(t, options(t, s))
	require.NotNil(t, report.Coordinates.Upstream)
	require.Equal(t, "0-8-42,3-7-5", report.Coordinates.Upstream.GTID)
	require.Equal(t, "0-7-41,3-7-5", s.Value(t, "SELECT @@GLOBAL.gtid_slave_pos"))
}

// A FLOAT of MariaDB can hold minus zero, which it shows as zero.
func TestMinusZeroOfMariaDB(t *testing.T) {
	t.Parallel()
	source := servers.MariaDB(t)
	source.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, f FLOAT, d DOUBLE)",
		"INSERT INTO app.t VALUES (1, -1e-50, -1e-320), (2, 0, 0), (3, 0.1, 0.1), (4, -1e-45, -5e-324), (5, NULL, NULL), (6, 3.4028233e38, 1.7976931348623157e308)")
	const query = "SELECT GROUP_CONCAT(CONCAT_WS(' ', id, f * 1e0, ATAN2(f, -1) < 0, d, ATAN2(d, -1) < 0) ORDER BY id) FROM app.t"
	require.Contains(t, source.Value(t, query), "1 0 1 ", "minus zero is there")
	m, report := dumpMemory(t, options(t, source))
	for _, rows := range []RowMethod{RowsLoadData, RowsInsert} {
		target := servers.MariaDB(t, servers.WithConfig("local_infile=ON"))
		o := options(t, target)
		o.Load.Rows = rows
		_, err := loadWith(t, o, m, report)
		require.NoError(t, err)
		require.Equal(t, source.Value(t, query), target.Value(t, query), rows)
	}
}

// A server that stops forgets the rows of its MEMORY tables: that is said when they are backed up and when a seed is loaded.
func TestMemoryTablesAreWarnedOf(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			source := f.server(t)
			source.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.quick (id INT PRIMARY KEY) ENGINE=MEMORY", "INSERT INTO app.quick VALUES (1)")
			m, report := dumpMemory(t, options(t, source))
			require.Contains(t, strings.Join(report.Warnings, "\n"), "`app`.`quick`")
			target := f.server(t)
			o := options(t, target)
			o.Load = LoadOptions{Follower: true, Seed: true}
			loaded, err := loadWith(t, o, m, report)
			require.NoError(t, err)
			require.Contains(t, strings.Join(loaded.Warnings, "\n"), "table `app`.`quick`")
		})
	}
}

// A follower that applies all the time is backed up again and again: the rows of each backup are those up to its
// position in the upstream, none more and none less.
func TestThePositionOfABusyFollower(t *testing.T) {
	t.Parallel()
	f := mariadb1011
	p := f.server(t)
	up := replicationAccount(t, p)
	p.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY)")
	m, report := dumpMemory(t, options(t, p))
	base, err := parseMariaDB(report.Coordinates.GTID)
	require.NoError(t, err)
	require.Len(t, base, 1)
	s := seed(t, f, m.Source(report), up, "slave_parallel_threads=4", "slave_parallel_mode=optimistic")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	db := p.DB(t)
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, _ = db.ExecContext(ctx, "INSERT INTO d.t () VALUES ()") // one row, one GTID; the last one is cut off
			}
		})
	}
	defer wg.Wait()
	defer cancel()
	for range 20 {
		before := s.Value(t, "SELECT COUNT(*) FROM d.t")
		waitFor(t, "the follower to apply", func() bool { return s.Value(t, "SELECT COUNT(*) FROM d.t") != before })
		o := options(t, s)
		o.LockWait = 30 * time.Second
		sink, report := dumpWith(t, o)
		position, err := parseMariaDB(report.Coordinates.Upstream.GTID)
		require.NoError(t, err)
		require.Len(t, position, 1)
		require.EqualValues(t, len(sink.rows(t, object(t, report, KindTable, "d", "t"))), position[0].sequence-base[0].sequence)
	}
}

// BACKUP STAGE lets those pass who change rows of a transactional Aria table, and the dump would wait for them in vain.
func TestABusyAriaTableIsLocked(t *testing.T) {
	t.Parallel()
	s := servers.MariaDB(t)
	s.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.a (id INT PRIMARY KEY, n INT) ENGINE=Aria TRANSACTIONAL=1",
		"INSERT INTO app.a SELECT seq, 0 FROM app.seq_1_to_1000")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var updated atomic.Int64
	db := s.DB(t)
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := db.ExecContext(ctx, "UPDATE app.a SET n = n + 1"); err == nil {
					updated.Add(1)
				}
			}
		})
	}
	defer wg.Wait()
	defer cancel()
	waitFor(t, "updates", func() bool { return updated.Load() > 20 })
	for range 3 {
		sink, report := dumpWith(t, options(t, s))
		require.Equal(t, "ftwrl", report.Consistency)
		first := sink.rows(t, object(t, report, KindTable, "app", "a"))
		require.Len(t, first, 1000)
		t.Logf("measured: lock held for %.3f s", report.LockSeconds)
	}
}
