// Package servers starts real servers for tests: MariaDB, MySQL and an S3 server.
//
// Each server is a subprocess of the test, listens on a free port of the loopback interface, keeps its data in the
// test's temporary folder and is stopped when the test ends. The kernel kills it when the test process dies, however
// that happens, so that nothing outlives a test run. Nothing is shared between two servers but the read-only programs.
//
// [MySQL] is the central type: a running MariaDB or MySQL server with its address, its administrator's password and
// the calls that a test of a backup tool wants: stop it, kill it, start it again on the same address. [S3Server] is
// its counterpart for object storage.
//
// The programs come from a cache outside the checkout, which `make servers` fills; a test on a machine without it
// fails and says so, it is never skipped. A server starts in about a second: its empty database is built once,
// kept in the cache and copied for each server.
//
// The functions with a testing.TB fail the test. The Start functions return errors instead, for programs like the
// demo that start the same servers outside a test.
package servers
