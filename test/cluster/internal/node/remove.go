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
	if err := s.drain(ctx); err != nil {
		return fmt.Errorf("remove the node %s: %w", secondName, err)
	}
	if err := n.endSecond(ctx, s); err != nil {
		return fmt.Errorf("remove the node %s: %w", secondName, err)
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
