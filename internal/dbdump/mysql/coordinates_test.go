package mysql

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/test/servers"
)

// bankState is everything the bank's tables hold.
func bankState(t testing.TB, s *servers.MySQL) string {
	t.Helper()
	var list []string
	for i := range bankTables {
		list = append(list, s.Value(t, fmt.Sprintf("SELECT SHA2(GROUP_CONCAT(id, ':', balance ORDER BY id), 256) FROM bank.a%d", i)))
	}
	return strings.Join(append(list, s.Value(t, "SELECT CONCAT(COUNT(*), ' ', COALESCE(SUM(amount * id), 0), ' ', COALESCE(MAX(id), 0)) FROM bank.ledger")), "\n")
}

// The proof of coordinates is replaying: a copy that continues from them, while
// writers never rested, ends as the primary does. A transaction too many stops
// replication (the ledger's keys are taken), one too few leaves a hole.
func TestACopyContinuesExactlyWhereTheDumpEnds(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			p := f.server(t, "group_concat_max_len=1000000")
			up := replicationAccount(t, p)
			b := startBank(t, p)
			o := options(t, p)
			o.Workers, o.ChunkBytes = 4, 2048
			first, report := dumpMemory(t, o)
			follower := seed(t, f, first.Source(report), up, "group_concat_max_len=1000000")
			// The follower is behind and catching up while it is dumped.
			o = options(t, follower)
			o.Workers, o.ChunkBytes = 4, 2048
			second, report2 := dumpMemory(t, o)
			require.Equal(t, p.Port, report2.Coordinates.Upstream.Port)
			require.True(t, report2.Coordinates.Upstream.Running)
			sibling := seed(t, f, second.Source(report2), up, "group_concat_max_len=1000000")
			b.stop()
			want := bankState(t, p)
			for _, s := range []*servers.MySQL{follower, sibling} {
				require.Eventually(t, func() bool { return bankState(t, s) == want }, 2*time.Minute, 100*time.Millisecond)
			}
		})
	}
}

// A follower whose appliers run in parallel without GTIDs shows a position
// that may be behind what it has applied: refused, or its appliers rest.
func TestParallelAppliersWithoutGTIDsAreStoppedOrRefused(t *testing.T) {
	t.Parallel()
	f := mysql97.with("gtid_mode=OFF", "enforce_gtid_consistency=OFF", "group_concat_max_len=1000000")
	p := f.server(t)
	up := replicationAccount(t, p)
	p.Exec(t, "GRANT REPLICATION CLIENT ON *.* TO repl@'%'")
	b := startBank(t, p)
	first, report := dumpMemory(t, options(t, p))
	follower := seed(t, f, first.Source(report), up, "replica_parallel_workers=4", "replica_preserve_commit_order=OFF")
	_, err := tryDump(t, options(t, follower), newMemSink())
	require.ErrorContains(t, err, "without GTIDs")
	second, report2 := dumpMemory(t, withStopping(options(t, follower)))
	require.Equal(t, "Yes", replicaSQL(t, follower), "the appliers run again")
	b.stop() // before there is one to catch up, which on a busy machine it does not with a bank that goes on
	sibling := seed(t, f, second.Source(report2), up)
	want := bankState(t, p)
	require.Eventually(t, func() bool { return bankState(t, sibling) == want }, 2*time.Minute, 100*time.Millisecond)
}

// replicaSQL tells whether the applier runs.
func replicaSQL(t testing.TB, s *servers.MySQL) string {
	t.Helper()
	return s.Value(t, "SELECT IF(SERVICE_STATE = 'ON', 'Yes', SERVICE_STATE) FROM performance_schema.replication_applier_status LIMIT 1")
}

// Of a server that follows several others all positions are recorded. Its copy can follow the server itself; following
// one of its upstreams would lose what comes from the others, and is refused.
func TestSeveralUpstreamsAreAllRecorded(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			// Each has a domain of its own, as MariaDB's manual wants it; MySQL does not know the setting.
			a, b := f.server(t, "loose_gtid_domain_id=1"), f.server(t, "loose_gtid_domain_id=2")
			s := f.server(t)
			change, start := "CHANGE MASTER '%s' TO MASTER_HOST='%s', MASTER_PORT=%d, MASTER_USER='repl', MASTER_PASSWORD='r''e;pl', MASTER_USE_GTID=slave_pos", "START ALL SLAVES"
			if f.name == "mysql" {
				change = "CHANGE REPLICATION SOURCE TO SOURCE_HOST='%[2]s', SOURCE_PORT=%[3]d, SOURCE_USER='repl', SOURCE_PASSWORD='r''e;pl', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1 FOR CHANNEL '%[1]s'"
				start = "START REPLICA"
			}
			for name, p := range map[string]*servers.MySQL{"a": a, "b": b} {
				p.Exec(t, "SET sql_log_bin=0", "CREATE USER repl@'%' IDENTIFIED BY 'r''e;pl'", "GRANT REPLICATION SLAVE ON *.* TO repl@'%'",
					"SET sql_log_bin=1", "CREATE DATABASE of_"+name, "CREATE TABLE of_"+name+".t (id INT PRIMARY KEY)", "INSERT INTO of_"+name+".t VALUES (1)")
				s.Exec(t, fmt.Sprintf(change, name, p.Host, p.Port))
			}
			s.Exec(t, start)
			require.Eventually(t, func() bool {
				return s.Value(t, "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA IN ('of_a', 'of_b')") == "2"
			}, 2*time.Minute, 100*time.Millisecond)
			up := replicationAccount(t, s)

			m, report := dumpMemory(t, options(t, s))
			c := report.Coordinates
			require.Len(t, c.OtherUpstreams, 1)
			recorded := map[string]int{c.Upstream.Channel: c.Upstream.Port, c.OtherUpstreams[0].Channel: c.OtherUpstreams[0].Port}
			require.Equal(t, map[string]int{"a": a.Port, "b": b.Port}, recorded)
			for _, u := range append(c.OtherUpstreams, *c.Upstream) {
				require.True(t, u.Running)
				require.NotEmpty(t, u.File)
				require.NotZero(t, u.Position)
			}
			require.Contains(t, strings.Join(report.Warnings, "\n"), "follows 2 upstreams")

			for _, p := range []*servers.MySQL{a, b} {
				err := newEngine(t, options(t, s)).Check(t.Context(), c, upstreamAt(p))
				require.ErrorIs(t, err, dbdump.ErrCoordinates)
				require.ErrorContains(t, err, "followed 2 upstreams")
			}
			copied := seed(t, f, m.Source(report), up)
			for name, p := range map[string]*servers.MySQL{"a": a, "b": b} {
				p.Exec(t, "INSERT INTO of_"+name+".t VALUES (2)")
				require.Eventually(t, func() bool { return copied.Value(t, "SELECT COUNT(*) FROM of_"+name+".t") == "2" }, 2*time.Minute, 100*time.Millisecond)
			}
		})
	}
}
