package postgres

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path"
	"runtime"
	"strings"
	"time"

	"keepset/internal/record"
)

// Options are what an Engine needs to know. The zero value of a field means
// its default.
type Options struct {
	// Address is host:port.
	Address  string
	User     string
	Password string
	TLS      TLS

	// Workers is how many connections read or load at once. Default: CPUs, at least 2.
	Workers int
	// LockWait bounds how long the dump waits for its locks on tables, which
	// wait for changes of definitions that are under way. Default 30 s.
	LockWait time.Duration
	// Filter selects what is dumped. Load has its own.
	Filter Filter
	// SkipRoles leaves roles and tablespaces out of a dump.
	SkipRoles bool
	// ChunkBytes is the size of a piece of a table in the server's own files.
	// Default 64 MiB.
	ChunkBytes int64
	// ConnectTimeout bounds dialling and handshake. Default 10 s.
	ConnectTimeout time.Duration
	// Programs runs pg_dump and pg_dumpall. Default: those of this machine, see Local.
	Programs Programs

	Logger *slog.Logger
	Load   LoadOptions
}

// RolePolicy says what a load does with the roles of the dump.
type RolePolicy string

// The role policies.
const (
	// RolesSkip leaves them alone: those that own or may use something have to
	// be there already. The default.
	RolesSkip RolePolicy = "skip"
	// RolesKeep creates those that the target does not have; the others stay as they are.
	RolesKeep RolePolicy = "keep"
	// RolesReplace also gives those that the target has the password, the
	// attributes and the settings of the dump, but for the role that the load
	// itself uses. Memberships are added, none is taken away.
	RolesReplace RolePolicy = "replace"
)

// LoadOptions say how a dump is loaded. The zero value loads all databases into
// a server that holds none of them.
type LoadOptions struct {
	// Replace drops what the backup holds and the target has as well: the
	// selected databases, or with a filter on schemas or tables exactly those
	// tables. Without it, a target that holds data is refused.
	Replace bool
	// Roles says what happens to roles.
	Roles RolePolicy
	// Filter selects databases, schemas and tables, by their names in the dump.
	Filter Filter
	// Rename maps names of databases in the dump to names on the target.
	Rename map[string]string
}

// Filter selects objects. A pattern is "database", "database.schema" or
// "database.schema.table", where each part may be a glob as path.Match knows it.
// Empty Include means everything. Exclude wins.
type Filter struct {
	Include []string
	Exclude []string
}

// Empty tells whether the filter lets everything pass.
func (f Filter) Empty() bool { return len(f.Include) == 0 && len(f.Exclude) == 0 }

// Database tells whether anything of the database may pass.
func (f Filter) Database(db string) bool {
	return !covers(f.Exclude, db) && touches(f.Include, 1, db)
}

// Loose tells whether what is in no schema of the database passes: extensions,
// large objects, publications and so on.
func (f Filter) Loose(db string) bool {
	return f.Database(db) && (len(f.Include) == 0 || covers(f.Include, db))
}

// WholeDatabase tells whether all of the database passes.
func (f Filter) WholeDatabase(db string) bool { return f.Loose(db) && !matchesBelow(f.Exclude, db) }

// Schema tells whether anything of the schema may pass.
func (f Filter) Schema(db, schema string) bool {
	return !covers(f.Exclude, db, schema) && touches(f.Include, 2, db, schema)
}

// WholeSchema tells whether what is not a relation passes with the schema:
// functions, types and so on.
func (f Filter) WholeSchema(db, schema string) bool {
	return f.Schema(db, schema) && (len(f.Include) == 0 || covers(f.Include, db, schema))
}

// Table tells whether a relation passes.
func (f Filter) Table(db, schema, table string) bool {
	return f.partition(db, [2]string{schema, table}, nil)
}

// partition tells whether a relation passes that is a partition of those above
// it: it is a part of each of them, and comes and goes with it.
func (f Filter) partition(db string, at [2]string, above [][2]string) bool {
	included := false
	for _, name := range append([][2]string{at}, above...) {
		if covers(f.Exclude, db, name[0], name[1]) {
			return false
		}
		included = included || touches(f.Include, 3, db, name[0], name[1])
	}
	return included
}

