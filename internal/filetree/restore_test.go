package filetree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"keepset/internal/record"
)

// made is an archive of entries that no Save would write.
func made(t testing.TB, directories, files, others []*Entry) *memory {
	t.Helper()
	m := newMemory()
	m.streams = map[string][]byte{}
	var counts Counts
	for name, list := range map[string][]*Entry{directoriesStream: directories, filesPrefix + "000000.tar": files, othersStream: others} {
		var b []byte
		for _, e := range list {
			var err error
			b, err = appendHeader(b, e)
			require.NoError(t, err)
			content := strings.Repeat("x", int(e.stored()))
			b = append(append(b, content...), zeroBlock[:padding(e.stored())]...)
			counts.add(e.Kind)
		}
		m.streams[name] = b
	}
	m.report = record.Report{Layout: Layout, Objects: []record.Object{counts.object("/")}}
	return m
}

func directoryEntry(name string) *Entry { return &Entry{Name: name, Kind: Directory, Mode: 0o755} }

// TestNeverOutside: names that lead out of the target, by themselves or over
// links that the archive makes first, are refused, and what lies outside is
// as it was.
func TestNeverOutside(t *testing.T) {
	outside := t.TempDir()
	write(t, outside+"/precious", "precious")
	before := lines(t, outside)
	file := func(name string) *Entry { return &Entry{Name: name, Kind: File, Mode: 0o644, Size: 4} }
	link := &Entry{Name: "way", Kind: Symlink, Target: outside}
	for name, m := range map[string]*memory{
		"dots":                made(t, nil, []*Entry{file("../precious")}, nil),
		"dots within":         made(t, []*Entry{directoryEntry("a")}, []*Entry{file("a/../../precious")}, nil),
		"absolute":            made(t, nil, []*Entry{file(outside + "/precious")}, nil),
		"dot":                 made(t, nil, []*Entry{file("a/./b")}, nil),
		"empty element":       made(t, nil, []*Entry{file("a//b")}, nil),
		"no name":             made(t, nil, []*Entry{file("")}, nil),
		"the root a file":     made(t, nil, []*Entry{file(".")}, nil),
		"NUL":                 made(t, nil, []*Entry{file(strings.Repeat("n", 120) + "\x00")}, nil),
		"directory":           made(t, []*Entry{directoryEntry("../made")}, nil, nil),
		"hard link":           made(t, nil, nil, []*Entry{{Name: "l", Kind: HardLink, Target: "../precious"}}),
		"absolute link":       made(t, nil, nil, []*Entry{{Name: "l", Kind: HardLink, Target: outside + "/precious"}}),
		"over a link":         made(t, nil, nil, []*Entry{link, {Name: "way/pipe", Kind: FIFO}}),
		"link over link":      made(t, nil, nil, []*Entry{link, {Name: "l", Kind: HardLink, Target: "way/precious"}}),
		"link as a directory": made(t, []*Entry{{Name: "way", Kind: Symlink, Target: outside}}, []*Entry{file("way/precious")}, nil),
		"link among files":    made(t, nil, []*Entry{{Name: "way", Kind: Symlink, Target: outside}, file("way/precious")}, nil),
	} {
		t.Run(name, func(t *testing.T) {
			to := t.TempDir()
			err := restoreInto(t, m, RestoreOptions{Path: to})
			require.Error(t, err)
			requireSame(t, before, outside)
			require.NoFileExists(t, filepath.Dir(to)+"/precious")
			require.NoDirExists(t, filepath.Dir(to)+"/made")
		})
	}
}

