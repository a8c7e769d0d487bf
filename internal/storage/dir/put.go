package dir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"keepset/internal/storage"
)

const (
	tempDir = storage.ReservedPrefix + "tmp"
	// maxTempAge is longer than any writer takes over one object.
	maxTempAge = 24 * time.Hour
	// placeTries bounds the races with a Delete that removes the directory
	// in which we are about to publish.
	placeTries = 100
)

// Put implements [storage.Store].
func (s *Store) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	if err := s.check(ctx, key); err != nil {
		return fmt.Errorf("put object %q: %w", key, err)
	}
	// Looking first saves writing bytes in vain; what decides is the link.
	if _, err := os.Lstat(s.path(key)); err == nil {
		return s.taken(key)
	}
	size, err := storage.BodySize(body)
	if err != nil {
		return fmt.Errorf("put object %q: %w", key, err)
	}
	temp, err := s.writeTemp(ctx, body, size)
	if err != nil {
		return s.putError(key, err)
	}
	err = s.publish(ctx, temp, key)
	// After a link the temporary name is the second one of the file; after
	// a rename there is none; after a failure it is waste. A later sweep takes
	// what cannot be removed now.
	_ = os.Remove(temp)
	if err != nil {
		return s.putError(key, err)
	}
	return nil
}

func (s *Store) putError(key string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		if missing := s.baseMissing(); missing != nil {
			err = missing
		}
	}
	if errors.Is(err, storage.ErrExists) || errors.Is(err, storage.ErrNoContainer) {
		return fmt.Errorf("put object %q: %w", key, err)
	}
	return describe(fmt.Errorf("put object %q: %w", key, err))
}

// taken is the error for a name that exists: as an object or as a directory.
func (s *Store) taken(key string) error {
	if isDir(s.path(key)) {
		return fmt.Errorf("put object %q: other objects lie below this name: %w", key, storage.ErrInvalid)
	}
	return fmt.Errorf("put object %q in %s: %w", key, s.base, storage.ErrExists)
}

// writeTemp returns the name of a new file that holds body, on the disk.
func (s *Store) writeTemp(ctx context.Context, body io.ReadSeeker, size int64) (name string, err error) {
	dir := filepath.Join(s.base, tempDir)
	if err := s.makeDirs(dir); err != nil {
		return "", err
	}
	name = filepath.Join(dir, rand.Text())
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(os.Remove(name)))
		}
	}()
	s.sweepOnce.Do(func() { sweep(dir, f) })
	err = storage.CopyBody(ctx, f, body, size)
	if err == nil {
		err = f.Sync()
	}
	return name, errors.Join(err, f.Close())
}

// publish gives the file temp its name.
func (s *Store) publish(ctx context.Context, temp, key string) error {
	name := s.path(key)
	for try := 0; ; try++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.makeDirs(filepath.Dir(name)); err != nil {
			return err
		}
		err := s.place(temp, name)
		switch {
		case err == nil:
			return syncDir(filepath.Dir(name))
		case errors.Is(err, fs.ErrExist):
			return s.taken(key)
		case errors.Is(err, fs.ErrNotExist) && try < placeTries:
			continue // a Delete removed the directory just now
		}
		return err
	}
}

// place tries the ways of naming a file without replacing another, the best first.
func (s *Store) place(temp, name string) error {
	err := s.link(temp, name)
	if errors.Is(err, fs.ErrExist) && sameFile(temp, name) {
		return nil // NFS: our own link, sent twice because its reply was lost
	}
	if !unsupported(err) {
		return err
	}
	if err := s.move(temp, name); !unsupported(err) {
		return err
	}
	s.moveLock.Lock()
	defer s.moveLock.Unlock()
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fs.ErrExist
		}
		return err
	}
	return os.Rename(temp, name)
}

// Probe implements [storage.Prober]. It reports from a trial in
// the directory of temporary files and leaves key alone.
func (s *Store) Probe(ctx context.Context, key string, _ io.ReadSeeker) (storage.Guarantee, error) {
	if _, err := s.Stat(ctx, key); err != nil {
		return storage.GuaranteeUnknown, err
	}
	temp, err := s.writeTemp(ctx, strings.NewReader(""), 0)
	if err != nil {
		return storage.GuaranteeUnknown, s.putError(key, err)
	}
	trial := temp + "-probe"
	err = s.link(temp, trial)
	if unsupported(err) {
		err = s.move(temp, trial)
	}
	guarantee := storage.GuaranteeAtomic
	if unsupported(err) {
		guarantee, err = storage.GuaranteeChecked, nil
	}
	err = errors.Join(err, ignoreMissing(os.Remove(temp)), ignoreMissing(os.Remove(trial)))
	if err != nil {
		return storage.GuaranteeUnknown, s.putError(key, err)
	}
	return guarantee, nil
}

// makeDirs makes dir and what is missing above it, and flushes their names,
// but never the base.
func (s *Store) makeDirs(dir string) error {
	if dir == s.base {
		return s.baseMissing()
	}
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.makeDirs(filepath.Dir(dir)); err != nil {
			return err
		}
		if err = os.Mkdir(dir, 0o700); errors.Is(err, fs.ErrExist) {
			return nil
		}
	}
	if err != nil {
		if missing := s.baseMissing(); missing != nil {
			return missing
		}
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// sweep removes files that killed writers left. Its measure is the
// modification time of fresh, a file just made on the same file system. It
// does what it can: the rest is for the next writer.
func sweep(dir string, fresh *os.File) {
	now, err := fresh.Stat()
	if err != nil {
		return
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && info.Mode().IsRegular() && now.ModTime().Sub(info.ModTime()) > maxTempAge {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// moveNew renames without replacing.
func moveNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if err != nil {
		return &os.LinkError{Op: "renameat2", Old: from, New: to, Err: err}
	}
	return nil
}

// unsupported says whether the file system lacks the operation. Linux
// file systems answer EPERM to a link that they cannot make (link(2)) and EINVAL
// to a flag that they do not know (renameat2(2)).
func unsupported(err error) bool {
	for _, e := range []error{
		syscall.EPERM, syscall.ENOTSUP, syscall.ENOSYS, syscall.EINVAL, syscall.EMLINK, syscall.EXDEV,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func sameFile(a, b string) bool {
	x, err := os.Lstat(a)
	if err != nil {
		return false
	}
	y, err := os.Lstat(b)
	return err == nil && os.SameFile(x, y)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
