package mysql

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/test/servers"
)

// Whoever has stopped, or gets no further, is not waited for until the Job's deadline.
func TestCatchUpJudges(t *testing.T) {
	t.Parallel()
	zero := time.Now()
	running := replicaStatus{io: "Yes", sql: "Yes"}
	stopped := replicaStatus{io: "Yes", sql: "No"}
	c := catchUp{patience: defaultPatience}
	require.NoError(t, c.judge(zero, stopped, "1", false), "restarted within the grace")
	require.NoError(t, c.judge(zero.Add(9*time.Second), running, "1", false))
	require.NoError(t, c.judge(zero.Add(11*time.Second), stopped, "1", false), "counted anew")
	require.ErrorContains(t, c.judge(zero.Add(22*time.Second), stopped, "1", false), "was stopped")
	require.ErrorContains(t, (&catchUp{stopped: zero, patience: defaultPatience}).judge(zero.Add(11*time.Second), replicaStatus{io: "No", sql: "Yes"}, "", false), "receiver No")

	c = catchUp{patience: defaultPatience}
	require.NoError(t, c.judge(zero, running, "1", false))
	require.NoError(t, c.judge(zero.Add(9*time.Minute), running, "2", false), "it moves")
	require.NoError(t, c.judge(zero.Add(18*time.Minute), running, "2", true), "a long statement")
	require.NoError(t, c.judge(zero.Add(27*time.Minute), running, "2", false))
	require.ErrorContains(t, c.judge(zero.Add(29*time.Minute), running, "2", false), "not come any nearer")
}

// The same of real servers: an applier that was stopped, and one that waits for a lock.
func TestCatchUpEnds(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			p, up := primary(t, f)
			m, report := dumpMemory(t, options(t, p))
			s := seed(t, f, m.Source(report), up)
			sameRows(t, p, s)
			require.ErrorContains(t, waitAfter(t, f, p, s, map[string]string{"mariadb": "STOP SLAVE SQL_THREAD", "mysql": "STOP REPLICA SQL_THREAD"}[f.name]), "applier No")
			s.Exec(t, map[string]string{"mariadb": "START SLAVE", "mysql": "START REPLICA"}[f.name])
			sameRows(t, p, s)
			require.ErrorContains(t, waitAfter(t, f, p, s, "LOCK TABLES d.t READ"), "not come any nearer")
		})
	}
}

// waitAfter lets the follower run into an obstacle, and waits for what it cannot reach.
func waitAfter(t *testing.T, f flavour, p, s *servers.MySQL, obstacle string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := s.DB(t).Conn(ctx)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	_, err = conn.ExecContext(ctx, obstacle)
	require.NoError(t, err)
	defer func() { _, err := conn.ExecContext(ctx, "UNLOCK TABLES"); require.NoError(t, err) }()
	p.Exec(t, "INSERT INTO d.t (v) VALUES ('out of reach')")
	e := newEngine(t, options(t, s))
	e.patience.stopped, e.patience.stalled = time.Second, 2*time.Second
	session, err := e.openSession(ctx)
	require.NoError(t, err)
	defer session.Close()
	server, err := detect(ctx, session)
	require.NoError(t, err)
	goal := start{gtid: p.Value(t, map[string]string{"mariadb": "SELECT @@GLOBAL.gtid_binlog_pos", "mysql": "SELECT @@GLOBAL.gtid_executed"}[f.name])}
	return e.waitFor(ctx, session, server, goal)
}
