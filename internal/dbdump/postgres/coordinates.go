package postgres

import (
	"context"
	"fmt"
	"strconv"

	"keepset/internal/record"
)

// readCoordinates tells where in the write-ahead log the server is: the position
// as a number of bytes, the file that holds it, whose name begins with the
// timeline, and the identity that a server has in common with its standbys. A
// logical dump cannot be continued from there; it is on record for people.
func readCoordinates(ctx context.Context, s *session, v server) (c record.Coordinates, err error) {
	lsn := "pg_catalog.pg_current_wal_lsn()"
	if v.standby {
		lsn = "pg_catalog.pg_last_wal_replay_lsn()"
	}
	q := "SELECT " + lsn + " - '0/0'::pg_catalog.pg_lsn, (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()), " +
		"(SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size'), (SELECT system_identifier FROM pg_catalog.pg_control_system())"
	err = s.each(ctx, q, func(r row) error {
		var numbers [3]uint64
		for i := range numbers {
			if numbers[i], err = strconv.ParseUint(r.at(i), 10, 64); err != nil {
				return fmt.Errorf("read the position in the write-ahead log: %w", err)
			}
		}
		c.Position, c.File, c.Server = numbers[0], walFile(numbers[0], numbers[1], numbers[2]), r.at(3)
		return nil
	})
	if err != nil || !v.standby {
		return c, err
	}
	c.Upstream, err = readUpstream(ctx, s, c)
	return c, err
}

// walFile is the name of the segment that holds the byte before a position, as
// pg_walfile_name gives it, which a standby does not.
func walFile(position, timeline, segment uint64) string {
	if segment == 0 {
		return ""
	}
	number := max(position, 1) - 1
	number /= segment
	each := uint64(1) << 32 / segment
	return fmt.Sprintf("%08X%08X%08X", timeline, number/each, number%each)
}

// readUpstream tells whom a standby follows and how far it is behind. Accounts
// without pg_monitor see only that there is a receiver, which then counts as
// running; without one, replication does not run.
func readUpstream(ctx context.Context, s *session, c record.Coordinates) (*record.UpstreamCoordinates, error) {
	up := &record.UpstreamCoordinates{File: c.File, Position: c.Position, LagSeconds: -1}
	const q = "SELECT COALESCE(sender_host, ''), COALESCE(sender_port, 0), COALESCE(status = 'streaming', true) FROM pg_catalog.pg_stat_wal_receiver"
	err := s.each(ctx, q, func(r row) error {
		port, err := strconv.Atoi(r.at(1))
		up.Host, up.Port, up.Running = r.at(0), port, r.at(2) == "t"
		return err
	})
	if err != nil {
		return nil, err
	}
	// A server that has nothing to replay is not behind, however long ago the last transaction was.
	const lag = "SELECT CASE WHEN pg_catalog.pg_last_wal_receive_lsn() = pg_catalog.pg_last_wal_replay_lsn() THEN 0 ELSE " +
		"COALESCE(pg_catalog.date_part('epoch', pg_catalog.now() - pg_catalog.pg_last_xact_replay_timestamp())::pg_catalog.int8, -1) END"
	up.LagSeconds, err = s.number(ctx, lag)
	return up, err
}
