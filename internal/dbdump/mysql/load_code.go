package mysql

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// loadServerObjects creates what belongs to no schema: servers, tablespaces, spatial reference systems.
func (l *loader) loadServerObjects(ctx context.Context) error {
	var done []string
	for _, o := range l.plan.server {
		if slices.Contains(done, o.DDL) { // several objects share the stream
			continue
		}
		done = append(done, o.DDL)
		err := l.session(ctx, func(s *session) error { return l.loadServerScript(ctx, s, o) })
		if err != nil {
			return err
		}
	}
	return nil
}

// loadServerScript runs the statements of server.sql. What the target has already is kept, or with Replace made anew
// where that destroys nothing: a tablespace may hold tables of databases that are not replaced.
func (l *loader) loadServerScript(ctx context.Context, s *session, o loadObject) error {
	statements, err := l.statements(ctx, o.DDL)
	if err != nil {
		return err
	}
	if err := l.begin(ctx, s, ""); err != nil {
		return err
	}
	for _, statement := range statements {
		err := s.exec(ctx, statement)
		switch errorNumber(err) {
		case errServerExists, errTablespaceExists, errReferenceSystemExists:
			l.warn("the target has it already, kept: %s", firstWords(statement))
			continue
		}
		if err != nil {
			return fmt.Errorf("create server objects, %s: %w", firstWords(statement), privilegeError(secretError(err), "the account of the load lacks a privilege"))
		}
	}
	return nil
}

// firstWords shortens a statement to what it creates, before any password that follows.
func firstWords(statement string) string {
	words := strings.Fields(statement)
	return strings.Join(words[:min(len(words), 3)], " ")
}

// loadRoutines creates procedures, functions and packages, a package before its body, as the dump orders them.
func (l *loader) loadRoutines(ctx context.Context) error {
	return l.session(ctx, func(s *session) error {
		for _, o := range l.plan.routines {
			if err := l.loadScript(ctx, s, o, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// loadTriggers creates the triggers of each table in the order in which they are to run.
func (l *loader) loadTriggers(ctx context.Context) error {
	var tables [][]loadObject
	position := make(map[string]int)
	for _, o := range l.plan.triggers {
		table := quoteQualified(o.Target, o.Attributes[AttrTable])
		i, ok := position[table]
		if !ok {
			i = len(tables)
			position[table] = i
			tables = append(tables, nil)
		}
		tables[i] = append(tables[i], o)
	}
	return l.parallel(ctx, len(tables), func(ctx context.Context, s *session, i int) error {
		for _, o := range tables[i] {
			if err := l.loadScript(ctx, s, o, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// loadEvents creates the events, last of all. On a follower an event must not run, its effects arrive from upstream:
// those that run on the source are created as disabled on followers; and where a copy of a follower stands on its own,
// those that ran on its upstream must run on it.
func (l *loader) loadEvents(ctx context.Context) error {
	return l.session(ctx, func(s *session) error {
		var enabled []string
		for _, o := range l.plan.events {
			var edit editFunc
			switch {
			case l.opts.Follower || l.opts.SilentEvents:
				edit = l.disableOnFollower
			case l.dump.Coordinates.Upstream != nil:
				edit = func(statement string, quote quoting) (string, error) {
					edited, err := enableOnPrimary(statement, quote)
					if edited != statement {
						enabled = append(enabled, o.String())
					}
					return edited, err
				}
			}
			if err := l.loadScript(ctx, s, o, edit); err != nil {
				return err
			}
			found := 0
			err := s.queryRow(ctx, "SELECT COUNT(*) FROM information_schema.EVENTS WHERE EVENT_SCHEMA="+quoteString(o.Target)+
				" AND EVENT_NAME="+quoteString(o.Name), &found)
			if err != nil {
				return err
			}
			if found == 0 {
				l.warn("%s was due before the load and is not kept after its time: the server dropped it", o)
			}
		}
		if len(enabled) > 0 {
			l.warn("enabled, since the backup is of a server that followed another, whose events ran there: %s", shorten(enabled))
		}
		return nil
	})
}

// disableOnFollower changes ENABLE into the status that events have on a follower.
func (l *loader) disableOnFollower(statement string, quote quoting) (string, error) {
	tokens, at, err := eventStatus(statement, quote)
	if err != nil || at < 0 || !tokens[at].is(statement, "ENABLE") {
		return statement, err
	}
	return statement[:tokens[at].start] + disabledOnFollower(l.server) + statement[tokens[at].end:], nil
}

// enableOnPrimary changes the status that events have on a follower into ENABLE. An event that somebody disabled
// stays so.
func enableOnPrimary(statement string, quote quoting) (string, error) {
	tokens, at, err := eventStatus(statement, quote)
	if err != nil || at < 0 || at+2 >= len(tokens) || !tokens[at].is(statement, "DISABLE") || !tokens[at+1].is(statement, "ON") {
		return statement, err
	}
	return statement[:tokens[at].start] + "ENABLE" + statement[tokens[at+2].end:], nil
}

// eventStatus finds ENABLE or DISABLE in a statement that creates an event; -1 in any other statement.
func eventStatus(statement string, quote quoting) (tokens []token, at int, err error) {
	tokens, err = tokenize(statement, quote)
	if err != nil {
		return nil, -1, err
	}
	event := false
	for i, tok := range tokens {
		switch {
		case i == 0 && !tok.is(statement, "CREATE"):
			return tokens, -1, nil // a SET of the preamble
		case !event && tok.is(statement, "EVENT"):
			event = true
		case event && tok.is(statement, "DO"):
			return nil, -1, fmt.Errorf("no status found in %.80q", statement)
		case event && (tok.is(statement, "ENABLE") || tok.is(statement, "DISABLE")):
			return tokens, i, nil
		}
	}
	return tokens, -1, nil
}
