// Package storage keeps named objects in a store: S3-compatible object
// storage, a directory, or memory.
//
// Its one central type is [Store], five methods over keys that are written
// once and never edited. The rest of Keepset knows nothing of where bytes
// live; everything it relies on is in the contract below, and every
// implementation passes the conformance suite in storagetest.
//
// What a store must promise:
//
//   - Put is all-or-nothing. After it returns nil the whole object is durable
//     and visible to Get, Stat and List; after an error, a cancelled context
//     or a killed process the key is either absent or, when only the reply
//     was lost, wholly present. No reader ever sees part of an object.
//   - Keys are written once. Of several writers of one key exactly one wins
//     and the others get ErrExists, where the store has conditional writes.
//   - Errors say which object and carry one of the sentinels below when a
//     caller has to decide on the kind of failure.
//
// What several stores share is a decorator: [WithRetry], [WithBandwidth] and
// [WithPrefix] take a Store and return one. A program wraps the limit
// directly around the store and the retries around the limit.
//
// A key must not be another key's directory: where "a/b" is an object, "a" is
// none. Object stores could hold both, a directory cannot.
package storage

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// Sentinels that callers decide on; they arrive wrapped, with the object's
// key and the remedy in the text. An absent object is fs.ErrNotExist.
var (
	// ErrExists says that Put met an existing key. The object there is untouched.
	ErrExists = errors.New("object already exists")
	// ErrNoContainer says that the bucket or base directory is missing.
	ErrNoContainer = errors.New("bucket or directory does not exist")
	// ErrDenied says that the store knows us and refuses this operation.
	ErrDenied = errors.New("access denied")
	// ErrLocked says that the store protects the object, so that nobody may
	// delete it before its lock ends.
	ErrLocked = errors.New("object is locked")
	// ErrCredentials says that the store does not accept our credentials, or
	// that they have expired and could not be refreshed.
	ErrCredentials = errors.New("credentials not accepted")
	// ErrFull says that the store has no room for the object.
	ErrFull = errors.New("no space left in the store")
	// ErrInvalid says that the caller asks for what cannot be: a malformed
	// key, a range outside of the object.
	ErrInvalid = errors.New("invalid key or range")
	// ErrRefused says that the store rejects this kind of request, so that
	// trying again does not help.
	ErrRefused = errors.New("request refused by the store")
	// ErrCorrupt says that the bytes are not those that the store's own
	// checksum promises.
	ErrCorrupt = errors.New("checksum does not match")
)

// Object is what a store knows of one object without reading it.
type Object struct {
	Key  string
	Size int64
	// LastModified is the store's clock, never ours.
	LastModified time.Time
	// Class is the storage class as the store names it; empty for the default.
	Class string
}

// Store holds objects by key; [CheckKey] says which keys are valid, and every
// method refuses others with ErrInvalid. Methods are safe for concurrent use
// and return promptly when ctx ends.
type Store interface {
	// Put writes the whole of body, from its start, under key. It fails with
	// ErrExists when the key exists. It reads body more than once when it
	// has to try again, and never after it has returned.
	Put(ctx context.Context, key string, body io.ReadSeeker) error
	// Get reads length bytes from offset; length -1 reads to the end. The
	// reader returns io.ErrUnexpectedEOF, never io.EOF, when the connection
	// ends before the promised bytes have come. A range that is not wholly
	// within the object is ErrInvalid; no bytes at the object's very end are
	// within it. The context governs the reader too. The caller closes it.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	// Stat returns what List would say of one key.
	Stat(ctx context.Context, key string) (Object, error)
	// List yields the objects whose key begins with prefix, which may end
	// within an element, in key order (bytes). It stops at the first error,
	// yielding it with a zero Object. Objects that are put or deleted
	// meanwhile may or may not appear. What is in the store and has no valid
	// key, because somebody else put it there, is passed over.
	List(ctx context.Context, prefix string) iter.Seq2[Object, error]
	// Delete removes key. An absent key is no error.
	Delete(ctx context.Context, key string) error
}
