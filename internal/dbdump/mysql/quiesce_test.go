package mysql

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/record"
	"keepset/test/servers"
)

var _ dbdump.Quiescer = (*Engine)(nil)

// longBound is far beyond what a cut takes in these tests.
const longBound = time.Minute

// heldStill is Quiesce with time to spare for a busy machine.
func heldStill(t testing.TB, o Options, cut func(context.Context) error) (record.Report, error) {
	t.Helper()
	o.LockWait = 30 * time.Second
	return newEngine(t, o).Quiesce(t.Context(), longBound, cut)
}

// writable waits until a row can be written into app.t.
func writable(t testing.TB, s *servers.MySQL) {
	t.Helper()
	s.Exec(t, "SET lock_wait_timeout=20", "INSERT INTO app.t (v) VALUES ('writers go on')")
}

// blocked makes sure that no row can be written into app.t now.
func blocked(t testing.TB, s *servers.MySQL) {
	t.Helper()
	_, err := s.DB(t).ExecContext(t.Context(), "SET lock_wait_timeout=1; INSERT INTO app.t (v) VALUES ('during the hold')")
	require.Equal(t, uint16(errLockWaitTimeout), errorNumber(err), "writers must wait: %v", err)
}

const heldTable = "CREATE TABLE app.t (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(40)) ENGINE=InnoDB"

func TestWritersWaitWhileVolumesAreCut(t *testing.T) {
	t.Parallel()
	eachServer(t, everyFlavour(), func(t *testing.T, s *servers.MySQL) {
		s.Exec(t, "CREATE DATABASE app", heldTable, "CREATE TABLE app.m (id INT) ENGINE=MyISAM", "CREATE TABLE app.mem (id INT) ENGINE=MEMORY",
			"CREATE VIEW app.view AS SELECT 1 AS a", "CREATE DATABASE bare")
		report, err := heldStill(t, options(t, s), func(context.Context) error {
			blocked(t, s)
			return nil
		})
		require.NoError(t, err)
		writable(t, s)
		require.Equal(t, "snapshot-ftwrl", report.Consistency)
		require.Equal(t, "mysql", report.Engine)
		require.NotEmpty(t, report.Version)
		require.WithinDuration(t, time.Now(), report.CapturedAt, time.Minute)
		require.GreaterOrEqual(t, report.LockSeconds, 1.0, "a writer waited for a second")
		require.NotEmpty(t, report.Coordinates.File)
		require.NotEmpty(t, report.Coordinates.Server)
		var names []string
		for _, o := range report.Objects {
			require.EqualValues(t, -1, o.Rows)
			names = append(names, o.Kind+" "+o.Schema+"."+o.Name)
		}
		require.Equal(t, []string{"schema app.app", "schema bare.bare", "table app.m", "table app.mem", "table app.t"}, names)
		require.Len(t, report.Warnings, 2)
		require.Contains(t, report.Warnings[0], "`app`.`mem`")
		require.Contains(t, report.Warnings[1], "`app`.`m`")
	})
}

// What the server's settings let it keep in memory is on the disk when volumes are cut.
func TestTheEndOfTheLogsIsOnTheDisk(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		s.Exec(t, "CREATE DATABASE app", heldTable)
		writable(t, s)
		before := logs(t, s)
		q := &quiesce{dump: &dump{}}
		_, err := heldStill(t, options(t, s), func(ctx context.Context) (err error) {
			engine := newEngine(t, options(t, s))
			if q.coordinator, err = engine.openSession(ctx); err != nil {
				return err
			}
			defer q.coordinator.Close()
			_, written, err := q.logPositions(ctx)
			require.NotZero(t, written)
			return err
		})
		require.NoError(t, err)
		require.Len(t, logs(t, s), len(before)+1, "sync_binlog is 0: a new log was begun")
		s.Exec(t, "SET GLOBAL sync_binlog=1")
		_, err = heldStill(t, options(t, s), func(context.Context) error { return nil })
		require.NoError(t, err)
		require.Len(t, logs(t, s), len(before)+1, "the log is on the disk already")
	})
}

