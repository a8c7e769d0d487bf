package repository

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"iter"

	"keepset/internal/record"
	"keepset/internal/storage"
)

// contentRef is the name and the size of stored bytes.
func contentRef(data []byte) record.ObjectRef {
	return record.ObjectRef{SHA256: sha256.Sum256(data), Size: int64(len(data))}
}

// missing is an object that a listing does not show as it should be.
type missing struct {
	key  string
	ref  record.ObjectRef
	size int64 // -1 when it is not there at all
}

func (m missing) String() string {
	if m.size < 0 {
		return m.key + " is missing"
	}
	return fmt.Sprintf("%s has %d bytes, not %d", m.key, m.size, m.ref.Size)
}

// compareListing goes through the listing of a prefix and through refs, both
// in order of the names, side by side, and yields what is missing or of
// another size. Neither list is held in memory.
func compareListing(ctx context.Context, store storage.Store, prefix string, refs []record.ObjectRef) iter.Seq2[missing, error] {
	return func(yield func(missing, error) bool) {
		next := 0
		if len(refs) == 0 {
			return
		}
		for object, err := range store.List(ctx, prefix) {
			if err != nil {
				yield(missing{}, err)
				return
			}
			name, ok := parseHashKey(object.Key, prefix)
			if !ok {
				continue
			}
			for next < len(refs) && bytes.Compare(refs[next].SHA256[:], name[:]) < 0 {
				if !yield(missing{prefix + refs[next].SHA256.String(), refs[next], -1}, nil) {
					return
				}
				next++
			}
			if next == len(refs) {
				return
			}
			if refs[next].SHA256 != name {
				continue
			}
			if refs[next].Size != object.Size && !yield(missing{object.Key, refs[next], object.Size}, nil) {
				return
			}
			next++
		}
		for ; next < len(refs); next++ {
			if !yield(missing{prefix + refs[next].SHA256.String(), refs[next], -1}, nil) {
				return
			}
		}
	}
}
