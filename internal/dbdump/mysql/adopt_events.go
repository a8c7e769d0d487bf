package mysql

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// event is one event of the adopted server.
type event struct {
	schema, name, definer, status string
	charset, collation            string // of its client, which ALTER EVENT would replace by ours
}

func (v event) String() string { return "event " + quoteQualified(v.schema, v.name) }

// elsewhere tells whether the event runs on an upstream and not here.
func (v event) elsewhere() bool { return strings.Contains(v.status, "SIDE_DISABLED") }

// adoptEvents does with the events what a load does: on a follower none may run, their effects arrive from upstream; and
// where a copy of a follower stands on its own, those that ran on its upstream must run. One that somebody disabled
// stays so.
func (e *Engine) adoptEvents(ctx context.Context, a *adoption, follower bool) (err error) {
	var list []event
	err = a.s.each(ctx, "SELECT EVENT_SCHEMA, EVENT_NAME, DEFINER, STATUS, CHARACTER_SET_CLIENT, COLLATION_CONNECTION FROM information_schema.EVENTS", func(r row) error {
		v := event{schema: r.at(0), name: r.at(1), definer: r.at(2), status: r.at(3), charset: r.at(4), collation: r.at(5)}
		if e.opts.Load.Follower && v.status == "ENABLED" || !e.opts.Load.Follower && follower && v.elsewhere() {
			list = append(list, v)
		}
		return nil
	})
	if err != nil || len(list) == 0 {
		return err
	}
	l := &loader{engine: e, opts: LoadOptions{Follower: true}, server: a.server, log: e.opts.Logger}
	defer func() { err = errors.Join(err, l.restoreGlobals(ctx)) }()
	if err := l.liftReadOnly(ctx, a.s); err != nil {
		return err
	}
	if err := a.s.exec(ctx, "SET SESSION sql_log_bin = 0"); err != nil {
		return privilegeError(err, "keep the change of events out of the binary log")
	}
	status := "ENABLE"
	if e.opts.Load.Follower {
		status = disabledOnFollower(a.server)
	}
	for _, v := range list {
		if err := a.alterEvent(ctx, v, status); err != nil {
			return fmt.Errorf("%s %s: %w", strings.ToLower(status), v, privilegeError(err, "the account may not change it"))
		}
	}
	e.opts.Logger.Info("events changed", "to", status, "events", len(list))
	return nil
}

// disabledOnFollower is the status that events have on a follower.
func disabledOnFollower(server Server) string {
	if !server.MariaDB() && server.AtLeast(8, 2, 0) {
		return "DISABLE ON REPLICA"
	}
	return "DISABLE ON SLAVE"
}

// alterEvent changes the status of an event and nothing else of it. ALTER EVENT takes the session's character set and
// collation for the event's own, and understands the statement itself in them.
func (a *adoption) alterEvent(ctx context.Context, v event, status string) error {
	statement := fmt.Sprintf("ALTER DEFINER=%s EVENT %s %s", grantee(v.definer), quoteQualified(v.schema, v.name), status)
	var encoded string
	var same bool
	query := fmt.Sprintf("SELECT CONVERT(%[1]s USING %[2]s), CAST(CONVERT(CONVERT(%[1]s USING %[2]s) USING utf8mb4) AS BINARY) = CAST(%[1]s AS BINARY)", quoteString(statement), v.charset)
	if err := a.s.queryRow(ctx, query, &encoded, &same); err != nil {
		return err
	}
	if !same {
		return fmt.Errorf("its name cannot be written in its own character set %s: create it again", v.charset)
	}
	set := fmt.Sprintf("SET SESSION character_set_client = %s, collation_connection = %s", quoteString(v.charset), quoteString(v.collation))
	if err := a.s.exec(ctx, set); err != nil {
		return err
	}
	err := a.s.exec(ctx, encoded)
	return errors.Join(err, a.s.exec(ctx, "SET NAMES utf8mb4"), a.s.exec(ctx, "SET SESSION character_set_results = NULL"))
}
