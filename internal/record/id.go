// Package record holds the types of everything that Keepset stores as a
// record: plan, map, refs, commit, config, and the engine's report, together
// with their IDs, validation and signatures. It does no I/O.
package record