func TestTheHoldIsBounded(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		s.Exec(t, "CREATE DATABASE app", heldTable)
		e := newEngine(t, options(t, s))
		e.holding.idle = longBound // it is not the server that ends the hold
		_, err := e.Quiesce(t.Context(), 2*time.Second, func(ctx context.Context) error {
			<-ctx.Done()
			writable(t, s) // nobody waits for the cut to return
			return nil
		})
		require.ErrorIs(t, err, dbdump.ErrLockTimeout)
		require.ErrorContains(t, err, "held for 2s")
		noLocks(t, s)

		failure := errors.New("no volume")
		_, err = heldStill(t, options(t, s), func(context.Context) error { return failure })
		require.ErrorIs(t, err, failure)
		require.NotErrorIs(t, err, dbdump.ErrLockTimeout)
		writable(t, s)

		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, err = newEngine(t, options(t, s)).Quiesce(ctx, longBound, func(ctx context.Context) error {
			cancel()
			<-ctx.Done()
			return nil
		})
		require.ErrorIs(t, err, context.Canceled)
		writable(t, s)
	})
}

func TestALongStatementMakesQuiesceGiveUp(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		s.Exec(t, "CREATE DATABASE app", heldTable, "INSERT INTO app.t (v) VALUES ('a'), ('b')", "CREATE TABLE app.m (id INT) ENGINE=MyISAM")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		running := make(chan error, 1)
		db := s.DB(t)
		go func() {
			_, err := db.ExecContext(ctx, "INSERT INTO app.m SELECT id FROM app.t WHERE SLEEP(60) = 0")
			running <- err
		}()
		const query = "SELECT COALESCE(MAX(ID), 0) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'INSERT INTO app.m%' AND TIME >= 1"
		waitFor(t, "the blocking statement", func() bool { return s.Value(t, query) != "0" })
		o := options(t, s)
		o.LockWait = 2 * time.Second
		_, err := newEngine(t, o).Quiesce(t.Context(), longBound, func(context.Context) error {
			t.Error("cut without a lock")
			return nil
		})
		require.ErrorIs(t, err, dbdump.ErrLockTimeout)
		require.ErrorContains(t, err, "wait for the lock")
		require.ErrorContains(t, err, "INSERT", "the statement in the way is named")
		noLocks(t, s)
		writable(t, s)
		s.Exec(t, "KILL "+s.Value(t, query))
		require.Error(t, <-running)
	})
}

// holders are the connections that a hold of the server has.
const holders = "SELECT COALESCE(GROUP_CONCAT(ID), '') FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND USER = 'holder'"

// holder is options for an account of its own, by which its connections are found.
func holder(t testing.TB, s *servers.MySQL) Options {
	t.Helper()
	s.Exec(t, "CREATE USER holder@'%' IDENTIFIED BY 'x'", "GRANT ALL ON *.* TO holder@'%'")
	o := options(t, s)
	o.User, o.Password = "holder", "x"
	return o
}

func TestAHoldThatIsLostFailsTheCut(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		s.Exec(t, "CREATE DATABASE app", heldTable)
		o := holder(t, s)
		_, err := heldStill(t, o, func(ctx context.Context) error {
			s.Exec(t, "KILL "+s.Value(t, holders))
			<-ctx.Done()
			return nil
		})
		require.ErrorContains(t, err, "was lost")
		require.NotErrorIs(t, err, dbdump.ErrLockTimeout)
		writable(t, s)
		// A cut that returns before anybody has noticed is no better.
		e := newEngine(t, o)
		e.holding.probe = time.Hour
		_, err = e.Quiesce(t.Context(), longBound, func(context.Context) error {
			s.Exec(t, "KILL "+s.Value(t, holders))
			return nil
		})
		require.Error(t, err)
	})
}

// inHold is the address of the server that a child of this test holds still.
const inHold = "KEEPSET_TEST_HOLD"

func TestTheHoldEndsWithItsProcess(t *testing.T) {
	if address := os.Getenv(inHold); address != "" {
		e := newEngine(t, Options{Address: address, User: "holder", Password: "x"})
		_, err := e.Quiesce(t.Context(), longBound, func(ctx context.Context) error {
			_, err := os.Stdout.WriteString("held\n")
			<-ctx.Done()
			return err
		})
		require.NoError(t, err)
		return
	}
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		s.Exec(t, "CREATE DATABASE app", heldTable)
		o := holder(t, s)
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTheHoldEndsWithItsProcess$", "-test.count=1")
		child.Env = append(os.Environ(), inHold+"="+o.Address)
		out, err := child.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, child.Start())
		said := make([]byte, len("held"))
		_, err = io.ReadFull(out, said)
		require.NoError(t, err)
		require.Equal(t, "held", string(said))
		blocked(t, s)
		require.NoError(t, child.Process.Kill())
		require.Error(t, child.Wait())
		writable(t, s)
	})
}

// wall is a proxy that from some moment on passes nothing on, as a network whose other end has lost its power.
type wall struct {
	address string
	shut    atomic.Bool
}

