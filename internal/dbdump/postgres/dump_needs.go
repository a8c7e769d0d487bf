package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"keepset/internal/dbdump"
)

// thing is an object of a database, as far as a selection has to know it.
type thing struct {
	class        thingClass
	schema, name string // schema is empty for what is in none
}

// thingClass tells apart what may have the same name.
type thingClass string

const (
	aRelation   thingClass = "relation"
	aType       thingClass = "type" // a domain, too, but not the type of a table's rows
	aRoutine    thingClass = "routine"
	aCollation  thingClass = "collation"
	anExtension thingClass = "extension"
	aSchema     thingClass = "schema"
)

// classOf are the classes by the words of pg_identify_object and of statements.
// What is in none of them keeps its word.
func classOf(word string) thingClass {
	switch word {
	case "function", "procedure", "aggregate", "routine":
		return aRoutine
	case "domain":
		return aType
	}
	return thingClass(word)
}

// need says that one thing cannot be created without another one.
type need struct {
	who, what needing
	// ofIndex: it is an index of who's that needs it. It comes along where it may,
	// and is no reason to refuse anything.
	ofIndex bool
}

type needing struct {
	thing
	relation *relation // nil for what is none
	label    string
}

// needsQuery asks the server what needs what before rows are loaded: the parts of
// a table or view, which are its defaults, its checks and its query, count as the
// table, the type of its rows as well, and what an extension has made as the
// extension, whose own needs are its business. A multirange is made with its range.
// What comes after the rows may fail when only a part is loaded, but what an index
// is made by is asked for: without it there would be no index.
const needsQuery = `SELECT l.class = 'pg_catalog.pg_class'::regclass, l.obj, h.type, h.schema, h.identity, l.refclass = 'pg_catalog.pg_class'::regclass, l.ref, n.type, n.schema, n.identity, l.index
FROM (SELECT DISTINCT
  CASE WHEN a.oid IS NOT NULL OR k.conrelid > 0 OR w.oid IS NOT NULL OR i.indexrelid IS NOT NULL THEN 'pg_catalog.pg_class'::regclass
   WHEN k.contypid > 0 OR c.relkind = 'c' THEN 'pg_catalog.pg_type'::regclass ELSE d.classid END,
  COALESCE(a.adrelid, NULLIF(k.conrelid, 0), NULLIF(k.contypid, 0), w.ev_class, i.indrelid, CASE WHEN c.relkind = 'c' THEN c.reltype END, d.objid),
  CASE WHEN x.refobjid IS NOT NULL THEN 'pg_catalog.pg_extension'::regclass WHEN o.oid IS NOT NULL THEN 'pg_catalog.pg_class'::regclass ELSE d.refclassid END,
  COALESCE(x.refobjid, o.oid, g.rngtypid, d.refobjid), i.indexrelid IS NOT NULL
 FROM pg_catalog.pg_depend d
 LEFT JOIN pg_catalog.pg_attrdef a ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND a.oid = d.objid
 LEFT JOIN pg_catalog.pg_constraint k ON d.classid = 'pg_catalog.pg_constraint'::regclass AND k.oid = d.objid AND k.contype = 'c'
 LEFT JOIN pg_catalog.pg_rewrite w ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND w.oid = d.objid AND w.rulename = '_RETURN'
 LEFT JOIN pg_catalog.pg_index i ON d.classid = 'pg_catalog.pg_class'::regclass AND i.indexrelid = d.objid
 LEFT JOIN pg_catalog.pg_class c ON d.classid = 'pg_catalog.pg_class'::regclass AND c.oid = d.objid AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c')
 LEFT JOIN pg_catalog.pg_type t ON d.refclassid = 'pg_catalog.pg_type'::regclass AND t.oid = d.refobjid
 LEFT JOIN pg_catalog.pg_type e ON t.typcategory = 'A' AND e.oid = t.typelem
 LEFT JOIN pg_catalog.pg_class o ON o.oid = COALESCE(e.typrelid, t.typrelid) AND o.relkind <> 'c'
 LEFT JOIN pg_catalog.pg_range g ON g.rngmultitypid = t.oid
 LEFT JOIN pg_catalog.pg_depend x ON x.classid = d.refclassid AND x.objid = d.refobjid AND x.deptype = 'e'
 WHERE d.deptype IN ('n', 'a') AND d.refobjid >= 16384
  AND (COALESCE(a.oid, k.oid, w.oid, i.indexrelid, c.oid) IS NOT NULL OR d.classid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_type'::regclass,
   'pg_catalog.pg_collation'::regclass, 'pg_catalog.pg_operator'::regclass, 'pg_catalog.pg_cast'::regclass, 'pg_catalog.pg_extension'::regclass))
) AS l (class, obj, refclass, ref, index), pg_catalog.pg_identify_object(l.class, l.obj, 0) h, pg_catalog.pg_identify_object(l.refclass, l.ref, 0) n
WHERE (l.class, l.obj) <> (l.refclass, l.ref)
 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend y WHERE y.classid = l.class AND y.objid = l.obj AND y.deptype = 'e')
ORDER BY h.identity COLLATE "C", n.identity COLLATE "C"`

