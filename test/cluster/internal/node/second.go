package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"keepset/test/cluster/internal/process"
)

// The second node, in another zone. It is a kubelet and a containerd of its
// own with the node services of the drivers; everything else, and the network
// of the pods, it shares with the first, for they are one machine.
const (
	secondAddress  = "10.245.0.2"
	secondName     = name + "-b"
	secondZone     = "us-east-1b"
	secondInstance = "i-0c1a55e7ab1e00002"
)

// SecondTaint is the key of the second node's taint, NoSchedule: NetworkPolicies
// are not enforced there, and tests count on one zone.
const SecondTaint = "keepset.test/second"

// second returns the part of a cluster that is its second node. It has the
// cluster's processes, records and logs; its files are in a directory below.
func (n *Node) second() *Node {
	return &Node{Dir: n.path("b"), Tools: n.Tools, Log: n.Log, procs: n.procs, parent: n}
}

// hasSecond tells whether AddNode was called.
func (n *Node) hasSecond() bool {
	_, err := os.Stat(n.path("b"))
	return err == nil
}

// AddNode adds a second node in another zone to a cluster that runs, with all
// images of the first. Only pods that tolerate its taint, [SecondTaint], come to
// it: to all others it is as if it were not there. pause is the archive of
// [PauseImage]. RemoveNode takes it back, and Down with the rest. On a cluster
// that has one it does nothing.
func (n *Node) AddNode(ctx context.Context, pause string) error {
	unlock, err := n.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := n.Healthy(ctx); err != nil {
		return fmt.Errorf("add a node: the cluster is not healthy: %w; start it with `cluster up`", err)
	}
	if n.hasSecond() {
		return nil
	}
	s := n.second()
	if err := s.prepareSecond(ctx); err != nil {
		return fmt.Errorf("add a node: %w", err)
	}
	started := map[string]process.Record{}
	for _, c := range n.secondComponents(pause) {
		if err := n.start(ctx, c, started); err != nil {
			return err
		}
	}
	if err := n.awaitReady(ctx, started["kubelet-b"], s.nodeReady); err != nil {
		return err
	}
	return n.awaitReady(ctx, started["kubelet-b"], s.driversReady)
}

// secondComponents are the daemons of the second node.
func (n *Node) secondComponents(pause string) []component {
	s := n.second()
	return []component{
		{n.named("containerd-b", "containerd", []string{"--config", s.path("containerd.toml")}), s.containerdReady, func(ctx context.Context) error {
			if err := s.Load(ctx, pause); err != nil {
				return err
			}
			return n.copyImages(ctx, s)
		}},
		{n.named("csi-plain-b", "csi-driver", s.driverArgs("plain", plainDriver, plainZoneKey, secondName, "--dir", n.path("csi-volumes"))), nil, nil},
		{n.named("csi-ebs-b", "csi-driver", s.driverArgs("ebs", ebsDriver, ebsZoneKey, secondInstance, "--ec2", ebsURL, "--region", region)), nil, nil},
		{n.named("kubelet-b", "kubelet", s.kubeletArgs()), nil, nil},
	}
}

// prepareSecond writes what the second node's daemons read. Its certificates
// are there since the start of the cluster, whose authority was not kept.
func (n *Node) prepareSecond(ctx context.Context) error {
	for _, dir := range []string{"run", "logs", "containerd", "kubelet/plugins_registry", "pki"} {
		if err := os.MkdirAll(n.path(dir), 0o755); err != nil {
			return fmt.Errorf("create state directory: %w", err)
		}
	}
	for _, shared := range []string{
		"cni", "resolv.conf", "pki/ca.crt", "pki/kubelet-server.crt", "pki/kubelet-server.key",
	} {
		if err := os.Symlink(n.parent.path(shared), n.path(shared)); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("share %s: %w", shared, err)
		}
	}
	if err := os.Symlink(n.parent.path("kubelet-b.kubeconfig"), n.path("kubelet.kubeconfig")); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("share kubeconfig: %w", err)
	}
	if _, err := n.run(ctx, "ip", "address", "replace", secondAddress+"/32", "dev", "lo"); err != nil {
		return fmt.Errorf("add the node's address: %w", err)
	}
	if err := n.cgroup().make(); err != nil {
		return err
	}
	for _, file := range []string{"containerd.toml", "kubelet.yaml"} {
		data, err := render(file, n.values())
		if err != nil {
			return err
		}
		if err := os.WriteFile(n.path(file), data, 0o644); err != nil {
			return fmt.Errorf("write configuration: %w", err)
		}
	}
	return nil
}

// copyImages gives the second node the images of the first.
func (n *Node) copyImages(ctx context.Context, to *Node) error {
	names, err := n.run(ctx, "ctr", "--address", n.socket(), "--namespace", "k8s.io", "images", "list", "--quiet", "name~=keepset")
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	for _, image := range imageNames(names) {
		archive := to.path("image.tar")
		if _, err := n.run(ctx, "ctr", "--address", n.socket(), "--namespace", "k8s.io", "images", "export", archive, image); err != nil {
			return fmt.Errorf("copy image %s: %w", image, err)
		}
		if err := errors.Join(to.load(ctx, archive), os.Remove(archive)); err != nil {
			return err
		}
	}
	return nil
}

// place is what a node is called, and where it is.
type place struct{ name, address, zone, instance, taint string }

func (n *Node) place() place {
	if n.parent != nil {
		return place{secondName, secondAddress, secondZone, secondInstance, SecondTaint}
	}
	return place{name, Address, zone, instance, ""}
}

// secondHealthy is nil when there is no second node, and when it does its work.
func (n *Node) secondHealthy(ctx context.Context) error {
	if !n.hasSecond() {
		return nil
	}
	for _, check := range []func(context.Context) error{n.second().containerdReady, n.second().nodeReady} {
		if err := await(ctx, patience, time.Second, check); err != nil {
			return err
		}
	}
	return nil
}

// nodes are the parts of the cluster that are a node each.
func (n *Node) nodes() []*Node {
	if n.hasSecond() {
		return []*Node{n, n.second()}
	}
	return []*Node{n}
}

// child is the cgroup of the second node's pods, inside the cluster's.
func (c cgroup) child(below string) cgroup { return cgroup(filepath.Join(string(c), below)) }
