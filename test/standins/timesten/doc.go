// Package timesten is a stand-in for a pod of TimesTen Classic under Oracle's
// operator: the programs of an instance, which `ttenv` runs ([Programs]), and the
// agent that the operator speaks to ([Serve]). It is not the product, and knows
// one database, sample, with one table, scott.emp.
//
// From the documentation of 22.1 and 18.1: the programs, their options and what
// they refuse; the columns of ttBackupStatus; that a connection makes a database
// that is not there unless AutoCreate=0; that a restore never overwrites, that one
// that was cut off leaves what needs ttDestroy, and that a restored database has
// its old replication scheme and the RAM policy inUse; that ttDestroy refuses
// while the database is loaded or an agent runs.
//
// Assumed, because it is documented nowhere: exit statuses; the text of errors but
// for their numbers; that ttIsql ends with status 0 after a statement failed; the
// form of the stream, and that nothing but its end shows that it is whole; how the
// agent and the operator speak.
//
// Lies are asked for by a file "lie" beside the database, or LIE in the
// environment: half (an error after half a stream), half-zero (the same with
// status 0), stale, duplicate, unfinished (status 0, and ttBackupStatus tells of
// another backup), asleep; busy (clients that are not thrown out), undestroyed
// (ttDestroy fails).
package timesten
