package filetree

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func restoreInto(t testing.TB, m *memory, o RestoreOptions) error {
	t.Helper()
	_, err := Restore(t.Context(), m, o)
	return err
}

// TestRoundTrip: every kind of entry comes back exactly, and so it does by GNU
// tar from the same streams.
func TestRoundTrip(t *testing.T) {
	for seed := range uint64(3) {
		root := grow(t, seed, 150)
		m := newMemory()
		counts, r := m.save(t, SaveOptions{Path: root})
		want := lines(t, root)
		require.EqualValues(t, len(want), counts.Entries())
		require.Empty(t, r.Doubts)
		require.Empty(t, r.Warnings)
		to := filepath.Join(t.TempDir(), "new")
		require.NoError(t, restoreInto(t, m, RestoreOptions{Path: to, Workers: 2}))
		requireSame(t, want, to)
	}
}

// TestByTar: what restore-by-hand.md promises of a tree.
func TestByTar(t *testing.T) {
	root := grow(t, 7, 200)
	m := newMemory()
	m.save(t, SaveOptions{Path: root})
	to := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "tar", "--extract", "--same-permissions", "--numeric-owner", "--delay-directory-restore",
		"--xattrs", "--xattrs-include=*", "--acls", "--warning=no-timestamp")
	cmd.Dir, cmd.Stdin = to, strings.NewReader(string(m.archive()))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Empty(t, string(out))
	requireSame(t, lines(t, root), to)
}

// TestUnchanged: the next backup opens what has changed, and nothing else.
func TestUnchanged(t *testing.T) {
	root := t.TempDir()
	for i := range 300 {
		write(t, fmt.Sprintf("%s/%d/%d", root, i%7, i), fmt.Sprint("content of ", i))
	}
	m := newMemory()
	first, _ := m.save(t, SaveOptions{Path: root})
	require.Zero(t, first.Unchanged)
	second, _ := m.save(t, SaveOptions{Path: root})
	require.EqualValues(t, 300, second.Unchanged)

	write(t, root+"/3/3", "changed content")                                          // size
	require.NoError(t, os.WriteFile(root+"/4/4", []byte("content of X"[:12]), 0o644)) // times alone
	require.NoError(t, os.Chmod(root+"/5/5", 0o600))                                  // ctime alone
	require.NoError(t, os.Rename(root+"/6/6", root+"/6/renamed"))
	write(t, root+"/new", "new")
	third, _ := m.save(t, SaveOptions{Path: root})
	t.Logf("measured: %d of %d files were read again, after 5 had changed", third.Files-third.Unchanged, third.Files)
	require.EqualValues(t, 5, third.Files-third.Unchanged)
	to := t.TempDir()
	require.NoError(t, restoreInto(t, m, RestoreOptions{Path: to}))
	requireSame(t, lines(t, root), to)
}

// TestFreshlyWritten: a file that was written a moment ago may be written again with
// the same times: one that is mapped into memory, for as long as its pages wait for
// the disk. It is not remembered.
func TestFreshlyWritten(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/file", strings.Repeat("1", 4096))
	f, err := os.OpenFile(root+"/file", os.O_RDWR, 0)
	require.NoError(t, err)
	page, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	page[0] = '2'
	m := newMemory()
	for _, after := range []time.Duration{0, 4 * time.Second, 35 * time.Second, 55 * time.Second} {
		counts, _ := m.save(t, SaveOptions{Path: root, Clock: func() time.Time { return time.Now().Add(after) }})
		require.Zero(t, counts.Unchanged)
		require.Empty(t, m.next, "%s after", after)
		page[0]++ // with whatever times
		to := t.TempDir()
		m.save(t, SaveOptions{Path: root, Clock: time.Now})
		require.NoError(t, restoreInto(t, m, RestoreOptions{Path: to}))
		data, err := os.ReadFile(to + "/file")
		require.NoError(t, err)
		require.Equal(t, page, data)
	}
	require.NoError(t, unix.Munmap(page))
	again, _ := m.save(t, SaveOptions{Path: root})
	require.Zero(t, again.Unchanged)
	again, _ = m.save(t, SaveOptions{Path: root})
	require.EqualValues(t, 1, again.Unchanged)
}

