package filetree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"keepset/internal/record"
)

// Source gives back the streams of a tree. Open is safe for concurrent use. The
// reader ends with io.EOF only after the whole stream has been delivered and
// its checksum has matched.
type Source interface {
	Report() record.Report
	// Streams are their names, in order.
	Streams() []string
	Open(ctx context.Context, name string) (io.ReadCloser, error)
}

// RestoreOptions say where a tree goes, and what of it.
type RestoreOptions struct {
	// Path of the directory. It is made when it is missing; its parent is not.
	// It may itself be a symbolic link.
	Path     string
	Patterns Patterns
	// AnyPattern: of several patterns to include it is enough that one chooses something.
	AnyPattern bool
	// Replace accepts a directory that holds something. What has the name of
	// something in the tree is replaced, the rest is left alone.
	Replace bool
	// NoOwner leaves everything to who restores it, NoDevices leaves devices
	// out, NoXattrs extended attributes and ACLs.
	NoOwner, NoDevices, NoXattrs bool
	// Workers write files; at least one.
	Workers int
}

// What a caller decides on.
var (
	// ErrNotEmpty: the target holds something, and replacing was not asked for.
	ErrNotEmpty = errors.New("target is not empty")
	// ErrMismatch: what was restored is not what the report says.
	ErrMismatch = errors.New("restored tree differs from the backup")
	// ErrRights: the target, or who restores, does not allow something of the tree.
	ErrRights = errors.New("not permitted")
)

// restorer is one Restore.
type restorer struct {
	RestoreOptions
	source Source
	root   int
	// given: the target is another user's, and we are not root: a mount point
	// whose owner, mode and time are not ours to change.
	given bool
	tally tally
	// mu guards made: the directories that exist, where patterns choose; and met:
	// which patterns to include have chosen something.
	mu   sync.Mutex
	made map[string]bool
	met  []bool
}

// Restore makes the tree in the directory. After an error the directory holds
// a part of it. With patterns, directories above what they choose are made, too.
func Restore(ctx context.Context, source Source, o RestoreOptions) (record.Report, error) {
	r := source.Report()
	want, err := CountsOf(r)
	if err != nil {
		return r, fmt.Errorf("restore into %s: %w", o.Path, err)
	}
	s := &restorer{RestoreOptions: o, source: source, made: map[string]bool{}, met: make([]bool, len(o.Patterns.include))}
	if err = s.open(); err == nil {
		err = errors.Join(s.restore(ctx), unix.Close(s.root))
	}
	if err == nil {
		err = s.compare(&want)
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		err = fmt.Errorf("%w; it holds a part of the tree now: make room, empty it, and restore again", err)
	}
	if err != nil {
		return r, fmt.Errorf("restore into %s: %w", o.Path, err)
	}
	r.Objects = []record.Object{s.tally.counts.object(o.Path)}
	r.Rows, r.Bytes = s.tally.counts.Entries(), s.tally.counts.Bytes
	r.Omitted, r.Warnings, r.Doubts = nil, nil, nil
	r.Warnings = append(r.Warnings, s.tally.sentences(unmade, "devices were left out")...)
	if s.given {
		r.Warnings = append(r.Warnings, "the directory "+o.Path+" itself belongs to another user, and keeps its time")
	}
	return r, nil
}

// open opens the target.
func (s *restorer) open() error {
	if err := os.Mkdir(s.Path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	fd, err := unix.Open(s.Path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	s.root = fd
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	s.given = os.Geteuid() != 0 && int(st.Uid) != os.Geteuid()
	if err := s.prepare(); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	return nil
}

// prepare refuses a target that holds something, but for what a new file
// system does, and takes away what new files would inherit.
func (s *restorer) prepare() error {
	if !s.Replace {
		names, err := namesIn(s.root)
		if err != nil {
			return err
		}
		for _, name := range names {
			if name != lostAndFound {
				return fmt.Errorf("%w: it holds %q; name a new or an empty directory, or say --replace", ErrNotEmpty, name)
			}
		}
	}
	if s.given { // the owner alone may take it away, even where there is none
		_, err := unix.Fgetxattr(s.root, defaultACL, nil)
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
			return nil
		}
	}
	err := unix.Fremovexattr(s.root, defaultACL)
	if err == nil || errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return fmt.Errorf("take the default ACL off the target: %w", err)
}

// namesIn reads a directory that is open.
func namesIn(fd int) ([]string, error) {
	again, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(again), ".")
	names, err := f.Readdirnames(-1)
	return names, errors.Join(err, f.Close())
}

func (s *restorer) restore(ctx context.Context) error {
	if err := s.each(ctx, directoriesStream, s.makeDirectory); err != nil {
		return err
	}
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(max(1, s.Workers))
	for _, name := range s.source.Streams() {
		if strings.HasPrefix(name, filesPrefix) {
			group.Go(func() error { return s.files(inner, name) })
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := s.each(ctx, othersStream, s.makeOther); err != nil {
		return err
	}
	f := &finish{restorer: s}
	if err := s.each(ctx, directoriesStream, f.directory); err != nil {
		return err
	}
	if err := f.close(); err != nil {
		return err
	}
	// What the file system has put off so far, it says now.
	if err := unix.Syncfs(s.root); err != nil {
		return fmt.Errorf("write back the file system: %w", err)
	}
	return ctx.Err()
}

// each calls do for the entries of a stream that are chosen.
func (s *restorer) each(ctx context.Context, stream string, do func(*handles, *Entry, io.Reader) error) (err error) {
	body, err := s.source.Open(ctx, stream)
	if err != nil {
		return err
	}
	h := &handles{s: s}
	defer func() { err = errors.Join(err, h.close(), body.Close()) }()
	r := newReader(body)
	for {
		e, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", stream, err)
		}
		if !s.chosen(e) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := do(h, e, r); err != nil {
			return err
		}
	}
}

// chosen says that an entry is to be restored; directories on the way to one
// are asked for by their names.
func (s *restorer) chosen(e *Entry) bool {
	if s.Patterns.empty() {
		return true
	}
	if s.Patterns.chooses(e.Name) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.Patterns.mark(e.Name, s.met)
		return true
	}
	return e.Kind == Directory && s.isMade(e.Name)
}

// unmet are the patterns to include that have chosen nothing.
func (s *restorer) unmet() (list []string) {
	for i, met := range s.met {
		if !met {
			list = append(list, s.Patterns.include[i].String())
		}
	}
	return list
}

func (s *restorer) isMade(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.made[name]
}

// compare compares what was counted with what the backup has counted.
func (s *restorer) compare(want *Counts) error {
	if !s.Patterns.empty() {
		if s.tally.counts.Entries() == 0 {
			return fmt.Errorf("%w: it holds nothing that was asked for", ErrMismatch)
		}
		if unmet := s.unmet(); len(unmet) > 0 && !s.AnyPattern {
			return fmt.Errorf("%w: nothing of it was chosen by %s; the rest of what was asked for is there", ErrMismatch, strings.Join(unmet, ", "))
		}
		return nil
	}
	got := s.tally.counts
	got.Devices += s.tally.times[unmade]
	got.Bytes, got.Unchanged = want.Bytes, want.Unchanged
	if got != *want {
		return fmt.Errorf("%w: %+v were restored of %+v", ErrMismatch, got, *want)
	}
	return nil
}