// TestLinksInTheTarget: with --replace, what is there already may be a link.
func TestLinksInTheTarget(t *testing.T) {
	outside := t.TempDir()
	write(t, outside+"/precious", "precious")
	before := lines(t, outside)
	root := t.TempDir()
	write(t, root+"/way/precious", "from the backup")
	write(t, root+"/precious", "from the backup")
	m := newMemory()
	m.save(t, SaveOptions{Path: root})
	to := t.TempDir()
	require.NoError(t, os.Symlink(outside, to+"/way"))
	require.ErrorIs(t, restoreInto(t, m, RestoreOptions{Path: to, Replace: true}), unix.ENOTDIR)
	requireSame(t, before, outside)

	require.NoError(t, os.Remove(to+"/way"))
	require.NoError(t, os.RemoveAll(to+"/precious"))
	require.NoError(t, os.Symlink(outside+"/precious", to+"/precious"))
	write(t, to+"/other", "left alone")
	require.ErrorIs(t, restoreInto(t, m, RestoreOptions{Path: to}), ErrNotEmpty)
	require.NoError(t, restoreInto(t, m, RestoreOptions{Path: to, Replace: true}))
	requireSame(t, before, outside)
	require.FileExists(t, to+"/other")
	require.NoError(t, os.Remove(to+"/other"))
	// Removing changed the root's time.
	var st unix.Stat_t
	require.NoError(t, unix.Stat(root, &st))
	require.NoError(t, unix.UtimesNanoAt(unix.AT_FDCWD, to, []unix.Timespec{st.Mtim, st.Mtim}, 0))
	requireSame(t, lines(t, root), to)
}

// TestOtherKindInTheTarget: with --replace, neither is a directory removed with all that
// is in it, nor anything that a directory would take the place of.
func TestOtherKindInTheTarget(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/directory/file", "from the backup")
	write(t, root+"/file", "from the backup")
	m := newMemory()
	m.save(t, SaveOptions{Path: root})
	to := t.TempDir()
	write(t, to+"/file/precious", "precious")
	err := restoreInto(t, m, RestoreOptions{Path: to, Replace: true})
	require.ErrorIs(t, err, unix.EISDIR)
	require.ErrorContains(t, err, `restore "file"`)
	require.ErrorContains(t, err, "remove it with all that is in it, and restore again")
	require.FileExists(t, to+"/file/precious")

	to = t.TempDir()
	write(t, to+"/directory", "precious")
	err = restoreInto(t, m, RestoreOptions{Path: to, Replace: true})
	require.ErrorIs(t, err, unix.ENOTDIR)
	require.ErrorContains(t, err, `"directory"`)
	require.ErrorContains(t, err, "remove that, and restore again")
	require.Equal(t, []string{"directory"}, sortedNames(t, to), "nothing was made")
}

// racing puts a link to the outside in the place of a directory that was made,
// as soon as the first byte of a file is asked for.
type racing struct {
	*memory
	swap func() error
}

type racingReader struct {
	io.ReadCloser
	swap func() error
}

func (r *racing) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	body, err := r.memory.Open(ctx, name)
	if err == nil && strings.HasPrefix(name, filesPrefix) {
		return &racingReader{body, r.swap}, nil
	}
	return body, err
}

func (r *racingReader) Read(p []byte) (int, error) {
	if r.swap != nil {
		if err := r.swap(); err != nil {
			return 0, err
		}
		r.swap = nil
	}
	return r.ReadCloser.Read(p)
}

// TestLinkRace: somebody who can write to the target replaces a directory of it
// by a link while it is being filled.
func TestLinkRace(t *testing.T) {
	outside := t.TempDir()
	write(t, outside+"/precious", "precious")
	before := lines(t, outside)
	root := t.TempDir()
	write(t, root+"/a/b/precious", "from the backup")
	m := newMemory()
	m.save(t, SaveOptions{Path: root})
	for _, at := range []string{"/a", "/a/b"} {
		to := t.TempDir()
		r := &racing{m, func() error { return errors.Join(os.RemoveAll(to+at), os.Symlink(outside, to+at)) }}
		_, err := Restore(t.Context(), r, RestoreOptions{Path: to})
		require.ErrorIs(t, err, unix.ENOTDIR)
		requireSame(t, before, outside)
	}
}

