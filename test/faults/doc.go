// Package faults proves that a fault costs a run and never a backup: whatever the store answers, or whoever else is at work,
// nothing is called good that is not, nothing good is lost, and nothing stays behind that a later prune does not take away.
//
// [town] is a repository in memory with databases, through stores that fail ([weather]). TestStorm tells random stories in
// it, TestHarm breaks its objects, TestTogether has everybody work at once. What may be random comes from a seed, which a
// test prints, and takes from KEEPSET_SEED; with it the story and the weather are the same, though goroutines may meet the
// weather in another order. make test tells a few stories, KEEPSET_SOAK=1 all of them.
package faults
