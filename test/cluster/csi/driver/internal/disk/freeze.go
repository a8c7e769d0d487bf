package disk

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Requests of ioctl(2) for a mounted file system, from <linux/fs.h>.
const (
	fiFreeze = 0xC0045877
	fiThaw   = 0xC0045878
)

// Freeze holds all writes to the images' file systems, with everything that was
// written on the image files, until thaw is called. Images that are not
// mounted stand still by themselves. Either all are frozen or, after an error,
// none. thaw must be called soon: who writes meanwhile hangs, and not even
// SIGKILL ends it.
func Freeze(images ...string) (thaw func() error, err error) {
	var frozen []*os.File
	thaw = func() error {
		var errs []error
		for _, dir := range slices.Backward(frozen) {
			if err := unix.IoctlSetInt(int(dir.Fd()), fiThaw, 0); err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: somebody else thawed it
				errs = append(errs, fmt.Errorf("thaw %s: %w", dir.Name(), err))
			}
			errs = append(errs, dir.Close())
		}
		frozen = nil
		return errors.Join(errs...)
	}
	for _, image := range images {
		point, err := MountPoint(image)
		if err != nil {
			return nil, errors.Join(err, thaw())
		}
		if point == "" {
			continue
		}
		dir, err := os.Open(point)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("freeze volume: %w", err), thaw())
		}
		if err := unix.IoctlSetInt(int(dir.Fd()), fiFreeze, 0); err != nil {
			return nil, errors.Join(fmt.Errorf("freeze %s: %w", point, err), dir.Close(), thaw())
		}
		frozen = append(frozen, dir)
	}
	return thaw, nil
}
