package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

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
	// Seen is where the server will see a tablespace, by where it was, if it sees the
	// directory under another name.
	Seen map[string]string
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
	places := []string{o.Path}
	for was, now := range o.Tablespaces {
		unknown[was] = true
		if !filepath.IsAbs(now) {
			return fmt.Errorf("%w %s: %q is no absolute path", ErrTablespace, was, now)
		}
		if seen := o.Seen[was]; seen != "" && !filepath.IsAbs(seen) {
			return fmt.Errorf("%w %s: %q is no absolute path", ErrTablespace, was, seen)
		}
		for _, other := range places {
			if contain(other, now) || contain(now, other) {
				return fmt.Errorf("%w %s cannot be restored into %s: that and %s, where something else goes, are not apart", ErrTablespace, was, now, other)
			}
		}
		places = append(places, now)
	}
	for _, space := range Tablespaces(r) {
		was := space.Location
		if strings.Trim(space.OID, "0123456789") != "" {
			return fmt.Errorf("%w: tablespace %q", filetree.ErrArchive, space.OID)
		}
		if o.Tablespaces[was] == "" {
			return fmt.Errorf("%w: the backup has a tablespace that was in %s: say where it goes, --tablespace %s=/dir, which may be the same", ErrTablespace, was, was)
		}
		delete(unknown, was)
	}
	for was := range unknown {
		return fmt.Errorf("%w: the backup has no tablespace that was in %s", ErrTablespace, was)
	}
	for _, place := range places {
		if err := isEmpty(place); err != nil {
			return err
		}
	}
	return nil
}

// contain says whether a directory is another one, or contains it, whatever links
// lead to them.
func contain(dir, other string) bool {
	rel, err := filepath.Rel(resolved(dir), resolved(other))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// resolved is a path without links, as far as it is there.
func resolved(path string) string {
	if known, err := filepath.EvalSymlinks(path); err == nil {
		return known
	}
	if parent := filepath.Dir(path); parent != path {
		return filepath.Join(resolved(parent), filepath.Base(path))
	}
	return path
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

// Tablespace is one that a base backup has.
type Tablespace struct{ OID, Name, Location string }

// String names it for people.
func (t Tablespace) String() string {
	if t.Name == "" {
		return "tablespace " + t.OID
	}
	return fmt.Sprintf("tablespace %q (%s)", t.Name, t.OID)
}

// Tablespaces are those of a base backup.
func Tablespaces(r record.Report) []Tablespace {
	var all []Tablespace
	for _, tree := range r.Objects {
		if oid := tree.Attributes[attrOID]; oid != "" {
			all = append(all, Tablespace{OID: oid, Name: tree.Attributes[attrName], Location: tree.Attributes[attrLocation]})
		}
	}
	return all
}

// DefaultDirectory is where images keep the files of a server of that version,
// unless they are told otherwise: from 18 on the official one has a directory for
// each version.
func DefaultDirectory(version string) string {
	number := version
	if end := strings.IndexFunc(version, func(c rune) bool { return c < '0' || c > '9' }); end >= 0 {
		number = version[:end]
	}
	if major, err := strconv.Atoi(number); err == nil && major >= firstWithOwnDirectory {
		return "/var/lib/postgresql/" + strconv.Itoa(major) + "/docker"
	}
	return "/var/lib/postgresql/data"
}

const firstWithOwnDirectory = 18

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
	warnings, err := o.finish(ctx, source)
	if err != nil {
		return r, fmt.Errorf("finish %s: %w", o.Path, err)
	}
	r.Omitted, r.Warnings, r.Doubts = nil, warnings, nil
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

// Open reads one of them. A server sends nothing but files and directories, and
// what else there might be, such as links, could lead elsewhere.
func (t treeSource) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	stream, err := t.Source.Open(ctx, t.prefix+name)
	if err != nil {
		return nil, err
	}
	return filetree.OnlyFiles(name, stream)
}
