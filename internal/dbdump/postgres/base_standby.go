package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// conninfo is the connection as libpq reads it.
func conninfo(u *dbdump.Upstream) string {
	pairs := [][2]string{{"host", u.Host}, {"port", strconv.Itoa(u.Port)}, {"user", u.User}}
	if u.Password != "" {
		pairs = append(pairs, [2]string{"password", u.Password})
	}
	switch {
	case u.CA != "":
		pairs = append(pairs, [2]string{"sslmode", "verify-full"}, [2]string{"sslrootcert", u.CA})
	case u.TLS:
		pairs = append(pairs, [2]string{"sslmode", "require"})
	}
	var b strings.Builder
	for i, p := range pairs {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(p[0] + "='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(p[1]) + "'")
	}
	return b.String()
}

// quoteSetting makes a value for a configuration file.
func quoteSetting(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(s) + "'"
}

// whereabouts are where a server is in its log.
type whereabouts struct {
	system             string
	timeline, position uint64
}

// identify asks a server by the replication protocol.
func identify(ctx context.Context, s *session) (at whereabouts, err error) {
	err = s.each(ctx, "IDENTIFY_SYSTEM", func(r row) (err error) {
		at.system = r.at(0)
		if at.timeline, err = strconv.ParseUint(r.at(1), 10, 32); err != nil {
			return err
		}
		at.position, err = parseLSN(r.at(2))
		return err
	})
	return at, err
}

// CanFollow asks the server, as a standby would, whether one that begins at c can
// follow it. ErrCoordinates when it has another history, is behind c, or has
// removed the log from there on.
func (e *Engine) CanFollow(ctx context.Context, c record.Coordinates, slot string) error {
	doing := fmt.Sprintf("follow %s from %s", e.opts.Address, formatLSN(c.Position))
	timeline, first, size, err := segmentOf(c)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	s, err := e.replication(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, baseRemedy(err))
	}
	defer s.abandon()
	at, err := identify(ctx, s)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if at.system != c.Server {
		return fmt.Errorf("%s: %w: it is another system (%s) than the one that was backed up (%s)", doing, dbdump.ErrCoordinates, at.system, c.Server)
	}
	if at.position < c.Position {
		return fmt.Errorf("%s: %w: the server is at %s, behind the backup", doing, dbdump.ErrCoordinates, formatLSN(at.position))
	}
	// The server itself would let a standby begin on a timeline that it has left
	// earlier, if only the file began before that.
	if err := sameHistory(ctx, s, at, timeline, c.Position); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	// A primary begins another file at the end of a backup, which so has the last one
	// as a whole; where it has not written into the next one yet, it has all.
	if c.Upstream == nil && at.timeline == timeline && first+size < at.position {
		first += size
	}
	if err := e.asks(ctx, s, slot, timeline, first); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// sameHistory says whether the server was at a position of a timeline itself.
func sameHistory(ctx context.Context, s *session, at whereabouts, timeline, position uint64) error {
	if at.timeline == timeline {
		return nil
	}
	another := fmt.Errorf("%w: the server, on timeline %d, has another history than the backup, on timeline %d at %s",
		dbdump.ErrCoordinates, at.timeline, timeline, formatLSN(position))
	if at.timeline < timeline {
		return another
	}
	left, found := uint64(0), false
	err := s.each(ctx, fmt.Sprintf("TIMELINE_HISTORY %d", at.timeline), func(r row) (err error) {
		left, found, err = switchPoint(r.at(1), timeline)
		return err
	})
	if err != nil {
		return err
	}
	if !found || left < position {
		return another
	}
	return nil
}

// switchPoint finds in a timeline's history where it has left another one.
func switchPoint(history string, timeline uint64) (at uint64, found bool, err error) {
	for line := range strings.Lines(history) {
		fields := strings.Fields(line)
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		number, err := strconv.ParseUint(fields[0], 10, 32)
		if err != nil {
			return 0, false, fmt.Errorf("the history of a timeline has the line %q", line)
		}
		if number == timeline {
			at, err = parseLSN(fields[1])
			return at, err == nil, err
		}
	}
	return 0, false, nil
}

// ErrSlotInUse says that a replication slot serves a standby at the moment.
var ErrSlotInUse = errors.New("the replication slot is in use")

// asks asks for the log, and hangs up at its first byte.
func (e *Engine) asks(ctx context.Context, s *session, slot string, timeline, first uint64) error {
	bounded, cancel := context.WithTimeout(ctx, e.opts.ConnectTimeout)
	defer cancel()
	command := "START_REPLICATION "
	if slot != "" {
		command += "SLOT " + quoteIdentifier(slot) + " "
	}
	command += fmt.Sprintf("PHYSICAL %s TIMELINE %d", formatLSN(first), timeline)
	b := &baseStream{ctx: bounded, conn: s.conn}
	s.conn.Frontend().SendQuery(&pgproto3.Query{String: command})
	if err := s.conn.Frontend().Flush(); err != nil {
		return err
	}
	for {
		m, err := b.message()
		switch state := sqlState(err); {
		case state == stateObjectInUse && slot != "":
			return fmt.Errorf("%w: %w: %w", dbdump.ErrCoordinates, ErrSlotInUse, err)
		case state == stateUndefinedObject && slot != "":
			return fmt.Errorf("%w: %w; SELECT pg_create_physical_replication_slot('%s', true) makes it there", dbdump.ErrCoordinates, err, slot)
		case state != "":
			return fmt.Errorf("%w: %w", dbdump.ErrCoordinates, err)
		case err != nil:
			return err
		}
		switch m := m.(type) {
		case *pgproto3.CopyBothResponse:
		case *pgproto3.CopyData: // bytes of the log, or that there is no more of it yet
			return nil
		default:
			return fmt.Errorf("%w: %T to %s", errBase, m, command)
		}
	}
}

// segmentOf is the timeline of a position, where the file that holds it begins, and
// how large that is.
func segmentOf(c record.Coordinates) (timeline, first, size uint64, err error) {
	if len(c.File) != 24 {
		return 0, 0, 0, fmt.Errorf("the backup has no position in the log: %q", c.File)
	}
	var numbers [3]uint64
	for i := range numbers {
		if numbers[i], err = strconv.ParseUint(c.File[8*i:8*i+8], 16, 32); err != nil {
			return 0, 0, 0, fmt.Errorf("the backup has no position in the log: %q", c.File)
		}
	}
	// The file's number within its 4 GiB, and the position within them, tell how
	// large files are; a power of two from 1 MiB to 1 GiB.
	last := max(c.Position, 1) - 1
	low := last & 0xffffffff
	for size = 1 << 20; size <= 1<<30; size <<= 1 {
		if low/size == numbers[2] {
			return numbers[0], last / size * size, size, nil
		}
	}
	return 0, 0, 0, fmt.Errorf("position %s is not in file %s of the log", formatLSN(c.Position), c.File)
}
