// Package dbdump says what a database engine must do for Keepset: dump its
// content into named streams, and load such streams back.
//
// Its central type is [Engine]. An engine talks to one server and knows
// nothing of repositories, Kubernetes or object storage: it is handed a
// [Sink] to write to and a [Source] to read from. What it has to say of a dump
// apart from the bytes is a [record.Report].
//
// The promise that everything else rests on: Dump returns nil only if every
// stream was written whole and closed, and the streams together are one
// consistent state of the server. Any doubt is an error.
package dbdump

import (
	"context"
	"errors"
	"io"
	"time"

	"keepset/internal/record"
)

// Sentinels that callers decide on (exit codes, retries). They arrive wrapped.
var (
	// ErrUnreachable: no connection to the server could be made.
	ErrUnreachable = errors.New("server unreachable")
	// ErrUntrusted: the server's certificate comes from nobody who is trusted, or bears another name.
	ErrUntrusted = errors.New("server's certificate is not trusted")
	// ErrAccess: the server refuses the account or its password.
	ErrAccess = errors.New("access denied by the server")
	// ErrPrivilege: the account lacks a privilege that the dump or load needs.
	ErrPrivilege = errors.New("privilege missing")
	// ErrLockTimeout: the consistent point could not be had within the bound.
	ErrLockTimeout = errors.New("lock not obtained in time")
	// ErrDrift: the server changed during a dump that could not lock it.
	ErrDrift = errors.New("server changed during the dump")
	// ErrNotEmpty: the target already holds data and replacing was not asked for.
	ErrNotEmpty = errors.New("target is not empty")
	// ErrSelection: what is selected cannot be without something that is not.
	ErrSelection = errors.New("the selection lacks something that belongs to it")
	// ErrMismatch: what was loaded is not what was dumped.
	ErrMismatch = errors.New("loaded data differs from the backup")
	// ErrCoordinates: replication cannot continue from the recorded point.
	ErrCoordinates = errors.New("replication cannot continue from the recorded coordinates")
	// ErrForeign: another engine wrote the backup.
	ErrForeign = errors.New("backup of another engine")
	// ErrNotFollowing: a server that is made to follow another one does not, or not yet.
	ErrNotFollowing = errors.New("server does not follow")
)

// Engine dumps and loads one database server. Values are not reused: one
// Dump or one Load each.
type Engine interface {
	// Dump opens as many named streams on w as it likes, concurrently, and
	// returns nil only if the dump is complete and consistent.
	Dump(ctx context.Context, w Sink) (record.Report, error)
	// Load brings the streams of a dump back, compares what arrived with
	// what r.Report() recorded (row counts at least), and reports what it did.
	Load(ctx context.Context, r Source) (record.Report, error)
}

// Follower is the power of an engine whose servers replicate: a loaded
// server is made to follow an upstream from recorded coordinates.
type Follower interface {
	// Check asks the upstream, before anything is destroyed, whether
	// replication can continue from c. ErrCoordinates when the logs that it
	// needs have been purged or the upstream is behind c.
	Check(ctx context.Context, c record.Coordinates, up Upstream) error
	// Admits asks both servers, before anything is loaded, whether the
	// upstream would take this one in: that no other follower of it has the
	// same identity. It waits a bounded time for one that is about to go.
	Admits(ctx context.Context, up Upstream) error
	// Follow cleans the server's identity, applies c, starts replication and
	// returns once the server has caught up with the position the upstream
	// had when Follow was called.
	Follow(ctx context.Context, c record.Coordinates, up Upstream) error
	// Shutdown stops the server cleanly through SQL.
	Shutdown(ctx context.Context) error
}

// Leader is the power of an engine whose servers replicate: a loaded server is
// made the head of a replication tree of its own.
type Leader interface {
	// Lead takes the server's replication history away and has it continue
	// from c, the coordinates of the dump that it was loaded with.
	Lead(ctx context.Context, c record.Coordinates) error
	// Origin returns where a server that was loaded with the same dump begins
	// to follow up, on which Lead was called with c. ErrCoordinates when
	// what came since has been purged.
	Origin(ctx context.Context, c record.Coordinates, up Upstream) (record.Coordinates, error)
}

