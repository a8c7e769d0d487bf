package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// Guarantee says how far a store keeps the promise that keys are written once.
type Guarantee int

// The guarantees, from none known to full.
const (
	// GuaranteeUnknown: the store has not been asked.
	GuaranteeUnknown Guarantee = iota
	// GuaranteeChecked: the store knows no conditional writes, so that Put
	// looks first and then writes. Two writers of one key at the same moment
	// may both succeed, and the later one's bytes stay.
	GuaranteeChecked
	// GuaranteeAtomic: of several writers of one key exactly one succeeds.
	GuaranteeAtomic
)

func (g Guarantee) String() string {
	switch g {
	case GuaranteeChecked:
		return "checked before each write, not atomic"
	case GuaranteeAtomic:
		return "atomic"
	default:
		return "unknown"
	}
}

// Prober is an optional power of a store: it finds out what the store's
// writes guarantee.
type Prober interface {
	// Probe puts body once more under key, where an object of the very same
	// bytes must already be, and reports from the answer what a conditional
	// write is worth. Nothing changes, whatever the store makes of it, and
	// no right is needed but that of writing key. A store that answers with
	// less than GuaranteeAtomic looks before each later write on its own.
	Probe(ctx context.Context, key string, body io.ReadSeeker) (Guarantee, error)
}

// Probe asks s what its writes guarantee; see [Prober]. A store that has not
// this power is GuaranteeUnknown.
func Probe(ctx context.Context, s Store, key string, body io.ReadSeeker) (Guarantee, error) {
	p, ok := s.(Prober)
	if !ok {
		return GuaranteeUnknown, nil
	}
	return p.Probe(ctx, key, body)
}

// Comparer is an optional power of a store: comparing an object with local
// bytes without reading the object.
type Comparer interface {
	// Holds reports whether the object under key consists of body's bytes.
	// known is false when the store cannot tell without reading it.
	Holds(ctx context.Context, key string, body io.ReadSeeker) (same, known bool, err error)
}

// Holds reports whether the object under key consists of exactly body's
// bytes: by the store's checksum where it has one, else by reading the
// object. Where reading is denied, as to a writer of packs, the size alone
// decides; this is sound for keys that carry a content hash or are unique,
// which all keys that such a writer may not read do.
func Holds(ctx context.Context, s Store, key string, body io.ReadSeeker) (bool, error) {
	size, err := BodySize(body)
	if err != nil {
		return false, err
	}
	object, err := s.Stat(ctx, key)
	if err != nil {
		return false, err
	}
	if object.Size != size {
		return false, nil
	}
	same, known, err := compare(ctx, s, key, body)
	if err == nil && known {
		return same, nil
	}
	if err != nil && !errors.Is(err, ErrDenied) {
		return false, err
	}
	same, err = sameBytes(ctx, s, key, body, size)
	if errors.Is(err, ErrDenied) {
		return true, nil
	}
	return same, err
}

// compare asks s if it has the power to compare.
func compare(ctx context.Context, s Store, key string, body io.ReadSeeker) (same, known bool, err error) {
	if c, ok := s.(Comparer); ok {
		return c.Holds(ctx, key, body)
	}
	return false, false, nil
}

func sameBytes(ctx context.Context, s Store, key string, body io.ReadSeeker, size int64) (same bool, err error) {
	r, err := s.Get(ctx, key, 0, size)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return false, fmt.Errorf("rewind the body: %w", err)
	}
	theirs, ours := make([]byte, 64<<10), make([]byte, 64<<10)
	for left := size; left > 0; {
		n := min(left, int64(len(ours)))
		if _, err := io.ReadFull(r, theirs[:n]); err != nil {
			return false, fmt.Errorf("compare object %q: %w", key, err)
		}
		if _, err := io.ReadFull(body, ours[:n]); err != nil {
			return false, fmt.Errorf("compare object %q: read the body: %w", key, err)
		}
		if !bytes.Equal(theirs[:n], ours[:n]) {
			return false, nil
		}
		left -= n
	}
	return true, nil
}

// Remover is an optional power of a store whose deletions may leave the bytes:
// one that keeps old versions of its objects.
type Remover interface {
	// Remove is Delete, and reports whether the store keeps the object's bytes,
	// as an older version that nothing shows any more.
	Remove(ctx context.Context, key string) (kept bool, err error)
}

// Remove deletes key from s, and reports whether its bytes stay in the store
// all the same; see [Remover].
func Remove(ctx context.Context, s Store, key string) (kept bool, err error) {
	if r, ok := s.(Remover); ok {
		return r.Remove(ctx, key)
	}
	return false, s.Delete(ctx, key)
}
