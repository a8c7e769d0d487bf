package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"keepset/internal/storage"
)

// fail says what the operation on key failed of, in the terms of
// package storage. A missing base directory outranks a missing file.
func (s *Store) fail(operation, key string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		if err := s.baseMissing(); err != nil {
			return fmt.Errorf("%s object %q: %w", operation, key, err)
		}
		return fmt.Errorf("%s object %q in %s: %w", operation, key, s.base, fs.ErrNotExist)
	}
	return describe(fmt.Errorf("%s object %q: %w", operation, key, err))
}

// baseMissing returns nil while the base is a directory.
func (s *Store) baseMissing() error {
	info, err := os.Stat(s.base)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("%s is not a directory: %w", s.base, storage.ErrNoContainer)
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%s is missing, mount the volume or let `backup init` create it: %w",
			s.base, storage.ErrNoContainer)
	default:
		return describe(err)
	}
}

// describe adds to an error of the file system the sentinel that callers know
// and what the user can do.
func describe(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w: %w, enlarge the volume or prune the repository", err, storage.ErrFull)
	case errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return fmt.Errorf("%w: %w, raise the quota or prune the repository", err, storage.ErrFull)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: %w, mount the volume writable", err, storage.ErrDenied)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w, run as the owner of the files", err, storage.ErrDenied)
	}
	return err
}
