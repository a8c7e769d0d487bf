package mysql

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// start is the point in an upstream's history where a follower begins: a GTID position, or a file and an offset.
type start struct {
	gtid     string
	file     string
	position uint64
}

func (s start) String() string {
	if s.gtid != "" {
		return "GTID position " + s.gtid
	}
	return fmt.Sprintf("%s:%d", s.file, s.position)
}

// upstream is an open connection to the server that is to be followed.
type upstream struct {
	engine *Engine
	*session
	server   Server
	identity identity
}

// close ends the connection.
func (u *upstream) close() {
	u.session.Close()
	_ = u.engine.Close() // its only connection is closed
}

// openUpstream connects to the upstream as the follower would. The follower's file of authorities is not on this
// machine; where the target's is, it stands in for it, since the servers of a set have their certificates from one hand.
func (e *Engine) openUpstream(ctx context.Context, up dbdump.Upstream) (*upstream, error) {
	opts := Options{
		Address: net.JoinHostPort(up.Host, strconv.Itoa(up.Port)), User: up.User, Password: up.Password,
		ConnectTimeout: e.opts.ConnectTimeout, Dial: e.opts.Dial, Logger: e.opts.Logger,
	}
	switch ca := e.opts.TLS.CA; {
	case up.CA != "" && ca != "":
		opts.TLS = TLS{Required: true, CA: ca}
	case up.TLS:
		opts.TLS = TLS{Required: true, SkipVerify: true} // encrypted, the name not checked
	}
	engine, err := New(opts)
	if err != nil {
		return nil, fmt.Errorf("connect to upstream: %w", err)
	}
	u := &upstream{engine: engine}
	if u.session, err = engine.openSession(ctx); err != nil {
		return nil, fmt.Errorf("connect to upstream: %w", errors.Join(err, engine.Close()))
	}
	if u.server, err = detect(ctx, u.session); err == nil {
		u.identity, err = readIdentity(ctx, u.session, u.server)
	}
	if err != nil {
		u.close()
		return nil, fmt.Errorf("ask upstream %s: %w", opts.Address, err)
	}
	return u, nil
}

// Check implements dbdump.Follower.
func (e *Engine) Check(ctx context.Context, c record.Coordinates, up dbdump.Upstream) error {
	u, err := e.openUpstream(ctx, up)
	if err != nil {
		return err
	}
	defer u.close()
	if _, err = u.startFrom(ctx, c, up); err != nil {
		return err
	}
	if _, err := u.plain(ctx, up); err != nil { // Follow will ask, after hours of loading
		return fmt.Errorf("ask upstream %s:%d whether it has TLS: %w", up.Host, up.Port, err)
	}
	return nil
}

// startFrom chooses the coordinates that belong to the upstream, and makes sure that it still has what follows them.
//
// An upstream that is the dumped server itself continues its own log. Any other one is taken for the upstream that the
// dumped server had: its followers continue from where that server was. With GTIDs this holds for every server of the
// same replication tree; a file and an offset mean something in one server's log only.
func (u *upstream) startFrom(ctx context.Context, c record.Coordinates, up dbdump.Upstream) (start, error) {
	if err := u.checkPassesOn(ctx); err != nil {
		return start{}, err
	}
	from := start{gtid: c.GTID, file: c.File, position: c.Position}
	if u.identity.recorded() != c.Server {
		if c.Upstream != nil {
			from = start{gtid: c.Upstream.GTID, file: c.Upstream.File, position: c.Upstream.Position}
			if err := checkSeveral(c, up); err != nil {
				return start{}, err
			}
			if from.gtid == "" && !sameHost(c.Upstream, up) {
				return start{}, fmt.Errorf("%w: without GTIDs the backup can only be continued from %s:%d, which the dumped server followed, or from that server itself",
					dbdump.ErrCoordinates, c.Upstream.Host, c.Upstream.Port)
			}
		} else if from.gtid == "" {
			return start{}, fmt.Errorf("%w: without GTIDs the backup of server %s can only be continued from that server, and %s:%d is %s",
				dbdump.ErrCoordinates, c.Server, up.Host, up.Port, u.identity.recorded())
		}
	}
	if from.gtid != "" {
		usable, err := u.usesGTIDs(ctx)
		if err != nil {
			return start{}, err
		}
		if usable {
			return from, u.checkGTID(ctx, from)
		}
		from.gtid = ""
	}
	if from.file == "" {
		return start{}, fmt.Errorf("%w: the backup holds no position: the dumped server wrote no binary log", dbdump.ErrCoordinates)
	}
	return from, u.checkFile(ctx, from)
}