// readNeeds lists what needs what.
func readNeeds(ctx context.Context, s *session, all []*relation) ([]need, error) {
	byOID := make(map[string]*relation, len(all))
	for _, r := range all {
		byOID[r.oid] = r
	}
	read := func(r row, i int) needing {
		if rel := byOID[r.at(i+1)]; r.at(i) == "t" && rel != nil {
			return ofRelation(s.database, rel)
		}
		n := needing{label: r.at(i+2) + " " + s.database + "." + r.at(i+4)}
		// The identity is written as in SQL.
		tokens := tokensOf([]byte(r.at(i+4)), 3)
		switch {
		case len(tokens) > 2 && !r.null(i+3):
			n.thing = thing{classOf(r.at(i + 2)), tokens[0].text, tokens[2].text}
		case len(tokens) > 0:
			n.thing = thing{classOf(r.at(i + 2)), "", tokens[0].text}
		}
		return n
	}
	var list []need
	for _, r := range all {
		if r.extension != "" {
			list = append(list, need{who: ofRelation(s.database, r), what: needing{thing: thing{anExtension, "", r.extension}}})
		}
	}
	err := s.each(ctx, needsQuery, func(r row) error {
		list = append(list, need{who: read(r, 0), what: read(r, 5), ofIndex: r.at(10) == "t"})
		return nil
	})
	return list, err
}

func ofRelation(database string, r *relation) needing {
	return needing{
		thing: thing{aRelation, r.schema, r.name}, relation: r,
		label: relationKinds[r.kind] + " " + tableLabel(database, r.schema, r.name),
	}
}

// has tells whether a thing is selected.
func (s *selection) has(t thing) bool {
	switch {
	case s.without[t]:
		return false
	case s.along[t]:
		return true
	case t.class == aRelation:
		return s.relation([2]string{t.schema, t.name})
	case t.class == aSchema:
		return s.schema(t.name)
	case t.schema == "":
		return s.filter.Loose(s.database)
	default:
		return s.filter.WholeSchema(s.database, t.schema)
	}
}

// settle makes the selection one that can be loaded into an empty server. Types,
// routines and extensions that something needs come along. Views and routines
// that need what is left out are left out as well, which it says; a table that
// does is an error.
func (s *selection) settle(needs []need) (left []string, err error) {
	var refused []string
	for changed := true; changed; {
		changed = false
		for _, n := range needs {
			if !s.has(n.who.thing) || s.has(n.what.thing) || n.ofPartition() {
				continue
			}
			because := n.who.label + " needs " + n.what.label
			switch {
			case s.mayCome(n.what.thing):
				s.along[n.what.thing] = true
				switch {
				case n.what.class == aSchema:
					s.schemas[n.what.name] = true
				case n.what.schema != "":
					s.schemas[n.what.schema] = true
				}
			case n.ofIndex:
				continue
			case s.mayGo(n.who):
				s.without[n.who.thing] = true
				left = append(left, because+", which the filter leaves out: it is left out as well"+n.who.alike())
			case !slices.Contains(refused, because):
				refused = append(refused, because)
				continue
			default:
				continue
			}
			changed = true
		}
	}
	if len(refused) > 0 {
		return nil, fmt.Errorf("%w: %s, which the filter leaves out: select that as well, or leave out what needs it", dbdump.ErrSelection, few(refused))
	}
	return left, nil
}

// alike says what goes with a thing: statements do not tell routines of one name apart.
func (n needing) alike() string {
	if n.class == aRoutine {
		return ", with every other routine of its name"
	}
	return ""
}

// ofPartition tells that a partition needs its table, which it does not: it can
// be a table of its own.
func (n need) ofPartition() bool {
	return n.who.relation != nil && n.who.relation.partition && n.what.relation == n.who.relation.parents[0]
}

// mayCome tells what comes along with what needs it: what no filter can name, but
// for a schema, which may be left out with all that is in it.
func (s *selection) mayCome(t thing) bool {
	switch t.class {
	case anExtension:
		return true
	case aSchema:
		return !covers(s.filter.Exclude, s.database, t.name)
	case aType, aRoutine, aCollation:
		return !s.without[t] && !covers(s.filter.Exclude, s.database, t.schema)
	}
	return false
}

// mayGo tells what is left out with what it needs: what has no rows, unless it is
// asked for by its name, or something selected needs it, which then cannot be.
func (s *selection) mayGo(n needing) bool {
	switch n.class {
	case aType, aRoutine:
		return !s.along[n.thing]
	case aRelation:
		named := slices.Contains(s.filter.Include, strings.Join([]string{s.database, n.schema, n.name}, "."))
		return strings.Contains("vmf", n.relation.kind) && !named
	}
	return false
}

// settle completes the selection of a database, and puts on record what that
// leaves out, and which partitions are without their table.
func (d *dump) settle(ctx context.Context, db *databaseDump, all []*relation) error {
	if db.chosen.whole() {
		return nil
	}
	needs, err := readNeeds(ctx, db.holder, all)
	if err != nil {
		return err
	}
	left, err := db.chosen.settle(needs)
	if err != nil {
		return fmt.Errorf("database %s: %w", db.name, err)
	}
	for _, text := range left {
		d.omit(text)
	}
	var missing []string
	for _, r := range all {
		if !r.partition {
			continue
		}
		label, parent := tableLabel(db.name, r.schema, r.name), tableLabel(db.name, r.parents[0].schema, r.parents[0].name)
		switch has, above := db.chosen.relation(r.key()), db.chosen.relation(r.parents[0].key()); {
		case has && !above:
			d.omit("that table " + label + " is a partition of " + parent + ", which the filter leaves out: it is loaded into that where the target has it, else as a table of its own")
		case above && !has:
			missing = append(missing, label)
		}
	}
	if len(missing) > 0 {
		d.omit("partitions of tables that are there, which the filter leaves out: " + few(missing))
	}
	db.relations = db.chosen.relations(all)
	return nil
}