func newWall(t *testing.T, s *servers.MySQL) *wall {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // here
	require.NoError(t, err)
	w := &wall{address: listener.Addr().String()}
	var group sync.WaitGroup
	var mu sync.Mutex
	ends := []io.Closer{listener}
	pass := func(to, from net.Conn) {
		buffer := make([]byte, 4096)
		for {
			n, err := from.Read(buffer)
			if err != nil && !w.shut.Load() {
				_ = to.Close()
			}
			if err != nil {
				return
			}
			if !w.shut.Load() {
				_, _ = to.Write(buffer[:n])
			}
		}
	}
	group.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", s.Addr) //nolint:noctx // here
			if err != nil {
				_ = client.Close()
				continue
			}
			mu.Lock()
			ends = append(ends, client, server)
			mu.Unlock()
			group.Go(func() { pass(server, client) })
			group.Go(func() { pass(client, server) })
		}
	})
	t.Cleanup(func() {
		mu.Lock()
		for _, end := range ends {
			_ = end.Close()
		}
		mu.Unlock()
		group.Wait()
	})
	return w
}

func TestTheHoldEndsWithItsNode(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		s.Exec(t, "CREATE DATABASE app", heldTable)
		o := options(t, s)
		w := newWall(t, s)
		o.Address = w.address
		e := newEngine(t, o)
		e.holding = holding{probe: 500 * time.Millisecond, answer: 4 * time.Second, idle: 4 * time.Second}
		_, err := e.Quiesce(t.Context(), longBound, func(ctx context.Context) error {
			blocked(t, s)
			w.shut.Store(true)
			start := time.Now()
			writable(t, s)
			require.Less(t, time.Since(start), e.holding.idle+4*time.Second, "the server ends a connection that is silent")
			<-ctx.Done() // and we notice
			return nil
		})
		require.ErrorContains(t, err, "was lost")
	})
	require.LessOrEqual(t, defaultHolding.idle, 10*time.Second, "the documented bound")
}

func TestOnlyALockOfTheWholeServerHoldsItStill(t *testing.T) {
	t.Parallel()
	for _, mode := range []LockMode{LockBackupStage, LockTables, LockNone} {
		_, err := newEngine(t, Options{Address: "127.0.0.1:1", User: "root", LockMode: mode}).Quiesce(t.Context(), longBound, nil)
		require.ErrorContains(t, err, string(mode))
	}
	_, err := newEngine(t, Options{Address: "127.0.0.1:1", User: "root"}).Quiesce(t.Context(), time.Millisecond, nil)
	require.ErrorContains(t, err, "too short")
	_, err = newEngine(t, Options{Address: "127.0.0.1:1", User: "root"}).Quiesce(t.Context(), longBound, nil)
	require.ErrorIs(t, err, dbdump.ErrUnreachable)
}

// quiesceAccount is what the documentation says for the server's family.
func quiesceAccount(t testing.TB, f flavour) []string {
	t.Helper()
	if f.name == "mariadb" {
		return documented(t, "#### Snapshot account on MariaDB")
	}
	return documented(t, "#### Snapshot account on MySQL")
}

func TestTheDocumentedAccountCanHoldAServerStill(t *testing.T) {
	t.Parallel()
	for _, f := range everyFlavour() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			s := f.server(t)
			everyClass(t, s)
			statements := quiesceAccount(t, f)
			s.Exec(t, statements...)
			o := options(t, s)
			o.User, o.Password = "keepset_snapshot", "change-me"
			nothing := func(context.Context) error { return nil }
			report, err := heldStill(t, o, nothing)
			require.NoError(t, err)
			all, err := heldStill(t, options(t, s), nothing)
			require.NoError(t, err)
			hidden := func(o record.Object) bool { return f.version == mariadb105.version && o.Name == "d" } // its default is a sequence
			require.Equal(t, slices.DeleteFunc(all.Objects, hidden), report.Objects)
			require.Equal(t, all.Coordinates.GTID, report.Coordinates.GTID)
			tried := 0
			for _, q := range statements {
				rights, rest, ok := strings.Cut(strings.TrimPrefix(q, "GRANT "), " ON *.* TO ")
				for p := range strings.SplitSeq(rights, ", ") {
					if !ok {
						break
					}
					s.Exec(t, "REVOKE "+p+" ON *.* FROM "+rest)
					_, err := heldStill(t, o, nothing)
					require.ErrorIs(t, err, dbdump.ErrPrivilege, p)
					require.ErrorContains(t, err, p)
					s.Exec(t, "GRANT "+p+" ON *.* TO "+rest)
					tried++
				}
			}
			require.Greater(t, tried, 3)
		})
	}
}
