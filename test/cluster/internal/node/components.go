package node

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"keepset/test/cluster/internal/process"
)

// component is one daemon of the node.
type component struct {
	spec  process.Spec
	ready func(context.Context) error // nil: nothing waits for it
	then  func(context.Context) error // done once it is ready, before the next starts; may be nil
}

// components are the daemons in the order in which they start, each waiting
// for the one before to be ready. pause is the archive of the pause image.
func (n *Node) components(pause string) []component {
	loadPause := func(ctx context.Context) error { return n.Load(ctx, pause) }
	return []component{
		{n.spec("etcd", n.etcdArgs()), n.etcdReady, nil},
		{n.spec("kube-apiserver", n.apiserverArgs()), n.apiReady, n.applyBase},
		{n.spec("containerd", []string{"--config", n.path("containerd.toml")}), n.containerdReady, loadPause},
		{n.spec("kube-controller-manager", n.controllerArgs()), nil, nil},
		{n.spec("kube-scheduler", []string{
			"--kubeconfig", n.path("scheduler.kubeconfig"), "--leader-elect=false", "--bind-address", Address,
			"--authentication-kubeconfig", n.path("scheduler.kubeconfig"), "--authorization-kubeconfig", n.path("scheduler.kubeconfig"),
			"--authentication-tolerate-lookup-failure",
		}), nil, nil},
		{n.spec("kube-proxy", []string{"--config", n.path("kube-proxy.yaml"), "--hostname-override", name}), nil, nil},
		{n.spec("kubelet", []string{
			"--config", n.path("kubelet.yaml"), "--kubeconfig", n.path("kubelet.kubeconfig"), "--root-dir", n.path("kubelet"),
			"--cert-dir", n.path("pki"), "--hostname-override", name, "--node-ip", Address,
		}), nil, nil},
		{n.spec("coredns", []string{"-conf", n.path("Corefile")}), n.dnsReady, nil},
		{n.openVolumes(), nil, nil},
	}
}

// spec runs a daemon ahead of the work of the pods and of the tests beside
// them, so that a busy machine makes the cluster slow, but not fail. Not so
// containerd, whose children are the pods.
func (n *Node) spec(program string, args []string) process.Spec {
	s := process.Spec{Name: program, Path: n.Tools.Path(program), Args: args, Env: n.Tools.Env()}
	if nice, err := exec.LookPath("nice"); err == nil && program != "containerd" {
		s.Args = append([]string{"-n", "-5", s.Path}, args...) // without the right to do so it only warns
		s.Path = nice
	}
	return s
}

// openVolumes is this program itself, see [OpenVolumes].
func (n *Node) openVolumes() process.Spec {
	return process.Spec{Name: "open-volumes", Path: "/proc/self/exe", Args: []string{"open-volumes", n.path("volumes")}}
}

func (n *Node) etcdArgs() []string {
	return []string{
		"--name", name, "--data-dir", n.path("etcd"), "--logger", "zap", "--log-level", "warn",
		"--listen-client-urls", etcdURL, "--advertise-client-urls", etcdURL,
		"--listen-peer-urls", etcdPeerURL, "--initial-advertise-peer-urls", etcdPeerURL,
		"--initial-cluster", name + "=" + etcdPeerURL,
	}
}

func (n *Node) apiserverArgs() []string {
	return []string{
		"--etcd-servers", etcdURL,
		"--bind-address", Address, "--advertise-address", Address, "--secure-port", "6443",
		"--service-cluster-ip-range", services,
		"--tls-cert-file", n.path("pki", "apiserver.crt"), "--tls-private-key-file", n.path("pki", "apiserver.key"),
		"--client-ca-file", n.path("pki", "ca.crt"),
		"--kubelet-client-certificate", n.path("pki", "apiserver-kubelet.crt"), "--kubelet-client-key", n.path("pki", "apiserver-kubelet.key"),
		"--kubelet-certificate-authority", n.path("pki", "ca.crt"),
		"--kubelet-preferred-address-types", "InternalIP", // the node's name resolves nowhere
		"--service-account-issuer", "https://kubernetes.default.svc." + domain,
		"--service-account-signing-key-file", n.path("pki", "service-account.key"),
		"--service-account-key-file", n.path("pki", "service-account.crt"),
		"--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction",
		"--anonymous-auth=false", "--allow-privileged", "--profiling=false",
	}
}

func (n *Node) controllerArgs() []string {
	config := n.path("controller-manager.kubeconfig")
	return []string{
		"--kubeconfig", config, "--authentication-kubeconfig", config, "--authorization-kubeconfig", config,
		"--authentication-tolerate-lookup-failure",
		"--bind-address", Address, "--leader-elect=false", "--use-service-account-credentials",
		"--service-account-private-key-file", n.path("pki", "service-account.key"), "--root-ca-file", n.path("pki", "ca.crt"),
		"--enable-hostpath-provisioner", "--flex-volume-plugin-dir", n.path("kubelet", "flexvolume"),
		"--profiling=false",
	}
}

// startAll starts the daemons, then waits for the node.
func (n *Node) startAll(ctx context.Context, pause string) error {
	started := map[string]process.Record{}
	for _, c := range n.components(pause) {
		n.Log.Info("starting", "process", c.spec.Name)
		record, err := n.procs.Start(c.spec)
		if err != nil {
			return err
		}
		started[c.spec.Name] = record
		if c.ready == nil {
			continue
		}
		if err := n.awaitReady(ctx, record, c.ready); err != nil {
			return err
		}
		if c.then == nil {
			continue
		}
		if err := c.then(ctx); err != nil {
			return err
		}
	}
	if err := n.awaitReady(ctx, started["kubelet"], n.nodeReady); err != nil {
		return err
	}
	return n.awaitReady(ctx, started["kube-controller-manager"], n.accountReady)
}

// awaitReady waits until a process does its work. When it has died, or has not
// got there within two minutes, the end of its log is in the error.
func (n *Node) awaitReady(ctx context.Context, r process.Record, ready func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err := await(ctx, 2*time.Minute, 100*time.Millisecond, func(ctx context.Context) error {
		err := ready(ctx)
		if err != nil && !r.Alive() {
			cancel()
			return fmt.Errorf("the process ended: %w", err)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("wait for %s: %w; the end of %s:\n%s", r.Name, err, n.procs.LogFile(r.Name), n.procs.Tail(r.Name, 25))
	}
	return nil
}

// socket is where containerd listens.
func (n *Node) socket() string { return filepath.Join(n.Dir, "run", "containerd.sock") }
