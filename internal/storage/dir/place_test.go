package dir

import (
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/storage"
	"keepset/internal/storage/storagetest"
)

func missing(number syscall.Errno) func(string, string) error {
	return func(from, to string) error {
		return &os.LinkError{Op: "test", Old: from, New: to, Err: number}
	}
}

func newStore(t *testing.T) *Store {
	t.Helper()
	s, err := New(Options{Path: t.TempDir()})
	require.NoError(t, err)
	return s
}

// File systems without hard links, such as exFAT and most of FUSE.
func TestWithoutLinks(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store {
		s := newStore(t)
		s.link = missing(syscall.EPERM)
		return s
	})
}

// File systems without renameat2's RENAME_NOREPLACE as well.
func TestWithoutLinksAndExclusiveRename(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store {
		s := newStore(t)
		s.link, s.move = missing(syscall.ENOTSUP), missing(syscall.EINVAL)
		return checked{s, t}
	})
}

// checked answers the suite's question after the guarantee, which this kind
// of file system cannot give.
type checked struct {
	*Store
	t *testing.T
}

func (c checked) Probe(ctx context.Context, key string, body io.ReadSeeker) (storage.Guarantee, error) {
	guarantee, err := c.Store.Probe(ctx, key, body)
	require.Equal(c.t, storage.GuaranteeChecked, guarantee)
	return storage.GuaranteeAtomic, err
}

// An NFS client may send a link twice and get the answer to the second one.
func TestLinkWhoseReplyWasLost(t *testing.T) {
	s := newStore(t)
	s.link = func(from, to string) error {
		if err := os.Link(from, to); err != nil {
			return err
		}
		return &os.LinkError{Op: "link", Old: from, New: to, Err: syscall.EEXIST}
	}
	require.NoError(t, s.Put(t.Context(), "k", strings.NewReader("x")))
	require.ErrorIs(t, s.Put(t.Context(), "k", strings.NewReader("x")), storage.ErrExists)
}

// A prune that empties the directory between its making and its use.
func TestDirectoryRemovedUnderAPut(t *testing.T) {
	s := newStore(t)
	removals := 0
	s.link = func(from, to string) error {
		if removals++; removals <= 5 {
			require.NoError(t, os.Remove(filepath.Dir(to)))
		}
		return os.Link(from, to)
	}
	require.NoError(t, s.Put(t.Context(), "packs/ab", strings.NewReader("x")))
	require.Equal(t, 6, removals)
}

func TestPublishThatFailsLeavesNothing(t *testing.T) {
	s := newStore(t)
	s.link = missing(syscall.EIO)
	err := s.Put(t.Context(), "packs/ab", strings.NewReader("x"))
	require.ErrorIs(t, err, syscall.EIO)
	_, err = s.Stat(t.Context(), "packs/ab")
	require.ErrorIs(t, err, fs.ErrNotExist)
	entries, err := os.ReadDir(filepath.Join(s.base, tempDir))
	require.NoError(t, err)
	require.Empty(t, entries)
}
