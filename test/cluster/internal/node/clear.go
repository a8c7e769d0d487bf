package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"keepset/test/cluster/internal/mounts"
)

// grace is how long a daemon gets to end. Nothing of the cluster is kept, so a
// daemon that waits for its clients, as the API server does, need not be waited for.
const grace = 2 * time.Second

// clear ends everything and removes the state. The order matters: first what
// would start something again, then the pods, then what watches them, then
// what they stood on. It goes on after an error where that does no harm, but
// keeps the state then, so that the next try knows what is left to do.
func (n *Node) clear(ctx context.Context) error {
	records, err := n.procs.All()
	if err != nil {
		return err
	}
	m, err := n.recall()
	if err != nil {
		return err
	}
	if m == nil {
		m = &memory{} // Up did not come so far as to change the machine
	}
	stop := func(names ...string) (err error) {
		for _, r := range records {
			if len(names) == 0 || slices.Contains(names, r.Name) {
				err = errors.Join(err, n.procs.Stop(r, grace))
			}
		}
		return err
	}
	err = errors.Join(
		stop("kubelet", "kubelet-b", "kube-controller-manager", "kube-scheduler"),
		stop("csi-plain", "csi-plain-b", "csi-ebs", "csi-ebs-b", "ebsfake"),
		n.thawVolumes(), // a process that waits for a frozen volume cannot be killed
		m.Cgroup.kill(ctx),
		stop("containerd", "containerd-b"),
		n.killShims(n.socket(), n.second().socket()),
		removeShimSockets(n, n.second()),
		stop(),
		n.detachLoops(ctx),
		n.unmountAll(*m),
		n.loopsGone(ctx),
		n.restoreHost(ctx, *m),
	)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(n.Dir); err != nil {
		return fmt.Errorf("remove state: %w", err)
	}
	return nil
}

// killShims ends the shims of our containerd, which live on without it. Ours
// are those that were told the path of one of our sockets.
func (n *Node) killShims(sockets ...string) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	var errs []error
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue // not a process
		}
		cmdline, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err != nil {
			continue // it ended meanwhile
		}
		args := bytes.Split(cmdline, []byte{0})
		if !strings.HasPrefix(filepath.Base(string(args[0])), "containerd-shim") || !nameOne(args, sockets) {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("kill shim %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

// nameOne tells whether one of the arguments is one of the sockets.
func nameOne(args [][]byte, sockets []string) bool {
	return slices.ContainsFunc(args, func(arg []byte) bool { return slices.Contains(sockets, string(arg)) })
}

// removeShimSockets removes the sockets of the shims. They lie in a place that
// is fixed in containerd's code, under a name that the task's directory keeps.
func removeShimSockets(nodes ...*Node) error {
	const tasks = "run/containerd/io.containerd.runtime.v2.task/*/*/address"
	var files []string
	for _, n := range nodes {
		found, _ := filepath.Glob(n.path(tasks)) // the only error of Glob is a bad pattern
		files = append(files, found...)
	}
	var errs []error
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			errs = append(errs, fmt.Errorf("find socket of a shim: %w", err))
			continue
		}
		if socket, ok := strings.CutPrefix(strings.TrimSpace(string(data)), "unix://"); ok {
			errs = append(errs, ignoreAbsent(os.Remove(socket)))
		}
	}
	return errors.Join(errs...)
}

// unmountAll unmounts everything below our directory, and our volumes from
// their fixed place.
func (n *Node) unmountAll(m memory) error {
	dirs := []string{n.Dir}
	if m.Boot != "" {
		dirs = append(dirs, hostPathVolumes)
	}
	return mounts.UnmountBelow(dirs...)
}