// Quiescer is the power of an engine whose server can be held still for as
// long as its volumes are being cut.
type Quiescer interface {
	// Quiesce holds writers up, reads the coordinates, calls cut, and lets
	// writers go again, whatever cut returned. The hold is never longer than
	// bound: then cut's context ends, and so it does when the hold is lost;
	// either is an error, whatever cut returned. The hold ends with the
	// process and, a bounded time later, with its node. The report has the
	// time and length of the hold, the coordinates, the consistency, and of
	// the content no more than the names of schemas and tables.
	Quiesce(ctx context.Context, bound time.Duration, cut func(context.Context) error) (record.Report, error)
}

// ConsistencyCommand is the consistency of a member whose server was held still
// by a command: nobody has looked inside, so that neither its content nor its
// coordinates are known.
const ConsistencyCommand = "command"

// Adopter is the power of an engine whose servers run on a copy of another
// server's files.
type Adopter interface {
	// Adopt is called once on a server that has come up on a copy of the files
	// of the one that c was recorded of, and has not yet replicated anything.
	// It takes the other one's replication and identity off it, does with its
	// events what becomes of it, and returns where replication continues, as
	// the files say: c, or what came after it. ErrCoordinates when the files
	// are older than c, or when the server has moved on since it came up.
	Adopt(ctx context.Context, c record.Coordinates) (record.Coordinates, error)
}

// FileChecker is the power of an Adopter that knows on which files its server may run.
type FileChecker interface {
	// CheckFiles is called before Adopt with the report of the backup that the
	// files come from. ErrMismatch when the server is not one for them.
	CheckFiles(ctx context.Context, r record.Report) error
}

// Prober asks a server simple questions.
type Prober interface {
	// Ping returns nil once the server takes our account.
	Ping(ctx context.Context) error
	// Replicates says whether the server is set up to follow another one.
	Replicates(ctx context.Context) (bool, error)
}

// Definer is the power of an engine whose servers write one and the same
// definition in several ways.
type Definer interface {
	// Canonical returns a definition of a dump as it is compared with another
	// one of a server of the same version.
	Canonical(definition []byte) []byte
}

// Asker answers questions in the server's own language.
type Asker interface {
	// Ask runs one query that only reads, and returns the first column of its
	// first row as text. Null: it was NULL, or there was no row.
	Ask(ctx context.Context, query string) (answer string, null bool, err error)
}

// Upstream is the server that a follower follows, as the follower sees it.
type Upstream struct {
	Host     string
	Port     int
	User     string
	Password string
	// TLS asks the follower to use an encrypted connection.
	TLS bool
	// CA is the file, on the follower's own machine, with the authorities that
	// the upstream's certificate has to come from, in the upstream's name.
	// With TLS and without CA nothing is checked.
	CA string
}

// StreamOptions describe one stream to the sink.
type StreamOptions struct {
	// Secret streams (grants, password hashes) get unguessable chunk names
	// and are never deduplicated.
	Secret bool
}

// Sink takes the streams of a dump. Names are unique within a dump, valid
// UTF-8, slash-separated like file paths; the engine escapes what it puts into
// a path element. Create is safe for concurrent use; so are different streams.
type Sink interface {
	Create(ctx context.Context, name string, opts StreamOptions) (Stream, error)
}

// Stream is one stream being written. Exactly one of Close and Abort ends it.
// Close returns nil only if everything written was accepted. Abort discards
// the stream, and with it the whole dump: the error it is given becomes the
// reason.
type Stream interface {
	io.Writer
	Close() error
	Abort(err error)
}

// Source gives back the streams of a dump. Open is safe for concurrent use.
// The reader ends with io.EOF only after the whole stream has been delivered
// and its checksum has matched.
type Source interface {
	Report() record.Report
	Open(ctx context.Context, name string) (io.ReadCloser, error)
}
