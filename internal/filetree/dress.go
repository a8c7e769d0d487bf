package filetree

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// dress gives an open file or directory its owner, mode, attributes and time,
// in this order: a new owner takes the bits for set-user-ID and capabilities
// away, and an ACL is a part of the mode.
func (s *restorer) dress(fd int, e *Entry, mode uint32) error {
	if err := s.own(e, func() error { return unix.Fchown(fd, int(e.UID), int(e.GID)) }); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, s.mode(e, mode)); err != nil {
		return fmt.Errorf("set mode %04o: %w", mode, err)
	}
	if s.Replace { // where something is inherited from what was there
		for _, name := range []string{accessACL, defaultACL} {
			err := unix.Fremovexattr(fd, name)
			if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EACCES) {
				return fmt.Errorf("take away %s: %w", name, err)
			}
		}
		if err := unix.Fchmod(fd, s.mode(e, mode)); err != nil {
			return fmt.Errorf("set mode %04o: %w", mode, err)
		}
	}
	if err := s.setXattrs(e, func(name string, value []byte) error { return unix.Fsetxattr(fd, name, value, 0) }); err != nil {
		return err
	}
	return setTimeOf(fd, e)
}

// dressNode does the same for what is not opened: its descriptor is a place only.
func (s *restorer) dressNode(fd int, e *Entry) error {
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	if err := s.own(e, func() error { return unix.Fchownat(fd, "", int(e.UID), int(e.GID), unix.AT_EMPTY_PATH) }); err != nil {
		return err
	}
	if err := unix.Chmod(path, s.mode(e, e.Mode)); err != nil {
		return fmt.Errorf("set mode %04o: %w", e.Mode, err)
	}
	if err := s.setXattrs(e, func(name string, value []byte) error { return unix.Setxattr(path, name, value, 0) }); err != nil {
		return err
	}
	return setTimeOf(fd, e)
}

// mode is the one to set. A program that takes on its owner's rights is not to
// take on those of whoever restores it.
func (s *restorer) mode(e *Entry, mode uint32) uint32 {
	if s.NoOwner && e.Kind != Directory {
		return mode &^ (unix.S_ISUID | unix.S_ISGID)
	}
	return mode
}

func (s *restorer) own(e *Entry, chown func() error) error {
	if s.NoOwner {
		return nil
	}
	err := chown()
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: give it to %d:%d: restore as root, or with --no-owner", ErrRights, e.UID, e.GID)
	}
	if err != nil {
		return fmt.Errorf("give it to %d:%d: %w", e.UID, e.GID, err)
	}
	return nil
}

func (s *restorer) setXattrs(e *Entry, set func(string, []byte) error) error {
	if s.NoXattrs {
		return nil
	}
	for _, x := range e.Xattrs {
		err := set(x.Name, []byte(x.Value))
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("%w: set extended attribute %s (%w): restore as root and into a file system that has it, or with --no-xattrs", ErrRights, x.Name, err)
		}
		if err != nil {
			return fmt.Errorf("set extended attribute %s: %w", x.Name, err)
		}
	}
	return nil
}

// times leaves the time of the last access alone.
func times(e *Entry) []unix.Timespec {
	return []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: e.ModTime.Sec, Nsec: e.ModTime.Nsec}}
}

// setTimeOf sets the time of what a descriptor stands for.
func setTimeOf(fd int, e *Entry) error {
	return timeError(e, unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), times(e), 0))
}

// setTime sets the time of a name, a symbolic link's too.
func setTime(parent int, base string, e *Entry) error {
	return timeError(e, unix.UtimesNanoAt(parent, base, times(e), unix.AT_SYMLINK_NOFOLLOW))
}

func timeError(e *Entry, err error) error {
	if err != nil {
		return fmt.Errorf("set time %s: %w", formatTime(e.ModTime), err)
	}
	return nil
}

// sameAs makes sure that the target, which belongs to another user, is as the
// root of the tree was: what is not, only its owner can change.
func (s *restorer) sameAs(fd int, e *Entry) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if s.NoOwner || st.Uid == e.UID && st.Gid == e.GID && st.Mode&0o7777 == e.Mode {
		return nil
	}
	return fmt.Errorf("%w: the target belongs to %d:%d and has the mode %04o, the tree's root belonged to %d:%d and had %04o: restore as root, or with --no-owner",
		ErrRights, st.Uid, st.Gid, st.Mode&0o7777, e.UID, e.GID, e.Mode)
}

// finish gives directories their owners, modes and times, once all is in them.
type finish struct {
	*restorer
	// closed are those that we may not look into any more then: last of all.
	closed []*Entry
}

func (f *finish) directory(h *handles, e *Entry, _ io.Reader) error {
	if f.given && e.Name == "." { // and was as it should be when it was first seen
		return nil
	}
	mode := e.Mode
	if mode&0o700 != 0o700 && os.Geteuid() != 0 {
		mode |= 0o700
		f.closed = append(f.closed, &Entry{Name: e.Name, Kind: Directory, Mode: e.Mode})
	}
	return f.opened(h, e, func(fd int) error { return f.dress(fd, e, mode) })
}

// opened calls do with the directory, open for more than a place.
func (f *finish) opened(h *handles, e *Entry, do func(fd int) error) error {
	place, err := h.directory(e.Name)
	if err != nil {
		return err
	}
	fd, err := unix.Openat(place, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open directory %q: %w", e.Name, err)
	}
	if err := errors.Join(do(fd), unix.Close(fd)); err != nil {
		return fmt.Errorf("restore directory %q: %w", e.Name, err)
	}
	return nil
}

// close takes our own rights away, from the innermost directory outwards.
func (f *finish) close() (err error) {
	h := &handles{s: f.restorer}
	defer func() { err = errors.Join(err, h.close()) }()
	for _, e := range slices.Backward(f.closed) {
		if err := f.opened(h, e, func(fd int) error { return unix.Fchmod(fd, e.Mode) }); err != nil {
			return err
		}
	}
	return nil
}