// TestChangingFile: a file that changes at every reading is read three times, is
// whole as it was at the last, is not remembered, and is reported; one that
// changes once is right, and nothing is said.
func TestChangingFile(t *testing.T) {
	for name, times := range map[string]int64{"always": 100, "once": 1} {
		for _, size := range []int{100, 2 * bufferSize} { // in one piece, and in several
			for _, fuzzy := range []bool{false, true} {
				root := t.TempDir()
				write(t, root+"/file", strings.Repeat("0", size))
				m := newMemory()
				var writes atomic.Int64
				m.before = func(stream string) error {
					if !strings.HasPrefix(stream, filesPrefix) {
						return nil
					}
					if n := writes.Add(1); n <= times {
						return os.WriteFile(root+"/file", []byte(strings.Repeat(fmt.Sprint(n%10), size)), 0o644)
					}
					return nil
				}
				counts, r := m.save(t, SaveOptions{Path: root, Fuzzy: fuzzy})
				require.EqualValues(t, 1, counts.Files)
				to := t.TempDir()
				require.NoError(t, restoreInto(t, m, RestoreOptions{Path: to}))
				data, err := os.ReadFile(to + "/file")
				require.NoError(t, err)
				require.Len(t, data, size)
				said := r.Doubts
				if fuzzy {
					require.Empty(t, r.Doubts)
					said = r.Warnings
				}
				if name == "once" {
					require.Empty(t, said)
					require.Equal(t, strings.Repeat("1", size), string(data))
					require.Len(t, m.next, 1)
					continue
				}
				require.Len(t, said, 1)
				require.Contains(t, said[0], `1 files changed each of 3 times that they were read: "file"`)
				require.Empty(t, m.next)
			}
		}
	}
}

// TestTruncatedFile: a file that loses its end while it is read.
func TestTruncatedFile(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/file", strings.Repeat("0", 4*bufferSize))
	m := newMemory()
	m.before = func(stream string) error {
		info, err := os.Stat(root + "/file")
		if err == nil && info.Size() > 10 && strings.HasPrefix(stream, filesPrefix) {
			err = os.Truncate(root+"/file", 10)
		}
		return err
	}
	counts, r := m.save(t, SaveOptions{Path: root})
	require.Empty(t, r.Doubts, "the second time it held still")
	require.EqualValues(t, 1, counts.Files)
	to := t.TempDir()
	require.NoError(t, restoreInto(t, m, RestoreOptions{Path: to}))
	requireSame(t, lines(t, root), to)
}

// TestRemovedWhileRead: a file that is removed or replaced while it is read is whole,
// as it was, and nothing is wrong with it.
func TestRemovedWhileRead(t *testing.T) {
	for _, replaced := range []bool{false, true} {
		root := t.TempDir()
		content := strings.Repeat("0", 2*bufferSize)
		write(t, root+"/file", content)
		write(t, root+"/other", "other")
		m := newMemory()
		var writes atomic.Int64
		m.before = func(stream string) error {
			if !strings.HasPrefix(stream, filesPrefix) || writes.Add(1) != 1 {
				return nil
			}
			if replaced {
				return os.Rename(root+"/other", root+"/file")
			}
			return os.Remove(root + "/file")
		}
		_, r := m.save(t, SaveOptions{Path: root, Workers: 1})
		require.Empty(t, r.Doubts)
		to := t.TempDir()
		require.NoError(t, restoreInto(t, m, RestoreOptions{Path: to}))
		data, err := os.ReadFile(to + "/file")
		require.NoError(t, err)
		require.True(t, content == string(data))
		for key := range m.next {
			require.NotContains(t, key, "file\x00", "what is not there any more is not remembered")
		}
	}
}

// TestShrinkingTree: what vanishes is reported, and is no reason to fail, unless
// nothing is left.
func TestShrinkingTree(t *testing.T) {
	root := t.TempDir()
	for i := range 2000 {
		write(t, fmt.Sprintf("%s/%d/%d", root, i%20, i), "content")
	}
	m := newMemory()
	var writes atomic.Int64
	m.before = func(string) error {
		if writes.Add(1) != 100 {
			return nil
		}
		return errors.Join(os.RemoveAll(root+"/17"), os.RemoveAll(root+"/5"), os.RemoveAll(root+"/9"))
	}
	counts, r := m.save(t, SaveOptions{Path: root})
	require.Empty(t, r.Doubts)
	require.Len(t, r.Warnings, 1)
	require.Contains(t, r.Warnings[0], "entries vanished while the tree was read: ")
	require.Less(t, counts.Files, int64(2000))
	require.GreaterOrEqual(t, counts.Files, int64(1700))
	require.NoError(t, restoreInto(t, m, RestoreOptions{Path: t.TempDir()}))
}

