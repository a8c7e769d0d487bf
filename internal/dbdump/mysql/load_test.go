package mysql

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/dbdumptest"
	"keepset/internal/record"
	"keepset/test/servers"
)

// sample is a small server with two databases that refer to each other.
func sample(t testing.TB, s *servers.MySQL) {
	t.Helper()
	s.Exec(t,
		"CREATE DATABASE a CHARACTER SET utf8mb4", "CREATE DATABASE b CHARACTER SET latin1",
		"CREATE TABLE a.t (id INT PRIMARY KEY, v VARCHAR(20))", "INSERT INTO a.t VALUES (1, 'one'), (2, 'a.t')",
		"CREATE TABLE a.u (id INT PRIMARY KEY, t INT, CONSTRAINT u_t FOREIGN KEY (t) REFERENCES a.t (id))", "INSERT INTO a.u VALUES (1, 1)",
		"CREATE TABLE b.w (id INT PRIMARY KEY, a INT, CONSTRAINT w_t FOREIGN KEY (a) REFERENCES a.t (id))", "INSERT INTO b.w VALUES (7, 2)",
		"CREATE VIEW a.v AS SELECT t.id, w.id AS w FROM a.t JOIN b.w ON w.a = t.id",
		"CREATE TRIGGER a.tr BEFORE INSERT ON a.t FOR EACH ROW SET NEW.v = COALESCE(NEW.v, 'set')",
		"CREATE PROCEDURE a.p() SELECT COUNT(*) FROM a.t",
		"CREATE USER app@'%' IDENTIFIED BY 'x'", "GRANT SELECT ON a.* TO app@'%'", "CREATE DATABASE c_d", "GRANT INSERT ON `c\\_d`.* TO app@'%'", "GRANT SELECT ON b.w TO app@'%'",
	)
}

// each flavour, with a sample server and its dump.
func eachSample(t *testing.T, test func(t *testing.T, f flavour, source *servers.MySQL, m *dbdumptest.Memory, report record.Report)) {
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			source := f.server(t)
			sample(t, source)
			m, report := dumpMemory(t, options(t, source))
			test(t, f, source, m, report)
		})
	}
}

// tablesOf lists what a server has in its own databases.
func tablesOf(t testing.TB, s *servers.MySQL) string {
	t.Helper()
	return s.Value(t, "SELECT GROUP_CONCAT(CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) ORDER BY TABLE_SCHEMA, TABLE_NAME) FROM information_schema.TABLES WHERE TABLE_SCHEMA"+notSystem)
}

func TestLoadSelectionAndRename(t *testing.T) {
	t.Parallel()
	eachSample(t, func(t *testing.T, f flavour, _ *servers.MySQL, m *dbdumptest.Memory, report record.Report) {
		s := f.server(t)
		load := func(o LoadOptions) error {
			opts := options(t, s)
			opts.Load = o
			_, err := loadWith(t, opts, m, report)
			return err
		}
		// One table, beside data that is none of the load's business.
		s.Exec(t, "CREATE DATABASE mine", "CREATE TABLE mine.x (i INT)", "INSERT INTO mine.x VALUES (5)")
		require.ErrorIs(t, load(LoadOptions{}), dbdump.ErrNotEmpty)
		require.NoError(t, load(LoadOptions{Filter: Filter{Include: []string{"a.t"}}}))
		require.Equal(t, "a.t,mine.x", tablesOf(t, s))
		s.Exec(t, "INSERT INTO a.t (id) VALUES (3)")
		require.Equal(t, "set", s.Value(t, "SELECT v FROM a.t WHERE id=3"), "the table's trigger came along")

		// Again: refused, then replaced, with whatever else the database holds left alone.
		s.Exec(t, "CREATE TABLE a.other (i INT)")
		err := load(LoadOptions{Filter: Filter{Include: []string{"a.t"}}})
		require.ErrorIs(t, err, dbdump.ErrNotEmpty)
		require.ErrorContains(t, err, "`a`.`t`")
		require.NoError(t, load(LoadOptions{Filter: Filter{Include: []string{"a.t"}}, Replace: true}))
		require.Equal(t, "a.other,a.t,mine.x", tablesOf(t, s))
		require.Equal(t, "2", s.Value(t, "SELECT COUNT(*) FROM a.t"))

		// A database under another name: its own references follow, those to other databases stay.
		require.NoError(t, load(LoadOptions{Filter: Filter{Include: []string{"a", "b"}}, Rename: map[string]string{"a": "co py`;", "b": "b2"}}))
		require.Equal(t, "a.other,a.t,b2.w,co py`;.t,co py`;.u,co py`;.v,mine.x", tablesOf(t, s))
		require.Equal(t, "co py`;", s.Value(t, "SELECT UNIQUE_CONSTRAINT_SCHEMA FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_NAME='w_t'"))
		require.Equal(t, "2", s.Value(t, "SELECT id FROM `co py``;`.v"))
		s.Exec(t, "UPDATE b2.w SET a=1")
		require.Equal(t, "1", s.Value(t, "SELECT id FROM `co py``;`.v"))

		require.ErrorContains(t, load(LoadOptions{Filter: Filter{Include: []string{"nothing"}}}), "nothing in the backup is selected")
		require.ErrorContains(t, load(LoadOptions{Rename: map[string]string{"zzz": "y"}}), "no database \"zzz\"")
		require.ErrorContains(t, load(LoadOptions{Rename: map[string]string{"a": "b"}}), "both become")
		require.Equal(t, "5", s.Value(t, "SELECT i FROM mine.x"))
	})
}

