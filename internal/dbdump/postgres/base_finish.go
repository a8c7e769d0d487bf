package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"keepset/internal/dbdump"
	"keepset/internal/filetree"
)

// baseFiles writes single files into a data directory that was restored. It
// leads nowhere else, whatever the backup has put there, and whoever owns it by now.
type baseFiles struct {
	*BaseRestore
	root     *os.Root
	uid, gid int
}

// finish does what the files of a server need elsewhere, and returns what is to be said of it.
func (o *BaseRestore) finish(ctx context.Context, source filetree.Source) (warnings []string, err error) {
	root, err := os.OpenRoot(o.Path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	info, err := root.Stat(".")
	if err != nil {
		return nil, err
	}
	f := &baseFiles{BaseRestore: o, root: root}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		f.uid, f.gid = int(st.Uid), int(st.Gid)
	}
	if err := f.links(source); err != nil {
		return nil, err
	}
	if err := f.manifest(ctx, source); err != nil {
		return nil, err
	}
	return f.role(source)
}

// links makes the link of each tablespace, to where the server will see it.
func (f *baseFiles) links(source filetree.Source) error {
	for _, space := range Tablespaces(source.Report()) {
		link, to := filepath.Join(linksDirectory, space.OID), f.Seen[space.Location]
		if to == "" {
			to = f.Tablespaces[space.Location]
		}
		if err := f.root.Symlink(filepath.Clean(to), link); err != nil {
			return err
		}
		if f.NoOwner {
			continue
		}
		if err := f.root.Lchown(link, f.uid, f.gid); err != nil {
			return err
		}
	}
	return nil
}

// role makes the server a standby, or a primary that does no harm to the one
// that it is a copy of: it is on the same timeline, and its files of the log have
// the same names.
func (f *baseFiles) role(source filetree.Source) (warnings []string, err error) {
	r := source.Report()
	if f.Upstream != nil {
		// A standby's backup may name another slot.
		settings := "primary_conninfo = " + quoteSetting(conninfo(f.Upstream)) + "\nprimary_slot_name = " + quoteSetting(f.Slot) + "\n"
		if err := f.write(settingsFile, os.O_APPEND, settings); err != nil {
			return nil, err
		}
		return nil, f.write(standbySignal, os.O_EXCL, "")
	}
	settings := ""
	if r.Coordinates.Upstream != nil {
		settings = "primary_conninfo = ''\nprimary_slot_name = ''\n"
	}
	if base(r).Attributes[attrArchives] != "" {
		settings += "archive_mode = off\n"
		warnings = append(warnings, "archive_mode is off in "+filepath.Join(f.Path, settingsFile)+", so that the copy does not write over the log of the server that it comes from: when that one is gone for good, take the line out and restart")
	}
	if settings == "" {
		return nil, nil
	}
	return warnings, f.write(settingsFile, os.O_APPEND, settings)
}

// write writes or appends to a file, which belongs to whom all belongs, and syncs it.
func (f *baseFiles) write(name string, how int, text string) error {
	return f.fill(name, how, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
}

func (f *baseFiles) fill(name string, how int, write func(io.Writer) error) (err error) {
	// Without O_NONBLOCK a FIFO would keep us here.
	file, err := f.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|syscall.O_NONBLOCK|syscall.O_NOFOLLOW|how, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			err = fmt.Errorf("write %s: %w", name, err)
		}
	}()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: it is no regular file", filetree.ErrArchive)
	}
	if err := write(file); err != nil {
		return err
	}
	if !f.NoOwner {
		if err := file.Chown(f.uid, f.gid); err != nil {
			return err
		}
	}
	return file.Sync()
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

// look says whether a file of the manifest is there. Those of tablespaces are
// behind their links, and have been counted.
func (f *baseFiles) look(m *manifestFile) error {
	name, err := m.path()
	if err != nil {
		return err
	}
	switch {
	case name == controlFile, name == standbySignal, name == recoverySignal: // comes last, or not
		return nil
	case strings.HasPrefix(name, linksDirectory+"/"):
		return nil
	}
	info, err := f.root.Lstat(name)
	if err != nil {
		return fmt.Errorf("%w: %w", dbdump.ErrMismatch, err)
	}
	if info.Size() != m.Size {
		return fmt.Errorf("%w: file %q has %d bytes of %d", dbdump.ErrMismatch, name, info.Size(), m.Size)
	}
	return nil
}
