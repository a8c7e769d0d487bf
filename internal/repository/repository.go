// Package repository keeps backups in a store: it cuts streams into chunks,
// stores each chunk once, and gives every stream back exactly as it was, or an
// error.
//
// Its central type is [Repository]. [Repository.Begin] starts a [Backup], whose
// [MemberWriter] takes the streams of one member; [Repository.Resolve] finds a
// backup again and [Repository.OpenMember] reads its streams.
//
// What it promises:
//
//   - A member counts only once its commit is stored, and the commit is stored
//     only after a listing has shown every object it needs, in its right size.
//     A crash at any point leaves objects nobody refers to, never a lie.
//   - Every byte that is read back has been compared with the SHA-256 of its
//     chunk. A mismatch is an error naming the stream, the pack and the backup.
//   - The writer of an encrypted repository cannot read what it wrote.
//   - Memory is bounded whatever the volume's size; see [Options].
//   - Nothing is ever changed, and only [Repository.Prune] and
//     [Repository.Unpin] delete.
//
// The format is described in docs/format.md; layout.go owns every key.
package repository

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"runtime"
	"time"

	"keepset/internal/record"
	"keepset/internal/storage"
)

// Sentinels that callers decide on; they arrive wrapped, with what to do in
// the text.
var (
	// ErrExists: there is a repository already.
	ErrExists = errors.New("repository already exists")
	// ErrNotRepository: nothing here says that this is one.
	ErrNotRepository = errors.New("not a keepset repository")
	// ErrNewerFormat: this program is too old for it.
	ErrNewerFormat = record.ErrNewerFormat
	// ErrWrongKey: a key was given that does not fit the repository.
	ErrWrongKey = errors.New("key does not fit the repository")
	// ErrNoKey: writing needs a key that was not given.
	ErrNoKey = errors.New("key missing for writing")
	// ErrNoIdentity: reading needs the restore identity.
	ErrNoIdentity = errors.New("restore identity missing")
	// ErrNoTrusted: the repository is signed and no trusted key was given.
	ErrNoTrusted = errors.New("no trusted writer key to check signatures with")
	// ErrOrigin: the set's keys belong to another cluster's set.
	ErrOrigin = errors.New("set belongs to another origin")
	// ErrNoBackup: there is no backup of that ID.
	ErrNoBackup = errors.New("no such backup")
	// ErrNoEligible: there is none that may be restored.
	ErrNoEligible = errors.New("no eligible backup")
	// ErrNoStream: the member has no stream of that name.
	ErrNoStream = errors.New("no such stream")
	// ErrDamaged: an object is missing, changed or unreadable.
	ErrDamaged = errors.New("repository is damaged")
	// ErrVoid: the backup took longer than the repository allows.
	ErrVoid = errors.New("backup took too long to count")
	// ErrReadOnly: opened in a way that allows no writing.
	ErrReadOnly = errors.New("repository is open for reading only")
	// ErrForged: a plan or commit is not what the trusted writer wrote.
	ErrForged = errors.New("record is forged or foreign")
	// ErrClosed: used after Close, Abort or Commit.
	ErrClosed = errors.New("already closed")
)

type hash = record.Hash

// Options of a [Repository]; the zero value is right for most.
//
// Memory of a backup, apart from what the caller holds: about
// (Uploads+1) x 18 MiB of packs, Workers x 20 MiB of frames at most (6 MiB on
// average), 4 MiB at most for each open stream, IndexBytes, 80 bytes for each
// pack that is known, and 6 MiB for a part in the making. Where streams are
// remembered, 4 MiB more for each member; where they are recalled, RecallBytes,
// 1 byte for each that was remembered, and 100 KiB for each TiB in chunks of 512 KiB.
// Memory of a restore: ReadBytes, 12 MiB at most (3 MiB on average) for each
// open stream, and the member's map.
type Options struct {
	// Clock is time.Now unless a test says otherwise.
	Clock func() time.Time
	// Logger gets what is worth knowing but no error; nil discards it.
	Logger *slog.Logger
	// NoExtraVerify leaves out decoding and rehashing each new frame before
	// it is uploaded.
	NoExtraVerify bool
	// Workers compress; default GOMAXPROCS.
	Workers int
	// Uploads at the same time; default 2.
	Uploads int
	// PackBytes is the size at which a pack is full; default 16 MiB.
	PackBytes int
	// IndexBytes is what loaded index parts may take; default 48 MiB.
	IndexBytes int
	// RecallBytes is what loaded memos of remembered streams may take, once
	// one is asked for; default 16 MiB.
	RecallBytes int
	// ReadBytes is what fetched ranges of packs may take; default 48 MiB.
	ReadBytes int
	// Checkpoint is how often a backup notes what it has uploaded; default
	// one minute.
	Checkpoint time.Duration
	// AcceptCopiedTimes leaves out the rules that compare times of the store,
	// for reading a repository that was copied without them. Signatures count
	// as ever. Writing is refused, and deleting must be.
	AcceptCopiedTimes bool
	// ReuseWithin: a backup takes over only what was stored so long before it; 0 for
	// any time. What a store locks for a while has to be younger than that.
	ReuseWithin time.Duration
	// GuessedOrigin: the origin of the plans is a guess, which a set whose
	// stored origin is empty does not adopt.
	GuessedOrigin bool
	// Random is crypto/rand unless a test pins bytes.
	Random io.Reader
}

