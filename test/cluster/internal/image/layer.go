package image

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// File is a file to put into a layer by name, owned by root.
type File struct {
	Source string // file to copy; empty: Data is the content
	Data   []byte
	Mode   fs.FileMode // permissions; with fs.ModeDir or fs.ModeSymlink no content
	Link   string      // target of a symlink
}

// FilesLayer writes a layer that holds exactly these files (path in the image,
// without a leading slash, to content) and their parent directories.
func FilesLayer(dest string, compress bool, files map[string]File) (Layer, error) {
	return writeLayer(dest, compress, func(tw *tar.Writer) error {
		made := map[string]bool{".": true}
		for _, name := range slices.Sorted(maps.Keys(files)) {
			if err := addParents(tw, made, name); err != nil {
				return err
			}
			made[name] = true
			if err := addFile(tw, name, files[name]); err != nil {
				return fmt.Errorf("add %s to layer: %w", name, err)
			}
		}
		return nil
	})
}

// TreeLayer writes a layer of a whole root file system with its owners, modes,
// links and times. skip names what to leave out, by path relative to root;
// for a directory, with all it holds. Device nodes and sockets are left out:
// a container gets its own.
func TreeLayer(dest, root string, skip func(name string) bool) (Layer, error) {
	return writeLayer(dest, false, func(tw *tar.Writer) error {
		t := &tree{tw: tw, root: root, links: map[inode]string{}}
		return filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name, err := filepath.Rel(root, file)
			if err != nil || name == "." {
				return err
			}
			if skip(name) {
				if entry.IsDir() {
					return fs.SkipDir
				}
				return nil
			}
			return t.add(name, entry)
		})
	})
}

// tree is a directory tree on its way into a tar.
type tree struct {
	tw    *tar.Writer
	root  string
	links map[inode]string // first name of a file that has several
}

type inode struct{ dev, ino uint64 }

func (t *tree) add(name string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	file := filepath.Join(t.root, name)
	var link string
	switch info.Mode().Type() {
	case fs.ModeSymlink:
		if link, err = os.Readlink(file); err != nil {
			return err
		}
	case 0, fs.ModeDir:
	default:
		return nil
	}
	header, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return fmt.Errorf("describe %s: %w", file, err)
	}
	header.Name, header.Format = filepath.ToSlash(name), tar.FormatPAX
	header.Uname, header.Gname = "", "" // names of this machine mean nothing in the image
	header.ModTime = header.ModTime.Truncate(time.Second)
	header.AccessTime, header.ChangeTime = time.Time{}, time.Time{}
	if info.IsDir() {
		header.Name += "/"
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("describe %s: no owner known", file)
	}
	id := inode{stat.Dev, stat.Ino}
	if first, seen := t.links[id]; seen {
		header.Typeflag, header.Linkname, header.Size = tar.TypeLink, first, 0
		return t.tw.WriteHeader(header)
	}
	if info.Mode().IsRegular() && stat.Nlink > 1 {
		t.links[id] = header.Name
	}
	if err := t.tw.WriteHeader(header); err != nil {
		return fmt.Errorf("write header of %s: %w", file, err)
	}
	if info.Mode().IsRegular() {
		return copyFile(t.tw, file)
	}
	return nil
}

// writeLayer runs fill on a tar in a new file, and digests what comes out.
func writeLayer(dest string, compress bool, fill func(*tar.Writer) error) (layer Layer, err error) {
	file, err := os.Create(dest)
	if err != nil {
		return Layer{}, fmt.Errorf("create layer: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	blob := &counter{hash: sha256.New()}
	diff := &counter{hash: blob.hash}
	out := io.MultiWriter(file, blob)
	tarOut := out
	var zip *gzip.Writer
	if compress {
		diff.hash = sha256.New()
		zip = gzip.NewWriter(out)
		tarOut = io.MultiWriter(zip, diff)
	}
	tw := tar.NewWriter(tarOut)
	if err := fill(tw); err != nil {
		return Layer{}, fmt.Errorf("write layer %s: %w", dest, err)
	}
	if err := tw.Close(); err != nil {
		return Layer{}, fmt.Errorf("finish layer %s: %w", dest, err)
	}
	if zip != nil {
		if err := zip.Close(); err != nil {
			return Layer{}, fmt.Errorf("compress layer %s: %w", dest, err)
		}
	}
	return Layer{
		Path: dest, Size: blob.size, Gzip: compress,
		Digest: digest(blob.hash.Sum(nil)), DiffID: digest(diff.hash.Sum(nil)),
	}, nil
}

// counter digests and counts what is written to it.
type counter struct {
	hash hash.Hash
	size int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.size += int64(len(p))
	return c.hash.Write(p)
}

// addParents adds the directories above name that are not in the layer yet.
func addParents(tw *tar.Writer, made map[string]bool, name string) error {
	var missing []string
	for dir := path.Dir(name); !made[dir]; dir = path.Dir(dir) {
		missing = append(missing, dir)
		made[dir] = true
	}
	slices.Reverse(missing)
	for _, dir := range missing {
		if err := addFile(tw, dir, File{Mode: fs.ModeDir | 0o755}); err != nil {
			return fmt.Errorf("add directory %s to layer: %w", dir, err)
		}
	}
	return nil
}

func addFile(tw *tar.Writer, name string, f File) error {
	if strings.HasPrefix(name, "/") || path.Clean(name) != name {
		return fmt.Errorf("path %q: want a clean path without leading slash", name)
	}
	// The mode of a tar entry keeps the sticky bit (01000) in its own place.
	mode := int64(f.Mode.Perm())
	if f.Mode&fs.ModeSticky != 0 {
		mode |= 0o1000
	}
	header := &tar.Header{Name: name, Mode: mode, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	switch {
	case f.Mode.IsDir():
		header.Typeflag, header.Name = tar.TypeDir, name+"/"
		return tw.WriteHeader(header)
	case f.Mode&fs.ModeSymlink != 0:
		header.Typeflag, header.Linkname = tar.TypeSymlink, f.Link
		return tw.WriteHeader(header)
	case f.Source == "":
		header.Size = int64(len(f.Data))
		if err := tw.WriteHeader(header); err != nil {
			return err
		}
		_, err := tw.Write(f.Data)
		return err
	}
	info, err := os.Stat(f.Source)
	if err != nil {
		return err
	}
	header.Size = info.Size()
	if err := tw.WriteHeader(header); err != nil {
		return err
	}
	return copyFile(tw, f.Source)
}

// copyFile copies the content; the tar writer refuses a file that changed size.
func copyFile(w io.Writer, name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // read only
	if _, err := io.Copy(w, file); err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	return nil
}

// OpenLayer describes an uncompressed layer that was written before.
func OpenLayer(path string) (Layer, error) {
	sum := &counter{hash: sha256.New()}
	if err := copyFile(sum, path); err != nil {
		return Layer{}, fmt.Errorf("open layer: %w", err)
	}
	d := digest(sum.hash.Sum(nil))
	return Layer{Path: path, Size: sum.size, Digest: d, DiffID: d}, nil
}
