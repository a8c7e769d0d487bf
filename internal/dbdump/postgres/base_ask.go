package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// Restored asks a server that was started on the files of a base backup whether it
// is what they were made for. That its pod is ready says little: it may have found
// its files elsewhere, and be another server.
type Restored struct {
	// Options are those of the connection, but for the address.
	Options Options
	// Coordinates are those of the backup.
	Coordinates record.Coordinates
	// Standby is a server that is to follow another one.
	Standby bool

	// receiver is the process that received the log when it was asked last, and idle
	// how often there was none.
	receiver string
	idle     int
}

// archivePatience is how often a standby may have no receiver before its log counts
// as coming from its archive.
const archivePatience = 30

// Ask asks once. What it may not be told is no error but what unasked says, empty
// for nothing. ErrMismatch: it is another system, or not what it was restored as.
// ErrUnreachable and ErrNotFollowing may be different the next time. ErrAccess: it
// takes the account's password for a wrong one.
func (r *Restored) Ask(ctx context.Context, address string) (unasked string, err error) {
	o := r.Options
	o.Address = address
	e, err := New(o)
	if err != nil {
		return "", err
	}
	now, err := e.standing(ctx)
	if why := closed(err); why != "" {
		return why, nil
	}
	if err != nil {
		return "", err
	}
	if unasked, err = r.judge(now); err != nil {
		return "", fmt.Errorf("server %s: %w", address, err)
	}
	return unasked, nil
}

// standing is what a server says of itself.
type standing struct {
	whereabouts
	recovers bool
	// private: it was asked by the replication protocol alone, which does not say
	// what comes next.
	private bool
	// receiver is the process that receives the log, connected; empty for none.
	// status is what that does, empty where the account may not know.
	receiver, status string
	// archive: the log may come from an archive as well.
	archive bool
}

// judge holds what a server says to what it should be.
func (r *Restored) judge(now standing) (unasked string, err error) {
	before := r.receiver
	if r.receiver = now.receiver; r.receiver == "" {
		r.idle++
	}
	switch c := r.Coordinates; {
	case now.system != c.Server:
		return "", fmt.Errorf("%w: it is another system (%s) than the one that was backed up (%s), and so does not run on the files that were restored", dbdump.ErrMismatch, now.system, c.Server)
	case r.Standby && !now.recovers:
		return "", fmt.Errorf("%w: it was restored as a standby, and follows nobody: something has promoted it, or has taken away its %s", dbdump.ErrMismatch, standbySignal)
	case !r.Standby && now.recovers:
		return "", fmt.Errorf("%w: it was restored as a primary, and follows another server: something has made it a standby", dbdump.ErrMismatch)
	case !r.Standby:
		return "", nil
	case now.position < c.Position:
		return "", fmt.Errorf("%w: it is at %s, and the backup ends at %s", dbdump.ErrNotFollowing, formatLSN(now.position), formatLSN(c.Position))
	case now.private:
		return "whether it receives the log was not asked: it lets the account replicate, and not log in to the database postgres", nil
	case now.status == "streaming":
		return "", nil
	// Who may not know what the receiver does sees it once it is connected. One
	// that the upstream sends nothing to has ended by the next time.
	case now.receiver != "" && now.status == "" && now.receiver == before:
		return "", nil
	case now.receiver == "" && now.archive && r.idle >= archivePatience:
		return "it receives no log from its upstream at the moment, and has a restore_command that may bring it", nil
	case now.receiver == "":
		return "", fmt.Errorf("%w: it is a standby and receives no log from its upstream; its own log says why", dbdump.ErrNotFollowing)
	default:
		return "", fmt.Errorf("%w: its receiver of the log is not streaming yet", dbdump.ErrNotFollowing)
	}
}

// standing asks a server, by SQL where it lets the account in, else by the
// replication protocol, for which there are access rules of their own.
func (e *Engine) standing(ctx context.Context) (standing, error) {
	now, err := e.standingBySQL(ctx)
	if !refused(err) {
		return now, err
	}
	conn, second := e.replication(ctx)
	if second != nil {
		return now, errors.Join(err, second)
	}
	defer conn.abandon()
	now = standing{private: true, recovers: conn.conn.ParameterStatus("in_hot_standby") == "on"}
	now.whereabouts, err = identify(ctx, conn)
	return now, err
}

func (e *Engine) standingBySQL(ctx context.Context) (now standing, err error) {
	s, err := e.admin(ctx)
	if err != nil {
		return now, err
	}
	defer s.abandon()
	const q = "SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system()), pg_catalog.pg_is_in_recovery(), " +
		"COALESCE(pg_catalog.pg_last_wal_replay_lsn(), '0/0'), pg_catalog.current_setting('restore_command') <> '', " +
		"r.pid, r.status FROM (SELECT) AS one LEFT JOIN pg_catalog.pg_stat_wal_receiver AS r ON true"
	err = s.each(ctx, q, func(r row) (err error) {
		now.system, now.recovers, now.archive, now.receiver, now.status = r.at(0), r.at(1) == "t", r.at(3) == "t", r.at(4), r.at(5)
		now.position, err = parseLSN(r.at(2))
		return err
	})
	return now, err
}

// refused says that a server does not let the account in that way.
func refused(err error) bool {
	return errors.Is(err, dbdump.ErrAccess) || errors.Is(err, dbdump.ErrPrivilege)
}

// closed is why a server can be asked in no way, by its own rules; empty for what
// is an error. That it does not know the account or its password is one: the files
// have both, and a server on other files may be any.
func closed(err error) string {
	for _, e := range answers(err) {
		// What it says of an account that it does not know is in a language of its own.
		if e.Code == stateWrongPassword || e.Routine == "InitializeSessionUserId" || e.Code == stateNoDatabase {
			return ""
		}
	}
	switch e, ok := errors.AsType[*pgconn.PgError](err); {
	case !ok:
		return ""
	case refused(err):
		return "its access rules refuse the account: " + e.Message
	case e.Code == stateNotNow && strings.Contains(e.Detail, "Hot standby mode is disabled"):
		return "it is a standby that answers nobody (hot_standby is off)"
	}
	return ""
}

// answers are those of servers in an error.
func answers(err error) (found []*pgconn.PgError) {
	switch e := err.(type) { //nolint:errorlint // the tree is walked here
	case nil:
		return nil
	case *pgconn.PgError:
		return append(found, e)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			found = append(found, answers(inner)...)
		}
		return found
	default:
		return answers(errors.Unwrap(err))
	}
}