const (
	defaultPackBytes   = 16 << 20
	defaultIndexBytes  = 48 << 20
	defaultRecallBytes = 16 << 20
	defaultReadBytes   = 48 << 20
	defaultUploads     = 2
	defaultCheckpoint  = time.Minute
)

func (o Options) withDefaults() Options {
	if o.Clock == nil {
		o.Clock = time.Now //nolint:forbidigo // this is the clock
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	setDefault(&o.Workers, runtime.GOMAXPROCS(0))
	setDefault(&o.Uploads, defaultUploads)
	setDefault(&o.PackBytes, defaultPackBytes)
	setDefault(&o.IndexBytes, defaultIndexBytes)
	setDefault(&o.RecallBytes, defaultRecallBytes)
	setDefault(&o.ReadBytes, defaultReadBytes)
	setDefault(&o.Checkpoint, defaultCheckpoint)
	return o
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// Repository is an opened repository. It is safe for concurrent use.
type Repository struct {
	store   storage.Store
	config  record.Config
	number  int // of the configuration
	keys    Keys
	secrets secrets
	memoMAC []byte // what keys of remembered streams are hashed with
	codec   codec
	options Options
	log     *slog.Logger
}

// Open reads the configuration and says at once when a key does not fit it:
// ErrNotRepository, ErrNewerFormat, ErrWrongKey.
func Open(ctx context.Context, store storage.Store, keys Keys, options Options) (*Repository, error) {
	config, number, err := loadConfig(ctx, store)
	if err != nil {
		return nil, err
	}
	r := &Repository{store: store, config: config, number: number, keys: keys, options: options.withDefaults()}
	r.log = r.options.Logger
	if err := r.checkKeys(ctx); err != nil {
		return nil, err
	}
	r.memoMAC = r.memoSecret()
	return r, nil
}

// Config returns what the repository was made with.
func (r *Repository) Config() record.Config { return r.config }

// Encrypted says whether objects are encrypted.
func (r *Repository) Encrypted() bool { return r.config.Encrypted() }

// Signed says whether plans and commits must carry a signature to count.
func (r *Repository) Signed() bool {
	return len(r.trusted()) > 0 || len(r.config.Writers) > 0 || r.config.Encrypted()
}

// trusted are the keys whose signatures count; the writer trusts itself.
func (r *Repository) trusted() []ed25519.PublicKey { return r.keys.trusted() }

// longest is L.
func (r *Repository) longest() time.Duration { return r.config.LongestBackup.Duration() }

// loadConfig reads the configuration that counts, which has the highest number.
func loadConfig(ctx context.Context, store storage.Store) (record.Config, int, error) {
	newest := -1
	for object, err := range store.List(ctx, prefixConfig) {
		if err != nil {
			return record.Config{}, 0, fmt.Errorf("look for a repository: %w", err)
		}
		if n, ok := parseConfigKey(object.Key); ok {
			newest = max(newest, n)
		}
	}
	if newest < 0 {
		return record.Config{}, 0, fmt.Errorf("%w: there is no object below %s here; check the address, or make one with 'backup init'", ErrNotRepository, prefixConfig)
	}
	key := keyConfig(newest)
	data, err := getAll(ctx, store, key)
	if err != nil {
		return record.Config{}, 0, fmt.Errorf("read configuration: %w", err)
	}
	var config record.Config
	if _, err := record.Decode(data, &config, nil); err != nil {
		return record.Config{}, 0, fmt.Errorf("read configuration %s: %w", key, err)
	}
	return config, newest, nil
}

// maxRecord bounds what a reader takes into memory for one record.
const maxRecord = 256 << 20

// getAll reads a whole object that is small enough to be held.
func getAll(ctx context.Context, store storage.Store, key string) ([]byte, error) {
	body, err := store.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	data, err := io.ReadAll(io.LimitReader(body, maxRecord+1))
	if err == nil {
		err = body.Close()
	} else {
		_ = body.Close() // the read's error says more
	}
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	if len(data) > maxRecord {
		return nil, fmt.Errorf("get %s: %w: larger than %d bytes", key, ErrDamaged, maxRecord)
	}
	return data, nil
}

// put writes an object whose key is unique to its content. A key that exists
// with the same bytes is success: a reply was lost.
func put(ctx context.Context, store storage.Store, key string, data []byte) error {
	err := store.Put(ctx, key, bytes.NewReader(data))
	if !errors.Is(err, storage.ErrExists) {
		if err != nil {
			return fmt.Errorf("put %s: %w", key, err)
		}
		return nil
	}
	stored, getErr := getAll(ctx, store, key)
	if getErr != nil {
		return fmt.Errorf("compare existing object: %w", getErr)
	}
	if !bytes.Equal(stored, data) {
		return fmt.Errorf("put %s: %w, with other content", key, storage.ErrExists)
	}
	return nil
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