// Object tells whether anything of an object of a report passes. The scripts of
// a database pass with anything in it.
func (f Filter) Object(o record.Object) bool {
	db, schema := o.Attributes[AttrDatabase], o.Attributes[AttrSchema]
	switch o.Kind {
	case KindDatabase:
		return f.Database(db)
	case KindExtension, KindLargeObjects:
		return f.Loose(db)
	case KindSchema:
		return f.Schema(db, schema)
	case KindRoutine:
		return f.WholeSchema(db, schema)
	default:
		return f.partition(db, [2]string{schema, o.Name}, unquoteNames(o.Attributes[AttrPartitionOf]))
	}
}

// covers tells whether a pattern names the object or what it is in.
func covers(patterns []string, names ...string) bool {
	for _, p := range patterns {
		parts := strings.SplitN(p, ".", 3)
		if len(parts) <= len(names) && matchAll(parts, names) {
			return true
		}
	}
	return false
}

// touches tells whether a pattern names the object, what it is in, or something in it.
func touches(patterns []string, depth int, names ...string) bool {
	for _, p := range patterns {
		parts := strings.SplitN(p, ".", 3)
		if matchAll(parts[:min(len(parts), depth)], names) {
			return true
		}
	}
	return len(patterns) == 0
}

// matchesBelow tells whether a pattern names something in the database.
func matchesBelow(patterns []string, db string) bool {
	for _, p := range patterns {
		parts := strings.SplitN(p, ".", 3)
		if len(parts) > 1 && glob(parts[0], db) {
			return true
		}
	}
	return false
}

func matchAll(patterns, names []string) bool {
	for i, p := range patterns {
		if !glob(p, names[i]) {
			return false
		}
	}
	return true
}

// glob is path.Match for identifiers: a slash is a character like any other.
func glob(pattern, name string) bool {
	if pattern == name {
		return true
	}
	const slash = "\x01"
	ok, err := path.Match(strings.ReplaceAll(pattern, "/", slash), strings.ReplaceAll(name, "/", slash))
	return err == nil && ok
}

func (f Filter) validate() error {
	for _, p := range append(append([]string{}, f.Include...), f.Exclude...) {
		for part := range strings.SplitSeq(p, ".") {
			if part == "" {
				return fmt.Errorf("filter %q: want database, database.schema or database.schema.table", p)
			}
		}
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("filter %q: %w", p, err)
		}
	}
	return nil
}

// withDefaults fills what was left open and refuses what cannot be meant.
func (o Options) withDefaults() (Options, error) {
	if host, _, err := net.SplitHostPort(o.Address); err != nil || host == "" {
		return o, fmt.Errorf("server address %q: want host:port", o.Address)
	}
	if o.User == "" {
		return o, errors.New("no user given for " + o.Address)
	}
	if strings.ContainsAny(o.Password, "\r\n\x00") {
		return o, fmt.Errorf("the password of %s has a line break or a zero byte in it, which PostgreSQL's programs cannot be given", o.User)
	}
	if o.Workers <= 0 {
		o.Workers = max(2, runtime.GOMAXPROCS(0))
	}
	o.LockWait = orDefault(o.LockWait, 30*time.Second)
	o.ChunkBytes = orDefault(o.ChunkBytes, 64<<20)
	o.ConnectTimeout = orDefault(o.ConnectTimeout, 10*time.Second)
	if o.Programs == nil {
		o.Programs = Local{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	var err error
	if o.Load, err = o.Load.withDefaults(); err != nil {
		return o, err
	}
	return o, o.Filter.validate()
}

func (o LoadOptions) withDefaults() (LoadOptions, error) {
	o.Roles = orDefault(o.Roles, RolesSkip)
	switch o.Roles {
	case RolesSkip, RolesKeep, RolesReplace:
	default:
		return o, fmt.Errorf("unknown policy %q for roles: want skip, keep or replace", o.Roles)
	}
	seen := map[string]string{}
	for old, name := range o.Rename {
		if old == "" || name == "" {
			return o, fmt.Errorf("rename %q=%q: want old=new", old, name)
		}
		if other, ok := seen[name]; ok {
			return o, fmt.Errorf("rename: %q and %q cannot both become %q", old, other, name)
		}
		if name == "template0" || name == "template1" {
			return o, fmt.Errorf("rename %q=%q: that is a database of the server's own", old, name)
		}
		seen[name] = old
	}
	return o, o.Filter.validate()
}

// target returns the name that a database of the dump has on the target.
func (o LoadOptions) target(db string) string {
	if name, ok := o.Rename[db]; ok {
		return name
	}
	return db
}

func orDefault[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}
