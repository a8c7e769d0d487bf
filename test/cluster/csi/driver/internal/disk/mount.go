package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// MountImage mounts the image's ext4 at an existing directory. An image
// without a file system gets one first; a file system that is smaller than its
// image, as after a restore into a larger volume, is grown. Mounted there
// already is success.
func MountImage(ctx context.Context, image, dir string, options []string) error {
	if done, err := Mounted(dir); done || err != nil {
		return err
	}
	blank, err := blank(ctx, image)
	if err != nil {
		return err
	}
	if blank {
		// Databases have few files: fewer inodes than usual are faster made.
		err = run(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", "-i", "65536", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", image)
	} else {
		err = grow(ctx, image)
	}
	if err != nil {
		return err
	}
	return run(ctx, "mount", "-t", "ext4", "-o", strings.Join(append([]string{"loop"}, options...), ","), image, dir)
}

// grow makes the file system fill its image. It is done before the mount:
// growing a mounted one takes CAP_SYS_RESOURCE, which not every root has.
func grow(ctx context.Context, image string) error {
	info, err := os.Stat(image)
	if err != nil {
		return fmt.Errorf("read size of image: %w", err)
	}
	size, err := fileSystemSize(image)
	if err != nil {
		return err
	}
	const group = 128 << 20 // resize2fs leaves less than a block group unused
	if info.Size()-size < group/2 {
		return nil
	}
	// resize2fs wants a checked file system, with its journal replayed.
	err = run(ctx, "e2fsck", "-f", "-p", image)
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != 1) { // 1: errors were corrected
		return err
	}
	return run(ctx, "resize2fs", image)
}

// fileSystemSize reads how many bytes an ext4 takes from its superblock; see
// Documentation/filesystems/ext4/super.rst of Linux.
func fileSystemSize(image string) (int64, error) {
	f, err := os.Open(image)
	if err != nil {
		return 0, fmt.Errorf("read superblock: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	var super [1024]byte
	if _, err := f.ReadAt(super[:], 1024); err != nil {
		return 0, fmt.Errorf("read superblock of %s: %w", image, err)
	}
	field := func(offset int) int64 { return int64(binary.LittleEndian.Uint32(super[offset:])) }
	blocks := field(0x4)
	if wide := int64(0x80); field(0x60)&wide != 0 {
		blocks |= field(0x150) << 32
	}
	return blocks << (10 + field(0x18)), nil
}

// blank tells whether the image holds no file system of any kind.
func blank(ctx context.Context, image string) (bool, error) {
	cmd := exec.CommandContext(ctx, "blkid", "-p", "-o", "value", "-s", "TYPE", image)
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 2 {
		return true, nil // blkid(8): nothing was found
	}
	if err != nil {
		return false, fmt.Errorf("look for a file system on %s: %w", image, err)
	}
	if kind := strings.TrimSpace(string(out)); kind != "ext4" {
		return false, fmt.Errorf("look for a file system on %s: it holds %s, and only ext4 is known here", image, kind)
	}
	return false, nil
}

// AttachLoop shows the image as a block device and returns that. Shown already
// is success.
func AttachLoop(ctx context.Context, image string) (string, error) {
	loops, err := Loops(image)
	if err != nil {
		return "", err
	}
	if len(loops) > 0 {
		return loops[0], nil
	}
	cmd := exec.CommandContext(ctx, "losetup", "--find", "--show", image)
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("attach %s to a loop device: %w", image, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// DetachLoops takes away the block devices that show the image.
func DetachLoops(ctx context.Context, image string) error {
	loops, err := Loops(image)
	if err != nil {
		return err
	}
	var errs []error
	for _, loop := range loops {
		errs = append(errs, run(ctx, "losetup", "--detach", loop))
	}
	// One that went by itself meanwhile could not be detached, and need not be.
	if left, err := Loops(image); err != nil || len(left) > 0 {
		return errors.Join(append(errs, err, fmt.Errorf("detach %s: still shown as %s", image, strings.Join(left, ", ")))...)
	}
	return nil
}

// Bind shows source, a directory or a device, at target, which must exist and
// be of the same kind. Something there already is success.
func Bind(source, target string, readOnly bool) error {
	if done, err := Mounted(target); done || err != nil {
		return err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	if readOnly {
		if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return errors.Join(fmt.Errorf("make %s read-only: %w", target, err), Unmount(target))
		}
	}
	return nil
}

// Unmount unmounts all that is mounted at that place; nothing is success.
func Unmount(point string) error {
	for {
		mounted, err := Mounted(point)
		if !mounted || err != nil {
			return err
		}
		if err := unix.Unmount(point, 0); err != nil {
			return fmt.Errorf("unmount %s: %w", point, err)
		}
	}
}

// RemovePoint unmounts a place and removes it.
func RemovePoint(point string) error {
	if err := Unmount(point); err != nil {
		return err
	}
	if err := os.Remove(point); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove mount point: %w", err)
	}
	return nil
}

// run runs a program; what it says is in the error.
func run(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
