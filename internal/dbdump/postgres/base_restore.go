package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"keepset/internal/dbdump"
	"keepset/internal/filetree"
	"keepset/internal/record"
)

// BaseRestore says where a base backup goes, and what becomes of it.
type BaseRestore struct {
	// Path is the data directory, new or empty.
	Path string
	// Tablespaces are new or empty directories, by where the tablespace was.
	Tablespaces map[string]string
	// Upstream is the server to follow, as a standby; nil makes a primary.
	Upstream *dbdump.Upstream
	// Slot is a replication slot of the upstream's that keeps the log for the standby; may be empty.
	Slot string
	// NoOwner leaves the files to who restores them.
	NoOwner bool
	// Workers write files; at least one.
	Workers int
}

// IsBase says that a report is of a base backup.
func IsBase(r record.Report) bool { return r.Layout == BaseLayout }

// Check says, before anything is touched, whether the backup can go there.
func (o *BaseRestore) Check(r record.Report) error {
	if !IsBase(r) {
		return fmt.Errorf("%w: its layout is %q, not %s", filetree.ErrArchive, r.Layout, BaseLayout)
	}
	unknown := map[string]bool{}
	places := map[string]string{o.Path: "the data directory"}
	for was, now := range o.Tablespaces {
		unknown[was] = true
		if !filepath.IsAbs(now) {
			return fmt.Errorf("tablespace %s: %q is no absolute path", was, now)
		}
		if other, taken := places[filepath.Clean(now)]; taken {
			return fmt.Errorf("tablespace %s cannot be restored into %s: that is the place of %s", was, now, other)
		}
		places[filepath.Clean(now)] = "tablespace " + was
	}
	for _, tree := range r.Objects {
		oid, was := tree.Attributes[attrOID], tree.Attributes[attrLocation]
		if oid == "" {
			continue
		}
		if strings.Trim(oid, "0123456789") != "" {
			return fmt.Errorf("%w: tablespace %q", filetree.ErrArchive, oid)
		}
		if o.Tablespaces[was] == "" {
			return fmt.Errorf("%w: the backup has a tablespace that was in %s: say where it goes, --tablespace %s=/dir, which may be the same", ErrTablespace, was, was)
		}
		delete(unknown, was)
	}
	for was := range unknown {
		return fmt.Errorf("%w: the backup has no tablespace that was in %s", ErrTablespace, was)
	}
	for place := range places {
		if err := isEmpty(place); err != nil {
			return err
		}
	}
	return nil
}

// isEmpty refuses a directory that holds something, before another one is filled.
func isEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.Name() != "lost+found" {
			return fmt.Errorf("%w: %s holds %q; name a new or an empty directory", filetree.ErrNotEmpty, dir, e.Name())
		}
	}
	return err
}

// ErrTablespace says that a tablespace has no place to go to, or that a place is for none.
var ErrTablespace = errors.New("tablespace")

// Restore makes the data directory. The file without which no server starts on
// it comes last, so that a part of one is never taken for the whole.
func (o *BaseRestore) Restore(ctx context.Context, source filetree.Source) (record.Report, error) {
	r := source.Report()
	if err := o.Check(r); err != nil {
		return r, err
	}
	for _, tree := range r.Objects {
		target := o.Path
		if oid := tree.Attributes[attrOID]; oid != "" {
			target = o.Tablespaces[tree.Attributes[attrLocation]]
		}
		if err := o.tree(ctx, source, tree, target); err != nil {
			return r, err
		}
	}
	if err := o.finish(ctx, source); err != nil {
		return r, fmt.Errorf("finish %s: %w", o.Path, err)
	}
	last, err := filetree.ParsePatterns([]string{"/" + controlFile}, nil)
	if err != nil {
		return r, err
	}
	_, err = filetree.Restore(ctx, treeOf(source, base(r)), filetree.RestoreOptions{
		Path: o.Path, Patterns: last, Replace: true, NoOwner: o.NoOwner, Workers: 1,
	})
	return r, err
}

// base is the tree of the data directory.
func base(r record.Report) record.Object {
	for _, tree := range r.Objects {
		if tree.Attributes[attrOID] == "" {
			return tree
		}
	}
	return record.Object{}
}

func (o *BaseRestore) tree(ctx context.Context, source filetree.Source, tree record.Object, target string) error {
	options := filetree.RestoreOptions{Path: target, NoOwner: o.NoOwner, Workers: o.Workers}
	if tree.Attributes[attrOID] == "" {
		var err error
		// A standby's backup has the files that make it one.
		if options.Patterns, err = filetree.ParsePatterns(nil, []string{"/" + controlFile, "/" + standbySignal, "/" + recoverySignal}); err != nil {
			return err
		}
	}
	_, err := filetree.Restore(ctx, treeOf(source, tree), options)
	return err
}

