package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
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

// waitFor polls until the condition holds.
func waitFor(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !condition() {
		if time.Now().After(deadline) {
			require.FailNow(t, "did not happen in time", what)
		}
		select {
		case <-t.Context().Done():
			require.FailNow(t, "test ended while waiting", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// bank makes accounts in several tables whose sum never changes, and moves
// money between them until stop is called. Transfers cross tables and engines'
// pages, so that reads of two moments show another sum.
type bank struct {
	transfers atomic.Int64
	stop      func()
}

const (
	bankTables   = 4
	bankAccounts = 200
	bankBalance  = 1000
)

func startBank(t *testing.T, s *servers.MySQL) *bank {
	t.Helper()
	s.Exec(t, "CREATE DATABASE bank", "CREATE TABLE bank.ledger (id INT AUTO_INCREMENT PRIMARY KEY, amount INT NOT NULL)")
	for i := range bankTables {
		s.Exec(t, fmt.Sprintf("CREATE TABLE bank.a%d (id INT PRIMARY KEY, balance INT NOT NULL)", i))
		var rows []string
		for n := range bankAccounts {
			rows = append(rows, fmt.Sprintf("(%d, %d)", n, bankBalance))
		}
		s.Exec(t, fmt.Sprintf("INSERT INTO bank.a%d VALUES %s", i, strings.Join(rows, ",")))
	}
	b := &bank{}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	db := s.DB(t)
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if b.transfer(ctx, db) == nil {
					b.transfers.Add(1)
				}
			}
		})
	}
	b.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(b.stop)
	waitFor(t, "transfers", func() bool { return b.transfers.Load() > 20 })
	return b
}

func (b *bank) transfer(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	amount := rand.IntN(50)
	for _, delta := range []int{amount, -amount} {
		q := fmt.Sprintf("UPDATE bank.a%d SET balance = balance + %d WHERE id = %d", rand.IntN(bankTables), delta, rand.IntN(bankAccounts))
		if _, err := tx.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("INSERT INTO bank.ledger (amount) VALUES (%d)", amount)); err != nil {
		return err
	}
	return tx.Commit()
}

// total of all balances in a dump.
func (b *bank) total(t testing.TB, sink *memSink, r record.Report) int {
	t.Helper()
	sum := 0
	for i := range bankTables {
		for _, row := range sink.rows(t, object(t, r, KindTable, "bank", fmt.Sprintf("a%d", i))) {
			var n int
			_, err := fmt.Sscan(row[1], &n)
			require.NoError(t, err)
			sum += n
		}
	}
	return sum
}

func TestWorkersSeeOneMomentWhileOthersWrite(t *testing.T) {
	t.Parallel()
	modes := map[string][]LockMode{"MariaDB": {LockAuto, LockFTWRL, LockTables}, "MySQL": {LockAuto, LockTables}}
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		b := startBank(t, s)
		flavor := "MySQL"
		if strings.Contains(s.Value(t, "SELECT VERSION()"), "MariaDB") {
			flavor = "MariaDB"
		}
		for _, mode := range modes[flavor] {
			for range 5 {
				before := b.transfers.Load()
				o := options(t, s)
				o.Workers, o.LockMode, o.ChunkBytes = 4, mode, 1024
				sink, report := dumpWith(t, o)
				require.Equal(t, bankTables*bankAccounts*bankBalance, b.total(t, sink, report), "mode %s", mode)
				require.Less(t, report.LockSeconds, 5.0)
				require.NotEmpty(t, report.Coordinates.File)
				require.NotZero(t, report.Coordinates.Position)
				waitFor(t, "writers going on after the dump", func() bool { return b.transfers.Load() > before })
			}
		}
	})
}

// Without any lock, a dump either finds a moment at which nobody wrote or
// fails: it never shows two moments.
func TestWithoutALockTheDumpIsOneMomentOrFails(t *testing.T) {
	t.Parallel()
	s := servers.MariaDB(t)
	b := startBank(t, s)
	failed := 0
	for range 10 {
		o := options(t, s)
		o.LockMode, o.LockHold, o.Workers, o.ChunkBytes = LockNone, time.Second, 8, 1024
		sink := newMemSink()
		report, err := tryDump(t, o, sink)
		if err != nil {
			require.ErrorIs(t, err, dbdump.ErrDrift)
			failed++
			continue
		}
		require.Equal(t, bankTables*bankAccounts*bankBalance, b.total(t, sink, report))
	}
	t.Logf("%d of 10 dumps found no quiet moment", failed)
}

