package filetree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// makeDirectory makes a directory that only who restores can look into.
func (s *restorer) makeDirectory(h *handles, e *Entry, _ io.Reader) error {
	if e.Kind != Directory {
		return fmt.Errorf("%w: %q among the directories", ErrArchive, e.Name)
	}
	s.tally.add(Directory, 0)
	if !s.Patterns.empty() {
		s.mu.Lock()
		s.made[e.Name] = true
		s.mu.Unlock()
	}
	if e.Name == "." {
		if s.given { // before anything is made that it does not fit
			return s.sameAs(s.root, e)
		}
		return nil
	}
	parent, base, err := h.parent(e.Name)
	if err != nil {
		return err
	}
	err = unix.Mkdirat(parent, base, 0o700)
	if errors.Is(err, unix.EEXIST) {
		// It may be there; what is no directory, or leads elsewhere, may not.
		_, err = h.directory(e.Name)
		if errors.Is(err, unix.ENOTDIR) {
			err = fmt.Errorf("%w: something else is in its place: remove that, and restore again", err)
		}
		return err
	}
	if err != nil {
		return fmt.Errorf("make directory %q: %w", e.Name, err)
	}
	return nil
}

// files restores a stream of files.
func (s *restorer) files(ctx context.Context, stream string) error {
	return s.each(ctx, stream, func(h *handles, e *Entry, data io.Reader) error {
		if e.Kind != File {
			return fmt.Errorf("%w: %q among the files", ErrArchive, e.Name)
		}
		if h.last != e.Name {
			s.tally.add(File, e.Size)
		}
		h.last = e.Name
		if err := s.file(h, e, data); err != nil {
			return fmt.Errorf("restore %q: %w", e.Name, err)
		}
		return nil
	})
}

// file makes a file. One that could not be written whole is removed.
func (s *restorer) file(h *handles, e *Entry, data io.Reader) error {
	parent, base, err := h.parent(e.Name)
	if err != nil {
		return err
	}
	var f *os.File
	err = h.make(parent, base, func() error {
		const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
		fd, err := retried(func() (int, error) { return unix.Openat(parent, base, flags, 0o600) })
		if err == nil {
			f = os.NewFile(uintptr(fd), e.Name)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err = h.write(f, e, data); err == nil {
		err = s.dress(int(f.Fd()), e, e.Mode)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, unix.Unlinkat(parent, base, 0))
	}
	return nil
}

const (
	// writeSize is what is written at a time: as much as is still in a processor's cache when the kernel copies it,
	// which takes half as long then.
	writeSize = 256 << 10
	// startEvery is how much of a file is written before the kernel is told to begin storing it. By itself it would
	// wait, and the restore for all of it at its end.
	startEvery = 8 << 20
)

// write writes the data, and leaves holes where there were holes.
func (h *handles) write(f *os.File, e *Entry, data io.Reader) error {
	if h.buf == nil {
		h.buf = make([]byte, writeSize)
	}
	extents := e.Extents
	if extents == nil {
		extents = []Extent{{0, e.Size}}
	} else if err := f.Truncate(e.Size); err != nil {
		return err
	}
	var waiting int64 // written, and not begun to be stored
	for _, x := range extents {
		for x.Length > 0 {
			n, err := io.ReadFull(data, h.buf[:min(int64(len(h.buf)), x.Length)])
			if err != nil {
				return fmt.Errorf("read its data: %w", err)
			}
			if _, err := f.WriteAt(h.buf[:n], x.Offset); err != nil {
				return err
			}
			x.Offset, x.Length = x.Offset+int64(n), x.Length-int64(n)
			if waiting += int64(n); waiting >= startEvery {
				waiting = 0
				startStoring(int(f.Fd()))
			}
		}
	}
	return nil
}

// startStoring is a hint: what it cannot do, or what it meets, syncfs does and says at the end.
func startStoring(fd int) { _ = unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE) }

// makeOther makes what has no data.
func (s *restorer) makeOther(h *handles, e *Entry, _ io.Reader) (err error) {
	parent, base, err := h.parent(e.Name)
	if err != nil {
		return err
	}
	switch e.Kind {
	case Symlink:
		err = s.symlink(h, parent, base, e)
	case HardLink:
		err = s.link(h, parent, base, e)
	case FIFO:
		err = s.node(h, parent, base, e, unix.S_IFIFO)
	case Character, Block:
		if s.NoDevices {
			s.tally.note(unmade, e.Name, nil)
			return nil
		}
		kind := uint32(unix.S_IFCHR)
		if e.Kind == Block {
			kind = unix.S_IFBLK
		}
		err = s.node(h, parent, base, e, kind)
	default:
		err = fmt.Errorf("%w: %q among links and devices", ErrArchive, e.Name)
	}
	if err != nil {
		return fmt.Errorf("restore %q: %w", e.Name, err)
	}
	s.tally.add(e.Kind, 0)
	return nil
}

func (s *restorer) symlink(h *handles, parent int, base string, e *Entry) error {
	if err := h.make(parent, base, func() error { return unix.Symlinkat(e.Target, parent, base) }); err != nil {
		return err
	}
	if err := s.own(e, func() error {
		return unix.Fchownat(parent, base, int(e.UID), int(e.GID), unix.AT_SYMLINK_NOFOLLOW)
	}); err != nil {
		return err
	}
	path := beside(parent, base)
	if err := s.setXattrs(e, func(name string, value []byte) error { return unix.Lsetxattr(path, name, value, 0) }); err != nil {
		return err
	}
	return setTime(parent, base, e)
}

// link makes another name of a file that is there.
func (s *restorer) link(h *handles, parent int, base string, e *Entry) error {
	targetParent, targetBase, err := h.targets().parent(e.Target)
	if err != nil {
		return err
	}
	err = h.make(parent, base, func() error { return unix.Linkat(targetParent, targetBase, parent, base, 0) })
	if errors.Is(err, unix.ENOENT) && !s.Patterns.empty() {
		return fmt.Errorf("it is another name of %q, which was not asked for: choose that, too", e.Target)
	}
	if err != nil {
		return fmt.Errorf("make it another name of %q: %w", e.Target, err)
	}
	return nil
}

// node makes a FIFO or a device.
func (s *restorer) node(h *handles, parent int, base string, e *Entry, kind uint32) error {
	device := unix.Mkdev(e.Major, e.Minor)
	err := h.make(parent, base, func() error { return unix.Mknodat(parent, base, kind|0o600, int(device)) })
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: make a device: restore as root, or with --no-devices", ErrRights)
	}
	if err != nil {
		return err
	}
	fd, err := unix.Openat(parent, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(s.dressNode(fd, e), unix.Close(fd))
}
