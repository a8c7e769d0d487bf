// Package mounts lists what is mounted, and unmounts what lies below a
// directory before it is removed: removing through a mount would destroy what
// somebody else keeps there.
package mounts

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
)

// Mount is one line of /proc/self/mountinfo.
type Mount struct {
	Point  string // where
	Type   string // of the file system
	Source string // device, or whatever the file system has instead
}

// List returns the mounts that this process sees, in the order in which they
// were made.
func List() ([]Mount, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	return parse(string(data))
}

// UnmountBelow unmounts what is mounted on the directories or below them, the
// last mounted first. What is busy is detached: it ends with its last user.
func UnmountBelow(dirs ...string) error {
	all, err := List()
	if err != nil {
		return err
	}
	slices.Reverse(all)
	for _, m := range all {
		below := slices.ContainsFunc(dirs, func(dir string) bool {
			return m.Point == dir || strings.HasPrefix(m.Point, dir+"/")
		})
		if !below {
			continue
		}
		err := syscall.Unmount(m.Point, 0)
		if errors.Is(err, syscall.EBUSY) {
			err = syscall.Unmount(m.Point, syscall.MNT_DETACH)
		}
		if err != nil && !errors.Is(err, syscall.EINVAL) { // EINVAL: it went with another mount
			return fmt.Errorf("unmount %s: %w", m.Point, err)
		}
	}
	return nil
}

// parse reads the format of proc_pid_mountinfo(5): the mount point is field 5,
// with blanks in it as octal numbers; type and source follow the first "-".
func parse(text string) ([]Mount, error) {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var all []Mount
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		dash := slices.Index(fields, "-")
		if dash < 6 || len(fields) < dash+3 {
			return nil, fmt.Errorf("parse mountinfo line %q", strings.TrimSpace(line))
		}
		all = append(all, Mount{Point: unescape.Replace(fields[4]), Type: fields[dash+1], Source: unescape.Replace(fields[dash+2])})
	}
	return all, nil
}