// TestEverythingVanishes: then there is no backup.
func TestEverythingVanishes(t *testing.T) {
	root := t.TempDir() + "/data"
	write(t, root+"/a", "a")
	write(t, root+"/b", "b")
	m := newMemory()
	s := &saver{SaveOptions: SaveOptions{Path: root, Workers: 1, Clock: time.Now}, sink: m, parcels: make(chan *parcel, parcelsWaiting)}
	m.streams = map[string][]byte{}
	s.Clock = func() time.Time { // it is asked for once a file is looked at
		_, _ = os.Remove(root+"/a"), os.Remove(root+"/b")
		return time.Now()
	}
	require.ErrorIs(t, s.save(t.Context()), ErrGone)

	m.before = func(string) error { return os.RemoveAll(root) }
	_, err := m.trySave(t, SaveOptions{Path: root})
	require.ErrorIs(t, err, ErrGone)
	_, err = m.trySave(t, SaveOptions{Path: root})
	require.ErrorIs(t, err, unix.ENOENT)
}

// TestSinkFails: an error of the sink is the end, and nothing stays open.
func TestSinkFails(t *testing.T) {
	root := t.TempDir()
	for i := range 1000 {
		write(t, fmt.Sprintf("%s/%d/%d", root, i%20, i), "content")
	}
	before := descriptors(t)
	full := errors.New("store is full")
	for _, at := range []string{directoriesStream, filesPrefix, othersStream} {
		m := newMemory()
		m.before = func(stream string) error {
			if strings.HasPrefix(stream, at) {
				return full
			}
			return nil
		}
		_, err := m.trySave(t, SaveOptions{Path: root})
		require.ErrorIs(t, err, full)
	}
	require.Equal(t, before, descriptors(t), "every directory and file is closed again")
}

func descriptors(t *testing.T) int {
	t.Helper()
	return len(sortedNames(t, "/proc/self/fd"))
}

// TestSkipped: sockets, and what belongs to the file system, are reported.
func TestSkipped(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/file", "content")
	require.NoError(t, os.Mkdir(root+"/lost+found", 0o700))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	t.Chdir(root) // paths of sockets are short
	require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: "socket"}))
	require.NoError(t, unix.Close(fd))
	m := newMemory()
	counts, r := m.save(t, SaveOptions{Path: root})
	require.EqualValues(t, 2, counts.Entries())
	require.Len(t, r.Omitted, 2)
	require.Contains(t, r.Omitted[0], `"socket"`)
	require.Contains(t, r.Omitted[1], `"lost+found"`)
}

// TestHardLinkOfVanishedName: the first name of a file vanishes before it is
// read; its content is reached by the others all the same.
func TestHardLinkOfVanishedName(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/a", "content")
	require.NoError(t, os.Link(root+"/a", root+"/b"))
	m := newMemory()
	now := func() time.Time { // it is asked for once a file is looked at
		_ = os.Remove(root + "/a")
		return time.Now().Add(time.Hour)
	}
	m.save(t, SaveOptions{Path: root, Clock: now})
	to := t.TempDir()
	require.NoError(t, restoreInto(t, m, RestoreOptions{Path: to}))
	data, err := os.ReadFile(to + "/b")
	require.NoError(t, err)
	require.Equal(t, "content", string(data))
}

// TestDeepTree: deeper than a path may be long.
func TestDeepTree(t *testing.T) {
	root := t.TempDir()
	const depth = 60
	name := strings.Repeat("d", 200)
	at, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	require.NoError(t, err)
	for range depth {
		require.NoError(t, unix.Mkdirat(at, name, 0o755))
		next, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		require.NoError(t, err)
		require.NoError(t, unix.Close(at))
		at = next
	}
	fd, err := unix.Openat(at, "file", unix.O_CREAT|unix.O_WRONLY, 0o600)
	require.NoError(t, err)
	_, err = unix.Write(fd, []byte("deep"))
	require.NoError(t, err)
	require.NoError(t, errors.Join(unix.Close(fd), unix.Close(at)))
	m := newMemory()
	counts, r := m.save(t, SaveOptions{Path: root})
	require.Empty(t, r.Doubts)
	require.EqualValues(t, depth+1, counts.Directories)
	to := t.TempDir()
	require.NoError(t, restoreInto(t, m, RestoreOptions{Path: to}))
	m2 := newMemory()
	m2.save(t, SaveOptions{Path: to})
	require.Equal(t, m.archive(), m2.archive())
}
