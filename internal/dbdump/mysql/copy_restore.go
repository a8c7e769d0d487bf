package mysql

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"

	"keepset/internal/filetree"
	"keepset/internal/record"
)

// CopyRestore says where a server's files go.
type CopyRestore struct {
	// Path is the data directory, new or empty. All in it belongs to who restores it.
	Path string
	// Workers write files; at least one.
	Workers int
}

// IsCopy says that a report is of a server's files.
func IsCopy(r record.Report) bool { return r.Layout == CopyLayout }

// Check says, before anything is touched, whether the files can go there.
func (o *CopyRestore) Check(r record.Report) error {
	if !IsCopy(r) || len(r.Objects) == 0 || r.Objects[0].Kind != filetree.KindTree {
		return fmt.Errorf("%w: its layout is %q, not %s", filetree.ErrArchive, r.Layout, CopyLayout)
	}
	for _, file := range r.Objects[1:] {
		if file.Kind != kindFile || len(file.Data) != 1 || !below(file.Name) {
			return fmt.Errorf("%w: it has %s %q", filetree.ErrArchive, file.Kind, file.Name)
		}
	}
	entries, err := os.ReadDir(o.Path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.Name() != "lost+found" {
			return fmt.Errorf("%w: %s holds %q; name a new or an empty directory", filetree.ErrNotEmpty, o.Path, e.Name())
		}
	}
	return err
}

// Restore makes the directory. The file without which the programs prepare nothing comes last, so that a part of a
// copy is never taken for the whole.
func (o *CopyRestore) Restore(ctx context.Context, source filetree.Source) (record.Report, error) {
	r := source.Report()
	if err := o.Check(r); err != nil {
		return r, err
	}
	last := make([]string, len(infoPrefixes))
	for i, p := range infoPrefixes {
		last[i] = "/" + p + infoCheckpoints
	}
	but, err := filetree.ParsePatterns(nil, last)
	if err != nil {
		return r, err
	}
	only, err := filetree.ParsePatterns(last, nil)
	if err != nil {
		return r, err
	}
	tree := copyTree{source}
	if _, err := filetree.Restore(ctx, tree, filetree.RestoreOptions{Path: o.Path, Patterns: but, NoOwner: true, Workers: o.Workers}); err != nil {
		return r, err
	}
	if err := o.arrange(ctx, source); err != nil {
		return r, fmt.Errorf("restore into %s: %w", o.Path, err)
	}
	if _, err := filetree.Restore(ctx, tree, filetree.RestoreOptions{Path: o.Path, Patterns: only, AnyPattern: true, Replace: true, NoOwner: true, Workers: 1}); err != nil {
		return r, err
	}
	r.Omitted, r.Doubts = nil, nil
	r.Warnings = []string{fmt.Sprintf("the files are not ready for a server yet: run %[1]s --prepare --target-dir=%[2]s, of %[4]s %[3]s, and give them to the user that the server runs as (chown -R mysql:mysql %[2]s)",
		copierOf(r.Flavor).name, o.Path, majorMinor(r.Version), Server{Flavor: r.Flavor}.family())}
	return r, nil
}

// arrange puts every file where it belongs.
func (o *CopyRestore) arrange(ctx context.Context, source filetree.Source) (err error) {
	root, err := os.OpenRoot(o.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	a := &arranging{root: root, source: source, paths: map[string]string{}}
	if err := a.read(ctx); err != nil {
		return fmt.Errorf("read %s: %w", namesStream, err)
	}
	if err := a.move(); err != nil {
		return err
	}
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(max(1, o.Workers))
	for _, file := range source.Report().Objects[1:] {
		if name := a.path(file.Name); name != "" {
			group.Go(func() error { return a.large(inner, file.Data[0], name) })
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, p := range a.patches {
		if a.path(p.Stored) == "" {
			continue // of a file that was taken back
		}
		if err := a.patch(p); err != nil {
			return fmt.Errorf("write into %q: %w", p.Stored, err)
		}
	}
	return ctx.Err()
}

// arranging is the making of a directory of stored files.
type arranging struct {
	root   *os.Root
	source filetree.Source
	// paths of stored files that are called otherwise; "" for those that were taken back.
	paths   map[string]string
	moved   []string
	patches []storedName
}

// path is where a stored file goes; "" for nowhere.
func (a *arranging) path(stored string) string {
	if p, said := a.paths[stored]; said {
		return p
	}
	return stored
}

// read reads namesStream.
func (a *arranging) read(ctx context.Context) (err error) {
	stream, err := a.source.Open(ctx, namesStream)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stream.Close()) }()
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, 2*mostPatch)
	for lines.Scan() {
		n, err := parseStoredName(lines.Bytes())
		if err != nil {
			return err
		}
		if n.Data != nil {
			a.patches = append(a.patches, n)
			continue
		}
		if _, twice := a.paths[n.Stored]; twice {
			return fmt.Errorf("%w: it says twice where %q goes", filetree.ErrArchive, n.Stored)
		}
		a.paths[n.Stored] = n.Path
		a.moved = append(a.moved, n.Stored)
	}
	return lines.Err()
}

