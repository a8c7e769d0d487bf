// Package trust proves what docs/write-once.md promises, with the policies of deploy/iam, against a real S3 server that
// enforces accounts, policies of buckets, versions and Object Lock: who holds all that a backup pod holds can neither read,
// overwrite, delete nor displace a backup that is there, and who holds the pruner's account cannot destroy one that is locked.
//
// What a server cannot enforce, a test names, and shows what protects the backups in its place.
package trust
