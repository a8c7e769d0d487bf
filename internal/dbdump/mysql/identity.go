package mysql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"keepset/internal/dbdump"
)

// identity is who a server is to the others that replicate with it.
type identity struct {
	id   string // @@server_id
	uuid string // @@server_uuid, MySQL only
}

// readIdentity asks the server.
func readIdentity(ctx context.Context, s *session, server Server) (identity, error) {
	var i identity
	if server.MariaDB() {
		return i, s.queryRow(ctx, "SELECT @@GLOBAL.server_id", &i.id)
	}
	return i, s.queryRow(ctx, "SELECT @@GLOBAL.server_id, @@GLOBAL.server_uuid", &i.id, &i.uuid)
}

// recorded is the identity as a dump's coordinates have it.
func (i identity) recorded() string {
	if i.uuid != "" {
		return i.uuid
	}
	return i.id
}

// errTaken is wrapped when another follower of the upstream has the server's identity.
var errTaken = errors.New("another follower of the upstream has server_id")

// Admits implements dbdump.Follower.
func (e *Engine) Admits(ctx context.Context, up dbdump.Upstream) error {
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
	return e.waitUnique(ctx, s, server, u)
}

// absentChecks is how many times in a row, a second apart, an identity that was taken must be found free. A living
// follower whose connection breaks is back in less; then two servers would throw each other off the upstream for ever.
const absentChecks = 10

// waitUnique is checkUnique, with patience for a connection to the upstream that is about to vanish.
func (e *Engine) waitUnique(ctx context.Context, s *session, server Server, u *upstream) error {
	own, err := readIdentity(ctx, s, server)
	if err != nil {
		return err
	}
	begin := time.Now() //nolint:forbidigo // durations only
	taken := checkUnique(ctx, own, u.identity, u.session, u.server)
	if !errors.Is(taken, errTaken) {
		return taken
	}
	e.opts.Logger.Warn("waiting for another follower to vanish", "reason", taken.Error(), "for", e.patience.gone.String())
	if err := u.endDead(ctx); err != nil {
		return errors.Join(taken, err)
	}
	// It starts after the probes, which take their time: a tick from before them would follow at once.
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for absent := 0; absent < absentChecks; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return errors.Join(taken, ctx.Err())
		}
		err := checkUnique(ctx, own, u.identity, u.session, u.server)
		switch {
		case err == nil:
			absent++
		case !errors.Is(err, errTaken) || time.Since(begin) > e.patience.gone:
			return err
		default:
			absent, taken = 0, err
		}
	}
	return nil
}

// checkUnique refuses an identity that the upstream or one of its followers has: the upstream would throw out whichever
// of the two connected first.
func checkUnique(ctx context.Context, own, upstream identity, up *session, server Server) error {
	if own.id == "0" || own.id == "" {
		return fmt.Errorf("the server has server_id 0: a follower needs one of its own")
	}
	if own.id == upstream.id {
		return fmt.Errorf("the server has the upstream's server_id %s: set one of its own", own.id)
	}
	if own.uuid != "" && own.uuid == upstream.uuid {
		return fmt.Errorf("the server has the upstream's server_uuid %s: delete auto.cnf from its data directory and start it again", own.uuid)
	}
	err := up.each(ctx, listFollowers(server), func(r row) error {
		uuid := r.get("Replica_UUID") + r.get("Slave_UUID")
		// A follower whose connection was cut stays listed until the upstream notices; with the same uuid it is
		// the server itself.
		if own.uuid != "" && uuid == own.uuid {
			return nil
		}
		if r.get("Server_Id") == own.id {
			return fmt.Errorf("%w %s too (host %q): set one of its own; or if that is the dead connection of the server that this one takes the place of, "+
				"end it on the upstream (SHOW PROCESSLIST, KILL) and try again", errTaken, own.id, r.get("Host"))
		}
		return nil
	})
	switch errorNumber(err) {
	case errSpecificAccess, errTableAccessDenied:
		return nil // the replication account may not look; the upstream will complain if it must
	}
	return err
}

// listFollowers is the statement that lists a server's followers.
func listFollowers(server Server) string {
	if !server.MariaDB() && server.AtLeast(8, 0, 22) {
		return "SHOW REPLICAS"
	}
	return "SHOW SLAVE HOSTS"
}

