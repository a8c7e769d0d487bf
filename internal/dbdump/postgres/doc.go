// Package postgres dumps and loads PostgreSQL servers.
//
// Its central type is [Engine], which implements dbdump.Engine. Definitions are
// what the server's own pg_dump and pg_dumpall say, which nobody knows better;
// they are run where the server runs, or here, by [Programs]. Rows, which are
// nearly all of a dump, travel over the wire protocol, by COPY on several
// connections at once.
//
// A dump is one point in time of each database. In every database a holder
// connection first locks all tables against changes of their definition (ACCESS
// SHARE, which holds up no reader and no writer) and then, as the next thing,
// takes a snapshot that it exports; workers read rows and pg_dump reads
// definitions in that snapshot. The order matters: a table that is truncated or
// rewritten between snapshot and lock reads as empty in the snapshot. All
// snapshots are taken before the first row is read, but PostgreSQL has none that
// spans databases: two databases are some milliseconds apart.
//
// What a program says is believed only when it ended with status 0 and its
// output ends in the line with which the program marks the end.
//
// What is written is SQL that psql runs and text that COPY reads; layout.go says
// where and how. Rows are in the database's own encoding, so no conversion can
// lose any.
//
// The promise: nil means that every object that pg_dump knows of, but for what
// the report names in Omitted, is in the streams as it was at the snapshot.
package postgres
