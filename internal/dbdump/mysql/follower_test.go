package mysql

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/record"
	"keepset/test/servers"
)

// replicationAccount makes the account that followers use on the upstream.
func replicationAccount(t testing.TB, s *servers.MySQL) dbdump.Upstream {
	t.Helper()
	s.Exec(t, "CREATE USER repl@'%' IDENTIFIED BY 'r''e;pl'", "GRANT REPLICATION SLAVE ON *.* TO repl@'%'")
	return upstreamAt(s)
}

func upstreamAt(s *servers.MySQL) dbdump.Upstream {
	return dbdump.Upstream{Host: s.Host, Port: s.Port, User: "repl", Password: "r'e;pl"}
}

// primary is a server with some content, a replication account, an account that will change, and an event.
func primary(t testing.TB, f flavour) (*servers.MySQL, dbdump.Upstream) {
	t.Helper()
	s := f.server(t)
	return s, fillPrimary(t, s)
}

func fillPrimary(t testing.TB, s *servers.MySQL) dbdump.Upstream {
	t.Helper()
	up := replicationAccount(t, s)
	s.Exec(t,
		"SET GLOBAL event_scheduler=ON",
		"CREATE USER app@'%' IDENTIFIED BY 'old'",
		"CREATE DATABASE d", "CREATE TABLE d.t (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, v VARCHAR(20))",
		"INSERT INTO d.t (v) VALUES ('before')",
		"CREATE TABLE d.ticks (n INT NOT NULL AUTO_INCREMENT PRIMARY KEY, server VARCHAR(40))",
		"CREATE EVENT d.tick ON SCHEDULE EVERY 1 SECOND DO INSERT INTO d.ticks (server) VALUES (@@server_id)",
	)
	return up
}

// seed loads a dump into a new server and makes it follow.
func seed(t testing.TB, f flavour, m dbdump.Source, up dbdump.Upstream, extra ...string) *servers.MySQL {
	t.Helper()
	s := f.server(t, extra...)
	o := options(t, s)
	o.Load = LoadOptions{Follower: true}
	e := newEngine(t, o)
	require.NoError(t, e.Check(t.Context(), m.Report().Coordinates, up))
	_, err := e.Load(t.Context(), m)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	require.NoError(t, e.Follow(ctx, m.Report().Coordinates, up))
	return s
}

// sameRows waits until both servers hold the same rows of d.t and the account's new password has arrived.
func sameRows(t testing.TB, a, b *servers.MySQL) {
	t.Helper()
	const query = "SELECT CONCAT(COUNT(*), ' ', COALESCE(GROUP_CONCAT(v ORDER BY id), '')) FROM d.t"
	want := a.Value(t, query)
	require.Eventually(t, func() bool { return b.Value(t, query) == want }, 2*time.Minute, 100*time.Millisecond, want)
}

// A new follower continues where the dump ends: what was written between the dump and the load arrives, accounts can
// be changed by replication, events run on the primary alone.
func TestFollowPrimary(t *testing.T) {
	t.Parallel()
	for _, f := range everyFlavour() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			p, up := primary(t, f)
			m, report := dumpMemory(t, options(t, p))
			p.Exec(t, "INSERT INTO d.t (v) VALUES ('after')", "ALTER USER app@'%' IDENTIFIED BY 'new'")
			extra := []string{"event_scheduler=ON"}
			if f.name == "mysql" {
				extra = append(extra, "super_read_only=ON")
			} else {
				extra = append(extra, "read_only=ON")
			}
			s := seed(t, f, m.Source(report), up, extra...)
			require.Equal(t, p.Value(t, "SELECT COUNT(*) FROM d.t"), s.Value(t, "SELECT COUNT(*) FROM d.t"), "Follow returned before it had caught up")
			p.Exec(t, "INSERT INTO d.t (v) VALUES ('later')")
			sameRows(t, p, s)
			require.Equal(t, "0", s.Value(t, "SELECT COUNT(*) FROM d.ticks WHERE server="+s.Value(t, "SELECT @@server_id")), "an event ran on the follower")
			require.Equal(t, "SLAVESIDE_DISABLED", replaceReplica(s.Value(t, "SELECT STATUS FROM information_schema.EVENTS WHERE EVENT_NAME='tick'")))
			require.Equal(t, "1", s.Value(t, "SELECT @@GLOBAL.read_only"), "the follower is read-only again")

			// A dump of the follower seeds a sibling, from the same upstream, or a follower of its own.
			m2, report2 := dumpMemory(t, options(t, s))
			require.NotNil(t, report2.Coordinates.Upstream)
			p.Exec(t, "INSERT INTO d.t (v) VALUES ('for the sibling')")
			sibling := seed(t, f, m2.Source(report2), up)
			sameRows(t, p, sibling)
			grandchild := seed(t, f, m2.Source(report2), upstreamAt(s))
			sameRows(t, p, grandchild)

			// A clean end, and replication goes on after the start.
			e := newEngine(t, options(t, sibling))
			require.NoError(t, e.Shutdown(t.Context()))
			p.Exec(t, "INSERT INTO d.t (v) VALUES ('while it was down')")
			sibling.Restart(t)
			sameRows(t, p, sibling)
		})
	}
}

