package filetree

import (
	"bytes"
	"context"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// bufferSize is what a worker reads at a time.
	bufferSize = 1 << 20
	// cutFrom is the size from which a file's data is stored apart from its
	// header, so that it is found again under another name.
	cutFrom = 256 << 10
	// tries is how often a file that changes meanwhile is read.
	tries = 3
	// settled is how long a file must have been left alone to be remembered: it
	// may change again without its times doing so. One that a program has mapped
	// into its memory gets new times with the first byte that is written to a page,
	// and none with those that follow until the page has been written to the disk;
	// Linux lets that wait for 30 s, and for as long again until it comes round. The
	// same bytes may be missing from a snapshot that has the times. What a file
	// system takes for one moment is 2 s at worst.
	settled = time.Minute
)

// memoPrefix begins the names under which files are remembered. It has the
// layout, since what is taken over is a piece of an archive.
const memoPrefix = Layout + "\x00"

// fileWriter is a worker: it writes files into one stream after the other.
type fileWriter struct {
	*saver
	stream Stream
	size   int64 // of the stream so far
	// last is the name of the entry before in the stream.
	last string
	buf  []byte
}

// work takes parcels until there are no more.
func (s *saver) work(ctx context.Context) (err error) {
	w := &fileWriter{saver: s, buf: make([]byte, 0, bufferSize)}
	defer func() {
		if err != nil && w.stream != nil {
			w.stream.Abort(err)
		}
	}()
	for p := range s.parcels {
		for i := range p.items {
			if err == nil {
				err = w.item(ctx, &p.items[i])
			}
		}
		p.release()
		if err != nil {
			return err
		}
	}
	return w.end()
}

// end closes the current stream, if there is one.
func (w *fileWriter) end() error {
	if w.stream == nil {
		return nil
	}
	stream := w.stream
	w.stream, w.size, w.last = nil, 0, ""
	return stream.Close()
}

// item takes over a file, or reads it.
func (w *fileWriter) item(ctx context.Context, i *item) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if w.stream == nil {
		if w.stream, err = w.create(ctx); err != nil {
			return err
		}
	}
	var n int64
	if w.isSettled(&i.stat) {
		if n, err = w.stream.Reuse(memoPrefix+i.path(), fingerprint(&i.stat)); err != nil {
			return err
		}
	}
	if n > 0 {
		w.entry(i.path(), func() { w.tally.unchanged(i.stat.Size) })
		w.count(n)
	} else if err := w.read(i); err != nil {
		return err
	}
	if w.size < w.target() {
		return nil
	}
	return w.end()
}

// entry counts an entry, unless it takes the place of the one before it in the
// stream: a restore counts in the same way.
func (w *fileWriter) entry(name string, add func()) {
	if w.last != name {
		add()
	}
	w.last = name
}

func (w *fileWriter) count(n int64) {
	w.size += n
	w.written.Add(n)
}

// isSettled says that the file cannot change any more without its times
// showing it.
func (w *fileWriter) isSettled(st *unix.Stat_t) bool {
	return time.Unix(st.Ctim.Sec, st.Ctim.Nsec).Before(w.Clock().Add(-settled))
}

// read reads a file until it has held still. What was read before is in the
// stream as well; of several entries of a name the last one counts.
func (w *fileWriter) read(i *item) error {
	for try := range tries {
		fd, done, err := i.open()
		if err != nil {
			w.missing(i, try > 0, err)
			return nil
		}
		r := &reading{w: w, item: i, fd: fd}
		still, err := r.run()
		done()
		if err != nil || still {
			return err
		}
	}
	w.tally.note(changed, i.path(), nil)
	return nil
}

// missing notes why a file could not be opened, the first time or again.
func (w *fileWriter) missing(i *item, again bool, err error) {
	switch {
	case again:
		w.tally.note(changed, i.path(), err)
	case isGone(err):
		w.tally.note(vanished, i.path(), nil)
	default:
		w.tally.note(unreadable, i.path(), err)
	}
}

// open opens the file, unless the walk has; done gives it back.
func (i *item) open() (fd int, done func(), err error) {
	if i.file != nil {
		return int(i.file.Fd()), func() {}, nil
	}
	if fd, err = openNoFollow(i.parent.fd, i.name, 0); err != nil {
		return -1, nil, err
	}
	return fd, func() { _ = unix.Close(fd) }, nil // it was only read
}

