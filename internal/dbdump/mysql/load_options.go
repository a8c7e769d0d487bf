package mysql

import (
	"fmt"
	"maps"
	"slices"
)

// AccountPolicy says what a load does with the accounts, roles and grants of the dump.
type AccountPolicy string

// The account policies.
const (
	// AccountsSkip leaves them alone. The default, but for a follower.
	AccountsSkip AccountPolicy = "skip"
	// AccountsKeep creates those that the target does not have; the others stay as they are, with the grants they have.
	AccountsKeep AccountPolicy = "keep"
	// AccountsReplace makes the dump's accounts what they are there: an account of the same name is dropped first.
	// For a Seed, which becomes what was backed up and may get whatever an upstream does to its accounts, those that
	// the dump lacks are dropped as well. Kept are the account that the load itself uses, and those whose secret lies on the
	// target's volume. The default for a follower.
	AccountsReplace AccountPolicy = "replace"
)

// RowMethod says how rows travel.
type RowMethod string

// The row methods.
const (
	// RowsAuto is RowsLoadData where the server allows it, RowsInsert elsewhere.
	RowsAuto RowMethod = "auto"
	// RowsLoadData is LOAD DATA LOCAL. Needs local_infile on the server.
	RowsLoadData RowMethod = "load-data"
	// RowsInsert is INSERT with many rows each. Works everywhere, slower.
	RowsInsert RowMethod = "insert"
)

// LoadOptions say how a dump is loaded. The zero value loads everything but accounts, and only into an empty server.
type LoadOptions struct {
	// Replace drops what the backup holds and the target has as well: the selected databases, or with a filter on
	// tables exactly those tables. Other databases stay, but for those of a Seed. Without it, a target that holds data
	// is refused.
	Replace bool
	// Accounts says what happens to accounts, roles and grants.
	Accounts AccountPolicy
	// Follower prepares a server that will follow another one: nothing is written to its binary log, events are
	// created as a follower needs them, accounts are loaded, and read_only is lifted for as long as the load takes.
	Follower bool
	// SkipBinlog keeps the load out of the target's binary log, so that it does not reach the target's own followers.
	SkipBinlog bool
	// Seed says that the target is a server on a new volume, which holds only what its image has put there: all of
	// that makes room, also databases and accounts that the backup does not hold. Such a database with rows in it is
	// refused without Replace: perhaps the volume is not new.
	Seed bool
	// Isolated refuses a server that follows another, has followers, or is a member of a group: what is loaded would
	// reach the others, or theirs would arrive in the middle of it. A Follower always is.
	Isolated bool
	// Copied says, for Adopt, that the server's files were copied without its binary logs (Copy), so that its own position
	// is where the record says, and nowhere else.
	Copied bool
	// DataDirectory is, for Adopt, where the server has to have its files, which were brought there; empty: anywhere.
	DataDirectory string
	// SilentEvents creates events as a follower has them, so that none runs: in a drill, what they do to the data would
	// look like damage, and what they do elsewhere has been done by the server that was dumped.
	SilentEvents bool
	// Filter selects databases and tables, by their names in the dump.
	Filter Filter
	// Rename maps names of databases in the dump to names on the target.
	Rename map[string]string
	// Rows defaults to RowsAuto.
	Rows RowMethod
}

// withDefaults fills what was left open and refuses what cannot be meant.
func (o LoadOptions) withDefaults() (LoadOptions, error) {
	if o.Accounts == "" {
		o.Accounts = AccountsSkip
		if o.Follower {
			o.Accounts = AccountsReplace
		}
	}
	switch o.Accounts {
	case AccountsSkip, AccountsKeep, AccountsReplace:
	default:
		return o, fmt.Errorf("unknown policy %q for accounts: want skip, keep or replace", o.Accounts)
	}
	o.Rows = orDefault(o.Rows, RowsAuto)
	switch o.Rows {
	case RowsAuto, RowsLoadData, RowsInsert:
	default:
		return o, fmt.Errorf("unknown row method %q: want auto, load-data or insert", o.Rows)
	}
	if o.Seed && (len(o.Rename) > 0 || !o.Filter.Empty()) {
		return o, fmt.Errorf("a seed becomes what was backed up: load it without filter and rename")
	}
	if o.Follower && (len(o.Rename) > 0 || !o.Filter.Empty()) {
		return o, fmt.Errorf("a follower holds all that its upstream holds: load it without filter and rename")
	}
	seen := make(map[string]string, len(o.Rename))
	for _, old := range slices.Sorted(maps.Keys(o.Rename)) {
		name := o.Rename[old]
		if old == "" || name == "" {
			return o, fmt.Errorf("rename %q=%q: want old=new", old, name)
		}
		if other, ok := seen[name]; ok {
			return o, fmt.Errorf("rename %q=%q: %q is already what %q becomes", old, name, name, other)
		}
		if isSystemSchema(old) || isSystemSchema(name) {
			return o, fmt.Errorf("rename %q=%q: system schemas cannot be renamed or loaded into", old, name)
		}
		seen[name] = old
	}
	return o, o.Filter.validate()
}

// target returns the name that a database of the dump has on the target.
func (o LoadOptions) target(schema string) string {
	if name, ok := o.Rename[schema]; ok {
		return name
	}
	return schema
}
