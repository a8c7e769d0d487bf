// Package altibase is a stand-in for the programs of an Altibase server in a pod
// of the aku guide: server, isql (also as is), aexport, iloader and aku. It is not
// the product: a table is a file of rows, and replication writes into the homes of
// the other pods, which it finds beside its own, as the guide's shared path has them.
//
// From the manuals of 7.3, and for exit statuses the open source of 7.1: that
// errors are printed as [ERR-...] and often end with status 0 (isql after EXIT,
// aexport after a failed export, server always); what aexport writes, and where;
// iloader's 254 and 255; that aku refuses to start twice, that one of a slave whose
// XSN is -1 empties the listed tables and fills them from pod 0, that the master
// refuses when slaves run and its own XSN is lost, that end resets the XSN, and
// clean drops the replications and the flag file.
//
// A server that was created has phases, logs, and files that can be backed up while
// it runs. From the manuals: that this takes archivelog mode, which CREATE does not
// make, that it leaves out temporary files, that a second backup is refused; that a
// recovery is in the phase CONTROL, redoes what logs there are in LOG_DIR and
// ARCHIVE_DIR, and is followed by RESETLOGS; that replications start by themselves
// with the server; that isql -sysdba says that there is none, and goes on. From the
// open source: that a backup begins with a checkpoint and ends with a switch of the log.
//
// Assumed: aku's exit status (0 always), the words of errors, what aexport's
// scripts look like beyond their names and order, what files of the database look
// like, and how a view is printed.
//
// Lies are asked for by LIE in the environment, or a file "lie" in conf: failed,
// silent, nothing, hang (aexport), rejected, error, false-zero, missing, bad (iloader),
// isql-zero (status 0 after an error), isql-silent (no answer, and status 0), backup-full, backup-nothing, backup-short,
// backup-other, unclosed, unarchived, lagging, unkept (ALTER DATABASE BACKUP), stuck (SHUTDOWN),
// no-control (STARTUP), recover, recover-silent (RECOVER), no-service (SERVICE), aku,
// aku-end, aku-clean (it fails, with status 0), aku-silent (it says nothing). A file
// "meanwhile" in conf is a row that a client inserts in the middle of a backup.
package altibase
