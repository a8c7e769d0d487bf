package mysql

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path"
	"runtime"
	"strings"
	"time"
)

// LockMode says how the consistent point is made.
type LockMode string

// The lock modes. Their recipes stand in lock.go.
const (
	// LockAuto takes the mildest recipe that the server and the account allow.
	LockAuto LockMode = "auto"
	// LockFTWRL is FLUSH TABLES WITH READ LOCK, with LOCK INSTANCE FOR BACKUP on MySQL 8.
	LockFTWRL LockMode = "ftwrl"
	// LockBackupStage is MariaDB's BACKUP STAGE.
	LockBackupStage LockMode = "backup-stage"
	// LockTables is LOCK TABLES ... READ on everything: for accounts that
	// may not lock globally. Drift is looked for and fails the dump.
	LockTables LockMode = "lock-tables"
	// LockNone takes one consistent read on one connection and no lock.
	// Non-transactional tables and drift of definitions fail the dump.
	LockNone LockMode = "none"
)

// NonTransactional says what to do with tables whose engine has no consistent read.
type NonTransactional string

// The policies for non-transactional tables.
const (
	// NonTransactionalLock reads them while the lock is held, within LockHold.
	NonTransactionalLock NonTransactional = "lock"
	// NonTransactionalRefuse fails the dump when there is one with rows to read.
	NonTransactionalRefuse NonTransactional = "refuse"
)

// Options are what an Engine needs to know. The zero value of a field means
// its default.
type Options struct {
	// Address is host:port, or the absolute path of a unix socket.
	Address  string
	User     string
	Password string
	TLS      TLS

	// Workers is how many connections read or load at once. Default: CPUs, at least 2 and at most 8.
	Workers int
	// LockWait bounds how long other sessions' queries may keep the lock
	// from being granted. Default 30 s.
	LockWait time.Duration
	// LockHold bounds how long the lock may be held, which is how long
	// writers wait. Default 60 s.
	LockHold time.Duration
	// LockMode defaults to LockAuto.
	LockMode LockMode
	// NonTransactional defaults to NonTransactionalLock.
	NonTransactional NonTransactional
	// Filter selects what is dumped. Load has its own.
	Filter Filter
	// SkipUsers leaves accounts, roles and grants out of a dump.
	SkipUsers bool
	// AllowStoppingReplica lets a dump of a multi-threaded follower without
	// GTIDs stop its SQL thread while the coordinates are read: there is no
	// other way to have them exact.
	AllowStoppingReplica bool
	// ChunkBytes is the size that a piece of a table aims at, before
	// compression. Default 64 MiB.
	ChunkBytes int64

	// ConnectTimeout bounds dialling and handshake. Default 10 s.
	ConnectTimeout time.Duration
	// ReadTimeout is how long a connection may be silent before the server is
	// asked, over another one, whether it is still at work for it. A statement
	// may take hours; a connection that remains in doubt for as long again is
	// given up. Default 2 min.
	ReadTimeout time.Duration
	// Dial makes the connections where the network does not lead to the servers
	// by itself. Default: a [net.Dialer].
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Programs runs mariadb-backup or xtrabackup, which Copy wants; it may be left out for all else.
	Programs Programs

	Logger *slog.Logger
	// Progress is called from many goroutines, about once per piece, and
	// must not block. Optional.
	Progress func(Progress)

	Load LoadOptions
}

// TLS says how the connection is protected.
type TLS struct {
	// Required refuses a server that does not speak TLS. Implied by the files below.
	Required bool
	// CA, Cert and Key are PEM files; CA replaces the system's roots.
	CA, Cert, Key string
	// SkipVerify encrypts without checking whom one talks to.
	SkipVerify bool
	// ServerName is checked instead of the address's host.
	ServerName string
}

// Progress is what was done since the previous call.
type Progress struct {
	// Schema and Table were worked on; empty for other objects.
	Schema, Table string
	Rows, Bytes   int64
	// Objects finished.
	Objects int
}

// Filter selects objects. A pattern is "schema" or "schema.table", where each
// half may be a glob as path.Match knows it. Empty Include means everything.
// Exclude wins.
type Filter struct {
	Include []string
	Exclude []string
}

// Empty tells whether the filter lets everything pass.
func (f Filter) Empty() bool { return len(f.Include) == 0 && len(f.Exclude) == 0 }

