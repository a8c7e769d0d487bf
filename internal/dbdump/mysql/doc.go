// Package mysql dumps and loads MySQL and MariaDB servers.
//
// Its central type is [Engine], which implements dbdump.Engine and
// dbdump.Follower over the wire protocol alone: no client program is needed.
//
// A dump is one point in time of the whole server. A coordinator connection
// takes the shortest lock that the server and the account allow, a number of
// worker connections open their consistent reads under it, the replication
// coordinates and everything that is not transactional are read while it
// holds, and then it is let go: writers go on while the workers stream. What
// could move under a consistent read (definitions, non-transactional rows,
// anything at all when no global lock could be had) is either locked, or
// looked at again at the end, and a difference is an error.
//
// What is written is SQL that the mysql client runs and tab-separated text
// that LOAD DATA reads; layout.go says where and how. Values are taken in the
// column's own bytes, so no conversion can lose any.
//
// The promise: nil means that every object that the account can see, but for
// what the report names in Omitted, is in the streams as it was at the
// consistent point, and can be created and filled again bit for bit.
package mysql
