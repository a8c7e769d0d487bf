package filetree

import (
	"errors"
	"fmt"
	"strings"
)

// Kind is what an entry is: the type flag of a tar header.
type Kind byte

// The kinds. A socket has none: it is nothing without the program behind it.
const (
	File      Kind = '0'
	HardLink  Kind = '1'
	Symlink   Kind = '2'
	Character Kind = '3'
	Block     Kind = '4'
	Directory Kind = '5'
	FIFO      Kind = '6'
)

func (k Kind) known() bool { return k >= File && k <= FIFO }

// Entry is one thing in a tree.
type Entry struct {
	// Name is the path from the root, of any bytes but NUL, without a slash at
	// either end; "." is the root itself.
	Name string
	Kind Kind
	// Mode has the permissions, and the bits for set-user-ID, set-group-ID and
	// sticky: 12 bits.
	Mode     uint32
	UID, GID uint32
	ModTime  Time
	// Size of a File in bytes, holes included.
	Size int64
	// Extents of a sparse File hold its data, in ascending order; the rest is
	// holes. Nil: all of it is data.
	Extents []Extent
	// Target of a Symlink, any bytes; of a HardLink the name of the entry
	// that it is another name of.
	Target string
	// Major and Minor number of a device.
	Major, Minor uint32
	// Xattrs in order of their names, ACLs among them as the kernel gives them.
	Xattrs []Xattr
}

// Time is seconds since 1970 and nanoseconds, from 0 to 999,999,999.
type Time struct {
	Sec  int64
	Nsec int64
}

// valid leaves room for arithmetic; file systems keep 34 bits of seconds.
func (t Time) valid() bool {
	return t.Nsec >= 0 && t.Nsec < 1_000_000_000 && t.Sec > -1<<62 && t.Sec < 1<<62
}

// Extent is a run of data in a sparse file.
type Extent struct{ Offset, Length int64 }

// Xattr is an extended attribute.
type Xattr struct{ Name, Value string }

// stored is how many bytes of data the entry has in the archive, without what
// lists the extents.
func (e *Entry) stored() int64 {
	if e.Kind != File {
		return 0
	}
	if e.Extents == nil {
		return e.Size
	}
	var n int64
	for _, x := range e.Extents {
		n += x.Length
	}
	return n
}

// ErrArchive says that an archive is none of ours, or is made to do harm.
var ErrArchive = errors.New("archive cannot be trusted")

// validate refuses what no tree holds, names that lead elsewhere first of all.
func (e *Entry) validate() error {
	if err := checkName(e.Name); err != nil {
		return err
	}
	switch {
	case !e.Kind.known():
		return fmt.Errorf("%w: %q is of kind %q", ErrArchive, e.Name, byte(e.Kind))
	case e.Name == "." && e.Kind != Directory:
		return fmt.Errorf("%w: the root is no directory", ErrArchive)
	case e.Size < 0 || e.Kind != File && e.Size > 0 || e.Mode > 0o7777 || !e.ModTime.valid():
		return fmt.Errorf("%w: %q has a size of %d, the mode %o and %d nanoseconds", ErrArchive, e.Name, e.Size, e.Mode, e.ModTime.Nsec)
	case e.Kind == HardLink:
		return checkName(e.Target)
	case e.Kind == Symlink && (e.Target == "" || strings.IndexByte(e.Target, 0) >= 0):
		return fmt.Errorf("%w: symbolic link %q leads to %q", ErrArchive, e.Name, e.Target)
	}
	return checkExtents(e)
}

// checkName accepts a path that stays below the root.
func checkName(name string) error {
	if name == "." {
		return nil
	}
	if strings.IndexByte(name, 0) >= 0 {
		return fmt.Errorf("%w: name %q", ErrArchive, name)
	}
	for element := range strings.SplitSeq(name, "/") {
		if element == "" || element == "." || element == ".." {
			return fmt.Errorf("%w: name %q leads out of the directory, or nowhere", ErrArchive, name)
		}
	}
	return nil
}

func checkExtents(e *Entry) error {
	end := int64(0)
	for _, x := range e.Extents {
		if e.Kind != File || x.Offset < end || x.Length <= 0 || x.Length > e.Size-x.Offset {
			return fmt.Errorf("%w: %q of %d bytes has data at %d, %d bytes", ErrArchive, e.Name, e.Size, x.Offset, x.Length)
		}
		end = x.Offset + x.Length
	}
	return nil
}
