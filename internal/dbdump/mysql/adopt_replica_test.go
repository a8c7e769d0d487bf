package mysql

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/record"
	"keepset/test/servers"
)

// tree is a primary with a bank and a follower of it.
func tree(t *testing.T, f flavour, config ...string) (p, s *servers.MySQL, up dbdump.Upstream, b *bank) {
	t.Helper()
	p = f.server(t, config...)
	up = prepareStory(t, p)
	p.Exec(t, "GRANT REPLICATION CLIENT ON *.* TO repl@'%'") // MariaDB calls it BINLOG MONITOR
	m, report := dumpMemory(t, options(t, p))
	s = seed(t, f, m.Source(report), up, append([]string{"relay_log=its-relay-bin"}, config...)...)
	b = startBank(t, p)
	arrived := func() bool {
		return s.Value(t, "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA='bank'") == "5"
	}
	waitFor(t, "the bank arrives", arrived)
	return p, s, up, b
}

// cutHeld cuts the server's volume while it is held still.
func cutHeld(t testing.TB, o Options, s *servers.MySQL) (volume string, c record.Coordinates) {
	t.Helper()
	report, err := heldStill(t, o, func(ctx context.Context) error {
		volume = cutVolume(t, s)
		return ctx.Err()
	})
	require.NoError(t, err)
	return volume, report.Coordinates
}

// A volume snapshot of a follower becomes a sibling of it, or its own follower.
func TestAVolumeSnapshotOfAFollowerBecomesASibling(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			p, follower, up, b := tree(t, f, careless...)
			volume, c := cutHeld(t, options(t, follower), follower)
			require.NotNil(t, c.Upstream)
			n := b.transfers.Load()
			waitFor(t, "writers going on", func() bool { return b.transfers.Load() > n+20 })
			b.stop()

			s := seedFrom(t, f, volume, durable...)
			e := adopter(t, s, true)
			at, err := e.Adopt(t.Context(), c)
			require.NoError(t, err)
			require.Equal(t, c, at)
			again, err := e.Adopt(t.Context(), c)
			require.NoError(t, err)
			require.Equal(t, c, again, "a second attempt knows as much")
			replicates, err := e.Replicates(t.Context())
			require.NoError(t, err)
			require.False(t, replicates)
			follow(t, e, at, up)
			sameChecksums(t, p, s)

			// An attempt that is given up while it follows is repeated on the same files.
			volume = cutVolume(t, s)
			s.Stop(t)
			restartOn(t, s, volume)
			p.Exec(t, "INSERT INTO bank.ledger (amount) VALUES (7)")
			at, err = e.Adopt(t.Context(), c)
			require.NoError(t, err)
			follow(t, e, at, up)
			sameChecksums(t, p, s)

			grandchild := seedFrom(t, f, volume, durable...)
			e = adopter(t, grandchild, true)
			at, err = e.Adopt(t.Context(), c)
			require.NoError(t, err)
			follow(t, e, at, upstreamAt(follower))
			sameChecksums(t, p, grandchild)
		})
	}
}

// A volume that was cut while nobody held the server still is recovered as after a power cut, and knows its position by
// itself, whether it is of a primary or of a follower.
func TestACrashConsistentCopyKnowsItsPosition(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			p, follower, up, b := tree(t, f, durable...)
			var before, none record.Coordinates
			_, before = cutHeld(t, options(t, p), p)
			n := b.transfers.Load()
			waitFor(t, "writers going on", func() bool { return b.transfers.Load() > n+20 })
			volumes := []string{cutVolume(t, p), cutVolume(t, follower)}
			waitFor(t, "writers going on", func() bool { return b.transfers.Load() > n+60 })
			b.stop()
			for i, c := range []record.Coordinates{none, before, none} {
				s := seedFrom(t, f, volumes[i/2], durable...)
				e := adopter(t, s, true)
				at, err := e.Adopt(t.Context(), c)
				require.NoError(t, err)
				require.NotEqual(t, before.GTID, at.GTID)
				switch {
				case i == 2:
					require.NotNil(t, at.Upstream)
					require.Equal(t, up.Port, at.Upstream.Port)
				case f.name == "mariadb" || i == 1:
					require.Equal(t, identityOf(t, p), at.Server)
				}
				follow(t, e, at, up)
				sameChecksums(t, p, s)
			}
		})
	}
}

