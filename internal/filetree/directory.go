package filetree

import (
	"os"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// directory is an open directory, kept open while somebody needs it: what is
// in it is opened from there, so that nobody who renames directories, or puts
// links in their places, leads a reader elsewhere.
type directory struct {
	file *os.File
	fd   int
	// next reads so many names, or fewer.
	next func(n int) ([]string, error)
	// path from the root, "." for the root itself.
	path string
	refs atomic.Int32
}

func newDirectory(fd int, path string) *directory {
	d := &directory{file: os.NewFile(uintptr(fd), path), fd: fd, path: path}
	d.next = d.file.Readdirnames
	d.refs.Store(1)
	return d
}

func (d *directory) retain() { d.refs.Add(1) }

// names reads the next names, sorted, each once: a name that is given to something
// else while the directory is read may be read as the old one's and as the new one's.
func (d *directory) names() ([]string, error) {
	names, err := d.next(namesAtOnce)
	slices.Sort(names)
	return slices.Compact(names), err
}

// release closes the directory with its last user. It was only read.
func (d *directory) release() {
	if d.refs.Add(-1) == 0 {
		_ = d.file.Close()
	}
}

// join is the path of a name within the directory.
func (d *directory) join(name string) string {
	if d.path == "." {
		return name
	}
	return d.path + "/" + name
}

// item is a regular file on its way to a worker.
type item struct {
	parent *directory
	name   string
	stat   unix.Stat_t
	// file is set where the walk has opened it: it has further names, which
	// rely on this one being read.
	file *os.File
}

func (i *item) path() string { return i.parent.join(i.name) }

// parcel is a few files that one worker reads, one after the other.
type parcel struct {
	items []item
	// bytes of the files, and how many descriptors the parcel keeps open.
	bytes   int64
	handles int
}

const (
	parcelFiles   = 256
	parcelBytes   = 16 << 20
	parcelHandles = 32
)

func (p *parcel) full() bool {
	return len(p.items) >= parcelFiles || p.bytes >= parcelBytes || p.handles >= parcelHandles
}

func (p *parcel) add(i item) {
	if n := len(p.items); n == 0 || p.items[n-1].parent != i.parent {
		p.handles++
	}
	if i.file != nil {
		p.handles++
	}
	i.parent.retain()
	p.bytes += i.stat.Size
	p.items = append(p.items, i)
}

func (p *parcel) release() {
	for i := range p.items {
		p.items[i].release()
	}
}

func (i *item) release() {
	if i.file != nil {
		_ = i.file.Close() // it was only read
	}
	i.parent.release()
}