// reading is one file being read once.
type reading struct {
	w    *fileWriter
	item *item
	fd   int
	stat unix.Stat_t
	// short says that the file had less than it should; fault why.
	short bool
	fault error
	// lacking says that something of it could not be read: nobody is to take it over
	// as if it were whole.
	lacking bool
}

// run writes the file's entry. still is false when it changed meanwhile, and is
// to be read once more. The error is the stream's.
func (r *reading) run() (still bool, err error) {
	w, path := r.w, r.item.path()
	if err := unix.Fstat(r.fd, &r.stat); err != nil {
		w.tally.note(unreadable, path, err)
		return true, nil
	}
	e, ok := entryOf(path, &r.stat)
	if !ok || e.Kind != File {
		w.tally.note(vanished, path, nil)
		return true, nil
	}
	if e.Xattrs, err = xattrsOfFile(r.fd); err != nil {
		w.tally.note(unreadable, path, err)
		r.lacking = true
	}
	if e.Extents, err = extentsOf(r.fd, &r.stat); err != nil {
		e.Extents = nil // all of it is read, holes as zeros
	}
	w.buf, err = appendHeader(w.buf[:0], e)
	if err != nil {
		w.tally.note(unreadable, path, err)
		return true, nil
	}
	if err := r.write(e); err != nil {
		return false, err
	}
	w.entry(path, func() { w.tally.add(File, e.Size) })
	return r.judge(path), nil
}

// judge says whether what was written is what the file was.
func (r *reading) judge(path string) bool {
	var after unix.Stat_t
	err := unix.Fstat(r.fd, &after)
	switch {
	case r.fault != nil:
		r.w.tally.note(unreadable, path, r.fault)
	case err != nil:
		r.w.tally.note(unreadable, path, err)
	case r.short || !bytes.Equal(fingerprint(&r.stat), fingerprint(&after)):
		r.w.stream.Forget()
		return !r.short && lostName(&r.stat, &after)
	default:
		return true
	}
	r.w.stream.Forget()
	return true
}

// lostName says that a name was taken from the file meanwhile, its last one perhaps,
// which changes its times and nothing that is in it.
func lostName(before, after *unix.Stat_t) bool {
	return after.Nlink < before.Nlink && after.Size == before.Size && after.Mtim == before.Mtim
}

// write writes the header, which is in the buffer, and the data.
func (r *reading) write(e *Entry) error {
	w := r.w
	var mark []byte
	if w.isSettled(&r.stat) && !r.lacking {
		mark = fingerprint(&r.stat)
	}
	if err := w.stream.Section(memoPrefix+e.Name, mark); err != nil {
		return err
	}
	if e.Size >= cutFrom {
		if err := w.flush(); err != nil {
			return err
		}
		if err := w.stream.Cut(); err != nil {
			return err
		}
	}
	extents := e.Extents
	if extents == nil {
		extents = []Extent{{0, e.Size}}
	}
	for _, x := range extents {
		if err := r.extent(x); err != nil {
			return err
		}
	}
	if err := w.room(blockSize); err != nil {
		return err
	}
	w.buf = append(w.buf, zeroBlock[:padding(e.stored())]...)
	return w.flush()
}

// extent appends a run of the file. What the file does not have any more is
// zeros: the header has promised so many bytes.
func (r *reading) extent(x Extent) error {
	w := r.w
	for x.Length > 0 {
		if err := w.room(1); err != nil {
			return err
		}
		space := w.buf[len(w.buf):min(int64(cap(w.buf)), int64(len(w.buf))+x.Length)]
		n := 0
		if r.fault == nil && !r.short {
			var err error
			n, err = retried(func() (int, error) { return unix.Pread(r.fd, space, x.Offset) })
			if err != nil {
				r.fault, n = err, 0
			} else if n == 0 {
				r.short = true
			}
		}
		if n == 0 {
			n = len(space)
			clear(space)
		}
		w.buf = w.buf[:len(w.buf)+n]
		x.Offset, x.Length = x.Offset+int64(n), x.Length-int64(n)
	}
	return nil
}

// room makes room in the buffer for so many bytes.
func (w *fileWriter) room(n int) error {
	if cap(w.buf)-len(w.buf) >= n {
		return nil
	}
	return w.flush()
}

func (w *fileWriter) flush() error {
	n, err := w.stream.Write(w.buf)
	if err == nil && n < len(w.buf) {
		err = io.ErrShortWrite
	}
	w.count(int64(n))
	w.buf = w.buf[:0]
	return err
}