// The whole set comes back from one volume snapshot of a follower: one copy leads, and runs the events; the other follows it.
func TestAWholeSetFromOneVolumeSnapshot(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			_, follower, _, b := tree(t, f, careless...)
			volume, c := cutHeld(t, options(t, follower), follower)
			b.stop()
			leader := seedFrom(t, f, volume)
			e := adopter(t, leader, false)
			at, err := e.Adopt(t.Context(), c)
			require.NoError(t, err)
			require.Equal(t, "ENABLED", leader.Value(t, "SELECT STATUS FROM information_schema.EVENTS WHERE EVENT_NAME='tick'"))
			require.Equal(t, "DISABLED", leader.Value(t, "SELECT STATUS FROM information_schema.EVENTS WHERE EVENT_NAME='off'"))
			require.NoError(t, e.Lead(t.Context(), at))
			require.NoError(t, e.Shutdown(t.Context()))
			leader.Restart(t)
			ticked(t, leader)
			leader.Exec(t, "INSERT INTO bank.ledger (amount) VALUES (7)")

			s := seedFrom(t, f, volume)
			e = adopter(t, s, true)
			at, err = e.Adopt(t.Context(), c)
			require.NoError(t, err)
			up := upstreamAt(leader)
			origin, err := e.Origin(t.Context(), at, up)
			require.NoError(t, err)
			follow(t, e, origin, up)
			sameChecksums(t, leader, s)
			require.NotEqual(t, "ENABLED", s.Value(t, "SELECT STATUS FROM information_schema.EVENTS WHERE EVENT_NAME='tick'"))
		})
	}
}

// Without GTIDs, file and offset are what the files say.
func TestAdoptByFileAndPosition(t *testing.T) {
	t.Parallel()
	f := mysql97.with("gtid_mode=OFF", "enforce_gtid_consistency=OFF", "log_replica_updates=ON")
	p, follower, up, b := tree(t, f, durable...)
	_, err := heldStill(t, options(t, follower), func(context.Context) error { return nil })
	require.ErrorContains(t, err, "--allow-stopping-replica")
	ofFollower, c := cutHeld(t, withStopping(options(t, follower)), follower)
	loose := cutVolume(t, follower)
	ofPrimary, own := cutHeld(t, options(t, p), p)
	require.Empty(t, own.GTID)
	n := b.transfers.Load()
	waitFor(t, "writers going on", func() bool { return b.transfers.Load() > n+20 })
	crashed := cutVolume(t, p)
	b.stop()
	sameChecksums(t, p, follower) // its appliers were started again

	adopt := func(volume string, c record.Coordinates) (*servers.MySQL, *Engine, record.Coordinates, error) {
		s := seedFrom(t, f, volume, durable...)
		e := adopter(t, s, true)
		at, err := e.Adopt(t.Context(), c)
		return s, e, at, err
	}
	for _, held := range []struct {
		volume string
		c      record.Coordinates
	}{{ofFollower, c}, {ofPrimary, own}} {
		s, e, at, err := adopt(held.volume, held.c)
		require.NoError(t, err)
		require.Equal(t, held.c, at)
		follow(t, e, at, up)
		sameChecksums(t, p, s)
		s.Stop(t)
	}
	s, e, at, err := adopt(crashed, own)
	require.NoError(t, err)
	require.True(t, laterPosition(at.File, at.Position, own.File, own.Position), "%s:%d", at.File, at.Position)
	follow(t, e, at, up)
	sameChecksums(t, p, s)

	_, _, _, err = adopt(loose, record.Coordinates{})
	require.ErrorIs(t, err, dbdump.ErrCoordinates)
	require.ErrorContains(t, err, "no exact position")
	later := own
	later.Position += 1 << 30
	_, _, _, err = adopt(ofPrimary, later)
	require.ErrorIs(t, err, dbdump.ErrCoordinates)
	require.ErrorContains(t, err, "the files lack")
}

