// Package xtrabackup is a stand-in for Percona's program of that name, which is
// not in Debian, for a MySQL of the tests' version. It is not the product: the
// physical copy of the running server is made by the server itself, which clones
// its data directory (CLONE LOCAL DATA DIRECTORY, whose plugin has to be loaded)
// into --target-dir while all tables are locked, and the log that --prepare of
// the product applies is left to the recovery of the server that starts on the copy.
//
// From the documentation and the open source of 2.4 and 8.0: what --version says;
// that --defaults-file comes first, and holds the password in the group
// [xtrabackup]; that an unknown option is an error (--strict); that the stream is
// xbstream, with the kind S for pages that are not whole; the names of the small
// files in it and the lines of them; that the current binary log is copied up to
// its position, with an index of its own; that --slave-info writes statements by
// channel, with gtid_purged where GTIDs are used; that the last words are
// "completed OK!", on standard error; that --prepare wants full-backuped in
// xtrabackup_checkpoints, makes it full-prepared, and keeps xtrabackup_logfile;
// that without this log the files are those of no server.
//
// Assumed: what xtrabackup_logfile looks like (here an archive of the clone's
// log), the words on standard error, and which pages are sent as S (here those
// that end in zeros).
//
// Lies are asked for by LIE in the environment: silent (all is well, and it does
// not say so), cut (the stream ends in the middle, status 0, and "completed OK!"),
// nothing (not a byte, and the same), failed (status 1 after the whole stream), late
// (the position in the binary log is a later one), version (it is one for 8.0),
// unprepared (--prepare does nothing, with status 0), prepare-failed (it fails).
package xtrabackup
