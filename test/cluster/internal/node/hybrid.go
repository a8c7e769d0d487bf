package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"keepset/test/cluster/internal/mounts"
)

// leftOver returns where the controllers belong that a machine with cgroups of
// version 1 has left to version 2, for example /sys/fs/cgroup/hugetlb. crun
// starts nothing on such a machine.
func leftOver() ([]string, error) {
	all, err := mounts.List()
	if err != nil {
		return nil, err
	}
	var unified string
	hybrid := false
	for _, m := range all {
		switch m.Type {
		case "cgroup":
			hybrid = true
		case "cgroup2":
			unified = m.Point
		}
	}
	if !hybrid || unified == "" {
		return nil, nil
	}
	controllers, err := os.ReadFile(filepath.Join(unified, "cgroup.controllers"))
	if err != nil {
		return nil, fmt.Errorf("read controllers of cgroup2: %w", err)
	}
	var dirs []string
	for c := range strings.FieldsSeq(string(controllers)) {
		dirs = append(dirs, filepath.Join(filepath.Dir(unified), c))
	}
	return dirs, nil
}

// mountHierarchies mounts the controllers, which takes them from version 2.
func mountHierarchies(dirs []string) error {
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("create directory of a cgroup hierarchy: %w", err)
		}
		controller := filepath.Base(dir)
		if err := syscall.Mount("cgroup", dir, "cgroup", 0, controller); err != nil {
			return fmt.Errorf("mount cgroup controller %s on %s: %w", controller, dir, err)
		}
	}
	return nil
}

// unmountHierarchies gives them back. Nothing is left in them.
func unmountHierarchies(dirs []string) error {
	var errs []error
	for _, dir := range dirs {
		// Two errors of what was never mounted: EINVAL with its directory, ENOENT without.
		if err := syscall.Unmount(dir, 0); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOENT) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", dir, err))
			continue
		}
		errs = append(errs, ignoreAbsent(os.Remove(dir)))
	}
	return errors.Join(errs...)
}
