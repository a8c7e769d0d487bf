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
// Assumed: aku's exit status (0 always), the words of errors, and what aexport's
// scripts look like beyond their names and order.
//
// Lies are asked for by LIE in the environment, or a file "lie" in conf: failed,
// silent, nothing, hang (aexport), rejected, error, false-zero, missing, bad (iloader), aku
// (it fails to start, with status 0).
package altibase
