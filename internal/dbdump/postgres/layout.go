package postgres

import (
	"fmt"
	"strings"
)

// Layout is the name of the stream layout that this file describes. A change
// of meaning gets a new number.
//
// Streams, with every element escaped by [escapeElement]:
//
//	roles.sql                                      secret: roles, memberships, settings of roles
//	tablespaces.sql                                tablespaces
//	databases/<db>/database.sql                    CREATE DATABASE and what is set for it; run in another database
//	databases/<db>/pre-data.sql                    everything that has to be there before rows
//	databases/<db>/data/<schema>/<table>/<n>.copy  rows
//	databases/<db>/large-objects/<n>.copy          content of large objects
//	databases/<db>/sequences.sql                   positions of sequences
//	databases/<db>/post-data.sql                   indexes, constraints, triggers, and what else comes after rows
//
// Pre-data and post-data are secret where they may hold passwords: in a database
// with user mappings or subscriptions.
//
// The .sql streams are what pg_dump and pg_dumpall write, without the lines that
// are commands to psql itself (those that begin with a backslash): there is none
// in any stream, and a dump in which a program writes one that it should not
// fails. They are in the encoding that they set at their top.
//
// A .copy stream has COPY's text format: fields end in a tab, rows in a newline,
// \N is NULL. It is in the database's own encoding (AttrEncoding of its
// database). The fields are those of Object.Columns, in that order; generated
// columns are not among them, identity columns are. <n> is the number of the
// piece, a range of the table's blocks; pieces hold whole rows in the order of
// the blocks. A table without rows has no data stream. Rows of large objects are
// the object's number, the offset, and the bytes at that offset.
const Layout = "postgres/1"

// Kinds of objects (record.Object.Kind), in the order in which they are created.
const (
	KindRole         = "role"          // DDL is roles.sql
	KindTablespace   = "tablespace"    // DDL is tablespaces.sql
	KindDatabase     = "database"      // DDL is its database.sql
	KindExtension    = "extension"     // Attributes have its version
	KindSchema       = "schema"        //
	KindRoutine      = "routine"       // functions, procedures and aggregates; Name has the arguments
	KindSequence     = "sequence"      //
	KindTable        = "table"         // also partitioned ones, which have no rows of their own
	KindView         = "view"          // also materialized ones
	KindForeignTable = "foreign table" // its rows are elsewhere
	KindLargeObjects = "large objects" // one per database that has any
)

// Keys of record.Object.Attributes.
const (
	AttrDatabase  = "database"  // all but roles and tablespaces: the database. Schema is <database>.<schema>
	AttrSchema    = "schema"    // the schema within the database
	AttrPreData   = "pre_data"  // database: stream
	AttrPostData  = "post_data" // database: stream
	AttrPositions = "sequences" // database: stream, absent without sequences
	AttrEncoding  = "encoding"  // database: of its rows
	AttrRoles     = "roles"     // database: newline-separated roles that own or may use something in it
	AttrVersion   = "version"   // extension
	AttrCondition = "condition" // table of an extension: which rows are the user's, as a WHERE clause
	AttrRoot      = "root"      // partition whose rows are given to its topmost parent: that one's name, quoted
	// AttrPartitionOf and AttrBound are those of a partition, whether the tables
	// above it are in the dump or not: with them a partition that comes back
	// alone is attached.
	AttrPartitionOf = "partition_of" // table: the tables above a partition, the nearest first, quoted, with commas
	AttrBound       = "bound"        // table: what ATTACH PARTITION says behind its name

	AttrOwnedBy = "owned_by" // sequence: schema.table of the column that owns it, quoted
	AttrKind    = "kind"     // table: "partitioned" for one without rows of its own
	AttrPoint   = "point"    // database: the server's clock at its snapshot
	AttrPartial = "partial"  // database: "yes" when the dump's filter has left out some of it
	AttrNoRows  = "no_rows"  // table: why its rows are not in the dump
)

// Names of the streams that exist once.
const (
	rolesStream       = "roles.sql"
	tablespacesStream = "tablespaces.sql"
)

// databaseStream names one of the streams that each database has one of.
func databaseStream(db, name string) string { return "databases/" + escapeElement(db) + "/" + name }

// dataStream names one piece of a table's rows.
func dataStream(db, schema, table string, n int) string {
	return fmt.Sprintf("databases/%s/data/%s/%s/%06d.copy", escapeElement(db), escapeElement(schema), escapeElement(table), n)
}

// largeObjectStream names one piece of the large objects.
func largeObjectStream(db string, n int) string {
	return fmt.Sprintf("databases/%s/large-objects/%06d.copy", escapeElement(db), n)
}

// escapeElement makes one path element of any identifier: bytes other than
// ASCII letters, digits, '_', '-' and '.' become %XX, and so does a leading dot.
func escapeElement(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// quoteIdentifier makes an identifier that means this name and no other.
func quoteIdentifier(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// quoteQualified is schema.name, both quoted.
func quoteQualified(schema, name string) string {
	return quoteIdentifier(schema) + "." + quoteIdentifier(name)
}

// quoteNames is a list of qualified names, which unquoteNames reads.
func quoteNames(names [][2]string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = quoteQualified(n[0], n[1])
	}
	return strings.Join(quoted, ", ")
}

// unquoteNames reads a list of qualified names.
func unquoteNames(list string) [][2]string {
	var names [][2]string
	for tokens := tokensOf([]byte(list), len(list)); len(tokens) >= 3; tokens = tokens[min(4, len(tokens)):] {
		names = append(names, [2]string{tokens[0].text, tokens[2].text})
	}
	return names
}

// quoteString makes a literal that means these bytes whatever
// standard_conforming_strings is.
func quoteString(s string) string {
	s = strings.ReplaceAll(s, "'", "''")
	if strings.Contains(s, `\`) {
		return " E'" + strings.ReplaceAll(s, `\`, `\\`) + "'"
	}
	return "'" + s + "'"
}