// A whole load that is repeated with Replace drops what the backup holds and nothing else.
func TestLoadReplace(t *testing.T) {
	t.Parallel()
	eachSample(t, func(t *testing.T, f flavour, source *servers.MySQL, m *dbdumptest.Memory, report record.Report) {
		s := f.server(t)
		s.Exec(t, "CREATE DATABASE a CHARACTER SET ascii", "CREATE TABLE a.stale (i INT)", "CREATE DATABASE mine", "CREATE TABLE mine.x (i INT)")
		o := options(t, s)
		_, err := loadWith(t, o, m, report)
		require.ErrorIs(t, err, dbdump.ErrNotEmpty)
		require.ErrorContains(t, err, "`a`.`stale`")
		o.Load.Replace = true
		for range 2 {
			_, err = loadWith(t, o, m, report)
			require.NoError(t, err)
			require.Equal(t, "a.t,a.u,a.v,b.w,mine.x", tablesOf(t, s))
		}
		for _, name := range []string{"definition `a`.`t`", "rows `a`.`t`", "view a.v", "database a"} {
			require.Equal(t, describe(t, source)[name], describe(t, s)[name])
		}
	})
}

func TestLoadAccounts(t *testing.T) {
	t.Parallel()
	eachSample(t, func(t *testing.T, f flavour, source *servers.MySQL, m *dbdumptest.Memory, report record.Report) {
		s := f.server(t)
		s.Exec(t, "CREATE USER app@'%' IDENTIFIED BY 'other' ACCOUNT LOCK", "CREATE USER extra@localhost")
		o := options(t, s)
		grants := func() string { return describe(t, s)["grants 'app'@'%'"] }
		account := func(s *servers.MySQL) string { return describe(t, s)["account 'app'@'%'"] }
		before := account(s)

		_, err := loadWith(t, o, m, report)
		require.NoError(t, err)
		require.Equal(t, before, account(s), "accounts are left alone")
		require.NotContains(t, grants(), "SELECT")

		o.Load.Replace, o.Load.Accounts = true, AccountsKeep
		_, err = loadWith(t, o, m, report)
		require.NoError(t, err)
		require.Equal(t, before, account(s), "an account that exists is kept")

		o.Load.Accounts = AccountsReplace
		loaded, err := loadWith(t, o, m, report)
		require.NoError(t, err)
		require.Equal(t, account(source), account(s))
		require.Equal(t, describe(t, source)["grants 'app'@'%'"], grants())
		require.Equal(t, "1", s.Value(t, "SELECT COUNT(*) FROM mysql.user WHERE User='extra'"))
		require.Contains(t, strings.Join(loaded.Warnings, "\n"), "root@%")

		// Grants follow a renamed database.
		o.Load = LoadOptions{Accounts: AccountsReplace, Rename: map[string]string{"a": "a2", "b": "b2", "c_d": "e_f"}, Replace: true}
		_, err = loadWith(t, o, m, report)
		require.NoError(t, err)
		require.Contains(t, grants(), "`a2`.*")
		require.Contains(t, grants(), "`b2`.`w`")
		require.Contains(t, grants(), "`e\\_f`.*")
	})
}