// checkIsolated refuses a server that exchanges data with others: what is loaded into it would reach them, or theirs
// would arrive in the middle of the load.
func checkIsolated(ctx context.Context, s *session, server Server) error {
	group := "SHOW GLOBAL VARIABLES LIKE 'wsrep_on'"
	if !server.MariaDB() {
		group = "SELECT 'group replication', 'ON' FROM performance_schema.replication_group_members WHERE MEMBER_STATE <> 'OFFLINE' LIMIT 1"
	}
	err := s.each(ctx, group, func(r row) error {
		if strings.EqualFold(r.at(1), "ON") {
			return fmt.Errorf("the server is a member of a group (%s is on): take it out of the group first", r.at(0))
		}
		return nil
	})
	if err != nil {
		return privilegeError(err, "see whether the server is a member of a group")
	}
	status, err := readReplicas(ctx, s, server)
	if err != nil {
		return err
	}
	for _, r := range status {
		if r.io != "No" || r.sql != "No" {
			return fmt.Errorf("the server follows %s already: stop its replication first", r.host)
		}
	}
	return s.each(ctx, "SELECT USER, HOST FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'", func(r row) error {
		return fmt.Errorf("the server has a follower of its own (%s from %s): stop it first", r.at(0), r.at(1))
	})
}

// resetIdentity takes the server's replication history away: what it followed, its own binary log and its GTIDs.
func resetIdentity(ctx context.Context, s *session, server Server) error {
	words := wordsOf(server)
	statements := []string{words.stop, words.resetReplica}
	var log bool
	if err := s.queryRow(ctx, "SELECT @@GLOBAL.log_bin", &log); err != nil {
		return err
	}
	if log {
		statements = append(statements, words.resetLogs)
	}
	for _, statement := range statements {
		err := s.exec(ctx, statement)
		switch errorNumber(err) {
		case errReplicaNotConfigured, errReplicaNotRunning:
			continue // nothing to stop
		}
		if err != nil {
			return privilegeError(err, "clean the server's replication state")
		}
	}
	return nil
}

// replicationWords are the statements of a version of a server.
type replicationWords struct {
	stop, start, resetReplica, resetLogs, logStatus, replicaStatus string
	source                                                         string // what an upstream is called in them
	replica                                                        string
}

func wordsOf(server Server) replicationWords {
	w := replicationWords{
		stop: "STOP SLAVE", start: "START SLAVE", resetReplica: "RESET SLAVE ALL", resetLogs: "RESET MASTER",
		logStatus: "SHOW MASTER STATUS", replicaStatus: "SHOW SLAVE STATUS", source: "Master", replica: "Slave",
	}
	if server.MariaDB() {
		w.stop, w.replicaStatus = "STOP ALL SLAVES", "SHOW ALL SLAVES STATUS"
		return w
	}
	if server.AtLeast(8, 0, 26) {
		w.stop, w.start, w.resetReplica = "STOP REPLICA", "START REPLICA", "RESET REPLICA ALL"
		w.replicaStatus, w.source, w.replica = "SHOW REPLICA STATUS", "Source", "Replica"
	}
	if server.AtLeast(8, 2, 0) {
		w.resetLogs, w.logStatus = "RESET BINARY LOGS AND GTIDS", "SHOW BINARY LOG STATUS"
	}
	return w
}

// replicaStatus is one upstream of a follower as its server shows it.
type replicaStatus struct {
	host             string
	io, sql          string // "Yes", "No", "Connecting"
	ioError          string
	ioErrno          string
	sqlError         string
	file             string // position in the upstream's log up to which everything is applied
	position         uint64
	secondsBehind    string
	usingGTID, state string
}

// readReplicas reads the replication status, one entry per upstream.
func readReplicas(ctx context.Context, s *session, server Server) ([]replicaStatus, error) {
	w := wordsOf(server)
	var list []replicaStatus
	err := s.each(ctx, w.replicaStatus, func(r row) error {
		list = append(list, replicaStatus{
			host: r.get(w.source + "_Host"), io: r.get(w.replica + "_IO_Running"), sql: r.get(w.replica + "_SQL_Running"),
			ioError: r.get("Last_IO_Error"), ioErrno: r.get("Last_IO_Errno"), sqlError: r.get("Last_SQL_Error"),
			file: r.get("Relay_" + w.source + "_Log_File"), position: unsigned(r.get("Exec_" + w.source + "_Log_Pos")),
			secondsBehind: r.get("Seconds_Behind_" + w.source), usingGTID: r.get("Using_Gtid"), state: r.get(w.replica + "_IO_State"),
		})
		return nil
	})
	if err != nil {
		return nil, privilegeError(err, "read the replication status")
	}
	return list, nil
}

// Error numbers of replication statements.
const (
	errReplicaNotConfigured = 1200
	errReplicaNotRunning    = 1617
)