// What is older than its record, or has done something since it came up, is refused.
func TestAdoptRefuses(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			p, follower, _, b := tree(t, f, careless...)
			volume, c := cutHeld(t, options(t, follower), follower)
			n := b.transfers.Load()
			waitFor(t, "writers going on", func() bool { return b.transfers.Load() > n+20 })
			b.stop()
			sameChecksums(t, p, follower)
			_, later := cutHeld(t, options(t, follower), follower)

			s := seedFrom(t, f, volume, "relay_log=its-relay-bin")
			refused := func(c record.Coordinates, why string) {
				t.Helper()
				_, err := adopter(t, s, true).Adopt(t.Context(), c)
				require.ErrorIs(t, err, dbdump.ErrCoordinates)
				require.ErrorContains(t, err, why)
			}
			refused(later, "the files lack")
			s.Exec(t, "SET GLOBAL event_scheduler=ON")
			refused(c, "event scheduler")
			s.Exec(t, "SET GLOBAL event_scheduler=OFF", "INSERT INTO bank.ledger (amount) VALUES (1)")
			refused(c, "something was written")

			restartOn(t, s, volume)
			server, err := newEngine(t, options(t, s)).server(t.Context())
			require.NoError(t, err)
			s.Exec(t, wordsOf(server).start)
			refused(c, "it follows")
			sameChecksums(t, p, s)
			s.Exec(t, wordsOf(server).stop)
			refused(c, "has applied changes")
		})
	}
}

// A power cut takes commits from a server that is set to write them out later, and leaves them in its binary log: a copy
// of such a server has a position only where it was held still, or shut down.
func TestAdoptOfACarelessServer(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			p := f.server(t, careless...)
			up := prepareStory(t, p)
			b := startBank(t, p)
			volume := cutVolume(t, p)
			b.stop()
			s := seedFrom(t, f, volume)
			_, err := adopter(t, s, true).Adopt(t.Context(), record.Coordinates{})
			require.ErrorIs(t, err, dbdump.ErrCoordinates)
			require.ErrorContains(t, err, "innodb_flush_log_at_trx_commit")

			p.Stop(t)
			volume = t.TempDir()
			require.NoError(t, os.CopyFS(filepath.Join(volume, "data"), os.DirFS(p.DataDir)))
			p.Restart(t)
			p.Exec(t, "INSERT INTO bank.ledger (amount) VALUES (7)")
			restartOn(t, s, volume)
			e := adopter(t, s, true)
			at, err := e.Adopt(t.Context(), record.Coordinates{})
			require.NoError(t, err)
			follow(t, e, at, up)
			sameChecksums(t, p, s)
		})
	}
}

// A table of engine MEMORY is empty after a start, which the server writes into its binary log when it first opens it:
// that is no history of the other server, and no reason to refuse.
func TestAdoptWithTablesInMemory(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			p, up := primary(t, f)
			startBank(t, p).stop()
			p.Exec(t, "CREATE TABLE d.mem (id INT PRIMARY KEY) ENGINE=MEMORY", "INSERT INTO d.mem VALUES (1)")
			volume, c := cutHeld(t, options(t, p), p)
			s := seedFrom(t, f, volume)
			require.Equal(t, "0", s.Value(t, "SELECT COUNT(*) FROM d.mem"))
			e := adopter(t, s, true)
			at, err := e.Adopt(t.Context(), c)
			require.NoError(t, err)
			require.Equal(t, c, at)
			follow(t, e, at, up)
			sameChecksums(t, p, s)
		})
	}
}
