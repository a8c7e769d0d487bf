package filetree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"keepset/internal/record"
)

// Sink takes the streams of a tree. Create is safe for concurrent use, and so
// are different streams.
type Sink interface {
	Create(ctx context.Context, name string) (Stream, error)
}

// Stream is one stream being written. Exactly one of Close and Abort ends it,
// and Close returns nil only if everything was accepted. Every other error
// ends the stream, too.
type Stream interface {
	io.Writer
	// Section begins a part that a later backup can take over by itself: it is
	// remembered under key with fingerprint, or not at all if that is nil.
	Section(key string, fingerprint []byte) error
	// Reuse begins a section and takes over all of what an earlier backup has
	// remembered under key with the same fingerprint. It returns how many bytes
	// that was; with 0 nothing was appended.
	Reuse(key string, fingerprint []byte) (int64, error)
	// Forget keeps the current section from being remembered after all.
	Forget()
	// Cut makes what follows independent of what was before it, as far as equal
	// bytes are found to be stored already.
	Cut() error
	Close() error
	Abort(err error)
}

// SaveOptions say what is saved, and how.
type SaveOptions struct {
	// Path of the directory. It may itself be a symbolic link.
	Path     string
	Patterns Patterns
	// OneFileSystem leaves out what is mounted within the directory.
	OneFileSystem bool
	// Fuzzy accepts files that change while they are read.
	Fuzzy bool
	// Workers read files; at least one.
	Workers int
	// Clock says as of when files are read: now, or when the snapshot was cut that
	// they are read from. What changed within a minute before is read again by the
	// next Save.
	Clock func() time.Time
}

// ErrGone says that the directory has vanished, or all that was in it.
var ErrGone = errors.New("directory is gone")

const (
	// streamTarget is how many bytes a stream of files has, at least: what a
	// restore of one file may have to read, and a worker's share of the work.
	streamTarget = 32 << 20
	// streamsTarget is about how many streams there are in a large tree. Later
	// ones are larger in turn, so that their list stays short.
	streamsTarget = 1024
	// parcelsWaiting is how many parcels wait for a worker.
	parcelsWaiting = 4
)

// saver is one Save.
type saver struct {
	SaveOptions
	sink    Sink
	root    *directory
	parcels chan *parcel
	tally   tally
	streams atomic.Int64
	written atomic.Int64
}

// Save writes the directory to the sink. An error means that there is no
// archive to rely on; what is wrong with single files is in the report.
func Save(ctx context.Context, sink Sink, o SaveOptions) (record.Report, error) {
	r := record.Report{Layout: Layout, Consistency: "files", CapturedAt: o.Clock().UTC()}
	s := &saver{SaveOptions: o, sink: sink, parcels: make(chan *parcel, parcelsWaiting)}
	if err := s.save(ctx); err != nil {
		return r, fmt.Errorf("save directory %s: %w", o.Path, err)
	}
	s.describe(&r)
	return r, nil
}

func (s *saver) save(ctx context.Context) error {
	var before, after unix.Stat_t
	fd, err := unix.Open(s.Path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	s.root = newDirectory(fd, ".")
	defer s.root.release()
	if err := unix.Fstat(fd, &before); err != nil {
		return err
	}
	if err := s.read(ctx, &before); err != nil {
		return err
	}
	if err := unix.Stat(s.Path, &after); err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	if after.Dev != before.Dev || after.Ino != before.Ino {
		return fmt.Errorf("%w: another one is in its place", ErrGone)
	}
	if gone := s.tally.times[vanished]; gone > 0 && s.tally.counts.Entries() <= 1 {
		return fmt.Errorf("%w: all %d entries vanished while they were read", ErrGone, gone)
	}
	return nil
}

// read walks through the root and has its files read.
func (s *saver) read(ctx context.Context, root *unix.Stat_t) error {
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(s.parcels)
		return s.walk(inner, root)
	})
	for range max(1, s.Workers) {
		group.Go(func() error { return s.work(inner) })
	}
	err := group.Wait()
	for p := range s.parcels {
		p.release()
	}
	return err
}

// describe fills the report.
func (s *saver) describe(r *record.Report) {
	t := &s.tally
	r.Objects = []record.Object{t.counts.object(s.Path)}
	r.Rows, r.Bytes = t.counts.Entries(), t.counts.Bytes
	r.Omitted = append(r.Omitted, t.sentences(socket, "sockets, which are nothing without their programs")...)
	r.Omitted = append(r.Omitted, t.sentences(foreign, "directories that belong to the file system or to another one")...)
	r.Doubts = t.sentences(unreadable, "entries could not be read; what is missing of a file is zeros")
	r.Warnings = t.sentences(vanished, "entries vanished while the tree was read")
	changes := t.sentences(changed, fmt.Sprintf("files changed each of %d times that they were read", tries))
	if s.Fuzzy {
		r.Warnings = append(r.Warnings, changes...)
	} else {
		r.Doubts = append(r.Doubts, changes...)
	}
}

// target is the size at which a stream of files ends.
func (s *saver) target() int64 { return max(streamTarget, s.written.Load()/streamsTarget) }

// create begins the next stream of files.
func (s *saver) create(ctx context.Context) (Stream, error) {
	return s.sink.Create(ctx, fmt.Sprintf("%s%06d.tar", filesPrefix, s.streams.Add(1)-1))
}

// archive is a stream of entries without data.
type archive struct {
	stream Stream
	buf    []byte
}

func (a *archive) add(e *Entry) error {
	var err error
	if a.buf, err = appendHeader(a.buf, e); err != nil {
		return err
	}
	if len(a.buf) < bufferSize/4 {
		return nil
	}
	return a.flush()
}

func (a *archive) flush() error {
	_, err := a.stream.Write(a.buf)
	a.buf = a.buf[:0]
	return err
}

func (a *archive) close() error {
	if err := a.flush(); err != nil {
		a.stream.Abort(err)
		return err
	}
	return a.stream.Close()
}
