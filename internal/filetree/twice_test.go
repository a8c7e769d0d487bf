package filetree

import (
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// saveListed saves a directory whose names come as next has them: what a file system
// may say while they are given to other files.
func (m *memory) saveListed(t *testing.T, path string, next func() []string) Counts {
	t.Helper()
	m.streams, m.sections, m.next = map[string][]byte{}, m.next, map[string][]byte{}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	require.NoError(t, err)
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(fd, &st))
	s := &saver{
		SaveOptions: SaveOptions{Path: path, Workers: 2, Clock: func() time.Time { return time.Now().Add(time.Hour) }},
		sink:        m, root: newDirectory(fd, "."), parcels: make(chan *parcel, parcelsWaiting),
	}
	defer s.root.release()
	s.root.next = func(int) ([]string, error) {
		if names := next(); names != nil {
			return names, nil
		}
		return nil, io.EOF
	}
	require.NoError(t, s.read(t.Context(), &st))
	s.describe(&m.report)
	m.report.Layout = Layout
	return s.tally.counts
}

// listed gives one list after the other.
func listed(lists ...[]string) func() []string {
	return func() (names []string) {
		if len(lists) > 0 {
			names, lists = lists[0], lists[1:]
		}
		return names
	}
}

// TestNameTwice: a file system may say a name twice, as tmpfs does of one that is
// given to another file meanwhile. It is in the backup once, or, where that was not
// noticed, counted by a restore as it was by the backup.
func TestNameTwice(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/a", "a")
	write(t, root+"/b", "b")
	require.NoError(t, os.Link(root+"/b", root+"/c"))
	require.NoError(t, os.Symlink("a", root+"/s"))
	want := lines(t, root)
	m := newMemory()
	counts := m.saveListed(t, root, listed([]string{"s", "b", "a", "c", "a", "b", "s", "c"}))
	require.EqualValues(t, len(want), counts.Entries())
	for _, again := range [][][]string{
		{{"a", "b", "c", "s"}, {"a"}},
		{{"c"}, {"b"}, {"b"}, {"a"}, {"a"}, {"s"}},
		{{"a", "b", "c", "s"}, {"a", "b", "c", "s"}},
	} {
		m.saveListed(t, root, listed(again...))
		to := t.TempDir()
		require.NoError(t, restoreInto(t, m, RestoreOptions{Path: to, Workers: 2}))
		for _, name := range []string{"a", "b", "c"} {
			data, err := os.ReadFile(to + "/" + name)
			require.NoError(t, err)
			require.Equal(t, map[string]string{"a": "a", "b": "b", "c": "b"}[name], string(data))
		}
	}
}

// TestNameInTwoStreams: workers that make the same name at the same time both do.
func TestNameInTwoStreams(t *testing.T) {
	m := made(t, nil, []*Entry{{Name: "file", Kind: File, Mode: 0o644, Size: 4}}, nil)
	const streams = 40
	stream := m.streams[filesPrefix+"000000.tar"]
	for i := range streams {
		m.streams[fmt.Sprintf("%s%06d.tar", filesPrefix, i)] = stream
	}
	m.report.Objects[0] = (&Counts{Files: streams}).object("/")
	to := t.TempDir()
	require.NoError(t, restoreInto(t, m, RestoreOptions{Path: to, Workers: 8}))
	data, err := os.ReadFile(to + "/file")
	require.NoError(t, err)
	require.Equal(t, "xxxx", string(data))
}

// TestFilesReplaced: programs that replace their files by renaming new ones over
// them, in whatever file system the tests run, leave a backup that can be restored.
func TestFilesReplaced(t *testing.T) {
	root := t.TempDir()
	for i := range 1500 {
		write(t, fmt.Sprint(root, "/", i), "content")
	}
	stop := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		for i := 0; ; i = (i + 7) % 1500 {
			select {
			case <-stop:
				return
			default:
			}
			if os.WriteFile(root+"/new", []byte("content"), 0o644) == nil {
				_ = os.Rename(root+"/new", fmt.Sprint(root, "/", i))
			}
		}
	})
	defer group.Wait()
	defer close(stop)
	for range 3 {
		m := newMemory()
		m.save(t, SaveOptions{Path: root, Fuzzy: true})
		require.NoError(t, restoreInto(t, m, RestoreOptions{Path: t.TempDir(), Workers: 2}))
	}
}
