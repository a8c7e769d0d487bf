package filetree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// entryOf fills an entry from what stat says; ok is false for sockets, and for
// what no archive knows.
func entryOf(name string, st *unix.Stat_t) (e *Entry, ok bool) {
	e = &Entry{
		Name: name, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
		ModTime: Time{st.Mtim.Sec, st.Mtim.Nsec},
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Kind, e.Size = File, st.Size
	case unix.S_IFDIR:
		e.Kind = Directory
	case unix.S_IFLNK:
		e.Kind = Symlink
	case unix.S_IFIFO:
		e.Kind = FIFO
	case unix.S_IFCHR:
		e.Kind = Character
	case unix.S_IFBLK:
		e.Kind = Block
	default:
		return nil, false
	}
	if e.Kind == Character || e.Kind == Block {
		e.Major, e.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	}
	return e, true
}

// fingerprint is bytes that change whenever the content of a file, its
// attributes or its owner do: size, times and inode. The number of the device
// is not among them: it changes when a volume is mounted anew.
func fingerprint(st *unix.Stat_t) []byte {
	b := make([]byte, 0, 41)
	b = append(b, 1) // of this list
	for _, n := range []int64{st.Size, st.Mtim.Sec, st.Ctim.Sec, int64(st.Ino)} {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(st.Mtim.Nsec))
	return binary.LittleEndian.AppendUint32(b, uint32(st.Ctim.Nsec))
}

// leftOut are attributes that belong to the machine, not to the tree: labels
// are given anew where the tree is mounted.
var leftOut = map[string]bool{"security.selinux": true}

// xattrsOf reads the extended attributes of what is open, through calls that
// list them and get one.
func xattrsOf(list func([]byte) (int, error), get func(string, []byte) (int, error)) ([]Xattr, error) {
	names, err := sized(list)
	if errors.Is(err, unix.ENOTSUP) || err == nil && len(names) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list extended attributes: %w", err)
	}
	var all []Xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if leftOut[name] {
			continue
		}
		value, err := sized(func(b []byte) (int, error) { return get(name, b) })
		if errors.Is(err, unix.ENODATA) {
			continue // it is gone again
		}
		if err != nil {
			return nil, fmt.Errorf("read extended attribute %s: %w", name, err)
		}
		all = append(all, Xattr{name, string(value)})
	}
	slices.SortFunc(all, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// sized calls with a buffer that is large enough. Most trees have no attributes,
// so that the first call, which asks for the size, is mostly the only one.
func sized(call func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := call(nil)
		if err != nil || n == 0 {
			return nil, err
		}
		b := make([]byte, n)
		n, err = call(b)
		if errors.Is(err, unix.ERANGE) {
			continue // it has grown since
		}
		if err != nil {
			return nil, err
		}
		return b[:n], nil
	}
}

// xattrsOfFile are those of an open file or directory.
func xattrsOfFile(fd int) ([]Xattr, error) {
	return xattrsOf(
		func(b []byte) (int, error) { return unix.Flistxattr(fd, b) },
		func(name string, b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
}

// xattrsOfName are those of what cannot be opened: links and devices.
func xattrsOfName(parent int, name string) ([]Xattr, error) {
	path := beside(parent, name)
	return xattrsOf(
		func(b []byte) (int, error) { return unix.Llistxattr(path, b) },
		func(attr string, b []byte) (int, error) { return unix.Lgetxattr(path, attr, b) })
}

// beside is a path to a name within an open directory, for the calls that
// take no directory. It needs /proc.
func beside(parent int, name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", parent, name) }

// readlink reads a symbolic link of any length.
func readlink(parent int, name string) (string, error) {
	for size := 256; ; size *= 2 {
		b := make([]byte, size)
		n, err := unix.Readlinkat(parent, name, b)
		if err != nil {
			return "", err
		}
		if n < size {
			return string(b[:n]), nil
		}
	}
}

// openNoFollow opens a name within a directory. Access times are left alone
// where we may.
func openNoFollow(parent int, name string, flags int) (int, error) {
	flags |= unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := retried(func() (int, error) { return unix.Openat(parent, name, flags|unix.O_NOATIME, 0) })
	if errors.Is(err, unix.EPERM) {
		fd, err = retried(func() (int, error) { return unix.Openat(parent, name, flags, 0) })
	}
	return fd, err
}

// retried repeats a call that a signal has interrupted.
func retried[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if !errors.Is(err, unix.EINTR) {
			return v, err
		}
	}
}

// isGone says that there is nothing under a name any more, or nothing of the
// kind that was there.
func isGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) ||
		errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ESTALE)
}
