package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"keepset/test/cluster/internal/mounts"
	"keepset/test/cluster/internal/process"
)

// RemoveNode takes the second node away: its pods are deleted and its volumes
// let go, the cluster forgets it, its processes end. Without one it does
// nothing. What a command that was killed has left, the next one or Down removes.
func (n *Node) RemoveNode(ctx context.Context) error {
	unlock, err := n.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if !n.hasSecond() {
		return nil
	}
	s := n.second()
	lost, err := n.lostSecond()
	if err == nil && !lost {
		err = s.drain(ctx)
	}
	if err != nil {
		return fmt.Errorf("remove the node %s: %w", secondName, err)
	}
	if err := n.endSecond(ctx, s); err != nil {
		return fmt.Errorf("remove the node %s: %w", secondName, err)
	}
	return nil
}

// LoseNode is what a power cut does to the second node: all that ran on it is
// gone at once, and the cluster is told by nobody. It does not come back;
// RemoveNode clears away what is left of it.
func (n *Node) LoseNode(ctx context.Context) error {
	unlock, err := n.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if !n.hasSecond() {
		return errors.New("lose the second node: there is none; add it with `cluster add-node`")
	}
	s := n.second()
	err = errors.Join(
		n.stopNamed("kubelet-b", "csi-plain-b", "csi-ebs-b", "containerd-b"),
		n.killShims(s.socket()),
		s.cgroup().kill(ctx),
		s.unmountVolumes(ctx),
	)
	if err != nil {
		return fmt.Errorf("lose the node %s: %w", secondName, err)
	}
	return nil
}

// lostSecond tells whether the second node's kubelet has been ended.
func (n *Node) lostSecond() (bool, error) {
	records, err := n.procs.All()
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(records, func(r process.Record) bool { return r.Name == "kubelet-b" && r.Alive() }), nil
}

// unmountVolumes takes the mounts of a node that is no more, and the loop devices
// that were mounted nowhere else.
func (n *Node) unmountVolumes(ctx context.Context) error {
	before, err := mounts.List()
	if err != nil {
		return err
	}
	if err := mounts.UnmountBelow(n.Dir); err != nil {
		return err
	}
	after, err := mounts.List()
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, m := range after {
		used[m.Source] = true
	}
	for _, m := range before {
		if used[m.Source] || !strings.HasPrefix(m.Source, "/dev/loop") {
			continue
		}
		used[m.Source] = true
		if _, err := n.run(ctx, "losetup", "--detach", m.Source); err != nil {
			n.Log.Debug("a loop device went by itself", "device", m.Source, "error", err)
		}
	}
	return nil
}

// drain deletes the node's pods, and waits until its kubelet has unmounted what
// they had: from outside nobody could tell whose the loop devices are.
func (n *Node) drain(ctx context.Context) error {
	if _, err := n.kubectl(ctx, nil, "cordon", n.place().name); err != nil {
		return err
	}
	if _, err := n.kubectl(ctx, nil, "drain", n.place().name, "--force", "--disable-eviction", "--ignore-daemonsets", "--delete-emptydir-data",
		"--grace-period", "1", "--timeout", "90s"); err != nil {
		return err
	}
	return await(ctx, time.Minute, 200*time.Millisecond, func(context.Context) error {
		all, err := mounts.List()
		if err != nil {
			return err
		}
		for _, m := range all {
			if strings.HasPrefix(m.Point, n.path("kubelet")+"/") {
				return fmt.Errorf("%s is still mounted", m.Point)
			}
		}
		return nil
	})
}

// endSecond ends a node that runs nothing any more, in the order of clear.
func (n *Node) endSecond(ctx context.Context, s *Node) error {
	if err := n.stopNamed("kubelet-b"); err != nil { // it would register itself again
		return err
	}
	if _, err := n.kubectl(ctx, nil, "delete", "node", secondName, "--ignore-not-found", "--timeout", "60s"); err != nil {
		return err
	}
	err := errors.Join(
		n.stopNamed("csi-plain-b", "csi-ebs-b"),
		s.cgroup().kill(ctx),
		n.stopNamed("containerd-b"),
		n.killShims(s.socket()),
		removeShimSockets(s),
		mounts.UnmountBelow(s.Dir),
		s.cgroup().remove(),
	)
	if err != nil {
		return err
	}
	// Logs of its containers, by the links that the kubelet makes.
	links, _ := filepath.Glob("/var/log/containers/*") // the only error of Glob is a bad pattern
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, s.Dir+"/") {
			if err := ignoreAbsent(os.Remove(link)); err != nil {
				return err
			}
		}
	}
	if _, err := n.run(ctx, "ip", "address", "delete", secondAddress+"/32", "dev", "lo"); err != nil {
		return fmt.Errorf("remove the node's address: %w", err)
	}
	return os.RemoveAll(s.Dir)
}

// stopNamed stops processes by their names in the set.
func (n *Node) stopNamed(names ...string) error {
	records, err := n.procs.All()
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range records {
		if slices.Contains(names, r.Name) {
			errs = append(errs, n.procs.Stop(r, grace))
		}
	}
	return errors.Join(errs...)
}