const (
	standbySignal  = "standby.signal"
	recoverySignal = "recovery.signal"
	settingsFile   = "postgresql.auto.conf"
)

// finish does what the files of a server need elsewhere.
func (o *BaseRestore) finish(ctx context.Context, source filetree.Source) error {
	r := source.Report()
	f := &baseFiles{BaseRestore: o}
	if err := f.learnOwner(); err != nil {
		return err
	}
	for _, tree := range r.Objects {
		oid := tree.Attributes[attrOID]
		if oid == "" {
			continue
		}
		link := filepath.Join(o.Path, linksDirectory, oid)
		if err := os.Symlink(filepath.Clean(o.Tablespaces[tree.Attributes[attrLocation]]), link); err != nil {
			return err
		}
		if err := f.own(link); err != nil {
			return err
		}
	}
	if err := f.manifest(ctx, source); err != nil {
		return err
	}
	switch {
	case o.Upstream != nil:
		// A standby's backup may name another slot.
		settings := "primary_conninfo = " + quoteSetting(conninfo(o.Upstream)) + "\nprimary_slot_name = " + quoteSetting(o.Slot) + "\n"
		if err := f.write(settingsFile, os.O_APPEND, settings); err != nil {
			return err
		}
		return f.write(standbySignal, os.O_EXCL, "")
	case r.Coordinates.Upstream != nil:
		return f.write(settingsFile, os.O_APPEND, "primary_conninfo = ''\nprimary_slot_name = ''\n")
	}
	return nil
}

// baseFiles writes single files into a restored data directory.
type baseFiles struct {
	*BaseRestore
	uid, gid int
}

// learnOwner finds out whom all belongs to.
func (f *baseFiles) learnOwner() error {
	var st unix.Stat_t
	if err := unix.Lstat(f.Path, &st); err != nil {
		return err
	}
	f.uid, f.gid = int(st.Uid), int(st.Gid)
	return nil
}

// write writes or appends to a file, which belongs to whom all belongs, and syncs it.
func (f *baseFiles) write(name string, how int, text string) error {
	return f.fill(name, how, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
}

func (f *baseFiles) fill(name string, how int, write func(io.Writer) error) (err error) {
	full := filepath.Join(f.Path, name)
	file, err := os.OpenFile(full, os.O_WRONLY|os.O_CREATE|how, 0o600)
	if err != nil {
		return err
	}
	if err = write(file); err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return f.own(full)
}

func (f *baseFiles) own(path string) error {
	if f.NoOwner {
		return nil
	}
	return os.Lchown(path, f.uid, f.gid)
}

// manifest writes the server's manifest, and looks for all of its files.
func (f *baseFiles) manifest(ctx context.Context, source filetree.Source) (err error) {
	stream, err := source.Open(ctx, manifestStream)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stream.Close()) }()
	return f.fill(manifestStream, os.O_EXCL, func(w io.Writer) error {
		in := io.TeeReader(stream, w)
		if _, err := readManifest(in, f.look); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, in) // the end, where the stream's own checksum is compared
		return err
	})
}

// look says whether a file of the manifest is there.
func (f *baseFiles) look(m *manifestFile) error {
	name, err := m.path()
	if err != nil {
		return err
	}
	switch name {
	case controlFile, standbySignal, recoverySignal: // comes last, or not
		return nil
	}
	info, err := os.Stat(filepath.Join(f.Path, name))
	if err != nil {
		return fmt.Errorf("%w: %w", dbdump.ErrMismatch, err)
	}
	if info.Size() != m.Size {
		return fmt.Errorf("%w: file %q has %d bytes of %d", dbdump.ErrMismatch, name, info.Size(), m.Size)
	}
	return nil
}

// treeSource is one tree of a base backup.
type treeSource struct {
	filetree.Source
	tree   record.Object
	prefix string
}

func treeOf(source filetree.Source, tree record.Object) treeSource {
	t := treeSource{Source: source, tree: tree}
	if oid := tree.Attributes[attrOID]; oid != "" {
		t.prefix = tablespacePrefix(oid)
	}
	return t
}

// Report is as of a tree alone.
func (t treeSource) Report() record.Report {
	r := t.Source.Report()
	r.Layout, r.Objects = filetree.Layout, []record.Object{t.tree}
	return r
}

// Streams are those of this tree.
func (t treeSource) Streams() []string {
	var names []string
	for _, name := range t.Source.Streams() {
		if name, ok := strings.CutPrefix(name, t.prefix); ok {
			names = append(names, name)
		}
	}
	return names
}

// Open reads one of them.
func (t treeSource) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	return t.Source.Open(ctx, t.prefix+name)
}
