package mysql

import (
	"context"
	"slices"
	"strings"
)

// codeObject is a view, routine, trigger or event: an object that is text.
type codeObject struct {
	schema *schema
	kind   string
	name   string
	// subtype of a routine: FUNCTION, PROCEDURE, PACKAGE, PACKAGE BODY.
	subtype string
	// table and order of a trigger.
	table string
	order string
	// What it was created under.
	definer, sqlMode, timeZone string
	comment                    string
	// status of an event.
	status string
	// fingerprint changes when the object does.
	fingerprint string

	// Found out when its text is read.
	depends []string
	broken  string
	stream  string
}

// readCode lists what is text in a schema. Its text itself is read later, by
// the workers: information_schema gives it out converted, and so damaged.
func (d *dump) readCode(ctx context.Context, s *session, sc *schema) error {
	where := quoteString(sc.name)
	lists := []struct {
		kind, query string
		fill        func(o *codeObject, r row)
	}{
		{KindRoutine, `SELECT ROUTINE_NAME, DEFINER, SQL_MODE, ROUTINE_COMMENT, ROUTINE_TYPE,
			CONCAT_WS('|', CREATED, LAST_ALTERED, SECURITY_TYPE) FROM information_schema.ROUTINES
			WHERE ROUTINE_SCHEMA = ` + where, func(o *codeObject, r row) {
			o.definer, o.sqlMode, o.comment, o.subtype = r.at(1), r.at(2), r.at(3), r.at(4)
		}},
		{KindView, `SELECT TABLE_NAME, DEFINER, CHECK_OPTION, SECURITY_TYPE, IS_UPDATABLE,
			CONCAT_WS('|', DEFINER, CHECK_OPTION, SECURITY_TYPE, CHARACTER_SET_CLIENT, COLLATION_CONNECTION, SHA2(VIEW_DEFINITION, 256)) FROM information_schema.VIEWS
			WHERE TABLE_SCHEMA = ` + where, func(o *codeObject, r row) {
			o.definer = r.at(1)
		}},
		{KindTrigger, `SELECT TRIGGER_NAME, DEFINER, SQL_MODE, EVENT_OBJECT_TABLE, ACTION_ORDER,
			CONCAT_WS('|', CREATED, ACTION_ORDER, EVENT_MANIPULATION, ACTION_TIMING, SHA2(ACTION_STATEMENT, 256)) FROM information_schema.TRIGGERS
			WHERE TRIGGER_SCHEMA = ` + where, func(o *codeObject, r row) {
			o.definer, o.sqlMode, o.table, o.order = r.at(1), r.at(2), r.at(3), r.at(4)
		}},
		{KindEvent, `SELECT EVENT_NAME, DEFINER, SQL_MODE, EVENT_COMMENT, STATUS,
			CONCAT_WS('|', CREATED, LAST_ALTERED, STATUS, TIME_ZONE), TIME_ZONE FROM information_schema.EVENTS
			WHERE EVENT_SCHEMA = ` + where, func(o *codeObject, r row) {
			o.definer, o.sqlMode, o.comment, o.status, o.timeZone = r.at(1), r.at(2), r.at(3), r.at(4), r.at(6)
		}},
	}
	for _, l := range lists {
		err := d.list(ctx, s, l.query, func(r row) error {
			o := &codeObject{schema: sc, kind: l.kind, name: r.at(0), fingerprint: r.at(5)}
			l.fill(o, r)
			if d.wanted(o) {
				sc.code = append(sc.code, o)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	slices.SortStableFunc(sc.code, compareCode)
	return nil
}

// wanted tells whether the filter lets the object pass: a trigger goes with
// its table, routines and events with the whole schema.
func (d *dump) wanted(o *codeObject) bool {
	switch o.kind {
	case KindView:
		return d.opts.Filter.Table(o.schema.name, o.name)
	case KindTrigger:
		return d.opts.Filter.Table(o.schema.name, o.table)
	}
	return o.schema.whole
}

// compareCode sorts by kind in the order of creation, and within a kind so
// that what comes first can be created first.
func compareCode(a, b *codeObject) int {
	kinds := []string{KindRoutine, KindView, KindTrigger, KindEvent}
	if c := slices.Index(kinds, a.kind) - slices.Index(kinds, b.kind); c != 0 {
		return c
	}
	if a.kind == KindTrigger {
		if c := strings.Compare(a.table, b.table); c != 0 {
			return c
		}
		if c := number(a.order) - number(b.order); c != 0 {
			return int(c)
		}
	}
	// Packages come before their bodies by the alphabet.
	if c := strings.Compare(a.subtype, b.subtype); c != 0 {
		return c
	}
	return strings.Compare(a.name, b.name)
}

// folder of the object's streams.
func (o *codeObject) streamName() string {
	switch o.kind {
	case KindView:
		return objectStream(o.schema.name, "views", o.name)
	case KindTrigger:
		return objectStream(o.schema.name, "triggers", o.table, o.name)
	case KindEvent:
		return objectStream(o.schema.name, "events", o.name)
	}
	return objectStream(o.schema.name, "routines", strings.ReplaceAll(strings.ToLower(o.subtype), " ", "_"), o.name)
}
