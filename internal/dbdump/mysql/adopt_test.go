package mysql

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/record"
	"keepset/test/servers"
)

var _ dbdump.Adopter = (*Engine)(nil)

// cutVolume copies the server's files as they are at one moment, as a volume snapshot does: the server is stopped in its
// tracks meanwhile.
func cutVolume(t testing.TB, s *servers.MySQL) (volume string) {
	t.Helper()
	text, err := os.ReadFile(s.Value(t, "SELECT @@GLOBAL.pid_file"))
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	require.NoError(t, err)
	volume = t.TempDir()
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	out, err := exec.CommandContext(t.Context(), "cp", "-a", "--reflink=auto", "--sparse=always", s.DataDir, volume+"/data").CombinedOutput()
	require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
	require.NoError(t, err, "%s", out)
	return volume
}

// durable are the settings without which a server does not survive a power cut.
var durable = []string{"innodb_doublewrite=ON", "innodb_flush_log_at_trx_commit=1", "sync_binlog=1"}

// careless are the settings of a server that writes out nothing by itself when a transaction commits.
var careless = []string{"innodb_doublewrite=ON", "innodb_flush_log_at_trx_commit=0", "sync_binlog=0"}

// prepare runs the script of PrepareFiles.
func prepare(t testing.TB, mounts ...string) (string, error) {
	t.Helper()
	script, _ := PrepareFiles()
	out, err := exec.CommandContext(t.Context(), "sh", append([]string{"-c", script, "prepare"}, mounts...)...).CombinedOutput()
	return string(out), err
}

// seedFrom starts a server of another ordinal on a copy of the volume, as a seed pod does.
func seedFrom(t testing.TB, f flavour, volume string, extra ...string) *servers.MySQL {
	t.Helper()
	s := f.server(t, append([]string{"innodb_doublewrite=ON", "event_scheduler=ON", "relay_log=another-relay-bin"}, extra...)...)
	restartOn(t, s, volume)
	return s
}

// restartOn puts a copy of the volume under a server.
func restartOn(t testing.TB, s *servers.MySQL, volume string) {
	t.Helper()
	s.Stop(t)
	require.NoError(t, os.RemoveAll(s.DataDir))
	out, err := exec.CommandContext(t.Context(), "cp", "-a", "--sparse=always", volume+"/data", s.DataDir).CombinedOutput()
	require.NoError(t, err, "%s", out)
	said, err := prepare(t, s.DataDir)
	require.NoError(t, err, said)
	_, arguments := PrepareFiles()
	require.NoError(t, s.Start(t.Context(), arguments...))
}

// adopter is an engine for a seed.
func adopter(t testing.TB, s *servers.MySQL, follower bool) *Engine {
	t.Helper()
	o := options(t, s)
	o.Load = LoadOptions{Follower: follower}
	return newEngine(t, o)
}

// follow is Follow with an end.
func follow(t testing.TB, e *Engine, c record.Coordinates, up dbdump.Upstream) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	require.NoError(t, e.Check(ctx, c, up))
	require.NoError(t, e.Admits(ctx, up))
	require.NoError(t, e.Follow(ctx, c, up))
}

// checksums of the tables of the bank and of those that are not InnoDB's.
func checksums(t testing.TB, s *servers.MySQL, tables ...string) string {
	t.Helper()
	db, err := s.Open()
	require.NoError(t, err)
	defer db.Close() //nolint:errcheck // only read
	list := []string{"bank.ledger", "bank.a0", "bank.a1", "bank.a2", "bank.a3"}
	return strings.Join((&describer{t: t, db: db}).lines("CHECKSUM TABLE "+strings.Join(append(list, tables...), ", ")), "\n")
}

// sameChecksums waits until both servers hold the same. Nobody may be writing.
func sameChecksums(t testing.TB, a, b *servers.MySQL, tables ...string) {
	t.Helper()
	want, have := checksums(t, a, tables...), ""
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		if have = checksums(t, b, tables...); have == want {
			return
		}
	}
	require.Equal(t, want, have)
}

// unlogged makes tables of the other engines and returns their names.
func unlogged(t testing.TB, f flavour, s *servers.MySQL) []string {
	t.Helper()
	s.Exec(t, "CREATE TABLE d.m (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(20), KEY (v)) ENGINE=MyISAM", "INSERT INTO d.m (v) VALUES ('a'), ('b')")
	if f.name != "mariadb" {
		return []string{"d.m"}
	}
	s.Exec(t, "CREATE TABLE d.aria (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(20), KEY (v)) ENGINE=Aria TRANSACTIONAL=1", "INSERT INTO d.aria (v) VALUES ('a'), ('b')",
		"CREATE TABLE d.plain (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(20), KEY (v)) ENGINE=Aria TRANSACTIONAL=0", "INSERT INTO d.plain (v) VALUES ('a'), ('b')")
	return []string{"d.m", "d.aria", "d.plain"}
}

