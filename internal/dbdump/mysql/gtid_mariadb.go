package mysql

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"keepset/internal/dbdump"
)

// mariaGTID is one element domain-server-sequence of a MariaDB GTID position.
type mariaGTID struct {
	domain, server uint64
	sequence       uint64
}

// parseMariaDB reads a comma-separated GTID position or state.
func parseMariaDB(position string) ([]mariaGTID, error) {
	var list []mariaGTID
	for element := range strings.SplitSeq(position, ",") {
		if element = strings.TrimSpace(element); element == "" {
			continue
		}
		parts := strings.Split(element, "-")
		if len(parts) != 3 {
			return nil, fmt.Errorf("GTID %q: want domain-server-sequence", element)
		}
		var numbers [3]uint64
		for i, part := range parts {
			n, err := strconv.ParseUint(part, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("GTID %q: want domain-server-sequence", element)
			}
			numbers[i] = n
		}
		list = append(list, mariaGTID{domain: numbers[0], server: numbers[1], sequence: numbers[2]})
	}
	return list, nil
}

// newest returns the highest sequence number by domain.
func newest(list []mariaGTID) map[uint64]uint64 {
	sequences := make(map[uint64]uint64)
	for _, g := range list {
		sequences[g.domain] = max(sequences[g.domain], g.sequence)
	}
	return sequences
}

// formatMariaDB writes a position, its domains in ascending order.
func formatMariaDB(list []mariaGTID) string {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b mariaGTID) int { return cmp.Compare(a.domain, b.domain) })
	position := make([]string, len(list))
	for i, g := range list {
		position[i] = fmt.Sprintf("%d-%d-%d", g.domain, g.server, g.sequence)
	}
	return strings.Join(position, ",")
}

// lastOfDomains keeps the last element of each domain.
func lastOfDomains(list []mariaGTID) []mariaGTID {
	var kept []mariaGTID
	for _, g := range list {
		kept = append(slices.DeleteFunc(kept, func(o mariaGTID) bool { return o.domain == g.domain }), g)
	}
	return kept
}

// furthest keeps the element with the highest sequence number of each domain; of equal ones the first.
func furthest(list []mariaGTID) []mariaGTID {
	var kept []mariaGTID
	for _, g := range list {
		i := slices.IndexFunc(kept, func(o mariaGTID) bool { return o.domain == g.domain })
		switch {
		case i < 0:
			kept = append(kept, g)
		case kept[i].sequence < g.sequence:
			kept[i] = g
		}
	}
	return kept
}

// includesMariaDB tells whether the position has reached the goal in every domain.
func includesMariaDB(position, goal string) (bool, error) {
	have, err := parseMariaDB(position)
	if err != nil {
		return false, err
	}
	want, err := parseMariaDB(goal)
	if err != nil {
		return false, err
	}
	sequences := newest(have)
	for _, g := range want {
		if sequences[g.domain] < g.sequence {
			return false, nil
		}
	}
	return true, nil
}

// checkMariaDBPosition compares the position with the upstream's binary log: what it has written by domain and server,
// and what was already purged when its oldest file began.
func (u *upstream) checkMariaDBPosition(ctx context.Context, position string) error {
	from, err := parseMariaDB(position)
	if err != nil {
		return err
	}
	var state string
	if err := u.queryRow(ctx, "SELECT @@GLOBAL.gtid_binlog_state", &state); err != nil {
		return err
	}
	written, err := parseMariaDB(state)
	if err != nil {
		return err
	}
	// A follower that started from a copy has in its own log only what came since.
	var applied string
	if err := u.queryRow(ctx, "SELECT @@GLOBAL.gtid_slave_pos", &applied); err != nil {
		return err
	}
	inherited, err := parseMariaDB(applied)
	if err != nil {
		return err
	}
	for _, g := range from {
		if !wrote(written, g) && !slices.Contains(inherited, g) {
			return fmt.Errorf("%w: the backup is at %d-%d-%d, which the upstream (%s) has not: it is ahead of the upstream, or of another history",
				dbdump.ErrCoordinates, g.domain, g.server, g.sequence, state)
		}
	}
	return u.checkMariaDBPurged(ctx, from)
}

// wrote tells whether the log with that state holds the transaction: its server wrote it, or a later one.
func wrote(state []mariaGTID, g mariaGTID) bool {
	for _, w := range state {
		if w.domain == g.domain && w.server == g.server && w.sequence >= g.sequence {
			return true
		}
	}
	return false
}

// checkMariaDBPurged makes sure that nothing after the position has been purged.
func (u *upstream) checkMariaDBPurged(ctx context.Context, from []mariaGTID) error {
	first := ""
	err := u.each(ctx, "SHOW BINARY LOGS", func(r row) error {
		if first == "" {
			first = r.get("Log_name")
		}
		return nil
	})
	switch number := errorNumber(err); {
	case number == errSpecificAccess:
		// The replication account may not look. START SLAVE will: the upstream refuses a position that it lacks.
		u.engine.opts.Logger.Warn("the replication account lacks BINLOG MONITOR on the upstream: whether the logs are still there is seen only when replication starts")
		return nil
	case number == errNoBinaryLog:
		return fmt.Errorf("%w: the upstream writes no binary log", dbdump.ErrCoordinates)
	case err != nil:
		return err
	}
	purged, err := startOfLog(ctx, u.session, first)
	if err != nil {
		return err
	}
	have := newest(from)
	for domain, sequence := range newest(purged) {
		if have[domain] < sequence {
			return fmt.Errorf("%w: the upstream has purged its binary logs up to sequence %d of domain %d, the backup is at %d: take a new backup",
				dbdump.ErrCoordinates, sequence, domain, have[domain])
		}
	}
	return nil
}

// startOfLog returns the position that a server had when it began the log: what came before is in older ones. Of several
// elements of one domain the last one is the newest.
func startOfLog(ctx context.Context, s *session, file string) ([]mariaGTID, error) {
	found := false
	var list []mariaGTID
	// The list is the first event after the description of the format, and that of the encryption if there is one.
	err := s.each(ctx, "SHOW BINLOG EVENTS IN "+quoteString(file)+" LIMIT 4", func(r row) error {
		if found || r.get("Event_type") != "Gtid_list" {
			return nil
		}
		found = true
		var err error
		list, err = parseMariaDB(strings.Trim(r.get("Info"), "[]"))
		return err
	})
	if err == nil && !found {
		err = fmt.Errorf("binary log %s does not begin with a list of GTIDs", file)
	}
	return list, err
}

// errNoBinaryLog: SHOW BINARY LOGS on a server without one.
const errNoBinaryLog = 1381