// Schema tells whether anything of the schema may pass.
func (f Filter) Schema(schema string) bool {
	for _, p := range f.Exclude {
		if s, t, _ := cutPattern(p); t == "" && glob(s, schema) {
			return false
		}
	}
	if len(f.Include) == 0 {
		return true
	}
	for _, p := range f.Include {
		if s, _, _ := cutPattern(p); glob(s, schema) {
			return true
		}
	}
	return false
}

// Whole tells whether all of the schema that Exclude does not name passes,
// hence also its routines and events.
func (f Filter) Whole(schema string) bool {
	if !f.Schema(schema) {
		return false
	}
	if len(f.Include) == 0 {
		return true
	}
	for _, p := range f.Include {
		if s, t, _ := cutPattern(p); (t == "" || t == "*") && glob(s, schema) {
			return true
		}
	}
	return false
}

// Table tells whether a table, view or sequence passes.
func (f Filter) Table(schema, table string) bool {
	if !f.Schema(schema) {
		return false
	}
	for _, p := range f.Exclude {
		if s, t, _ := cutPattern(p); t != "" && glob(s, schema) && glob(t, table) {
			return false
		}
	}
	if len(f.Include) == 0 {
		return true
	}
	for _, p := range f.Include {
		if s, t, _ := cutPattern(p); glob(s, schema) && (t == "" || glob(t, table)) {
			return true
		}
	}
	return false
}

func (f Filter) validate() error {
	for _, p := range append(append([]string{}, f.Include...), f.Exclude...) {
		s, t, dotted := cutPattern(p)
		if s == "" || (dotted && t == "") {
			return fmt.Errorf("filter %q: want schema or schema.table", p)
		}
		if _, err := path.Match(s, ""); err != nil {
			return fmt.Errorf("filter %q: %w", p, err)
		}
		if _, err := path.Match(t, ""); err != nil {
			return fmt.Errorf("filter %q: %w", p, err)
		}
	}
	return nil
}

func cutPattern(p string) (schema, table string, dotted bool) { return strings.Cut(p, ".") }

// glob is path.Match for identifiers: a slash is a character like any other.
func glob(pattern, name string) bool {
	if pattern == name {
		return true
	}
	const slash = "\x01"
	ok, err := path.Match(strings.ReplaceAll(pattern, "/", slash), strings.ReplaceAll(name, "/", slash))
	return err == nil && ok
}

// mostWorkers are as many as anybody asks a server to serve at once without being told: each holds a connection, open
// streams and memory, and a large node has many processors.
const mostWorkers = 8

// withDefaults fills what was left open and refuses what cannot be meant.
func (o Options) withDefaults() (Options, error) {
	if o.Address == "" {
		return o, errors.New("no server address given: want host:port or the path of a socket")
	}
	if !strings.HasPrefix(o.Address, "/") {
		if _, _, err := net.SplitHostPort(o.Address); err != nil {
			return o, fmt.Errorf("server address %q: want host:port or the path of a socket", o.Address)
		}
	}
	if o.User == "" {
		return o, errors.New("no user given for " + o.Address)
	}
	if o.Workers <= 0 {
		o.Workers = min(max(2, runtime.GOMAXPROCS(0)), mostWorkers)
	}
	o.LockMode = orDefault(o.LockMode, LockAuto)
	switch o.LockMode {
	case LockAuto, LockFTWRL, LockBackupStage, LockTables, LockNone:
	default:
		return o, fmt.Errorf("unknown lock mode %q: want auto, ftwrl, backup-stage, lock-tables or none", o.LockMode)
	}
	o.NonTransactional = orDefault(o.NonTransactional, NonTransactionalLock)
	switch o.NonTransactional {
	case NonTransactionalLock, NonTransactionalRefuse:
	default:
		return o, fmt.Errorf("unknown policy %q for non-transactional tables: want lock or refuse", o.NonTransactional)
	}
	o.LockWait = orDefault(o.LockWait, 30*time.Second)
	o.LockHold = orDefault(o.LockHold, 60*time.Second)
	o.ChunkBytes = orDefault(o.ChunkBytes, 64<<20)
	o.ConnectTimeout = orDefault(o.ConnectTimeout, 10*time.Second)
	o.ReadTimeout = orDefault(o.ReadTimeout, 2*time.Minute)
	if o.LockWait < time.Second || o.LockHold < time.Second {
		return o, errors.New("lock wait and lock hold must be at least one second")
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

func orDefault[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}