// checkSeveral refuses one of several upstreams: a copy that follows it would miss what comes from the others. Another
// server may have all of it, which its GTIDs tell.
func checkSeveral(c record.Coordinates, up dbdump.Upstream) error {
	all := append([]record.UpstreamCoordinates{*c.Upstream}, c.OtherUpstreams...)
	one := slices.ContainsFunc(all, func(u record.UpstreamCoordinates) bool { return sameHost(&u, up) })
	if len(all) == 1 || !one && c.Upstream.GTID != "" {
		return nil
	}
	return fmt.Errorf("%w: the dumped server followed %d upstreams, and a copy that follows %s:%d alone would miss what comes from the others: follow the dumped server itself, or load without following anybody and set its channels up by hand, from the positions in the backup's warnings",
		dbdump.ErrCoordinates, len(all), up.Host, up.Port)
}

// checkPassesOn refuses an upstream that applies the changes of another server and does not write them into its own
// binary log: whoever follows it would believe to have everything, and receive nothing.
func (u *upstream) checkPassesOn(ctx context.Context) error {
	variable := "log_slave_updates"
	if !u.server.MariaDB() && u.server.AtLeast(8, 0, 26) {
		variable = "log_replica_updates"
	}
	var logs bool
	if err := u.queryRow(ctx, "SELECT @@GLOBAL."+variable, &logs); err != nil || logs {
		return err
	}
	refused := func(whom string) error {
		return fmt.Errorf("%w: the upstream itself follows %s, and with %s off it passes nothing on: name the server that it follows as the upstream, or set %s on it",
			dbdump.ErrCoordinates, whom, variable, variable)
	}
	list, err := readReplicas(ctx, u.session, u.server)
	if err == nil {
		for _, r := range list {
			if r.io != "No" || r.sql != "No" {
				return refused(r.host)
			}
			u.engine.opts.Logger.Warn("the upstream is still configured to follow another server, which it does not do now; once it does, it passes nothing on ("+
				variable+" is off)", "host", r.host)
		}
		return nil
	}
	if !errors.Is(err, dbdump.ErrPrivilege) {
		return err
	}
	// The replication account may rarely look. Everybody sees that MariaDB's appliers are running.
	var name, running string
	if u.server.MariaDB() {
		if err := u.queryRow(ctx, "SHOW GLOBAL STATUS LIKE 'Slaves_running'", &name, &running); err != nil {
			return err
		}
		if number(running) > 0 {
			return refused("another server")
		}
	}
	u.engine.opts.Logger.Warn("the upstream does not log what it applies ("+variable+" is off), and the replication account may not see whether it follows another server", "error", err)
	return nil
}

// sameHost compares the recorded upstream with the given one; a host may be named with or without its domain.
func sameHost(c *record.UpstreamCoordinates, up dbdump.Upstream) bool {
	short := func(host string) string {
		if net.ParseIP(host) != nil {
			return host
		}
		name, _, _ := strings.Cut(host, ".")
		return name
	}
	return c.Port == up.Port && strings.EqualFold(short(c.Host), short(up.Host))
}

// usesGTIDs tells whether a follower may position itself by GTID.
func (u *upstream) usesGTIDs(ctx context.Context) (bool, error) {
	if u.server.MariaDB() {
		return true, nil
	}
	var mode string
	err := u.queryRow(ctx, "SELECT @@GLOBAL.gtid_mode", &mode)
	return strings.EqualFold(mode, "ON"), err
}

// checkGTID makes sure that the upstream has everything up to the position, and still has everything after it.
func (u *upstream) checkGTID(ctx context.Context, from start) error {
	if u.server.MariaDB() {
		return u.checkMariaDBPosition(ctx, from.gtid)
	}
	var missing, ahead string
	query := "SELECT GTID_SUBTRACT(@@GLOBAL.gtid_purged, " + quoteString(from.gtid) + "), GTID_SUBTRACT(" + quoteString(from.gtid) + ", @@GLOBAL.gtid_executed)"
	if err := u.queryRow(ctx, query, &missing, &ahead); err != nil {
		return err
	}
	if ahead != "" {
		return fmt.Errorf("%w: the backup holds transactions that the upstream does not have (%s): it is ahead of the upstream, or of another history",
			dbdump.ErrCoordinates, oneLine(ahead))
	}
	if missing != "" {
		return fmt.Errorf("%w: the upstream has purged transactions that come after the backup (%s): take a new backup", dbdump.ErrCoordinates, oneLine(missing))
	}
	return nil
}

