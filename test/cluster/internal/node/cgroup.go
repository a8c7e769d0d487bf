package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"keepset/test/cluster/internal/mounts"
)

// cgroup is the cgroup, below the root of every hierarchy, that holds all pods
// of the cluster. Its name tells clusters of several directories apart.
type cgroup string

func (n *Node) cgroup() cgroup {
	if n.parent != nil {
		return n.parent.cgroup().child("b")
	}
	sum := sha256.Sum256([]byte(n.Dir))
	return cgroup("keepset-" + hex.EncodeToString(sum[:4]))
}

// cgroupRoots returns the roots of all hierarchies, of both versions.
func cgroupRoots() ([]string, error) {
	all, err := mounts.List()
	if err != nil {
		return nil, err
	}
	var roots []string
	for _, m := range all {
		if (m.Type == "cgroup" || m.Type == "cgroup2") && !slices.Contains(roots, m.Point) {
			roots = append(roots, m.Point)
		}
	}
	if len(roots) == 0 {
		return nil, errors.New("find cgroups: none mounted; mount cgroup2 on /sys/fs/cgroup")
	}
	return roots, nil
}

// make makes the cgroup in every hierarchy; the kubelet wants to find it.
func (c cgroup) make() error {
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		dir := filepath.Join(root, string(c))
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("create cgroup: %w", err)
		}
		// A cpuset of version 1 starts without CPUs and memory, and takes no process.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(root, file))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, file), value, 0o644)
			}
			if err != nil {
				return fmt.Errorf("set up cpuset: %w", err)
			}
		}
	}
	return nil
}

// kill kills every process in the cgroup, which are the pods' and nobody else's.
func (c cgroup) kill(ctx context.Context) error {
	return await(ctx, 30*time.Second, 50*time.Millisecond, func(context.Context) error {
		pids, err := c.processes()
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("kill pod process %d: %w", pid, err)
			}
		}
		if len(pids) > 0 {
			return fmt.Errorf("%d processes of pods still run", len(pids))
		}
		return nil
	})
}

func (c cgroup) processes() ([]int, error) {
	var pids []int
	err := c.each(func(dir string) error {
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.EOPNOTSUPP) {
			return nil // removed meanwhile, or a threaded cgroup, whose parent lists the processes
		}
		if err != nil {
			return err
		}
		for field := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids, err
}

// remove removes the cgroups from the leaves up. The kernel takes a
// moment to let go of a process that has ended.
func (c cgroup) remove() error {
	return await(context.Background(), 10*time.Second, 50*time.Millisecond, func(context.Context) error {
		var dirs []string
		if err := c.each(func(dir string) error { dirs = append(dirs, dir); return nil }); err != nil {
			return err
		}
		slices.Reverse(dirs)
		for _, dir := range dirs {
			if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove cgroup %s: %w", dir, err)
			}
		}
		return nil
	})
}

// each visits the cgroup and those below it, parents before children, in all
// hierarchies.
func (c cgroup) each(visit func(dir string) error) error {
	if c == "" {
		return nil // none was made; and never the root
	}
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		err := filepath.WalkDir(filepath.Join(root, string(c)), func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !entry.IsDir() {
				return err
			}
			return visit(path)
		})
		if err != nil {
			return fmt.Errorf("walk cgroups: %w", err)
		}
	}
	return nil
}
