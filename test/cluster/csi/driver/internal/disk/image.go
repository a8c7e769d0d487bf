// Package disk does what a node does with a volume: image files, loop devices,
// ext4 on them, mounts, and the freezing of what is mounted.
//
// It keeps no state of its own. Which loop device belongs to an image, and
// where it is mounted, is read from the kernel each time, so that a driver
// that was killed finds everything again. A mounted image's loop device goes
// with the mount (the kernel's "autoclear").
package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// CreateImage makes a sparse image of that many bytes, or grows the one that
// is there.
func CreateImage(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("create image: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.Size() < size {
		err = f.Truncate(size)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set size of image %s: %w", path, err)
	}
	return nil
}

// CopyImage makes dst a copy of src, replacing it whole or not at all: shares
// the blocks where the file system can, and else copies what is not a hole.
// What is written to src meanwhile may or may not be in the copy.
func CopyImage(src, dst string) error {
	in, err := os.Open(src)
	if err != nil {
		return fmt.Errorf("copy image: %w", err)
	}
	defer func() { _ = in.Close() }() // it was only read
	temp := dst + ".tmp"
	out, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("copy image: %w", err)
	}
	if err := errors.Join(copyContent(in, out), out.Close()); err != nil {
		return errors.Join(fmt.Errorf("copy image %s: %w", src, err), os.Remove(temp))
	}
	return os.Rename(temp, dst)
}

func copyContent(in, out *os.File) error {
	if err := unix.IoctlFileClone(int(out.Fd()), int(in.Fd())); err == nil {
		return nil // one moment for all blocks, and no copying
	}
	size, err := in.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	for offset := int64(0); ; {
		start, err := in.Seek(offset, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return out.Truncate(size) // nothing but a hole from here on
		}
		if err != nil {
			return err
		}
		end, err := in.Seek(start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := in.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if _, err := out.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(out, in, end-start); err != nil {
			return err
		}
		offset = end
	}
}

// Remove removes a file, and is content if there is none.
func Remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