// ownDisk is an empty disk in memory. It is mounted in a process of its own, with
// which it goes: that runs the test again, and here it is over once that has passed.
func ownDisk(t *testing.T, options string) string {
	t.Helper()
	disk := os.Getenv("KEEPSET_TEST_DISK")
	if disk == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v")
		cmd.Env = append(os.Environ(), "KEEPSET_TEST_DISK="+t.TempDir())
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: "+t.Name())
		return ""
	}
	require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	require.NoError(t, unix.Mount("tmpfs", disk, "tmpfs", 0, options))
	return disk
}

// TestFullDisk: a target that fills up says so, keeps no half of a file, and
// nothing beside it is touched.
func TestFullDisk(t *testing.T) {
	disk := ownDisk(t, "size=1m")
	if disk == "" {
		return
	}
	root := t.TempDir()
	write(t, root+"/a", strings.Repeat("a", 600<<10))
	write(t, root+"/b", strings.Repeat("b", 600<<10))
	m := newMemory()
	m.save(t, SaveOptions{Path: root})
	write(t, disk+"/beside", "beside")
	err := restoreInto(t, m, RestoreOptions{Path: disk + "/tree"})
	require.ErrorIs(t, err, unix.ENOSPC)
	require.ErrorContains(t, err, "make room, empty it, and restore again")
	data, err := os.ReadFile(disk + "/beside")
	require.NoError(t, err)
	require.Equal(t, "beside", string(data))
	for _, name := range sortedNames(t, disk+"/tree") {
		data, err := os.ReadFile(disk + "/tree/" + name)
		require.NoError(t, err)
		require.Equal(t, strings.Repeat(name, 600<<10), string(data), "a file is whole, or it is not there")
	}
}

// TestFewerRights: what cannot be set is an error that says what to do, and is
// left out when that was asked for.
func TestFewerRights(t *testing.T) {
	m := made(t, []*Entry{directoryEntry("."), {Name: "closed", Kind: Directory, UID: 12345, Mode: 0o500}}, []*Entry{
		{Name: "closed/file", Kind: File, Mode: 0o4755, UID: 12345, GID: 12345, Size: 3, Xattrs: []Xattr{{"trusted.t", "v"}}},
	}, []*Entry{{Name: "null", Kind: Character, Mode: 0o666, Major: 1, Minor: 3}})
	to := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(to), 0o755))
	require.NoError(t, os.Chown(to, 65534, 65534))
	as := func(o RestoreOptions) (err error) {
		o.Path = to + "/new"
		require.NoError(t, os.RemoveAll(o.Path))
		asNobody(t, func() { err = restoreInto(t, m, o) })
		return err
	}
	err := as(RestoreOptions{})
	require.ErrorIs(t, err, ErrRights)
	require.ErrorContains(t, err, "--no-owner")
	err = as(RestoreOptions{NoOwner: true})
	require.ErrorIs(t, err, ErrRights)
	require.ErrorContains(t, err, "--no-xattrs")
	err = as(RestoreOptions{NoOwner: true, NoXattrs: true})
	require.ErrorIs(t, err, ErrRights)
	require.ErrorContains(t, err, "--no-devices")
	require.NoError(t, as(RestoreOptions{NoOwner: true, NoXattrs: true, NoDevices: true}))
	var st unix.Stat_t
	require.NoError(t, unix.Stat(to+"/new/closed/file", &st))
	require.EqualValues(t, 0o100755, st.Mode, "nobody's rights are given away")
	require.EqualValues(t, 65534, st.Uid)
	require.NoError(t, unix.Stat(to+"/new/closed", &st))
	require.EqualValues(t, 0o40500, st.Mode)
}

