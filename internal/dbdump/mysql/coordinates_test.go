package mysql

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
				require.Eventually(t, func() bool { return bankState(t, s) == want }, 60*time.Second, 100*time.Millisecond)
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
	sibling := seed(t, f, second.Source(report2), up)
	b.stop()
	want := bankState(t, p)
	require.Eventually(t, func() bool { return bankState(t, sibling) == want }, 60*time.Second, 100*time.Millisecond)
}

// replicaSQL tells whether the applier runs.
func replicaSQL(t testing.TB, s *servers.MySQL) string {
	t.Helper()
	return s.Value(t, "SELECT IF(SERVICE_STATE = 'ON', 'Yes', SERVICE_STATE) FROM performance_schema.replication_applier_status LIMIT 1")
}
