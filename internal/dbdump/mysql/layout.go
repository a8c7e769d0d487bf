package mysql

import (
	"fmt"
	"strings"
)

// Layout is the name of the stream layout that this file describes. A change
// of meaning gets a new number.
//
// Streams, with every element escaped by [escapeElement]:
//
//	users.sql                                 secret: accounts, roles, grants
//	server.sql                                secret: servers, tablespaces, spatial reference systems
//	schemas/<db>/schema.sql                   CREATE DATABASE
//	schemas/<db>/sequences/<name>.sql         CREATE SEQUENCE and its position (MariaDB)
//	schemas/<db>/tables/<name>.sql            CREATE TABLE
//	schemas/<db>/data/<table>/<part>-<n>.tsv  rows
//	schemas/<db>/data/<table>/typed-<part>-<n>.sql  rows that text cannot carry, see below
//	schemas/<db>/views/<name>.sql             CREATE VIEW
//	schemas/<db>/routines/<type>.<name>.sql   procedure, function, package, package_body
//	schemas/<db>/triggers/<table>.<name>.sql  CREATE TRIGGER
//	schemas/<db>/events/<name>.sql            CREATE EVENT
//
// Every .sql stream can be given to the mysql client by itself, with the
// schema of its path as the default database: it sets at its top what it
// needs of the session and restores nothing.
//
// A .tsv stream has the format that LOAD DATA reads by default: fields end in
// a tab, rows in a newline, \N is NULL, and backslash escapes the bytes
// NUL, \b, \n, \r, \t, 0x1a and itself. It is loaded with CHARACTER SET
// binary: the bytes are those of the column's own character set. The fields
// are those of Object.Columns, in that order; generated columns are not among
// them, invisible ones are. <part> is the number of the partition and <n> the
// number of the piece, both with leading zeros, so that names sort in the
// order in which rows should be loaded; the order within a piece is that of
// the primary key. A table without rows has no data stream.
//
// JSON documents of MySQL may hold scalars that JSON text cannot tell apart
// (DECIMAL, DATE, TIME, DATETIME, opaque bytes). Rows with such a document are
// not in the .tsv streams but in typed-<part>-<n>.sql, as INSERT statements whose
// expressions build the document with its types. They count as rows.
const Layout = "mysql/1"

// Encodings of a column in a .tsv stream (record.Column.Encoding).
const (
	// EncodingRaw: the server's own bytes, loaded straight into the column.
	EncodingRaw = ""
	// EncodingHex: upper-case hexadecimal digits of the bytes; load with
	// UNHEX. BIT, GEOMETRY and its kin, and VECTOR.
	EncodingHex = "hex"
	// EncodingDouble: FLOAT and DOUBLE as the shortest decimal that reads
	// back to the same bits; minus zero is "-0". Loaded straight.
	EncodingDouble = "double"
	// EncodingJSON: utf8mb4 text that must arrive as text, not as bytes; load
	// with CONVERT(@v USING utf8mb4). MySQL's JSON; MariaDB's UUID, INET4 and INET6.
	EncodingJSON = "json"
)

// Kinds of objects (record.Object.Kind), in the order in which they are created.
const (
	KindServer   = "server"   // server.sql
	KindUser     = "user"     // one per account or role; DDL is users.sql
	KindSchema   = "schema"   //
	KindSequence = "sequence" // MariaDB
	KindTable    = "table"    //
	KindRoutine  = "routine"  // procedures, functions and packages
	KindView     = "view"     //
	KindTrigger  = "trigger"  //
	KindEvent    = "event"    //
)

// Keys of record.Object.Attributes.
const (
	AttrEngine          = "engine"           // table: storage engine, as information_schema names it
	AttrCharset         = "charset"          // table: its default collation
	AttrPartitioned     = "partitioned"      // table: "yes"
	AttrSystemVersioned = "system_versioned" // table: "history" when the data holds row_start and row_end, "current" when only current rows are there
	AttrAutoIncrement   = "autoincrement"    // table: next value
	AttrStructureOnly   = "structure_only"   // table: why its rows are not in the dump
	AttrTyped           = "typed"            // table: space-separated typed-<part>-<n>.sql streams
	AttrDepends         = "depends"          // view: newline-separated schema.name of what it reads
	AttrBroken          = "broken"           // view: the server's message why it cannot be used
	AttrType            = "type"             // routine: PROCEDURE, FUNCTION, PACKAGE, PACKAGE BODY
	AttrStatus          = "status"           // event: ENABLED, DISABLED, SLAVESIDE_DISABLED
	AttrTable           = "table"            // trigger: its table
	AttrOrder           = "order"            // trigger: position among those of its table, event and time, from 1
	AttrDefiner         = "definer"          // view, routine, trigger, event: user@host
	AttrRole            = "role"             // user: "yes" for a role
)

// Names of the streams that exist once.
const (
	usersStream  = "users.sql"
	serverStream = "server.sql"
)

func schemaStream(db string) string { return "schemas/" + escapeElement(db) + "/schema.sql" }

// objectStream names the stream of a schema's object: folder is "tables",
// "views" and so on; names are joined by dots.
func objectStream(db, folder string, names ...string) string {
	escaped := make([]string, len(names))
	for i, n := range names {
		escaped[i] = escapeElement(n)
	}
	return "schemas/" + escapeElement(db) + "/" + folder + "/" + strings.Join(escaped, ".") + ".sql"
}

// dataStream names one piece of a table's rows.
func dataStream(db, table string, part, n int) string {
	return fmt.Sprintf("schemas/%s/data/%s/%05d-%08d.tsv", escapeElement(db), escapeElement(table), part, n)
}

// typedStream names one piece of a table's rows that are kept as statements.
func typedStream(db, table string, part, n int) string {
	return fmt.Sprintf("schemas/%s/data/%s/typed-%05d-%08d.sql", escapeElement(db), escapeElement(table), part, n)
}

// escapeElement makes one path element of any identifier: bytes other than
// ASCII letters, digits, '_', '-' and '.' become %XX, and so does a leading
// dot. Names that differ, if only by case, stay different; keeping two such
// streams apart is up to the sink.
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
