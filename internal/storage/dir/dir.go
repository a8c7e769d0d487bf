// Package dir is a store in a directory: a mounted PersistentVolumeClaim, an
// NFS export, a disk.
//
// An object is a file whose path below the base directory is its key, so that
// ls, cp and sha256sum work on a repository. [Store] never creates the base
// directory by itself: a volume that failed to mount must be an error, not a
// new and empty repository. [Create] makes it, when a user asks for that.
//
// How a Put becomes all-or-nothing: the bytes go to a file in
// .keepset-tmp below the base, which is flushed to the disk and closed without
// error; then one step gives it its name, a step that fails if the name is
// taken; then the directory is flushed, so that the name survives a power
// cut as well. The step is a hard link. Where the file system has none, it is
// renameat2 with RENAME_NOREPLACE; where that is missing too, as on some FUSE
// and SMB mounts, it is a look and a rename, atomic among the writers of one
// process only. [Store.Probe] says which.
//
// A killed writer leaves at most a file in .keepset-tmp, which no listing
// shows, and which later writers remove when it is a day old by the file
// system's own clock. Files are created 0600 and directories 0700: whoever
// restores runs as the user who backed up, or as root.
//
// A system call on a dead network mount cannot be interrupted; mount NFS with
// the option "soft" or "softerr" to get errors instead of waiting.
package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"keepset/internal/storage"
)

// Options of [New] and [Create].
type Options struct {
	// Path is the base directory, absolute.
	Path string
}

// Store keeps objects as files. Use [New] or [Create].
type Store struct {
	base string
	link func(from, to string) error // makes the name, or fails with fs.ErrExist
	move func(from, to string) error // the same without hard links

	sweepOnce sync.Once
	moveLock  sync.Mutex // held around the look and the rename
}

var _ interface {
	storage.Store
	storage.Prober
} = (*Store)(nil)

// New returns the store in an existing directory. It does not look at it:
// each operation fails with [storage.ErrNoContainer] while it is missing.
func New(o Options) (*Store, error) {
	if !filepath.IsAbs(o.Path) {
		return nil, fmt.Errorf("directory %q is not an absolute path: %w", o.Path, storage.ErrInvalid)
	}
	return &Store{base: filepath.Clean(o.Path), link: os.Link, move: moveNew}, nil
}

// Create makes the base directory, if need be with its parents, and returns
// the store in it. An existing directory is left as it is.
func Create(o Options) (*Store, error) {
	s, err := New(o)
	if err != nil {
		return nil, err
	}
	err = os.MkdirAll(s.base, 0o700)
	if err == nil {
		err = syncDir(filepath.Dir(s.base))
	}
	if err != nil {
		return nil, describe(fmt.Errorf("create directory %s: %w", s.base, err))
	}
	return s, nil
}

// Get implements [storage.Store].
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := s.check(ctx, key); err != nil {
		return nil, fmt.Errorf("get object %q: %w", key, err)
	}
	f, err := os.OpenFile(s.path(key), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, s.fail("get", key, err)
	}
	n, err := s.seek(f, key, offset, length)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return storage.ExactReader(ctx, f, n), nil
}

// seek positions f at offset and returns how many bytes the range has.
func (s *Store) seek(f *os.File, key string, offset, length int64) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, s.fail("get", key, err)
	}
	if !info.Mode().IsRegular() {
		return 0, s.fail("get", key, fs.ErrNotExist)
	}
	n, err := storage.CheckRange(key, offset, length, info.Size())
	if err != nil {
		return 0, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return 0, s.fail("get", key, err)
	}
	return n, nil
}

// Stat implements [storage.Store].
func (s *Store) Stat(ctx context.Context, key string) (storage.Object, error) {
	if err := s.check(ctx, key); err != nil {
		return storage.Object{}, fmt.Errorf("stat object %q: %w", key, err)
	}
	info, err := os.Lstat(s.path(key))
	if err != nil {
		return storage.Object{}, s.fail("stat", key, err)
	}
	if !info.Mode().IsRegular() {
		return storage.Object{}, s.fail("stat", key, fs.ErrNotExist)
	}
	return object(key, info), nil
}

// Delete implements [storage.Store]. It also removes the directories above
// that it leaves empty, up to the base.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.check(ctx, key); err != nil {
		return fmt.Errorf("delete object %q: %w", key, err)
	}
	name := s.path(key)
	// unlink, unlike os.Remove, leaves a directory of that name alone.
	err := syscall.Unlink(name)
	switch {
	case errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.EPERM) && isDir(name):
		return nil
	case err != nil:
		err = s.fail("delete", key, &fs.PathError{Op: "unlink", Path: name, Err: err})
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	parent := filepath.Dir(name)
	for parent != s.base && syscall.Rmdir(parent) == nil {
		parent = filepath.Dir(parent)
	}
	// A crash may bring the file back, never half of it, which is why the
	// directory is flushed for tidiness and a failure to do so is one.
	if err := syncDir(parent); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.fail("delete", key, err)
	}
	return nil
}

func (s *Store) path(key string) string { return filepath.Join(s.base, filepath.FromSlash(key)) }

func (s *Store) check(ctx context.Context, key string) error {
	if err := storage.CheckKey(key); err != nil {
		return err
	}
	if foreign(key) {
		return fmt.Errorf("the file system keeps %q for itself: %w", key, storage.ErrInvalid)
	}
	return ctx.Err()
}

func isDir(name string) bool {
	info, err := os.Lstat(name)
	return err == nil && info.IsDir()
}

func object(key string, info fs.FileInfo) storage.Object {
	return storage.Object{Key: key, Size: info.Size(), LastModified: info.ModTime().UTC()}
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	err = d.Sync()
	// Some network file systems cannot flush a directory; they make names
	// durable by themselves.
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil
	}
	return errors.Join(err, d.Close())
}
