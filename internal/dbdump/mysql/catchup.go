package mysql

import (
	"context"
	"fmt"
	"time"
)

// patience is how long a server that is to follow another is given for what may pass by itself.
type patience struct {
	// connect: the upstream may be unreachable for the follower: a name that is just being published, a connection
	// that was cut.
	connect time.Duration
	// stopped: a receiver or an applier may stand still without an error, as while somebody restarts it. Nothing
	// else starts it again.
	stopped time.Duration
	// stalled: the applier may make no progress at all. An applier at work is progress, so that a long ALTER
	// TABLE or a large transaction is waited for; a lock that it waits for, or an upstream that sends nothing, is not. Row locks make the server give up by itself within its default of ten
	// times 50 seconds; this is a little longer, so that the server's own reason comes first.
	stalled time.Duration
	// gone: another follower with our server ID may stay connected to the upstream. It is often our own ordinal's
	// former life, whose node died: the upstream sees that when it sends again, a heartbeat every 30 seconds by default,
	// and is refused. What is not even refused lasts for as long as TCP tries, a quarter of an hour; an administrator
	// is quicker.
	gone time.Duration
}

var defaultPatience = patience{connect: 30 * time.Second, stopped: 10 * time.Second, stalled: 10 * time.Minute, gone: 90 * time.Second}

// catchUp watches a follower on its way to a goal.
type catchUp struct {
	patience
	goal start
	// Since when what is in the way has lasted; zero: it is not.
	connecting, stopped time.Time
	// moved is when the mark, whatever shows progress, changed last.
	moved time.Time
	mark  string
}

// waitFor returns when the server has applied everything up to the goal.
func (e *Engine) waitFor(ctx context.Context, s *session, server Server, goal start) error {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	c := catchUp{patience: e.patience, goal: goal}
	for {
		list, err := readReplicas(ctx, s, server)
		if err != nil {
			return err
		}
		if len(list) != 1 {
			return fmt.Errorf("the server shows %d upstreams, want 1", len(list))
		}
		status := list[0]
		reached, err := status.reached(ctx, s, server, goal)
		if err != nil {
			return err
		}
		if reached && status.io == "Yes" && status.sql == "Yes" {
			return nil
		}
		mark, busy, err := readProgress(ctx, s, server, status)
		if err != nil {
			return err
		}
		if err := c.judge(time.Now(), status, mark, busy); err != nil { //nolint:forbidigo // durations only
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("wait until the server has caught up to %s (%s): %w", goal, status.describe(), ctx.Err())
		}
	}
}

// judge returns the reason why the goal will not be reached by waiting any longer.
func (c *catchUp) judge(now time.Time, r replicaStatus, mark string, busy bool) error {
	lasts := func(since *time.Time, is bool, bound time.Duration) bool {
		switch {
		case !is:
			*since = time.Time{}
		case since.IsZero():
			*since = now
		}
		return is && now.Sub(*since) > bound
	}
	if err := r.failure(lasts(&c.connecting, r.io == "Connecting" && r.ioError != "", c.connect)); err != nil {
		return err
	}
	if lasts(&c.stopped, r.io == "No" || r.sql == "No", c.patience.stopped) {
		return fmt.Errorf("replication was stopped before the server had caught up to %s (%s), and the server gives no error: somebody or something stopped it; see the server's log",
			c.goal, r.describe())
	}
	if mark != c.mark || busy || c.moved.IsZero() {
		c.mark, c.moved = mark, now
	}
	if now.Sub(c.moved) > c.stalled {
		return fmt.Errorf("the server has not come any nearer to %s for %s (%s): see what its applier waits for (SHOW PROCESSLIST) and whether the upstream sends",
			c.goal, c.stalled, r.describe())
	}
	return nil
}

// describe says where the follower stands.
func (r replicaStatus) describe() string {
	return fmt.Sprintf("now at %s:%d, %s s behind, receiver %s, applier %s, last error %q",
		r.file, r.position, r.secondsBehind, r.io, r.sql, r.ioError+r.sqlError)
}

// readProgress returns a mark that changes with every transaction that is applied, and whether an applier is at work
// within one. It is not, as long as it waits for a lock, for another applier, or for what comes from upstream.
// (Counters of rows would not tell: the server counts those of its own temporary tables as well.)
func readProgress(ctx context.Context, s *session, server Server, status replicaStatus) (mark string, busy bool, err error) {
	variable := "@@GLOBAL.gtid_executed"
	if server.MariaDB() {
		variable = "@@GLOBAL.gtid_slave_pos"
	}
	var gtid string
	if err := s.queryRow(ctx, "SELECT "+variable, &gtid); err != nil {
		return "", false, err
	}
	err = s.queryRow(ctx, `SELECT COUNT(*) > 0 FROM information_schema.PROCESSLIST
		WHERE USER = 'system user' AND (COMMAND IN ('Query', 'Slave_SQL', 'Slave_worker') OR COALESCE(INFO, '') <> '') AND COALESCE(STATE, '') <> ''
		AND STATE NOT LIKE 'Waiting%' AND STATE NOT LIKE '%has read all relay log%' AND STATE NOT LIKE 'Reading event%'`, &busy)
	return fmt.Sprintf("%s:%d %s", status.file, status.position, gtid), busy, err
}
