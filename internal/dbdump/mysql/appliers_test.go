package mysql

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/test/servers"
)

// parallelFollower is a primary and a follower of it with several appliers and
// without GTIDs, whose dumps have to stop these.
func parallelFollower(t *testing.T) (p, s *servers.MySQL) {
	t.Helper()
	f := mysql97.with("gtid_mode=OFF", "enforce_gtid_consistency=OFF", "log_replica_updates=ON", "replica_parallel_workers=4")
	p, up := primary(t, f)
	p.Exec(t, "GRANT REPLICATION CLIENT ON *.* TO repl@'%'")
	m, report := dumpMemory(t, options(t, p))
	return p, seed(t, f, m.Source(report), up)
}

// A dump that had to stop a follower's appliers starts them again, also when it
// is cancelled while it waits for its lock, which breaks its connections.
func TestStoppedAppliersGoOn(t *testing.T) {
	t.Parallel()
	p, s := parallelFollower(t)
	applying := func() string {
		return s.Value(t, "SELECT SERVICE_STATE FROM performance_schema.replication_applier_status")
	}
	require.Equal(t, "ON", applying())

	_, err := newEngine(t, options(t, s)).Dump(t.Context(), &countSink{})
	require.ErrorContains(t, err, "--allow-stopping-replica")
	require.Equal(t, "ON", applying(), "nothing was stopped without consent")

	other, err := s.DB(t).Conn(t.Context())
	require.NoError(t, err)
	_, err = other.ExecContext(t.Context(), "LOCK TABLES d.t WRITE")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan error, 1)
	e := newEngine(t, withStopping(options(t, s)))
	go func() {
		_, err := e.Dump(ctx, &countSink{})
		failed <- err
	}()
	waitFor(t, "the appliers stop", func() bool { return applying() == "OFF" })
	cancel()
	require.ErrorIs(t, <-failed, context.Canceled)
	require.Equal(t, "ON", applying())
	_, err = other.ExecContext(t.Context(), "UNLOCK TABLES")
	require.NoError(t, errors.Join(err, other.Close()))
	p.Exec(t, "INSERT INTO d.t (v) VALUES ('later')")
	sameRows(t, p, s)
}

// Appliers stop although the dump was ended before they had: they are busy with
// a table that somebody has locked. They go on when it is free.
func TestAppliersGoOnWhoseStopNobodyAwaited(t *testing.T) {
	t.Parallel()
	p, s := parallelFollower(t)
	running := func(what string) func() bool {
		return func() bool {
			return s.Value(t, "SELECT COUNT(*) FROM performance_schema.processlist WHERE "+what) != "0"
		}
	}
	other, err := s.DB(t).Conn(t.Context())
	require.NoError(t, err)
	_, err = other.ExecContext(t.Context(), "LOCK TABLES d.t WRITE")
	require.NoError(t, err)
	p.Exec(t, "INSERT INTO d.t (v) VALUES ('later')")
	waitFor(t, "an applier waits for the table", running("STATE = 'Waiting for table metadata lock'"))

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan error, 1)
	e := newEngine(t, withStopping(options(t, s)))
	go func() {
		_, err := e.Dump(ctx, &countSink{})
		failed <- err
	}()
	waitFor(t, "the appliers are stopping", running("INFO LIKE 'STOP REPLICA%'"))
	cancel()
	waitFor(t, "they are to go on", running("INFO LIKE 'START REPLICA%'"))
	_, err = other.ExecContext(t.Context(), "UNLOCK TABLES")
	require.NoError(t, errors.Join(err, other.Close()))
	require.ErrorIs(t, <-failed, context.Canceled)
	require.Equal(t, "ON", s.Value(t, "SELECT SERVICE_STATE FROM performance_schema.replication_applier_status"))
	sameRows(t, p, s)
}
