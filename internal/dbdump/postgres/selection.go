package postgres

import (
	"slices"
)

// selection decides which statements of one database's scripts belong to what a
// filter selects. Statements have to be shown to it in their order, since
// indexes are known by their statement only.
type selection struct {
	filter   Filter
	database string
	// owners are the tables that sequences belong to, by schema and name.
	owners map[[2]string][2]string
	// indexes are the tables of indexes and statistics.
	indexes map[[2]string][2]string
}

func newSelection(f Filter, database string) *selection {
	return &selection{filter: f, database: database, owners: map[[2]string][2]string{}, indexes: map[[2]string][2]string{}}
}

// whole tells whether everything of the database is selected.
func (s *selection) whole() bool { return s.filter.WholeDatabase(s.database) }

// wants tells whether a statement belongs to what is selected.
func (s *selection) wants(code []byte, st statement) bool {
	if s.whole() {
		return true
	}
	switch {
	case st.kind == stmtSession:
		return true
	case st.kind == stmtSchema:
		if st.verb == "create" {
			return s.filter.Schema(s.database, st.name)
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

// wantsRelation follows an index, statistics or a sequence to its table.
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
		if table, ok := s.indexes[at]; ok {
			at = table
		}
	case st.kind == stmtSequence:
		if table, ok := s.owners[at]; ok && s.filter.Table(s.database, table[0], table[1]) {
			return true
		}
	}
	return s.filter.Table(s.database, at[0], at[1])
}
