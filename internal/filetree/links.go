package filetree

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// inode is where a file is, whatever its names. Once the last of these is gone,
// another file may be there.
type inode struct{ device, number uint64 }

// links are the further names of a file, so many of them not seen yet.
type links struct {
	first string
	left  uint64
	is    identity
}

// identity tells a file from one that has got its inode.
type identity struct {
	// born is when it was made, if the file system has said so.
	born unix.StatxTimestamp
	said bool
	// size and times serve where it does not.
	size              int64
	modified, changed unix.Timespec
}

// identityOf completes what stat has said of a file. flags are of statx.
func identityOf(fd int, name string, flags int, st *unix.Stat_t) identity {
	id := identity{size: st.Size, modified: st.Mtim, changed: st.Ctim}
	var x unix.Statx_t
	err := unix.Statx(fd, name, flags, unix.STATX_INO|unix.STATX_BTIME, &x)
	if err == nil && x.Ino == st.Ino && x.Mask&unix.STATX_BTIME != 0 {
		id.born, id.said = x.Btime, true
	}
	return id
}

// same says that it is still the file that it was. One that was only changed, by a
// name that was given to it or taken from it for example, is, if we know when it was
// made. Otherwise it counts as another one, which costs room and spoils nothing.
func (id identity) same(now identity) bool {
	if id.said && now.said {
		return id.born == now.born
	}
	return id.size == now.size && id.modified == now.modified && id.changed == now.changed
}

// regular hands a file to the workers, or writes that it is another name of one
// that was.
func (w *walker) regular(d *directory, name string, e *Entry, st *unix.Stat_t) error {
	i := item{parent: d, name: name, stat: *st}
	if st.Nlink > 1 {
		key := inode{st.Dev, st.Ino}
		if l := w.links[key]; l != nil && l.is.same(identityOf(d.fd, name, unix.AT_SYMLINK_NOFOLLOW, st)) {
			if l.first == e.Name { // the name was read twice
				return nil
			}
			if l.left--; l.left == 0 {
				delete(w.links, key)
			}
			e.Kind, e.Size, e.Target = HardLink, 0, l.first
			w.tally.add(HardLink, 0)
			return w.others.add(e)
		}
		// From here on it is read, even if this name of it vanishes.
		fd, err := openNoFollow(d.fd, name, 0)
		if err != nil {
			w.note(e.Name, err)
			return nil
		}
		i.file = os.NewFile(uintptr(fd), e.Name)
		if err := unix.Fstat(fd, &i.stat); err != nil || i.stat.Ino != st.Ino || i.stat.Dev != st.Dev {
			_ = i.file.Close()
			w.note(e.Name, errors.Join(err, unix.ENOENT))
			return nil
		}
		w.links[key] = &links{first: e.Name, left: st.Nlink - 1, is: identityOf(fd, "", unix.AT_EMPTY_PATH, &i.stat)}
	}
	w.parcel.add(i)
	if w.parcel.full() {
		return w.hand()
	}
	return nil
}