// TestMountPoint: a directory that belongs to another user, as an empty volume
// does, is filled all the same, if it is as the tree's root was.
func TestMountPoint(t *testing.T) {
	to := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(to), 0o755))
	into := func(root *Entry, o RestoreOptions) (err error) {
		m := made(t, []*Entry{root}, []*Entry{{Name: "file", Kind: File, Mode: 0o600, UID: 65534, GID: 65534, Size: 3}}, nil)
		o.Path = to + "/volume"
		require.NoError(t, os.RemoveAll(o.Path))
		require.NoError(t, os.Mkdir(o.Path, 0o700))
		require.NoError(t, unix.Chmod(o.Path, 0o1777))
		asNobody(t, func() { err = restoreInto(t, m, o) })
		return err
	}
	same := &Entry{Name: ".", Kind: Directory, Mode: 0o1777}
	require.NoError(t, into(same, RestoreOptions{}))
	require.Equal(t, []string{"file"}, sortedNames(t, to+"/volume"))
	for _, other := range []*Entry{{Name: ".", Kind: Directory, Mode: 0o755}, {Name: ".", Kind: Directory, Mode: 0o1777, UID: 65534}, {Name: ".", Kind: Directory, Mode: 0o1777, GID: 65534}} {
		err := into(other, RestoreOptions{})
		require.ErrorIs(t, err, ErrRights)
		require.ErrorContains(t, err, "--no-owner")
		require.Empty(t, sortedNames(t, to+"/volume"), "it was found before anything was made")
		require.NoError(t, into(other, RestoreOptions{NoOwner: true}))
	}
}

// asNobody gives up root's rights meanwhile, on all threads. /proc stays ours.
func asNobody(t *testing.T, do func()) {
	t.Helper()
	require.NoError(t, syscall.Setresgid(-1, 65534, -1))
	require.NoError(t, syscall.Setresuid(-1, 65534, -1))
	defer func() {
		require.NoError(t, syscall.Setresuid(-1, 0, -1))
		require.NoError(t, syscall.Setresgid(-1, 0, -1))
	}()
	require.NoError(t, unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0))
	do()
}

// TestUnreadable: what cannot be read makes the backup doubtful, and the rest is
// in it.
func TestUnreadable(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(root), 0o755))
	require.NoError(t, os.Chmod(root, 0o755))
	write(t, root+"/open", "open")
	write(t, root+"/closed", "closed")
	write(t, root+"/directory/file", "closed")
	require.NoError(t, os.Chmod(root+"/closed", 0))
	require.NoError(t, os.Chmod(root+"/directory", 0))
	m := newMemory()
	var r record.Report
	asNobody(t, func() { _, r = m.save(t, SaveOptions{Path: root}) })
	require.Len(t, r.Doubts, 1)
	require.Contains(t, r.Doubts[0], `2 entries could not be read`)
	require.Contains(t, r.Doubts[0], `"closed" (permission denied)`)
	require.Contains(t, r.Doubts[0], `"directory" (permission denied)`)
	to := t.TempDir()
	require.NoError(t, restoreInto(t, m, RestoreOptions{Path: to}))
	require.FileExists(t, to+"/open")
}

// TestUnreadableAttributes: a file whose extended attributes could not be read is
// doubted by every backup, not by the first alone. Here there are more of them than
// Linux lists, on a disk of this test's own.
func TestUnreadableAttributes(t *testing.T) {
	root := ownDisk(t, "")
	if root == "" {
		return
	}
	write(t, root+"/file", "content")
	for i := range 400 {
		require.NoError(t, unix.Setxattr(root+"/file", fmt.Sprintf("trusted.%0200d", i), []byte("v"), 0))
	}
	m := newMemory()
	for range 2 {
		counts, r := m.save(t, SaveOptions{Path: root})
		require.Zero(t, counts.Unchanged)
		require.Len(t, r.Doubts, 1)
		require.Contains(t, r.Doubts[0], `"file" (list extended attributes: argument list too long)`)
	}
	for i := range 390 {
		require.NoError(t, unix.Removexattr(root+"/file", fmt.Sprintf("trusted.%0200d", i)))
	}
	for _, unchanged := range []int64{0, 1} {
		counts, r := m.save(t, SaveOptions{Path: root})
		require.Empty(t, r.Doubts)
		require.Equal(t, unchanged, counts.Unchanged)
	}
}

