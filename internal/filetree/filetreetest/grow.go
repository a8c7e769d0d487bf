// Package filetreetest makes trees of every kind of entry and says what a tree is,
// by other means than filetree does.
package filetreetest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const (
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"
)

// grower makes a tree of every kind of entry, the same for the same seed.
type grower struct {
	t     testing.TB
	r     *rand.Rand
	root  string
	dirs  []string
	files []string
	made  int
}

// Grow makes a tree of about so many entries, files, links, pipes, devices and
// directories, with owners, modes, attributes, ACLs and times. It takes root.
func Grow(t testing.TB, seed uint64, entries int) string {
	t.Helper()
	return GrowAt(t, t.TempDir(), seed, entries)
}

// GrowAt makes the tree of Grow in a directory, which it returns.
func GrowAt(t testing.TB, root string, seed uint64, entries int) string {
	t.Helper()
	t.Logf("seed %d", seed)
	g := &grower{t: t, r: rand.New(rand.NewPCG(seed, 1)), root: root, dirs: []string{root}}
	for g.made < entries {
		g.entry()
	}
	for _, dir := range g.dirs[1:] { // times change as things are made in them
		g.dress(dir, true)
	}
	g.dress(root, true)
	return root
}

func (g *grower) name() string {
	names := []string{
		"plain", "sp ace", "new\nline", "latin\xff\xfe", "quote'\"\\", "-dash", "*glob?", "ünïcode", "tab\t", ".hidden", "%41=", strings.Repeat("long", 60),
		strings.Repeat("x", 100), strings.Repeat("y", 99),
	}
	name := names[g.r.IntN(len(names))]
	return name[:min(len(name), 240)] + fmt.Sprint(g.made)
}

func (g *grower) entry() {
	t, path := g.t, g.dirs[g.r.IntN(len(g.dirs))]+"/"+g.name()
	g.made++
	switch g.r.IntN(16) {
	case 0, 1:
		require.NoError(t, os.Mkdir(path, 0o700))
		if len(path) < 3000 {
			g.dirs = append(g.dirs, path)
		}
		return
	case 2:
		require.NoError(t, os.Symlink([]string{"plain", "/etc/passwd", "../../..", "\xff\n", strings.Repeat("a/", 500)}[g.r.IntN(5)], path))
		g.own(path)
		g.times(path)
		return
	case 3:
		require.NoError(t, unix.Mkfifo(path, 0o600))
	case 4:
		require.NoError(t, unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	case 5:
		require.NoError(t, unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(4095, 1<<20-1))))
	case 6:
		if len(g.files) > 0 {
			require.NoError(t, os.Link(g.files[g.r.IntN(len(g.files))], path))
			return
		}
		fallthrough
	default:
		g.file(path)
		g.files = append(g.files, path)
		g.dress(path, false)
		return
	}
	g.own(path)
	require.NoError(t, unix.Chmod(path, g.mode()))
	g.times(path)
}

// file writes content of all sizes, some of it sparse.
func (g *grower) file(path string) {
	t := g.t
	f, err := os.Create(path)
	require.NoError(t, err)
	// Around what filetree stores apart, and what it reads at a time.
	sizes := []int{0, 1, 511, 512, 513, 4096, 70_000, 256<<10 - 1, 256 << 10, 1<<20 - 512, 1<<20 + 1, 3 << 20}
	size := sizes[g.r.IntN(len(sizes))]
	if g.r.IntN(5) == 0 {
		require.NoError(t, f.Truncate(int64(size)*3))
		for range g.r.IntN(4) {
			_, err = f.WriteAt(g.bytes(g.r.IntN(9000)+1), int64(g.r.IntN(size*3+1)))
			require.NoError(t, err)
		}
	} else if g.r.IntN(6) == 0 {
		_, err = f.Write(make([]byte, size)) // zeros that are no hole
		require.NoError(t, err)
	} else {
		_, err = f.Write(g.bytes(size))
		require.NoError(t, err)
	}
	require.NoError(t, f.Sync()) // holes show once blocks are allocated
	require.NoError(t, f.Close())
}

func (g *grower) bytes(n int) []byte {
	b := make([]byte, 0, n+8)
	for len(b) < n {
		b = binary.LittleEndian.AppendUint64(b, g.r.Uint64())
	}
	return b[:n]
}

func (g *grower) mode() uint32 {
	return []uint32{0o644, 0o600, 0o755, 0o4755, 0o2750, 0o1777, 0, 0o444, 0o6711}[g.r.IntN(9)]
}

func (g *grower) own(path string) {
	ids := []int{0, 1000, 65534, 1 << 21, 1<<31 + 5}
	require.NoError(g.t, unix.Lchown(path, ids[g.r.IntN(5)], ids[g.r.IntN(5)]))
}

func (g *grower) times(path string) {
	sec := []int64{0, 1, -1, -86400*365*30 - 7, 1_700_000_000, 1 << 33}[g.r.IntN(6)]
	ts := unix.Timespec{Sec: sec, Nsec: []int64{0, 1, 500_000_000, 999_999_999}[g.r.IntN(4)]}
	require.NoError(g.t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
}

// dress gives owner, mode, attributes, ACLs and times.
func (g *grower) dress(path string, directory bool) {
	t := g.t
	g.own(path)
	require.NoError(t, unix.Chmod(path, g.mode()))
	if g.r.IntN(3) == 0 {
		for name, value := range map[string]string{
			"user.a=b%41": "v\x00\n", "user.empty": "", "trusted.secret": "t", "user.long": strings.Repeat("l", 2000),
		} {
			require.NoError(t, unix.Lsetxattr(path, name, []byte(value), 0))
		}
	}
	if g.r.IntN(4) == 0 {
		require.NoError(t, unix.Lsetxattr(path, accessACL, ACL(7, 1000, 5), 0))
	}
	if directory && g.r.IntN(3) == 0 {
		require.NoError(t, unix.Lsetxattr(path, defaultACL, ACL(5, 33, 4), 0))
	}
	if !directory && g.r.IntN(6) == 0 { // cap_net_raw=ep
		require.NoError(t, unix.Lsetxattr(path, "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	}
	g.times(path)
}

// ACL is one for the owner and one more user, as the kernel takes it.
func ACL(owner uint16, user uint32, perm uint16) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, owner, 1<<32 - 1}, {2, perm, user}, {4, 4, 1<<32 - 1}, {16, perm | 4, 1<<32 - 1}, {32, 0, 1<<32 - 1}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}
