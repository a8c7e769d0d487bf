package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"keepset/internal/record"
)

// readCoordinates reads, under the lock, where a copy of this server would
// have to continue: in its own binary log, and in its upstream's.
func (d *dump) readCoordinates(ctx context.Context, s *session) (record.Coordinates, error) {
	c, err := d.ownCoordinates(ctx, s)
	if err != nil {
		return c, fmt.Errorf("read the binary log position: %w", err)
	}
	channels, err := d.settledChannels(ctx, s)
	if err != nil {
		return c, fmt.Errorf("read the position in the upstream: %w", err)
	}
	for i, channel := range channels {
		if i == 0 {
			c.Upstream = &channel.UpstreamCoordinates
			continue
		}
		c.OtherUpstreams = append(c.OtherUpstreams, channel.UpstreamCoordinates)
	}
	if len(channels) > 1 {
		d.warn(severalUpstreams(channels))
	}
	return c, nil
}

// settledChannels reads the channels when their positions stand. MariaDB moves the file and offset of an applier just
// after the commit, which may be after the commit's lock was given back to us; under the lock there is no next commit.
func (d *dump) settledChannels(ctx context.Context, s *session) ([]channel, error) {
	list, err := d.channels(ctx, s)
	exact := func(c channel) bool { return c.gtid || !c.sql }
	if err != nil || !d.server.MariaDB() || !slices.ContainsFunc(list, func(c channel) bool { return !exact(c) }) {
		return list, err
	}
	same := func(a, b channel) bool { return a.File == b.File && a.Position == b.Position }
	for range 10 { // without a lock they may go on for ever
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
		before := list
		if list, err = d.channels(ctx, s); err != nil || slices.EqualFunc(list, before, same) {
			break
		}
	}
	return list, err
}

// severalUpstreams says what becomes of a copy of a server with several upstreams, and where it would have to continue.
func severalUpstreams(channels []channel) string {
	positions := make([]string, len(channels))
	for i, c := range channels {
		positions[i] = fmt.Sprintf("channel %q from %s:%d at %s:%d, GTID %q", c.Channel, c.Host, c.Port, c.File, c.Position, c.GTID)
	}
	return fmt.Sprintf("the server follows %d upstreams: a copy can be made to follow this server, but none of them, since none has what the others have; by hand it continues from: %s",
		len(channels), strings.Join(positions, "; "))
}

// ownCoordinates is the server's own position. A server without a binary log
// has none.
func (d *dump) ownCoordinates(ctx context.Context, s *session) (record.Coordinates, error) {
	c, log, err := d.logCoordinates(ctx, s)
	if err == nil && !log {
		d.warn("the server writes no binary log: nothing can follow it from this dump, and no point in time after it can be reached")
	}
	return c, err
}

// logCoordinates is the server's own position, and whether it writes a binary log.
func (d *dump) logCoordinates(ctx context.Context, s *session) (c record.Coordinates, log bool, err error) {
	identity, gtid := "@@server_uuid", "@@global.gtid_executed"
	if d.server.MariaDB() {
		identity, gtid = "@@server_id", "@@global.gtid_binlog_pos"
	}
	if err := s.queryRow(ctx, "SELECT "+identity+", @@global.log_bin", &c.Server, &log); err != nil {
		return c, log, err
	}
	query := "SHOW MASTER STATUS"
	if !d.server.MariaDB() && d.server.AtLeast(8, 2, 0) {
		query = "SHOW BINARY LOG STATUS"
	}
	err = s.each(ctx, query, func(r row) error {
		c.File = r.get("File")
		c.Position = unsigned(r.get("Position"))
		return nil
	})
	if err != nil {
		return c, log, err
	}
	if log && c.File == "" {
		return c, log, fmt.Errorf("%s returned nothing although the binary log is on", query)
	}
	err = s.queryRow(ctx, "SELECT "+gtid, &c.GTID)
	c.GTID = strings.ReplaceAll(c.GTID, "\n", "")
	return c, log, err
}

// channel is one upstream of the server.
type channel struct {
	record.UpstreamCoordinates
	// sql tells whether the applier runs.
	sql bool
	// gtid tells whether the channel positions itself by GTID.
	gtid bool
}

// channels reads the replication status, one entry per upstream.
func (d *dump) channels(ctx context.Context, s *session) ([]channel, error) {
	query, words := "SHOW SLAVE STATUS", "Master"
	switch {
	case d.server.MariaDB():
		query = "SHOW ALL SLAVES STATUS"
	case d.server.AtLeast(8, 0, 22):
		query, words = "SHOW REPLICA STATUS", "Source"
	}
	var list []channel
	err := s.each(ctx, query, func(r row) error {
		list = append(list, parseChannel(r, words))
		return nil
	})
	if err != nil || len(list) == 0 {
		return nil, err
	}
	var position string
	variable := "@@global.gtid_executed"
	if d.server.MariaDB() {
		variable = "@@global.gtid_slave_pos"
	}
	if err := s.queryRow(ctx, "SELECT "+variable, &position); err != nil {
		return nil, err
	}
	if d.server.MariaDB() {
		if position, err = d.appliedMariaDB(ctx, s, position); err != nil {
			return nil, err
		}
	}
	for i := range list {
		list[i].GTID = strings.ReplaceAll(position, "\n", "")
	}
	return list, nil
}