// TestInheritedACL: a target whose new files get an ACL of their own accord.
func TestInheritedACL(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/a/file", "content")
	m := newMemory()
	m.save(t, SaveOptions{Path: root})
	to := t.TempDir()
	require.NoError(t, unix.Setxattr(to, defaultACL, acl(7, 1000, 7), 0))
	require.NoError(t, restoreInto(t, m, RestoreOptions{Path: to}))
	requireSame(t, lines(t, root), to)

	to = t.TempDir()
	require.NoError(t, os.MkdirAll(to+"/a", 0o755))
	require.NoError(t, unix.Setxattr(to+"/a", defaultACL, acl(7, 1000, 7), 0))
	require.NoError(t, restoreInto(t, m, RestoreOptions{Path: to, Replace: true}))
	requireSame(t, lines(t, root), to)
}

// TestChosen: patterns of a restore.
func TestChosen(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"/etc/a.conf", "/etc/b.tmp", "/var/lib/db/data", "/var/lib/db/x.tmp", "/var/log/messages"} {
		write(t, root+name, name)
	}
	require.NoError(t, os.Chmod(root+"/var/lib", 0o711))
	m := newMemory()
	m.save(t, SaveOptions{Path: root})
	patterns, err := ParsePatterns([]string{"var/lib/db"}, []string{"*.tmp"})
	require.NoError(t, err)
	to := t.TempDir()
	require.NoError(t, restoreInto(t, m, RestoreOptions{Path: to, Patterns: patterns}))
	require.FileExists(t, to+"/var/lib/db/data")
	require.NoFileExists(t, to+"/var/lib/db/x.tmp")
	require.NoDirExists(t, to+"/etc")
	require.NoDirExists(t, to+"/var/log")
	info, err := os.Stat(to + "/var/lib")
	require.NoError(t, err)
	require.EqualValues(t, 0o711, info.Mode().Perm())
	patterns, err = ParsePatterns([]string{"nothing"}, nil)
	require.NoError(t, err)
	require.ErrorIs(t, restoreInto(t, m, RestoreOptions{Path: t.TempDir(), Patterns: patterns}), ErrMismatch)
	patterns, err = ParsePatterns([]string{"var/log", "lib/*.conf", "*.tmp", "messages", "y.tmp"}, []string{"*.tmp"})
	require.NoError(t, err)
	err = restoreInto(t, m, RestoreOptions{Path: t.TempDir(), Patterns: patterns, Workers: 2})
	require.ErrorIs(t, err, ErrMismatch)
	require.ErrorContains(t, err, "nothing of it was chosen by /lib/*.conf, *.tmp, y.tmp; the rest")

	// The same ones of a backup.
	patterns, err = ParsePatterns([]string{"var/lib/db"}, []string{"*.tmp"})
	require.NoError(t, err)
	m = newMemory()
	counts, _ := m.save(t, SaveOptions{Path: root, Patterns: patterns})
	require.EqualValues(t, 1, counts.Files)
	require.EqualValues(t, 4, counts.Directories)
	to = t.TempDir()
	require.NoError(t, restoreInto(t, m, RestoreOptions{Path: to}))
	require.FileExists(t, to+"/var/lib/db/data")
}

// TestCutShort: an archive that ends anywhere but between two entries, or that
// has lost some, is an error, never a smaller tree.
func TestCutShort(t *testing.T) {
	m := newMemory()
	root := t.TempDir()
	write(t, root+"/file", strings.Repeat("content", 200))
	write(t, root+"/other", "content")
	m.save(t, SaveOptions{Path: root})
	name := filesPrefix + "000000.tar"
	whole := m.streams[name]
	for n := range len(whole)/100 + 1 {
		m.streams[name] = whole[:n*100]
		err := restoreInto(t, m, RestoreOptions{Path: t.TempDir()})
		require.Error(t, err, "%d bytes", n*100)
		require.True(t, errors.Is(err, ErrArchive) || errors.Is(err, ErrMismatch), "%v", err)
	}
}
