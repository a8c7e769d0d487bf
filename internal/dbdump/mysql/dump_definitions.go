package mysql

import (
	"context"
	"slices"
	"strings"

	"keepset/internal/record"
)

// omittedExcluded begins the line of the report that says what Exclude took
// out. A load knows by it that rights may be on objects that the dump lacks.
const omittedExcluded = "databases and tables that the filter leaves out: "

// wholeServer tells whether the dump is of a server, though perhaps not of all
// its databases, and so holds its accounts; not of single databases.
func (d *dump) wholeServer() bool { return len(d.opts.Filter.Include) == 0 }

// writeDefinitions writes everything that is not a table: what belongs to the
// server, accounts, schemas, sequences, and all that is text.
func (d *dump) writeDefinitions(ctx context.Context) error {
	for _, o := range alwaysOmitted {
		d.omit(o)
	}
	if left := d.opts.Filter.Exclude; len(left) > 0 {
		d.omit(omittedExcluded + strings.Join(left, ", "))
	}
	switch {
	case !d.wholeServer():
		d.omit("accounts, roles, grants and server objects: the dump is filtered")
	case d.opts.SkipUsers:
		d.omit("accounts, roles and grants: the options leave them out")
	}
	return d.work(ctx, func(_ context.Context, emit func(task) error) error {
		var tasks []task
		if d.wholeServer() {
			tasks = append(tasks, d.writeServer)
			if !d.opts.SkipUsers {
				tasks = append(tasks, d.writeUsers)
			}
		}
		for _, sc := range d.catalog.schemas {
			tasks = append(tasks, func(ctx context.Context, s *session) error { return d.writeSchema(ctx, s, sc) })
			if !sc.whole {
				d.omit("routines and events of schema " + quoteIdentifier(sc.name) + ": the filter names single tables")
			}
			for _, t := range sc.tables {
				if t.sequence() {
					tasks = append(tasks, func(ctx context.Context, s *session) error { return d.writeSequence(ctx, s, t) })
				}
			}
			for _, o := range sc.code {
				tasks = append(tasks, func(ctx context.Context, s *session) error { return d.writeCode(ctx, s, o) })
			}
		}
		for _, t := range tasks {
			if err := emit(t); err != nil {
				return err
			}
		}
		return nil
	})
}

// assemble lists all objects in an order in which they can be created.
func (d *dump) assemble() error {
	add := func(o record.Object) { d.report.Objects = append(d.report.Objects, o) }
	if d.serverObjects {
		add(record.Object{Kind: KindServer, DDL: serverStream, Rows: -1})
	}
	for _, u := range d.users {
		o := record.Object{Kind: KindUser, Name: u.name(), DDL: usersStream, Rows: -1}
		if u.role {
			o.Attributes = map[string]string{AttrRole: "yes"}
		}
		add(o)
	}
	for _, sc := range d.catalog.schemas {
		add(record.Object{Kind: KindSchema, Schema: sc.name, Name: sc.name, DDL: schemaStream(sc.name), Rows: -1})
	}
	for t := range d.catalog.tables() {
		if t.sequence() {
			add(record.Object{Kind: KindSequence, Schema: t.schema.name, Name: t.name, DDL: objectStream(t.schema.name, "sequences", t.name), Rows: -1})
		}
	}
	for t := range d.catalog.tables() {
		if t.base() {
			add(d.tableObject(t))
		}
	}
	var views []*codeObject
	for _, kind := range []string{KindRoutine, KindView, KindTrigger, KindEvent} {
		for _, sc := range d.catalog.schemas {
			for _, o := range sc.code {
				switch {
				case o.kind != kind:
				case kind == KindView:
					views = append(views, o)
				default:
					add(o.object())
				}
			}
		}
		if kind == KindView {
			for _, o := range sortViews(views) {
				add(o.object())
			}
		}
	}
	slices.Sort(d.report.Omitted)
	return nil
}

func (d *dump) tableObject(t *table) record.Object {
	o := record.Object{
		Kind: KindTable, Schema: t.schema.name, Name: t.name, DDL: objectStream(t.schema.name, "tables", t.name),
		Attributes: map[string]string{AttrEngine: t.engine, AttrCharset: t.collation},
	}
	set := func(key, value string) {
		if value != "" {
			o.Attributes[key] = value
		}
	}
	set(AttrAutoIncrement, t.autoIncrement)
	set(AttrStructureOnly, t.structureOnly)
	if len(t.partitions) > 0 {
		set(AttrPartitioned, "yes")
	}
	if t.versioned() {
		set(AttrSystemVersioned, "current")
		if t.keepsHistory() {
			set(AttrSystemVersioned, "history")
		}
	}
	if l := d.layouts[t]; l != nil {
		slices.Sort(l.streams)
		slices.Sort(l.typed)
		set(AttrTyped, strings.Join(l.typed, " "))
		o.Columns, o.Data, o.Rows, o.Checksum = l.columns, l.streams, l.rows, l.sum.String()
		d.report.Rows += l.rows
	} else {
		o.Rows = -1
	}
	return o
}

func (o *codeObject) object() record.Object {
	out := record.Object{Kind: o.kind, Schema: o.schema.name, Name: o.name, DDL: o.stream, Rows: -1, Attributes: map[string]string{AttrDefiner: o.definer}}
	set := func(key, value string) {
		if value != "" {
			out.Attributes[key] = value
		}
	}
	set(AttrDepends, strings.Join(o.depends, "\n"))
	set(AttrBroken, o.broken)
	set(AttrType, o.subtype)
	set(AttrStatus, o.status)
	set(AttrTable, o.table)
	set(AttrOrder, o.order)
	return out
}