// appliedMariaDB is the GTID position of what is in the tables. The variable follows a commit, and may do so after the
// commit's lock was given back: a copy would apply that transaction a second time. The rows of mysql.gtid_slave_pos are
// committed with it; the one with the highest sub_id counts.
func (d *dump) appliedMariaDB(ctx context.Context, s *session, variable string) (string, error) {
	list, err := parseMariaDB(variable)
	if err != nil {
		return "", err
	}
	// Each engine may have a table of its own (gtid_pos_auto_engines).
	var tables []string
	err = s.each(ctx, "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'mysql' AND TABLE_NAME LIKE 'gtid\\_slave\\_pos%'", func(r row) error {
		tables = append(tables, "SELECT domain_id, server_id, seq_no, sub_id FROM mysql."+quoteIdentifier(r.at(0)))
		return nil
	})
	if err != nil || len(tables) == 0 {
		return variable, err
	}
	err = s.each(ctx, strings.Join(tables, " UNION ALL ")+" ORDER BY sub_id", func(r row) error {
		g := mariaGTID{domain: unsigned(r.at(0)), server: unsigned(r.at(1)), sequence: unsigned(r.at(2))}
		list = append(list, g)
		return nil
	})
	return formatMariaDB(lastOfDomains(list)), err
}

// parseChannel reads one line of the replication status. words is what this
// version calls the upstream.
func parseChannel(r row, words string) channel {
	replica := "Slave"
	if words == "Source" {
		replica = "Replica"
	}
	var c channel
	c.Channel = r.get("Connection_name") + r.get("Channel_Name")
	c.Host = r.get(words + "_Host")
	c.Port = int(number(r.get(words + "_Port")))
	c.File = r.get("Relay_" + words + "_Log_File")
	c.Position = unsigned(r.get("Exec_" + words + "_Log_Pos"))
	c.sql = r.get(replica+"_SQL_Running") == "Yes"
	c.Running = c.sql && r.get(replica+"_IO_Running") == "Yes"
	c.LagSeconds = -1
	if lag, err := strconv.ParseInt(r.get("Seconds_Behind_"+words), 10, 64); err == nil {
		c.LagSeconds = lag
	}
	using := r.get("Using_Gtid")
	c.gtid = (using != "" && using != "No") || r.get("Auto_Position") == "1"
	return c
}

// settleReplica makes sure that the position in the upstream will be exact.
// Without GTIDs, a follower with several appliers may have applied later
// transactions than the position that it shows: only a stopped applier has
// none of these gaps. It returns how to start it again.
func (d *dump) settleReplica(ctx context.Context, s *session) (restart func(context.Context) error, err error) {
	nothing := func(context.Context) error { return nil }
	parallel, err := d.appliers(ctx, s)
	if err != nil || parallel == 0 {
		return nothing, err
	}
	channels, err := d.channels(ctx, s)
	if err != nil {
		return nothing, err
	}
	running := false
	for _, c := range channels {
		running = running || c.sql && !c.gtid
	}
	if !running {
		return nothing, nil
	}
	if !d.opts.AllowStoppingReplica {
		return nothing, fmt.Errorf("the server follows its upstream without GTIDs and with %d parallel appliers: its position is not exact while they run; turn GTIDs on, or allow the dump to stop the appliers for a moment (--allow-stopping-replica)", parallel)
	}
	stop, start := "STOP SLAVE SQL_THREAD", "START SLAVE SQL_THREAD"
	switch {
	case d.server.MariaDB():
		stop, start = "STOP ALL SLAVES SQL_THREAD", "START ALL SLAVES SQL_THREAD"
	case d.server.AtLeast(8, 0, 22):
		stop, start = "STOP REPLICA SQL_THREAD", "START REPLICA SQL_THREAD"
	}
	restart = func(ctx context.Context) error {
		if err := d.startAppliers(ctx, start); err != nil {
			return fmt.Errorf("start the appliers again (run %s on the server): %w", start, err)
		}
		return nil
	}
	if err := s.exec(ctx, stop); err != nil {
		// The server stops them whether or not we wait for it.
		return nothing, errors.Join(fmt.Errorf("stop the appliers: %w", err), restart(context.WithoutCancel(ctx)))
	}
	d.log.Info("appliers stopped while the coordinates are read")
	return restart, nil
}

// startWait is how long the appliers may take to start: not before those that
// were told to stop have ended what they do.
const startWait = time.Minute

// startAppliers starts them on a connection of its own: what ended the dump may
// have ended its connections as well.
func (d *dump) startAppliers(ctx context.Context, start string) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	s, err := d.sessions.engine.openSession(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.exec(ctx, start)
}

// appliers is the number of parallel appliers; 0 when there is one, or when
// the server numbers its transactions so that gaps do not matter.
func (d *dump) appliers(ctx context.Context, s *session) (int, error) {
	var n int
	if d.server.MariaDB() {
		err := s.queryRow(ctx, "SELECT @@global.slave_parallel_threads", &n)
		return n, err
	}
	var mode string
	if err := s.queryRow(ctx, "SELECT @@global.gtid_mode", &mode); err != nil || mode == "ON" {
		return 0, err
	}
	variable := "@@global.slave_parallel_workers"
	if d.server.AtLeast(8, 0, 26) {
		variable = "@@global.replica_parallel_workers"
	}
	err := s.queryRow(ctx, "SELECT "+variable, &n)
	return n, err
}

func unsigned(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