// A volume that was cut while its server was held still becomes a follower: it holds what was committed before and
// nothing else, its tables of every engine are whole, replication goes on from the recorded position, and its events do
// not run. An account that is created meanwhile arrives by replication, and is not in the copy already.
func TestAVolumeSnapshotOfThePrimaryBecomesAFollower(t *testing.T) {
	t.Parallel()
	for _, f := range everyFlavour() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			p := f.server(t, careless...)
			up := prepareStory(t, p)
			others := unlogged(t, f, p)
			b := startBank(t, p)
			db, created := p.DB(t), make(chan error, 1)
			var volume, want string
			report, err := heldStill(t, options(t, p), func(ctx context.Context) error {
				go func() {
					_, err := db.ExecContext(t.Context(), "CREATE USER late@'%' IDENTIFIED BY 'x'")
					created <- err
				}()
				waitFor(t, "the account waits", func() bool {
					return p.Value(t, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'CREATE USER%' AND STATE LIKE 'Waiting%'") == "1"
				})
				want = checksums(t, p, others...)
				volume = cutVolume(t, p)
				return ctx.Err()
			})
			require.NoError(t, err)
			require.NoError(t, <-created)
			n := b.transfers.Load()
			waitFor(t, "writers going on", func() bool { return b.transfers.Load() > n+20 })
			b.stop()
			for _, table := range others {
				p.Exec(t, "INSERT INTO "+table+" (v) VALUES ('later')")
			}

			// A follower that takes no writes is what the pods of a set often are by their configuration.
			s := seedFrom(t, f, volume, map[string]string{"mariadb": "read_only=ON", "mysql": "super_read_only=ON"}[f.name])
			require.Equal(t, want, checksums(t, s, others...))
			require.Equal(t, "0", s.Value(t, "SELECT COUNT(*) FROM mysql.user WHERE User='late'"))
			for _, table := range others {
				require.Contains(t, strings.Join((&describer{t: t, db: s.DB(t)}).lines("CHECK TABLE "+table+" EXTENDED"), "\n"), "status | OK")
			}
			require.NotEqual(t, identityOf(t, p), identityOf(t, s))
			events := eventText(t, s)
			e := adopter(t, s, true)
			at, err := e.Adopt(t.Context(), report.Coordinates)
			require.NoError(t, err)
			require.Equal(t, report.Coordinates, at)
			require.Equal(t, strings.ReplaceAll(events, "|ENABLED|", "|SLAVESIDE_DISABLED|"), replaceAllReplica(eventText(t, s)), "but for their status")
			require.Equal(t, "1", s.Value(t, "SELECT @@GLOBAL.read_only"))
			follow(t, e, at, up)
			sameChecksums(t, p, s, others...)
			require.Equal(t, "1", s.Value(t, "SELECT COUNT(*) FROM mysql.user WHERE User='late'"))

			require.NoError(t, e.Shutdown(t.Context()))
			p.Exec(t, "INSERT INTO bank.ledger (amount) VALUES (7)", "ALTER USER app@'%' IDENTIFIED BY 'new'")
			s.Restart(t) // with its event scheduler on, and replicating
			sameChecksums(t, p, s, others...)
			require.Equal(t, "ON", s.Value(t, "SELECT @@GLOBAL.event_scheduler"))
			ticked(t, p)
			require.Equal(t, "0", s.Value(t, "SELECT COUNT(*) FROM d.ticks WHERE server="+s.Value(t, "SELECT @@server_id")), "an event ran on the follower")
		})
	}
}

// prepareStory is what primary makes, with events that are easily damaged.
func prepareStory(t testing.TB, p *servers.MySQL) dbdump.Upstream {
	t.Helper()
	up := fillPrimary(t, p)
	p.Exec(t, "CREATE EVENT d.off ON SCHEDULE EVERY 1 SECOND DISABLE DO INSERT INTO d.ticks (server) VALUES ('off')",
		"SET NAMES latin1; SET time_zone='+03:00', sql_mode='ANSI_QUOTES,NO_BACKSLASH_ESCAPES'",
		"SET NAMES latin1; SET time_zone='+03:00', sql_mode='ANSI_QUOTES,NO_BACKSLASH_ESCAPES'; CREATE DEFINER=app@'%' EVENT d.\"caf\xe9\" ON SCHEDULE EVERY 1 HOUR STARTS '2030-01-01 00:00:00' COMMENT 'c\xe9' DO SELECT '\xe9'")
	return up
}

// ticked waits until the event of the primary has run again.
func ticked(t testing.TB, p *servers.MySQL) {
	t.Helper()
	before := p.Value(t, "SELECT COUNT(*) FROM d.ticks")
	waitFor(t, "the event to run", func() bool { return p.Value(t, "SELECT COUNT(*) FROM d.ticks") != before })
}

// eventText is everything that the server shows of its events but when they ran and changed.
func eventText(t testing.TB, s *servers.MySQL) string {
	t.Helper()
	return s.Value(t, `SELECT GROUP_CONCAT(CONCAT_WS('|', EVENT_SCHEMA, EVENT_NAME, DEFINER, TIME_ZONE, HEX(EVENT_DEFINITION), STATUS, SQL_MODE, INTERVAL_VALUE, INTERVAL_FIELD, STARTS,
		ON_COMPLETION, EVENT_COMMENT, CHARACTER_SET_CLIENT, COLLATION_CONNECTION, DATABASE_COLLATION) ORDER BY EVENT_NAME SEPARATOR '\n') FROM information_schema.EVENTS`)
}

func replaceAllReplica(text string) string {
	return strings.NewReplacer("REPLICA_SIDE_DISABLED", "SLAVESIDE_DISABLED", "REPLICASIDE_DISABLED", "SLAVESIDE_DISABLED").Replace(text)
}

func identityOf(t testing.TB, s *servers.MySQL) string {
	t.Helper()
	if strings.Contains(s.Value(t, "SELECT VERSION()"), "MariaDB") {
		return s.Value(t, "SELECT @@server_id")
	}
	return s.Value(t, "SELECT @@server_uuid")
}