// Nothing goes into the binary log of a server that will follow, nor when that is asked for.
func TestLoadSkipBinlog(t *testing.T) {
	t.Parallel()
	eachSample(t, func(t *testing.T, f flavour, _ *servers.MySQL, m *dbdumptest.Memory, report record.Report) {
		variable := map[string]string{"mariadb": "@@gtid_binlog_pos", "mysql": "@@gtid_executed"}[f.name]
		for _, o := range []LoadOptions{{SkipBinlog: true}, {Follower: true}} {
			s := f.server(t)
			before := s.Value(t, "SELECT "+variable)
			opts := options(t, s)
			opts.Load = o
			_, err := loadWith(t, opts, m, report)
			require.NoError(t, err)
			require.Equal(t, before, s.Value(t, "SELECT "+variable))
		}
	})
}

// A load that is given up leaves nothing at work in the server, which would not notice by itself while it waits.
func TestLoadCancelledWhileTheServerWaits(t *testing.T) {
	t.Parallel()
	eachSample(t, func(t *testing.T, _ flavour, source *servers.MySQL, m *dbdumptest.Memory, report record.Report) {
		locker, err := source.DB(t).Conn(t.Context())
		require.NoError(t, err)
		_, err = locker.ExecContext(t.Context(), "LOCK TABLES a.t READ")
		require.NoError(t, err)
		o := options(t, source)
		o.Load.Replace = true
		const waiting = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'DROP DATABASE%'"
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			defer cancel()
			assert.Eventually(t, func() bool { return source.Value(t, waiting) == "1" }, 2*time.Minute, 50*time.Millisecond)
		}()
		_, err = newEngine(t, o).Load(ctx, m.Source(report))
		require.ErrorIs(t, err, context.Canceled)
		require.Eventually(t, func() bool { return source.Value(t, waiting) == "0" }, 2*time.Minute, 50*time.Millisecond)
		require.NoError(t, locker.Close())
	})
}

func TestLoadRefusesReadOnlyTargets(t *testing.T) {
	t.Parallel()
	eachSample(t, func(t *testing.T, f flavour, _ *servers.MySQL, m *dbdumptest.Memory, report record.Report) {
		s := f.server(t, "read_only=ON")
		_, err := loadWith(t, options(t, s), m, report)
		require.ErrorContains(t, err, "read-only")
		other := report
		other.Flavor = map[string]string{"mariadb": "mysql", "mysql": "mariadb"}[f.name]
		_, err = loadWith(t, options(t, s), m, other)
		require.ErrorContains(t, err, "not translated")
	})
}

// A seed holds what its image and the image's scripts have made: all of it makes room, also what the backup lacks. A
// follower that kept an account of its own would stop where its upstream creates that account.
func TestLoadSeed(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			source := f.server(t)
			up := replicationAccount(t, source)
			sample(t, source)
			if f.name == "mariadb" {
				source.Exec(t, "CREATE USER healthcheck@localhost IDENTIFIED BY 'of the source'", "CREATE USER healthcheck@'::1' IDENTIFIED BY 'of the source'")
			}
			m, report := dumpMemory(t, options(t, source))
			for _, o := range []LoadOptions{{Seed: true, Accounts: AccountsReplace, SkipBinlog: true}, {Seed: true, Follower: true}} {
				s := f.server(t)
				s.Exec(t, "CREATE DATABASE a", "CREATE TABLE a.script (id INT PRIMARY KEY)", "INSERT INTO a.script VALUES (1)",
					"CREATE DATABASE script_alone", "CREATE TABLE script_alone.t (id INT PRIMARY KEY)",
					"CREATE USER extra@localhost", "CREATE ROLE extra_role", "CREATE USER healthcheck@localhost IDENTIFIED BY 'on the volume'")
				const secret = "SELECT COALESCE(MAX(authentication_string), 'gone') FROM mysql.user WHERE User='healthcheck' AND Host='localhost'"
				before := s.Value(t, secret)
				opts := options(t, s)
				opts.Load = o
				e := newEngine(t, opts)
				loaded, err := e.Load(t.Context(), m.Source(report))
				require.NoError(t, err)
				require.Equal(t, "0", s.Value(t, "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_NAME='script' OR TABLE_SCHEMA='script_alone'"))
				require.Equal(t, "0", s.Value(t, "SELECT COUNT(*) FROM mysql.user WHERE User LIKE 'extra%'"))
				require.Equal(t, describe(t, source)["account 'app'@'%'"], describe(t, s)["account 'app'@'%'"])
				warnings := strings.Join(loaded.Warnings, "\n")
				require.Contains(t, warnings, "script_alone")
				require.Contains(t, warnings, "extra@localhost")
				if f.name == "mariadb" { // its image's healthcheck has the password of the volume
					require.Equal(t, before, s.Value(t, secret))
					require.Contains(t, warnings, "healthcheck@localhost was kept")
					require.Equal(t, "1", s.Value(t, "SELECT COUNT(*) FROM mysql.user WHERE User='healthcheck' AND Host='::1'"))
				} else {
					require.Equal(t, "gone", s.Value(t, secret))
				}
				if !o.Follower {
					continue
				}
				source.Exec(t, "CREATE USER extra@localhost", "CREATE DATABASE script_alone")
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				require.NoError(t, e.Follow(ctx, report.Coordinates, up))
				require.Equal(t, "1", s.Value(t, "SELECT COUNT(*) FROM mysql.user WHERE User='extra'"), "the upstream's new account arrived")
			}
		})
	}
}