// parseStoredName reads a line.
func parseStoredName(line []byte) (n storedName, err error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&n); err != nil {
		return n, fmt.Errorf("%w: %w", filetree.ErrArchive, err)
	}
	if !below(n.Stored) || n.Path != "" && !below(n.Path) || n.Offset < 0 || n.Data != nil && n.Path != "" {
		return n, fmt.Errorf("%w: the line %.200q", filetree.ErrArchive, line)
	}
	return n, nil
}

// move gives the files of the tree their paths. One may be where another one goes, so that all are put aside first.
func (a *arranging) move() error {
	if err := a.root.RemoveAll(movingDirectory); err != nil {
		return err
	}
	if err := a.root.Mkdir(movingDirectory, 0o700); err != nil {
		return err
	}
	large := map[string]bool{}
	for _, file := range a.source.Report().Objects[1:] {
		large[file.Name] = true
	}
	moved := slices.DeleteFunc(slices.Clone(a.moved), func(stored string) bool { return large[stored] })
	aside := func(i int) string { return fmt.Sprintf("%s/%d", movingDirectory, i) }
	for i, stored := range moved {
		if err := a.root.Rename(stored, aside(i)); err != nil {
			return err
		}
	}
	for i, stored := range moved {
		name := a.paths[stored]
		if name == "" {
			continue // goes with the directory
		}
		if _, err := a.root.Lstat(name); !errors.Is(err, os.ErrNotExist) {
			return errors.Join(fmt.Errorf("%w: two files are called %q", filetree.ErrArchive, name), err)
		}
		if err := a.root.Rename(aside(i), name); err != nil {
			return err
		}
	}
	if err := a.root.Remove(asideDirectory); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) {
		return err // one that is not empty is the server's own
	}
	return a.root.RemoveAll(movingDirectory)
}

// movingDirectory is where files are that are being moved.
const movingDirectory = asideDirectory + "-moving"

// large writes a file that has a stream of its own.
func (a *arranging) large(ctx context.Context, stream, name string) (err error) {
	from, err := a.source.Open(ctx, stream)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	file, err := a.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := file.Chmod(fileMode); err != nil { // whatever the mask
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{file}, from, make([]byte, 1<<20))
	return err
}

// patch writes bytes into a large file, which has them.
func (a *arranging) patch(p storedName) error {
	file, err := a.root.OpenFile(a.path(p.Stored), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil && (!info.Mode().IsRegular() || p.Offset > info.Size()-int64(len(p.Data))) {
		err = fmt.Errorf("%w: %d bytes at %d of %d", filetree.ErrArchive, len(p.Data), p.Offset, info.Size())
	}
	if err == nil {
		_, err = file.WriteAt(p.Data, p.Offset)
	}
	return errors.Join(err, file.Close())
}

// copyTree is the archive of the small files.
type copyTree struct{ filetree.Source }

// Report is as of a tree alone.
func (t copyTree) Report() record.Report {
	r := t.Source.Report()
	r.Layout, r.Objects = filetree.Layout, r.Objects[:1]
	return r
}

// Streams are those of the archive.
func (t copyTree) Streams() []string {
	return slices.DeleteFunc(slices.Clone(t.Source.Streams()), func(name string) bool { return !strings.HasPrefix(name, "tree/") })
}

// Open reads one of them. There is nothing in it but files and directories: what else there might be could lead elsewhere.
func (t copyTree) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	stream, err := t.Source.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return filetree.OnlyFiles(name, stream)
}
