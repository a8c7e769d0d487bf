package filetree

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// namesAtOnce is how many names of a directory are held and sorted at a time.
const namesAtOnce = 1024

// lostAndFound belongs to the file system: it is there before anything is, and
// only root may look into it.
const lostAndFound = "lost+found"

// walker goes through the tree. It writes what has no data itself, and hands
// regular files to the workers.
type walker struct {
	*saver
	ctx         context.Context //nolint:containedctx // of the one walk
	device      uint64
	directories archive
	others      archive
	parcel      *parcel
	links       map[inode]*links
	// above are the directories from the root to where the walk is.
	above []*level
}

// level is a directory on the way. Its entry is written when the first thing in
// it is, if it is not meant by itself.
type level struct {
	entry   *Entry
	written bool
}

func (s *saver) walk(ctx context.Context, root *unix.Stat_t) error {
	w := &walker{saver: s, ctx: ctx, device: root.Dev, parcel: &parcel{}, links: map[inode]*links{}}
	var err error
	if w.directories.stream, err = s.sink.Create(ctx, directoriesStream); err != nil {
		return err
	}
	if w.others.stream, err = s.sink.Create(ctx, othersStream); err != nil {
		w.directories.stream.Abort(err)
		return err
	}
	err = w.enter(s.root, root)
	if err == nil {
		err = w.hand()
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		w.parcel.release()
		w.directories.stream.Abort(err)
		w.others.stream.Abort(err)
		return err
	}
	w.others.buf = append(append(w.others.buf, zeroBlock[:]...), zeroBlock[:]...)
	return errors.Join(w.directories.close(), w.others.close())
}

// enter goes through an open directory.
func (w *walker) enter(d *directory, st *unix.Stat_t) error {
	e, _ := entryOf(d.path, st)
	var err error
	if e.Xattrs, err = xattrsOfFile(d.fd); err != nil {
		w.tally.note(unreadable, d.path, err)
	}
	w.above = append(w.above, &level{entry: e})
	defer func() { w.above = w.above[:len(w.above)-1] }()
	if d.path == "." || w.Patterns.includes(d.path) {
		if err := w.writeAbove(); err != nil {
			return err
		}
	}
	for {
		names, err := d.names()
		for _, name := range names {
			if err := w.name(d, name); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || len(names) == 0 && err == nil {
			return nil
		}
		if err != nil {
			if !errors.Is(err, unix.ENOENT) { // it was removed, and all that was in it
				w.tally.note(unreadable, d.path, err)
			}
			return nil
		}
	}
}

// writeAbove writes the directories down to where the walk is.
func (w *walker) writeAbove() error {
	for _, l := range w.above {
		if l.written {
			continue
		}
		if err := w.directories.add(l.entry); err != nil {
			return err
		}
		l.written = true
		w.tally.add(Directory, 0)
	}
	return nil
}

// name looks at one name in a directory.
func (w *walker) name(d *directory, name string) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	path := d.join(name)
	if w.Patterns.excludes(path) {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		w.note(path, err)
		return nil
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return w.descend(d, name, &st)
	}
	if !w.Patterns.includes(path) {
		return nil
	}
	e, ok := entryOf(path, &st)
	if !ok {
		w.tally.note(socket, path, nil)
		return nil
	}
	if err := w.writeAbove(); err != nil {
		return err
	}
	if e.Kind == File {
		return w.regular(d, name, e, &st)
	}
	return w.other(d, name, e)
}

// note notes why a name cannot be read.
func (w *walker) note(path string, err error) {
	if isGone(err) {
		w.tally.note(vanished, path, nil)
		return
	}
	w.tally.note(unreadable, path, err)
}

func (w *walker) descend(d *directory, name string, st *unix.Stat_t) error {
	path := d.join(name)
	if path == lostAndFound || w.OneFileSystem && st.Dev != w.device {
		w.tally.note(foreign, path, nil)
		return nil
	}
	fd, err := openNoFollow(d.fd, name, unix.O_DIRECTORY)
	if err != nil {
		w.note(path, err)
		return nil
	}
	inner := newDirectory(fd, path)
	defer inner.release()
	if err := unix.Fstat(fd, st); err != nil {
		w.note(path, err)
		return nil
	}
	return w.enter(inner, st)
}

// other writes what has no data.
func (w *walker) other(d *directory, name string, e *Entry) error {
	var err error
	if e.Kind == Symlink {
		if e.Target, err = readlink(d.fd, name); err != nil {
			w.note(e.Name, err)
			return nil
		}
	}
	if e.Xattrs, err = xattrsOfName(d.fd, name); err != nil {
		w.note(e.Name, err)
		if isGone(err) {
			return nil
		}
	}
	w.tally.add(e.Kind, 0)
	return w.others.add(e)
}

// hand gives the parcel to whichever worker comes first.
func (w *walker) hand() error {
	select {
	case w.parcels <- w.parcel:
		w.parcel = &parcel{}
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}
