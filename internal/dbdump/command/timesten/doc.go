// Package timesten is the preset of the engine command for TimesTen Classic,
// as its Kubernetes operator runs it: an active standby pair of pods.
//
// Its central type is [Engine]. A dump is what `ttBackup -type streamFull` prints,
// and it counts only when the database itself says, in ttBackupStatus, that a
// backup to a stream began after we asked and ended without an error. It is taken
// from the pod whose database is ACTIVE, or of a database without replication;
// that one can back up a standby is documented nowhere.
//
// A load is `ttRestore -i`. For a pair that the operator manages it is one step of
// several, which [Engine.Replace] asks for.
//
// Sources are the pages of Oracle's documentation of release 22.1 that the
// comments name. Nothing was run against the product: what the documentation
// leaves open is marked as assumed, here and in the stand-in of the tests.
package timesten
