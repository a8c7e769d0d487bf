package filetreetest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

type inode struct{ dev, ino uint64 }

// Lines are the tree as lstat, readlink, listxattr and reading show it: what
// has to be equal after a restore.
func Lines(t testing.TB, root string) []string {
	t.Helper()
	var all []string
	first := map[inode]string{}
	var visit func(path, name string)
	visit = func(path, name string) {
		var st unix.Stat_t
		require.NoError(t, unix.Lstat(path, &st))
		line := fmt.Sprintf("%q mode %o owner %d:%d mtime %d.%09d", name, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		kind := st.Mode & unix.S_IFMT
		if kind == unix.S_IFSOCK {
			return
		}
		if kind == unix.S_IFCHR || kind == unix.S_IFBLK {
			line += fmt.Sprintf(" device %d", st.Rdev)
		}
		line += fmt.Sprintf(" xattrs %q", xattrs(t, path))
		switch kind {
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			require.NoError(t, err)
			line += fmt.Sprintf(" to %q", target)
		case unix.S_IFREG:
			line += fileLine(t, path, &st)
			if st.Nlink > 1 {
				key := inode{st.Dev, st.Ino}
				if first[key] == "" {
					first[key] = name
				}
				line += fmt.Sprintf(" links %d with %q", st.Nlink, first[key])
			}
		}
		all = append(all, line)
		if kind == unix.S_IFDIR {
			for _, inner := range SortedNames(t, path) {
				visit(path+"/"+inner, name+"/"+inner)
			}
		}
	}
	visit(root, "")
	return all
}

// xattrs are the attributes of an entry, by name.
func xattrs(t testing.TB, path string) [][2]string {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	require.NoError(t, err)
	var all [][2]string
	for name := range bytes.SplitSeq(bytes.Clone(buf[:n]), []byte{0}) {
		if len(name) == 0 {
			continue
		}
		n, err := unix.Lgetxattr(path, string(name), buf)
		require.NoError(t, err)
		all = append(all, [2]string{string(name), string(buf[:n])})
	}
	slices.SortFunc(all, func(a, b [2]string) int { return bytes.Compare([]byte(a[0]), []byte(b[0])) })
	return all
}

// fileLine is a file's content: its size, hash, and where it has data, if it has holes.
func fileLine(t testing.TB, path string, st *unix.Stat_t) string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return fmt.Sprintf(" size %d sha256 %x data at %v", st.Size, sha256.Sum256(data), extents(t, path, st))
}

func extents(t testing.TB, path string, st *unix.Stat_t) (all [][2]int64) {
	t.Helper()
	if st.Blocks*512 >= st.Size {
		return nil
	}
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close() //nolint:errcheck // only read
	for at := int64(0); at < st.Size; {
		begin, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole up to the end
		}
		require.NoError(t, err)
		at, err = unix.Seek(int(f.Fd()), begin, unix.SEEK_HOLE)
		require.NoError(t, err)
		all = append(all, [2]int64{begin, min(at, st.Size)})
	}
	return all
}

// SortedNames are the names in a directory.
func SortedNames(t testing.TB, path string) []string {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	names, err := f.Readdirnames(-1)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	slices.Sort(names)
	return names
}

// RequireSame compares two trees, and shows the first lines that differ.
func RequireSame(t testing.TB, want []string, root string) {
	t.Helper()
	got := Lines(t, root)
	for i := range min(len(want), len(got)) {
		require.Equal(t, want[i], got[i])
	}
	require.Len(t, got, len(want))
}