// replaceReplica makes the newer name of the status the older one.
func replaceReplica(status string) string {
	if status == "REPLICA_SIDE_DISABLED" || status == "REPLICASIDE_DISABLED" {
		return "SLAVESIDE_DISABLED"
	}
	return status
}

// Without GTIDs file and position do, from the dumped server and from its upstream.
func TestFollowByFileAndPosition(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		if f = f.with("log_slave_updates=ON"); f.name == "mysql" {
			f = f.with("gtid_mode=OFF", "enforce_gtid_consistency=OFF")
		}
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			p, up := primary(t, f)
			p.Exec(t, "GRANT "+map[string]string{"mariadb": "BINLOG MONITOR", "mysql": "REPLICATION CLIENT"}[f.name]+" ON *.* TO repl@'%'")
			m, report := dumpMemory(t, options(t, p))
			report.Coordinates.GTID = "" // MariaDB always has them
			p.Exec(t, "INSERT INTO d.t (v) VALUES ('after')")
			s := seed(t, f, m.Source(report), up)
			sameRows(t, p, s)
			m2, report2 := dumpMemory(t, withStopping(options(t, s)))
			report2.Coordinates.Upstream.GTID, report2.Coordinates.GTID = "", ""
			p.Exec(t, "INSERT INTO d.t (v) VALUES ('more')")
			sameRows(t, p, seed(t, f, m2.Source(report2), up))

			e := newEngine(t, options(t, s))
			c := report.Coordinates
			c.File = "binlog.000999"
			require.ErrorIs(t, e.Check(t.Context(), c, up), dbdump.ErrCoordinates)
			c = report.Coordinates
			c.Position = 1 << 40
			require.ErrorIs(t, e.Check(t.Context(), c, up), dbdump.ErrCoordinates)
			c = report.Coordinates
			c.Server = "another"
			require.ErrorIs(t, e.Check(t.Context(), c, up), dbdump.ErrCoordinates)
			require.ErrorIs(t, e.Check(t.Context(), record.Coordinates{Server: c.Server}, up), dbdump.ErrCoordinates)
		})
	}
}

func withStopping(o Options) Options {
	o.AllowStoppingReplica = true
	return o
}

// Purged logs, a backup that is ahead of the upstream, and another history are refused before anything happens.
func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			p, up := primary(t, f)
			if f.name == "mariadb" {
				p.Exec(t, "GRANT BINLOG MONITOR ON *.* TO repl@'%'")
			}
			_, report := dumpMemory(t, options(t, p))
			e := newEngine(t, options(t, p))
			c := report.Coordinates
			require.NoError(t, e.Check(t.Context(), c, up))

			// The upstream was rebuilt from nothing, or is behind.
			other, otherUp := primary(t, f)
			other.Exec(t, map[string]string{"mariadb": "RESET MASTER", "mysql": "RESET BINARY LOGS AND GTIDS"}[f.name])
			require.ErrorIs(t, e.Check(t.Context(), c, otherUp), dbdump.ErrCoordinates)
			ahead := c
			if f.name == "mariadb" {
				ahead.GTID = "0-" + c.Server + "-99999999"
			} else {
				ahead.GTID = c.Server + ":1-99999999"
			}
			require.ErrorIs(t, e.Check(t.Context(), ahead, up), dbdump.ErrCoordinates)

			p.Exec(t, "INSERT INTO d.t (v) VALUES ('lost')", "FLUSH BINARY LOGS", "INSERT INTO d.t (v) VALUES ('x')", "FLUSH BINARY LOGS")
			// A log goes only when the engine has written out what it covers.
			require.Eventually(t, func() bool {
				p.Exec(t, "SET GLOBAL innodb_flush_log_at_trx_commit=1", "INSERT INTO d.t (v) VALUES ('x')", "FLUSH BINARY LOGS",
					"PURGE BINARY LOGS TO '"+slices.Max(logs(t, p))+"'")
				return logs(t, p)[0] > report.Coordinates.File
			}, 2*time.Minute, 100*time.Millisecond)
			err := e.Check(t.Context(), c, up)
			require.ErrorIs(t, err, dbdump.ErrCoordinates)
			require.ErrorContains(t, err, "purged")
		})
	}
}

