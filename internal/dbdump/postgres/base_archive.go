package postgres

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"regexp"
	"strconv"
	"strings"

	"keepset/internal/filetree"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// segmentName is how files of the log are called, apart from those that tell of timelines.
var segmentName = regexp.MustCompile(`^[0-9A-F]{24}$`)

// within puts a tree's streams under a name of their own.
type within struct {
	filetree.Sink
	prefix string
}

// Create begins a stream.
func (w within) Create(ctx context.Context, name string) (filetree.Stream, error) {
	return w.Sink.Create(ctx, w.prefix+name)
}

// tablespacePrefix begins the names of a tablespace's streams.
func tablespacePrefix(oid string) string { return "tablespaces/" + oid + "/" }

// archive keeps what the server sends of the data directory or of a tablespace.
func (c *copying) archive(b *baseStream, head archiveHead) (err error) {
	oid, ok := strings.CutSuffix(head.name, ".tar")
	if !ok {
		return fmt.Errorf("%w: an archive %q", errBase, head.name)
	}
	a := &archiveCopy{copying: c}
	sink := c.sink
	name := "data directory"
	if head.path != "" {
		if _, err := strconv.ParseUint(oid, 10, 32); err != nil {
			return fmt.Errorf("%w: an archive %q", errBase, head.name)
		}
		sink, name, a.above = within{c.sink, tablespacePrefix(oid)}, head.path, linksDirectory+"/"+oid+"/"
	}
	if a.tree, err = filetree.NewWriter(b.ctx, sink); err != nil {
		return err
	}
	if err := a.entries(b); err != nil {
		a.tree.Abort(err)
		return fmt.Errorf("archive %s: %w", head.name, err)
	}
	tree, err := a.tree.Close(name)
	if err != nil {
		return err
	}
	if head.path != "" {
		tree.Attributes[attrOID], tree.Attributes[attrLocation] = oid, head.path
		if name := c.spaces[oid]; name != "" { // else it was made just now
			tree.Attributes[attrName] = name
		}
	}
	if head.path == "" && c.archives {
		tree.Attributes[attrArchives] = "yes"
	}
	c.trees = append(c.trees, tree)
	return nil
}

// archiveCopy is one archive on its way.
type archiveCopy struct {
	*copying
	tree *filetree.Writer
	// above is where the manifest has its files.
	above string
	begun bool
}

// entries reads an archive to its end.
func (a *archiveCopy) entries(r io.Reader) error {
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := a.entry(h, archive); err != nil {
			return err
		}
	}
	if !a.begun {
		return fmt.Errorf("%w: an archive with nothing in it", errBase)
	}
	// What follows the end of an archive is zeros up to a whole record.
	rest := make([]byte, 32<<10)
	for {
		n, err := r.Read(rest)
		for _, c := range rest[:n] {
			if c != 0 {
				return fmt.Errorf("%w: bytes after the end of an archive", errBase)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// entry keeps one entry.
func (a *archiveCopy) entry(h *tar.Header, data io.Reader) error {
	e := &filetree.Entry{
		Name: strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/"), Kind: filetree.Kind(h.Typeflag), Mode: uint32(h.Mode & 0o7777),
		UID: uint32(h.Uid), GID: uint32(h.Gid), ModTime: filetree.Time{Sec: h.ModTime.Unix()},
	}
	if !a.begun {
		// The server says nothing of the directory itself. It belongs to whom all belongs.
		root := &filetree.Entry{Name: ".", Kind: filetree.Directory, Mode: a.mode, UID: e.UID, GID: e.GID, ModTime: e.ModTime}
		if err := a.tree.Add(root, nil); err != nil {
			return err
		}
		a.begun = true
	}
	switch e.Kind {
	case filetree.Directory:
		return a.tree.Add(e, nil)
	case filetree.File:
		return a.file(e, h.Size, data)
	default:
		if e.Kind == filetree.Symlink && a.above == "" && path.Dir(e.Name) == linksDirectory {
			return nil
		}
		return fmt.Errorf("%w: %q is of kind %q", errBase, h.Name, h.Typeflag)
	}
}

// file keeps a file, and what is compared of it.
func (a *archiveCopy) file(e *filetree.Entry, size int64, data io.Reader) error {
	e.Size = size
	sum := crc32.New(castagnoli)
	if err := a.tree.Add(e, io.TeeReader(data, sum)); err != nil {
		return err
	}
	if dir, name := path.Split(e.Name); a.above == "" && dir == walDirectory+"/" && segmentName.MatchString(name) {
		a.segments[name] = size
		return nil // the manifest has none of them
	}
	a.files[a.above+e.Name] = fileSum{size, sum.Sum32()}
	return nil
}