func TestALongTransactionMakesTheDumpGiveUpInTime(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		s.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY) ENGINE=InnoDB", "CREATE TABLE app.m (id INT) ENGINE=MyISAM", "INSERT INTO app.t VALUES (1), (2), (3)")
		blocker, err := s.DB(t).Conn(t.Context())
		require.NoError(t, err)
		defer blocker.Close() //nolint:errcheck // it is being thrown away
		running := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			// A statement that writes, and takes its time about it.
			_, err := blocker.ExecContext(ctx, "INSERT INTO app.m SELECT id FROM app.t WHERE SLEEP(60) = 0")
			running <- err
		}()
		waitFor(t, "the blocking statement", func() bool {
			return s.Value(t, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'INSERT INTO app.m%' AND TIME >= 1") == "1"
		})
		for _, mode := range []LockMode{LockAuto, LockFTWRL, LockTables} {
			o := options(t, s)
			o.LockMode, o.LockWait = mode, 2*time.Second
			start := time.Now()
			_, err = tryDump(t, o, newMemSink())
			require.ErrorIs(t, err, dbdump.ErrLockTimeout, "mode %s", mode)
			require.Less(t, time.Since(start), 8*time.Second)
			require.ErrorContains(t, err, "INSERT", "the statement in the way is named, mode %s", mode)
			require.NotContains(t, err.Error(), "SLEEP", "but not quoted: it may hold secrets")
		}
		noLocks(t, s)
		s.Exec(t, "KILL "+s.Value(t, "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'INSERT INTO app.m%'"))
		require.Error(t, <-running)
		dumpWith(t, options(t, s))
	})
}

// noLocks waits until no session of a dump is left in the server.
func noLocks(t testing.TB, s *servers.MySQL) {
	t.Helper()
	query := "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'FLUSH TABLES%' OR INFO LIKE 'BACKUP STAGE%' OR INFO LIKE 'LOCK %'"
	waitFor(t, "the dump's sessions to end", func() bool { return s.Value(t, query) == "0" })
}

func TestCancellingFreesTheServerAtOnce(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		s.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, v LONGBLOB)",
			"INSERT INTO app.t VALUES (1, REPEAT('x', 1000000)), (2, REPEAT('x', 1000000)), (3, REPEAT('x', 1000000))")
		engine, err := New(options(t, s))
		require.NoError(t, err)
		defer engine.Close() //nolint:errcheck // a pool without idle connections
		ctx, cancel := context.WithCancelCause(t.Context())
		reason := errors.New("enough")
		sink := newMemSink()
		blocked := make(chan struct{})
		var once sync.Once
		sink.onWrite = func(name string, _ []byte) error {
			if strings.HasSuffix(name, ".tsv") {
				once.Do(func() { close(blocked) })
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return nil
		}
		ended := make(chan error, 1)
		go func() { _, err := engine.Dump(ctx, sink); ended <- err }()
		<-blocked
		cancel(reason)
		select {
		case err = <-ended:
			require.ErrorIs(t, err, reason)
		case <-time.After(10 * time.Second):
			require.Fail(t, "the dump did not end")
		}
		waitFor(t, "the dump's sessions to end", func() bool {
			return s.Value(t, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'root' AND ID <> CONNECTION_ID() AND COMMAND <> 'Sleep'") == "0"
		})
		s.Exec(t, "CREATE TABLE app.later (id INT)")
	})
}

func TestTablesWithoutConsistentReadsAreReadUnderTheLock(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		engines := []string{"MyISAM", "MEMORY"}
		if strings.Contains(s.Value(t, "SELECT VERSION()"), "MariaDB") {
			engines = append(engines, "Aria")
		}
		s.Exec(t, "CREATE DATABASE app")
		for _, e := range engines {
			s.Exec(t, "CREATE TABLE app."+e+" (id INT AUTO_INCREMENT PRIMARY KEY, pair INT) ENGINE="+e)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		db := s.DB(t)
		var inserted atomic.Int64
		wg.Go(func() {
			// The same number goes into every table, one after the other:
			// at no moment do their counts differ by more than one.
			for n := 0; ctx.Err() == nil; n++ {
				for _, e := range engines {
					_, _ = db.ExecContext(ctx, fmt.Sprintf("INSERT INTO app.%s (pair) VALUES (%d)", e, n))
				}
				inserted.Add(1)
			}
		})
		defer wg.Wait()
		defer cancel()
		waitFor(t, "inserts", func() bool { return inserted.Load() > 100 })
		for range 5 {
			sink, report := dumpWith(t, options(t, s))
			var counts []int
			for _, e := range engines {
				counts = append(counts, len(sink.rows(t, object(t, report, KindTable, "app", e))))
			}
			for i := range counts[1:] {
				require.GreaterOrEqual(t, counts[i], counts[i+1], "%v", counts)
				require.LessOrEqual(t, counts[0]-counts[i+1], 1, "%v", counts)
			}
			require.Positive(t, report.LockSeconds)
		}
		o := options(t, s)
		o.NonTransactional = NonTransactionalRefuse
		_, err := tryDump(t, o, newMemSink())
		require.ErrorContains(t, err, "no consistent reads")
	})
}