// logs names the binary logs, oldest first.
func logs(t testing.TB, s *servers.MySQL) []string {
	t.Helper()
	var names []string
	for _, line := range (&describer{t: t, db: s.DB(t)}).lines("SHOW BINARY LOGS") {
		name, _, _ := strings.Cut(line, " | ")
		names = append(names, name)
	}
	return names
}

// What stops replication comes back as the error, and what must not follow is refused.
func TestFollowFails(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			p, up := primary(t, f)
			m, report := dumpMemory(t, options(t, p))
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
			defer cancel()

			same := f.start(t, servers.WithServerID(p.ServerID), servers.WithConfig(f.config...))
			err := newEngine(t, options(t, same)).Follow(ctx, report.Coordinates, up)
			require.ErrorContains(t, err, "server_id")

			s := f.server(t)
			o := options(t, s)
			o.Load = LoadOptions{Follower: true}
			_, err = newEngine(t, o).Load(ctx, m.Source(report))
			require.NoError(t, err)
			s.Exec(t, "SET sql_log_bin=0", "DELETE FROM d.t")
			p.Exec(t, "UPDATE d.t SET v='changed'")
			err = newEngine(t, o).Follow(ctx, report.Coordinates, up)
			require.ErrorContains(t, err, "replication stopped")

			wrong := up
			wrong.Password = "wrong"
			require.ErrorIs(t, newEngine(t, o).Check(ctx, report.Coordinates, wrong), dbdump.ErrAccess)

			// It follows already: a second load or follow would mix two histories.
			if f.name == "mariadb" {
				s.Exec(t, "STOP SLAVE", "SET GLOBAL sql_slave_skip_counter=1", "START SLAVE IO_THREAD")
			} else {
				s.Exec(t, "STOP REPLICA", "START REPLICA IO_THREAD")
			}
			require.ErrorContains(t, newEngine(t, o).Follow(ctx, report.Coordinates, up), "already")
			o.Load = LoadOptions{Isolated: true}
			_, err = newEngine(t, o).Load(ctx, m.Source(report))
			require.ErrorContains(t, err, "already", "refused before it is looked whether it is empty")
			require.NotErrorIs(t, err, dbdump.ErrNotEmpty)
		})
	}
}

// A follower that is told where its file of authorities is does not follow a server that somebody else's authority has
// signed, and one that is told nothing follows anybody.
func TestFollowVerifiesTheUpstream(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			p := f.start(t, servers.WithConfig(append([]string{"bind_address=0.0.0.0"}, f.config...)...), servers.WithTLS())
			stranger := f.start(t, servers.WithConfig(f.config...), servers.WithTLS())
			p.Exec(t, "CREATE USER repl@'%' IDENTIFIED BY 'r''e;pl' REQUIRE SSL", "GRANT REPLICATION SLAVE ON *.* TO repl@'%'",
				"CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v VARCHAR(20))")
			m, report := dumpMemory(t, options(t, p))
			p.Exec(t, "INSERT INTO d.t VALUES (1, 'after')")
			up := upstreamAt(p)

			up.TLS, up.CA = true, p.TLS.CA
			sameRows(t, p, seed(t, f, m.Source(report), up))
			up.CA = ""
			sameRows(t, p, seed(t, f, m.Source(report), up))

			up.CA = stranger.TLS.CA
			late := f.server(t)
			o := options(t, late)
			o.Load = LoadOptions{Follower: true}
			e := newEngine(t, o)
			_, err := e.Load(t.Context(), m.Source(report))
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			e.patience.connect = time.Second
			require.ErrorContains(t, e.Follow(ctx, report.Coordinates, up), "cannot connect to its upstream by TLS")

			// The certificate is for 127.0.0.1.
			if f.name == "mariadb" {
				late.Exec(t, "STOP SLAVE", "RESET SLAVE ALL")
			} else {
				late.Exec(t, "STOP REPLICA", "RESET REPLICA ALL")
			}
			up.Host, up.CA = "127.0.0.2", p.TLS.CA
			require.ErrorContains(t, e.Follow(ctx, report.Coordinates, up), "cannot connect to its upstream by TLS")
			up.Host = p.Host

			// Where the target's own authority is known here, it judges the upstream before anything is touched.
			up.CA = p.TLS.CA
			o.TLS.CA = stranger.TLS.CA
			require.ErrorIs(t, newEngine(t, o).Check(t.Context(), report.Coordinates, up), dbdump.ErrUntrusted)
			o.TLS.CA = p.TLS.CA
			require.NoError(t, newEngine(t, o).Check(t.Context(), report.Coordinates, up))
		})
	}
}

