package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"keepset/internal/storage"
)

// List implements [storage.Store].
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		top, err := storage.CheckPrefix(prefix)
		if err == nil {
			err = s.baseMissing()
		}
		if err != nil {
			yield(storage.Object{}, fmt.Errorf("list objects %q: %w", prefix, err))
			return
		}
		w := walker{store: s, prefix: prefix, yield: yield}
		err = w.walk(ctx, top)
		if err == nil {
			// A volume that is unmounted under the walk looks like so many deleted files.
			err = s.baseMissing()
		}
		if err != nil && !errors.Is(err, errStopped) {
			yield(storage.Object{}, describe(fmt.Errorf("list objects %q: %w", prefix, err)))
		}
	}
}

// errStopped says that the caller of List wants no more.
var errStopped = errors.New("iteration stopped")

type walker struct {
	store  *Store
	prefix string
	yield  func(storage.Object, error) bool
}

// walk yields what lies below the directory of that key, in the order of
// keys: a directory sorts as its name and a slash, so that "a-b" comes
// before "a/b".
func (w *walker) walk(ctx context.Context, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := os.ReadDir(w.store.path(dir))
	if err != nil {
		return vanished(err)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(sortName(a), sortName(b)) })
	for _, e := range entries {
		key := path.Join(dir, e.Name())
		if !w.wanted(key, e) {
			continue
		}
		if e.IsDir() {
			err = w.walk(ctx, key)
		} else {
			err = w.file(ctx, key, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) wanted(key string, e fs.DirEntry) bool {
	if foreign(key) || storage.CheckKey(key) != nil {
		return false
	}
	if e.IsDir() {
		below := key + "/"
		return strings.HasPrefix(below, w.prefix) || strings.HasPrefix(w.prefix, below)
	}
	return e.Type().IsRegular() && strings.HasPrefix(key, w.prefix)
}

func (w *walker) file(ctx context.Context, key string, e fs.DirEntry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	info, err := e.Info()
	if err != nil {
		return vanished(err)
	}
	if !w.yield(object(key, info), nil) {
		return errStopped
	}
	return nil
}

// vanished forgives what was deleted between two steps of a listing.
func vanished(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	return err
}

func sortName(e fs.DirEntry) string {
	if e.IsDir() {
		return e.Name() + "/"
	}
	return e.Name()
}

// foreign says whether a file system puts files of this name there by itself:
// ext4's lost+found, the snapshot directories of NetApp and ZFS, and what NFS
// clients call files that are deleted while open.
func foreign(key string) bool {
	for element := range strings.SplitSeq(key, "/") {
		switch {
		case element == "lost+found", element == ".snapshot", element == ".zfs",
			strings.HasPrefix(element, ".nfs"):
			return true
		}
	}
	return false
}
