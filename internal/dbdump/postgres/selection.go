package postgres

import (
	"slices"
)

// selection decides which relations of one database, and which statements of its
// scripts, belong to what a filter selects. Statements have to be shown to it in
// their order, since indexes are known by their statement only.
type selection struct {
	filter   Filter
	database string
	// above are the tables that a partition is a part of, by schema and name.
	above map[[2]string][][2]string
	// owners are the tables that sequences belong to.
	owners map[[2]string][2]string
	// schemas hold what is selected though they are not: partitions of tables in
	// other schemas, and what comes along.
	schemas map[string]bool
	// along comes with what needs it, and without is left out with what it needs,
	// whatever the filter says: see settle.
	along, without map[thing]bool
	// indexes are the tables of indexes and statistics.
	indexes map[[2]string][2]string
}

func newSelection(f Filter, database string) *selection {
	return &selection{
		filter: f, database: database, above: map[[2]string][][2]string{}, owners: map[[2]string][2]string{},
		schemas: map[string]bool{}, indexes: map[[2]string][2]string{},
		along: map[thing]bool{}, without: map[thing]bool{},
	}
}

// chosenOf is the selection among all relations of a database.
func chosenOf(f Filter, database string, all []*relation) *selection {
	s := newSelection(f, database)
	for _, r := range all {
		s.know(r.key(), r.above(), r.ownedBy)
	}
	return s
}

// know takes note of whom a relation belongs to.
func (s *selection) know(at [2]string, above [][2]string, owner [2]string) {
	if len(above) > 0 {
		s.above[at] = above
		if s.relation(at) {
			s.schemas[at[0]] = true
		}
	}
	if owner[1] != "" {
		s.owners[at] = owner
	}
}

// whole tells whether everything of the database is selected.
func (s *selection) whole() bool { return s.filter.WholeDatabase(s.database) }

// relation tells whether a relation is selected. A partition is a part of the
// tables above it, and the sequence of a column a part of its table.
func (s *selection) relation(at [2]string) bool {
	if s.without[thing{aRelation, at[0], at[1]}] {
		return false
	}
	if table, ok := s.owners[at]; ok {
		return s.relation(table)
	}
	return s.filter.partition(s.database, at, s.above[at])
}

// relations are those that are selected.
func (s *selection) relations(all []*relation) []*relation {
	return slices.DeleteFunc(slices.Clone(all), func(r *relation) bool { return !s.relation(r.key()) })
}

// schema tells whether anything in a schema is selected.
func (s *selection) schema(name string) bool {
	return s.schemas[name] || s.filter.Schema(s.database, name)
}

// wants tells whether a statement belongs to what is selected.
func (s *selection) wants(code []byte, st statement) bool {
	if s.whole() {
		return true
	}
	about := thing{classOf(st.kind), st.schema, st.name}
	switch {
	case st.kind == stmtSession, s.along[about]:
		return true
	case s.without[about]:
		return false
	case st.kind == stmtSchema:
		if st.verb == "create" {
			return s.schema(st.name)
		}
		return s.filter.WholeSchema(s.database, st.name)
	case slices.Contains(relational, st.kind) && st.schema != "":
		return s.wantsRelation(code, st)
	case st.schema == "" || st.verb == "select" || outside(st.kind):
		return s.filter.Loose(s.database)
	default:
		return s.filter.WholeSchema(s.database, st.schema)
	}
}

// outside tells kinds that are in no schema though their statements name what is.
func outside(kind string) bool {
	return slices.Contains([]string{
		"publication", "subscription", "event trigger", "extension", "cast", "language", "server", "user mapping", "large object",
		"access method", "foreign data", "transform", stmtDefaults,
	}, kind)
}

// wantsRelation follows an index or statistics to its table. What makes one
// table or index a part of another one needs both.
func (s *selection) wantsRelation(code []byte, st statement) bool {
	at := [2]string{st.schema, st.name}
	switch {
	case st.kind == stmtIndex && st.verb == "create":
		s.indexes[[2]string{st.schema, indexName(code)}] = at
	case st.kind == "table" && st.verb == "alter":
		if name := constraintName(code); name != "" {
			s.indexes[[2]string{st.schema, name}] = at
		}
	case st.kind == stmtStats && st.parent != "":
		s.indexes[at] = [2]string{st.schema, st.parent}
		at[1] = st.parent
	case st.kind == stmtIndex || st.kind == stmtStats:
		at = s.tableOf(at)
	}
	part, ok := attached(code)
	if st.kind == stmtIndex {
		part = s.tableOf(part)
	}
	return s.relation(at) && (!ok || st.verb != "alter" || s.relation(part))
}

// tableOf is the table of an index or of statistics, where it is known.
func (s *selection) tableOf(at [2]string) [2]string {
	if table, ok := s.indexes[at]; ok {
		return table
	}
	return at
}