// What a backup of a follower becomes when it stands on its own: the events that ran on the upstream run here. One that
// somebody disabled stays disabled.
func TestEventsOfAFollowerRunOnItsCopy(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			p, up := primary(t, f)
			p.Exec(t, "CREATE EVENT d.off ON SCHEDULE EVERY 1 SECOND DISABLE DO INSERT INTO d.ticks (server) VALUES ('off')")
			m, report := dumpMemory(t, options(t, p))
			s := seed(t, f, m.Source(report), up)
			m, report = dumpMemory(t, options(t, s))
			copied := f.server(t, "event_scheduler=OFF") // as in a seed
			o := options(t, copied)
			o.Load = LoadOptions{Seed: true, SkipBinlog: true, Accounts: AccountsReplace}
			e := newEngine(t, o)
			loaded, err := e.Load(t.Context(), m.Source(report))
			require.NoError(t, err)
			require.NoError(t, e.Lead(t.Context(), report.Coordinates))
			require.Equal(t, "ENABLED", copied.Value(t, "SELECT STATUS FROM information_schema.EVENTS WHERE EVENT_NAME='tick'"))
			require.Equal(t, "DISABLED", copied.Value(t, "SELECT STATUS FROM information_schema.EVENTS WHERE EVENT_NAME='off'"))
			require.Contains(t, strings.Join(loaded.Warnings, "\n"), "event `d`.`tick`")
			copied.Exec(t, "SET GLOBAL event_scheduler=ON")
			id := copied.Value(t, "SELECT @@server_id")
			require.Eventually(t, func() bool { return copied.Value(t, "SELECT COUNT(*) FROM d.ticks WHERE server="+id) != "0" }, 2*time.Minute, 100*time.Millisecond)
		})
	}
}

// A follower that does not log what it applies cannot be an upstream: its follower would catch up with nothing.
func TestAnUpstreamThatPassesNothingOnIsRefused(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			p, up := primary(t, f)
			m, report := dumpMemory(t, options(t, p))
			variable := map[string]string{"mariadb": "log_slave_updates=OFF", "mysql": "log_replica_updates=OFF"}[f.name]
			s := seed(t, f, m.Source(report), up, variable)
			if f.name == "mysql" {
				s.Exec(t, "GRANT REPLICATION CLIENT ON *.* TO repl@'%'")
			}
			target := newEngine(t, options(t, f.server(t)))
			server, err := target.server(t.Context())
			require.NoError(t, err)
			err = target.Check(t.Context(), report.Coordinates, upstreamAt(s))
			require.ErrorIs(t, err, dbdump.ErrCoordinates)
			require.ErrorContains(t, err, "passes nothing on")
			if f.name == "mariadb" {
				s.Exec(t, "SET sql_log_bin=0; GRANT SLAVE MONITOR ON *.* TO repl@'%'")
				err = target.Check(t.Context(), report.Coordinates, upstreamAt(s))
				require.ErrorContains(t, err, "itself follows "+p.Host)
			}
			// Promoted, it leads, even if its configuration still says whom it followed.
			for _, statement := range []string{wordsOf(server).stop, wordsOf(server).resetReplica} {
				s.Exec(t, statement)
				// What it applied before is in no log of its own, which the check of the position finds.
				err = target.Check(t.Context(), report.Coordinates, upstreamAt(s))
				require.ErrorIs(t, err, dbdump.ErrCoordinates, statement)
				require.NotContains(t, err.Error(), "passes nothing on", statement)
			}
		})
	}
}

// A version that does not say whether it has TLS, as MySQL 9 does not, is judged by its number.
func TestUpstreamThatDoesNotSayWhetherItHasTLS(t *testing.T) {
	t.Parallel()
	up := replicationAccount(t, servers.MySQL97(t))
	u, err := newEngine(t, Options{Address: "127.0.0.1:1", User: "root"}).openUpstream(t.Context(), up)
	require.NoError(t, err)
	defer u.close()
	for number, want := range map[int]bool{110402: false, 101114: true} {
		u.server = Server{Flavor: FlavorMariaDB, number: number}
		plain, err := u.plain(t.Context(), up)
		require.NoError(t, err)
		require.Equal(t, want, plain, number)
	}
}

// The numbers of binary logs go on beyond six digits.
func TestLaterLog(t *testing.T) {
	t.Parallel()
	require.True(t, laterLog("binlog.1000000", "binlog.999999"))
	require.False(t, laterLog("binlog.999999", "binlog.1000000"))
	require.True(t, laterLog("binlog.000011", "binlog.000009"))
	require.False(t, laterLog("binlog.000009", "binlog.000009"))
}
