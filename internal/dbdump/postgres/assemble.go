package postgres

import (
	"slices"
	"strings"

	"keepset/internal/record"
)

// assemble lists all objects in an order in which they can be created.
func (d *dump) assemble() {
	add := func(o record.Object) { d.report.Objects = append(d.report.Objects, o) }
	if d.roles != nil {
		for _, name := range d.roles {
			add(record.Object{Kind: KindRole, Name: name, DDL: rolesStream, Rows: -1})
		}
		// Both streams are there even if nothing is in them.
		add(record.Object{Kind: KindTablespace, Name: "pg_default", DDL: tablespacesStream, Rows: -1})
		for _, name := range d.spaces {
			add(record.Object{Kind: KindTablespace, Name: name, DDL: tablespacesStream, Rows: -1})
		}
	}
	for _, db := range d.databases {
		o := db.object()
		if !d.opts.Filter.WholeDatabase(db.name) {
			o.Attributes[AttrPartial] = "yes"
		}
		add(o)
		for _, n := range db.inventory {
			o := db.within(n.kind, n.schema, n.name)
			if n.version != "" {
				o.Attributes[AttrVersion] = n.version
			}
			add(o)
		}
		for _, r := range db.relations {
			o := db.relation(r)
			d.report.Rows += max(0, o.Rows)
			add(o)
		}
		if db.large.number > 0 {
			add(db.large.object(db.name))
			d.report.Rows += db.large.rows
		}
	}
	slices.Sort(d.report.Omitted)
}

// object is the database itself.
func (db *databaseDump) object() record.Object {
	o := record.Object{
		Kind: KindDatabase, Schema: db.name, Name: db.name, DDL: databaseStream(db.name, "database.sql"), Rows: -1,
		Attributes: map[string]string{AttrDatabase: db.name, AttrEncoding: db.encoding, AttrPoint: db.point, AttrRoles: strings.Join(db.roles, "\n")},
	}
	for key, there := range map[string]bool{AttrPreData: db.pre, AttrPostData: db.post, AttrPositions: db.sequences} {
		if there {
			o.Attributes[key] = databaseStream(db.name, streamOf[key])
		}
	}
	return o
}

// streamOf names the streams of a database by the attribute that says that they are there.
var streamOf = map[string]string{AttrPreData: "pre-data.sql", AttrPostData: "post-data.sql", AttrPositions: "sequences.sql"}

// within is an object of the database.
func (db *databaseDump) within(kind, schema, name string) record.Object {
	return record.Object{
		Kind: kind, Schema: db.name + "." + schema, Name: name, Rows: -1, Attributes: map[string]string{AttrDatabase: db.name, AttrSchema: schema},
	}
}

// relationKinds are pg_class's, as the report calls them.
var relationKinds = map[string]string{
	"r": KindTable, "p": KindTable, "v": KindView, "m": KindView, "S": KindSequence, "f": KindForeignTable,
}

func (db *databaseDump) relation(r *relation) record.Object {
	o := db.within(relationKinds[r.kind], r.schema, r.name)
	set := func(key, value string) {
		if value != "" {
			o.Attributes[key] = value
		}
	}
	set(AttrCondition, r.condition)
	set(AttrNoRows, r.noRows)
	switch {
	case r.kind == "p":
		o.Attributes[AttrKind] = "partitioned"
	case r.kind == "S" && r.ownedBy[1] != "":
		o.Attributes[AttrOwnedBy] = quoteQualified(r.ownedBy[0], r.ownedBy[1])
	case r.root[1] != "":
		o.Attributes[AttrRoot] = quoteQualified(r.root[0], r.root[1])
	}
	if r.partition {
		set(AttrPartitionOf, quoteNames(r.above()))
		set(AttrBound, r.bound)
	}
	if r.stores() && r.noRows == "" {
		slices.Sort(r.data)
		o.Data, o.Rows = r.data, r.rows
		for _, c := range r.columns {
			o.Columns = append(o.Columns, record.Column{Name: c.name, Type: c.kind})
		}
	}
	return o
}