// checkFile makes sure that the upstream still has the binary log and that it reaches the position.
func (u *upstream) checkFile(ctx context.Context, from start) error {
	first, size, found := "", uint64(0), false
	err := u.each(ctx, "SHOW BINARY LOGS", func(r row) error {
		if first == "" {
			first = r.get("Log_name")
		}
		if r.get("Log_name") == from.file {
			found, size = true, unsigned(r.get("File_size"))
		}
		return nil
	})
	if err != nil {
		return privilegeError(err, "see which binary logs the upstream has (REPLICATION CLIENT, on MariaDB BINLOG MONITOR)")
	}
	switch {
	case !found:
		return fmt.Errorf("%w: the upstream has no binary log %s, its first one is %s: it was purged, take a new backup", dbdump.ErrCoordinates, from.file, first)
	case size < from.position:
		return fmt.Errorf("%w: the upstream's %s ends at %d, the backup was taken at %d: the upstream is behind or of another history",
			dbdump.ErrCoordinates, from.file, size, from.position)
	}
	return nil
}

// oneLine removes the line breaks that MySQL puts into GTID sets.
func oneLine(set string) string { return strings.Join(strings.Fields(set), "") }

// Follow implements dbdump.Follower.
func (e *Engine) Follow(ctx context.Context, c record.Coordinates, up dbdump.Upstream) error {
	u, err := e.openUpstream(ctx, up)
	if err != nil {
		return err
	}
	defer u.close()
	s, err := e.openSession(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	server, err := detect(ctx, s)
	if err != nil {
		return err
	}
	if err := e.checkFollower(ctx, s, server, u); err != nil {
		return fmt.Errorf("follow %s:%d: %w", up.Host, up.Port, err)
	}
	from, err := u.startFrom(ctx, c, up)
	if err != nil {
		return fmt.Errorf("follow %s:%d: %w", up.Host, up.Port, err)
	}
	goal, err := u.now(ctx, from)
	if err != nil {
		return fmt.Errorf("follow %s:%d: read its position: %w", up.Host, up.Port, err)
	}
	plain, err := u.plain(ctx, up)
	if err != nil {
		return fmt.Errorf("follow %s:%d: ask whether it has TLS: %w", up.Host, up.Port, err)
	}
	if err := resetIdentity(ctx, s, server); err != nil {
		return fmt.Errorf("follow %s:%d: %w", up.Host, up.Port, err)
	}
	if err := startReplication(ctx, s, server, from, up, plain); err != nil {
		return fmt.Errorf("follow %s:%d from %s: %w", up.Host, up.Port, from, err)
	}
	e.opts.Logger.Info("replication started", "upstream", up.Host, "from", from.String(), "until", goal.String())
	if err := e.waitFor(ctx, s, server, goal); err != nil {
		return fmt.Errorf("follow %s:%d from %s: %w", up.Host, up.Port, from, err)
	}
	return nil
}

// checkFollower refuses a server that must not follow the upstream.
func (e *Engine) checkFollower(ctx context.Context, s *session, server Server, u *upstream) error {
	if server.Flavor != u.server.Flavor {
		return fmt.Errorf("the upstream is %s %s, the server %s %s", u.server.Flavor, u.server.Version, server.Flavor, server.Version)
	}
	if err := e.waitUnique(ctx, s, server, u); err != nil {
		return err
	}
	return checkIsolated(ctx, s, server)
}

// now returns the position that the upstream has reached, of the same kind as from.
func (u *upstream) now(ctx context.Context, from start) (start, error) {
	var goal start
	if from.gtid != "" {
		variable := "@@GLOBAL.gtid_executed"
		if u.server.MariaDB() {
			variable = "@@GLOBAL.gtid_binlog_pos"
		}
		err := u.queryRow(ctx, "SELECT "+variable, &goal.gtid)
		goal.gtid = oneLine(goal.gtid)
		return goal, err
	}
	err := u.each(ctx, wordsOf(u.server).logStatus, func(r row) error {
		goal.file, goal.position = r.get("File"), unsigned(r.get("Position"))
		return nil
	})
	return goal, privilegeError(err, "read the upstream's position (REPLICATION CLIENT, on MariaDB BINLOG MONITOR)")
}
