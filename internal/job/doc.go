// Package job is the order of steps of every job: back up a set, load a
// member, restore a set, seed an ordinal. Nothing else: how a database is
// dumped, where bytes go and what Kubernetes is told stand in the packages
// below, and what the user typed stands in cli.
//
// Its central types are the jobs themselves, [Backup], [Load], [Export] and
// [Restore]: a struct whose fields are what the job needs, with one method
// Run that returns a report of what happened and an error that says how it
// ended. The report is worth reading even when the error is not nil.
//
// What it promises: the inventory is written before a byte is read; a member
// that fails stops no other; nothing is called complete that has no valid
// commit; a doubtful member is committed as suspect and makes the run fail; a
// restore that finds nothing to restore fails and touches nothing.
package job
