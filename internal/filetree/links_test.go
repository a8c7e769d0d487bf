package filetree

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestInodeOfAnotherFile: a file of two names is read and removed, and a new one of
// two names gets its inode, in a file system that gives numbers again. It is no
// further name of the old one.
func TestInodeOfAnotherFile(t *testing.T) {
	again := false
	for try := 0; try < 20 && !again; try++ { // others take numbers, too
		again = savedReborn(t)
	}
	t.Logf("a new file had the number of an old one: %v", again)
}

func savedReborn(t *testing.T) (again bool) {
	t.Helper()
	root := t.TempDir()
	write(t, root+"/a", "old content")
	require.NoError(t, os.Link(root+"/a", root+"/z"))
	number := inodeOf(t, root+"/a")
	first := []string{"a"}
	for i := range parcelHandles { // so many that a is read and closed before b is seen
		name := fmt.Sprint("f", i)
		first = append(first, name)
		write(t, root+"/"+name, "content")
		require.NoError(t, os.Link(root+"/"+name, root+"/other-"+name))
	}
	lists := [][]string{first, {"b", "c"}}
	m := newMemory()
	m.saveListed(t, root, func() (now []string) {
		switch len(lists) {
		case 0:
			return nil
		case 1:
			require.Eventually(t, func() bool { return !isOpen(root + "/a") }, time.Minute, 10*time.Millisecond)
			require.NoError(t, os.Remove(root+"/a"))
			require.NoError(t, os.Remove(root+"/z"))
			again = newFileAt(t, root, number)
		}
		now, lists = lists[0], lists[1:]
		return now
	})
	to := t.TempDir()
	require.NoError(t, restoreInto(t, m, RestoreOptions{Path: to}))
	for name, want := range map[string]string{"a": "old content", "b": "new content", "c": "new content"} {
		data, err := os.ReadFile(to + "/" + name)
		require.NoError(t, err)
		require.Equal(t, want, string(data), name)
	}
	require.Equal(t, inodeOf(t, to+"/b"), inodeOf(t, to+"/c"), "b and c are one file")
	return again
}

// newFileAt makes b and c, of one file, if possible with this number.
func newFileAt(t *testing.T, root string, number uint64) bool {
	t.Helper()
	var tried []string
	for i := range 50 {
		name := fmt.Sprintf("%s/tried-%d", root, i)
		write(t, name, "new content")
		tried = append(tried, name)
		if inodeOf(t, name) == number {
			break
		}
	}
	last := tried[len(tried)-1]
	require.NoError(t, os.Link(last, root+"/b"))
	require.NoError(t, os.Link(last, root+"/c"))
	for _, name := range tried {
		require.NoError(t, os.Remove(name))
	}
	return inodeOf(t, root+"/b") == number
}

func inodeOf(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	require.NoError(t, unix.Stat(path, &st))
	return st.Ino
}

// isOpen tells whether we have the file open.
func isOpen(path string) bool {
	all, err := os.ReadDir("/proc/self/fd")
	for _, fd := range all {
		if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); to == path {
			return true
		}
	}
	return err != nil
}

// TestIdentity: when a file was made tells it from another one, and where nobody
// knows, its size and times do, although they may have changed since.
func TestIdentity(t *testing.T) {
	born := unix.StatxTimestamp{Sec: 1}
	said := identity{born: born, said: true, size: 3}
	later := identity{born: unix.StatxTimestamp{Sec: 1, Nsec: 1}, said: true, size: 3}
	unsaid := identity{size: 3, modified: unix.Timespec{Sec: 4}, changed: unix.Timespec{Sec: 5}}
	require.True(t, said.same(identity{born: born, said: true, size: 9, changed: unix.Timespec{Sec: 7}}), "another name was given to it")
	require.False(t, said.same(later))
	require.True(t, unsaid.same(unsaid))
	for _, other := range []identity{
		{size: 4, modified: unsaid.modified, changed: unsaid.changed},
		{size: 3, modified: unsaid.changed, changed: unsaid.changed},
		{size: 3, modified: unsaid.modified, changed: unsaid.modified},
	} {
		require.False(t, unsaid.same(other))
		other.said = true
		require.False(t, unsaid.same(other))
	}
}