// A claim may be new and its volume not: rows of databases that the backup lacks are not dropped unasked. The lost+found
// of a volume's root, which MariaDB shows as a database, is none, and the rest of the target is as it was after a refusal.
func TestASeedWithForeignRowsIsRefused(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			source := f.server(t)
			source.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY)", "INSERT INTO app.t VALUES (1), (2)")
			m, report := dumpMemory(t, options(t, source))
			s := f.server(t)
			lost := filepath.Join(s.Value(t, "SELECT @@datadir"), "lost+found")
			require.NoError(t, os.Mkdir(lost, 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(lost, "#12345"), []byte("of fsck"), 0o600))
			s.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (old INT)", "INSERT INTO app.t VALUES (7)",
				"CREATE DATABASE other", "CREATE TABLE other.empty (id INT)", "CREATE TABLE other.t (id INT)", "INSERT INTO other.t VALUES (1)")
			o := options(t, s)
			o.Load = LoadOptions{Seed: true, SkipBinlog: true, Accounts: AccountsReplace}
			_, err := loadWith(t, o, m, report)
			require.ErrorIs(t, err, dbdump.ErrNotEmpty)
			require.ErrorContains(t, err, "`other`.`t`")
			require.ErrorContains(t, err, "--replace")
			require.Equal(t, "7", s.Value(t, "SELECT SUM(old) FROM app.t"), "nothing was touched")

			o.Load.Replace = true
			loaded, err := loadWith(t, o, m, report)
			require.NoError(t, err)
			require.Contains(t, strings.Join(loaded.Warnings, "\n"), "database `other`")
			require.Equal(t, "3", s.Value(t, "SELECT SUM(id) FROM app.t"))
			require.Equal(t, "0", s.Value(t, "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME='other'"))
			require.FileExists(t, filepath.Join(lost, "#12345"))
		})
	}
}

// Only a seed loses accounts that the backup lacks: a follower that is loaded by hand keeps them.
func TestAFollowerLoadedByHandKeepsItsAccounts(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			source := f.server(t)
			source.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY)", "CREATE USER app@'%'")
			m, report := dumpMemory(t, options(t, source))
			for _, o := range []LoadOptions{{Follower: true}, {Follower: true, Seed: true}} {
				s := f.server(t)
				s.Exec(t, "CREATE USER monitor@localhost", "CREATE USER `percona.telemetry`@localhost")
				opts := options(t, s)
				opts.Load = o
				_, err := loadWith(t, opts, m, report)
				require.NoError(t, err)
				monitors := "1"
				if o.Seed {
					monitors = "0"
				}
				require.Equal(t, monitors, s.Value(t, "SELECT COUNT(*) FROM mysql.user WHERE User='monitor'"))
				require.Equal(t, "1", s.Value(t, "SELECT COUNT(*) FROM mysql.user WHERE User='percona.telemetry'"), "the server's own")
				require.Equal(t, "1", s.Value(t, "SELECT COUNT(*) FROM mysql.user WHERE User='app'"))
			}
		})
	}
}
