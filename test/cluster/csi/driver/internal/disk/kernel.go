package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Loops returns the loop devices (/dev/loopN) that show the image.
func Loops(image string) ([]string, error) {
	// The only error of Glob is a bad pattern.
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	var found []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			continue // let go meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("read loop devices: %w", err)
		}
		if strings.TrimSuffix(string(data), "\n") == image {
			found = append(found, "/dev/"+filepath.Base(filepath.Dir(filepath.Dir(file))))
		}
	}
	return found, nil
}

// mount is what is read of one line of /proc/self/mountinfo.
type mount struct {
	device string // MAJOR:MINOR
	root   string // of the file system, that is mounted
	point  string
}

func mounts() ([]mount, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var all []mount
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			return nil, fmt.Errorf("parse mountinfo line %q", strings.TrimSpace(line))
		}
		all = append(all, mount{device: fields[2], root: unescape.Replace(fields[3]), point: unescape.Replace(fields[4])})
	}
	return all, nil
}

// Mounted tells whether something is mounted at exactly that place.
func Mounted(point string) (bool, error) {
	all, err := mounts()
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(all, func(m mount) bool { return m.point == point }), nil
}

// MountPoint returns a place where the image's file system can be reached, and
// "" if it is not mounted.
func MountPoint(image string) (string, error) {
	loops, err := Loops(image)
	if err != nil || len(loops) == 0 {
		return "", err
	}
	all, err := mounts()
	if err != nil {
		return "", err
	}
	for _, loop := range loops {
		number, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(loop), "dev"))
		if err != nil {
			return "", fmt.Errorf("read number of %s: %w", loop, err)
		}
		for _, m := range all {
			if m.device == strings.TrimSpace(string(number)) {
				return m.point, nil
			}
		}
	}
	return "", nil
}