func TestTheLockIsNotHeldForEver(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		s.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.slow (id INT) ENGINE=MyISAM", "INSERT INTO app.slow VALUES (1)")
		o := options(t, s)
		o.LockHold = time.Second
		sink := newMemSink()
		ctx := t.Context()
		sink.onWrite = func(name string, _ []byte) error {
			if strings.HasSuffix(name, ".tsv") {
				select {
				case <-time.After(3 * time.Second):
				case <-ctx.Done():
				}
			}
			return nil
		}
		_, err := tryDump(t, o, sink)
		require.ErrorIs(t, err, dbdump.ErrLockTimeout)
		require.ErrorContains(t, err, "non-transactional")
		s.Exec(t, "INSERT INTO app.slow VALUES (2)")
	})
}

// What is dumped must not change meanwhile; what is created after the lock is no part of the dump, and no reason to fail.
func TestDefinitionsThatChangeMeanwhileFailTheDump(t *testing.T) {
	t.Parallel()
	changes := []string{
		"ALTER TABLE app.other ADD COLUMN c INT", "DROP TABLE app.other", "TRUNCATE TABLE app.twin",
		"RENAME TABLE app.other TO app.x, app.twin TO app.other, app.x TO app.twin",
		"CREATE OR REPLACE VIEW app.v AS SELECT 2 AS a", "CREATE USER late@localhost", "GRANT SELECT ON app.* TO early@localhost",
	}
	created := []string{
		"CREATE TABLE app.late (id INT)", "CREATE TRIGGER app.late BEFORE INSERT ON app.other FOR EACH ROW SET NEW.id = 1",
		"CREATE PROCEDURE app.late() SELECT 1", "CREATE DATABASE late",
	}
	for i, change := range slices.Concat(changes, created) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			s := servers.MariaDB(t)
			s.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, v LONGBLOB)", "INSERT INTO app.t VALUES (1, REPEAT('x', 300000))",
				"CREATE TABLE app.other (id INT PRIMARY KEY)", "CREATE TABLE app.twin (id INT PRIMARY KEY)", "INSERT INTO app.twin VALUES (7)",
				"CREATE VIEW app.v AS SELECT 1 AS a", "CREATE USER early@localhost")
			sink := newMemSink()
			var once sync.Once
			sink.onWrite = func(name string, _ []byte) error {
				if strings.HasSuffix(name, ".tsv") {
					once.Do(func() { s.Exec(t, change) })
				}
				return nil
			}
			o := options(t, s)
			o.Workers = 1
			report, err := tryDump(t, o, sink)
			if i >= len(changes) {
				require.NoError(t, err, change)
				require.NotContains(t, fmt.Sprint(report.Objects), "late", change)
				return
			}
			require.Error(t, err, change)
			if !strings.Contains(err.Error(), "1412") {
				require.ErrorIs(t, err, dbdump.ErrDrift, change)
			}
		})
	}
}

func TestMySQLDefinitionsCannotChangeMeanwhile(t *testing.T) {
	t.Parallel()
	s := servers.MySQL97(t)
	s.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, v LONGBLOB)", "INSERT INTO app.t VALUES (1, REPEAT('x', 300000))", "CREATE TABLE app.other (id INT)")
	db := s.DB(t)
	sink := newMemSink()
	var once sync.Once
	var blocked, written error
	sink.onWrite = func(name string, _ []byte) error {
		if strings.HasSuffix(name, ".tsv") {
			once.Do(func() {
				_, blocked = db.ExecContext(t.Context(), "SET lock_wait_timeout = 1; ALTER TABLE app.other ADD COLUMN c INT")
				_, written = db.ExecContext(t.Context(), "INSERT INTO app.other VALUES (1)")
			})
		}
		return nil
	}
	_, err := tryDump(t, options(t, s), sink)
	require.NoError(t, err)
	require.ErrorContains(t, blocked, "Lock wait timeout")
	require.NoError(t, written, "rows may change")
	s.Exec(t, "ALTER TABLE app.other ADD COLUMN c INT")
}
