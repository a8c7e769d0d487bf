package mysql

import (
	"context"
	"fmt"
	"strings"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// Ping implements dbdump.Prober: one connection, and a look at the version.
func (e *Engine) Ping(ctx context.Context) error {
	_, err := e.server(ctx)
	return err
}

// Replicates implements dbdump.Prober.
func (e *Engine) Replicates(ctx context.Context) (bool, error) {
	s, err := e.openSession(ctx)
	if err != nil {
		return false, err
	}
	defer s.Close()
	server, err := detect(ctx, s)
	if err != nil {
		return false, err
	}
	list, err := readReplicas(ctx, s, server)
	return len(list) > 0, err
}

// Lead implements dbdump.Leader. The server's own logs go, since what they hold is the making of the server and not
// its content; where there are GTIDs, the server continues the numbers of the one that was dumped, so that followers
// which are loaded from the same dump begin after it.
func (e *Engine) Lead(ctx context.Context, c record.Coordinates) error {
	s, err := e.openSession(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	server, err := detect(ctx, s)
	if err != nil {
		return err
	}
	if err := checkIsolated(ctx, s, server); err != nil {
		return err
	}
	if err := resetIdentity(ctx, s, server); err != nil {
		return err
	}
	gtid, err := adoptable(ctx, s, server, c)
	if err != nil || gtid == "" {
		return err
	}
	statement := "SET GLOBAL gtid_purged=" + quoteString(gtid)
	if server.MariaDB() {
		statement = "SET GLOBAL gtid_binlog_state=" + quoteString(gtid)
	}
	return privilegeError(s.exec(ctx, statement), "continue the GTIDs of the dumped server")
}

// adoptable is the GTID position of the dump, empty where the server cannot continue it.
func adoptable(ctx context.Context, s *session, server Server, c record.Coordinates) (string, error) {
	gtid := leading(c)
	if gtid == "" {
		return "", nil
	}
	var log bool
	if err := s.queryRow(ctx, "SELECT @@GLOBAL.log_bin", &log); err != nil || !log {
		return "", err
	}
	if server.MariaDB() {
		return gtid, nil
	}
	var mode string
	if err := s.queryRow(ctx, "SELECT @@GLOBAL.gtid_mode", &mode); err != nil || !strings.EqualFold(mode, "ON") {
		return "", err
	}
	return gtid, nil
}

// leading is the position that a copy of the dumped server continues as the head of a tree: the server's own, or,
// for a follower that wrote no log of its own, the one in its upstream.
func leading(c record.Coordinates) string {
	if c.GTID == "" && c.Upstream != nil {
		return c.Upstream.GTID
	}
	return c.GTID
}

// Origin implements dbdump.Leader.
func (e *Engine) Origin(ctx context.Context, c record.Coordinates, up dbdump.Upstream) (record.Coordinates, error) {
	u, err := e.openUpstream(ctx, up)
	if err != nil {
		return record.Coordinates{}, err
	}
	defer u.close()
	origin := record.Coordinates{Server: u.identity.recorded()}
	if origin.GTID, err = adoptable(ctx, u.session, u.server, c); err != nil || origin.GTID != "" {
		return origin, err
	}
	err = u.each(ctx, "SHOW BINARY LOGS", func(r row) error {
		if origin.File == "" {
			origin.File, origin.Position = r.get("Log_name"), beginningOfLog
		}
		return nil
	})
	if err != nil {
		return origin, privilegeError(err, "see which binary logs the upstream has (REPLICATION CLIENT, on MariaDB BINLOG MONITOR)")
	}
	if !strings.HasSuffix(origin.File, ".000001") {
		return origin, fmt.Errorf("%w: the upstream's first binary log is %q, not the first one it wrote: what followed the restore has been purged", dbdump.ErrCoordinates, origin.File)
	}
	return origin, nil
}

// beginningOfLog is the offset of the first event in a binary log file.
const beginningOfLog = 4
