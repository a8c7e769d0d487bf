// Package statefulset is all that Keepset knows of Kubernetes: which members a
// set has, who may touch them, and how an ordinal's volumes are filled before
// its pod first starts.
//
// Its central type is [Client], bound to one namespace. [Client.Discover]
// reads a set and says of every ordinal what is there and what is missing.
// [Client.Acquire] takes the set's Lease, by which backups and restores keep
// out of each other's way. [Client.NewSeed] makes a [Seed]: the pod that holds
// an ordinal's name and identity while its database is being filled.
//
// The promise of a [Seed] is that the controller never starts the real pod on
// a claim whose content is not whole. It rests on three properties of
// Kubernetes, each observed on a real cluster:
//
//   - The controller cannot create a pod whose name is taken. The seed pod
//     therefore bears the ordinal's own name and a finalizer: deleting it, its
//     Job, or its node leaves the name taken.
//   - The controller does not create a pod while one of its claims is
//     Terminating. A finalizer on a deleted claim thus bridges the moment at
//     which the name has to change hands.
//   - A pod without the set's labels is neither adopted by the controller nor
//     selected by a Service.
//
// Everything that has to survive a killed process is written to the objects
// themselves, as finalizers and annotations: see names.go. [Client.Leftovers]
// reads them back, [Client.Abort] cleans them up.
//
// The package states facts and makes changes; it never decides the order of a
// restore. It knows nothing of databases, repositories or storage. No right on
// PersistentVolumes or on nodes is used anywhere.
package statefulset
