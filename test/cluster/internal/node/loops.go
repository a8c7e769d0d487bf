package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"keepset/test/cluster/internal/mounts"
)

// thawVolumes thaws what a driver that was killed has left frozen.
func (n *Node) thawVolumes() error {
	all, err := mounts.List()
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range all {
		if strings.HasPrefix(m.Point, n.Dir+"/") && strings.HasPrefix(m.Source, "/dev/loop") {
			errs = append(errs, thaw(m.Point))
		}
	}
	return errors.Join(errs...)
}

// thaw thaws a mounted file system; not frozen is success.
func thaw(point string) error {
	const fiThaw = 0xC0045878 // from <linux/fs.h>
	dir, err := os.Open(point)
	if err != nil {
		return fmt.Errorf("thaw volume: %w", err)
	}
	defer func() { _ = dir.Close() }() // it was only read
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, dir.Fd(), fiThaw, 0)
	if errno != 0 && errno != syscall.EINVAL && errno != syscall.ENOTTY && errno != syscall.EOPNOTSUPP { // not frozen; a raw device
		return fmt.Errorf("thaw %s: %w", point, errno)
	}
	return nil
}

// loops returns the loop devices that show files of this cluster: volumes, and
// the devices of volumes, which the kubelet shows once more.
func (n *Node) loops() ([]string, error) {
	// The only error of Glob is a bad pattern.
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	var found []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
			continue // let go meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("read loop devices: %w", err)
		}
		if strings.HasPrefix(string(data), n.Dir+"/") {
			found = append(found, "/dev/"+filepath.Base(filepath.Dir(filepath.Dir(file))))
		}
	}
	return found, nil
}

// detachLoops lets go of the loop devices: at once, or with its mount where one
// is mounted.
func (n *Node) detachLoops(ctx context.Context) error {
	found, err := n.loops()
	if err != nil {
		return err
	}
	for _, loop := range found {
		if _, err := n.run(ctx, "losetup", "--detach", loop); err != nil {
			n.Log.Debug("a loop device went by itself", "device", loop, "error", err) // or else loopsGone says so
		}
	}
	return nil
}

// loopsGone waits until the kernel has let go of all of them.
func (n *Node) loopsGone(ctx context.Context) error {
	return await(ctx, 10*time.Second, 50*time.Millisecond, func(context.Context) error {
		found, err := n.loops()
		if err == nil && len(found) > 0 {
			err = fmt.Errorf("loop devices %s still show files of %s", strings.Join(found, ", "), n.Dir)
		}
		return err
	})
}
