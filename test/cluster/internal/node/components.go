package node

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	return slices.Concat([]component{
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
		{n.spec("kubelet", n.kubeletArgs()), nil, nil},
		{n.kubeRouter(), n.policiesReady, nil},
		{n.spec("coredns", []string{"-conf", n.path("Corefile")}), n.dnsReady, nil},
		{n.openVolumes(), nil, nil},
	}, n.volumeComponents())
}

// spec runs a daemon ahead of the work of the pods and of the tests beside
// them, so that a busy machine makes the cluster slow, but not fail. Not so
// containerd, whose children are the pods.
func (n *Node) spec(program string, args []string) process.Spec {
	s := process.Spec{Name: program, Path: n.Tools.Path(program), Args: args, Env: n.Tools.Env()}
	switch program {
	case "containerd":
	case "kube-router":
		// Each pod that comes or goes makes it write all rules anew; when others need the machine it does so for many at once.
		s = niced(s, 10)
	default:
		s = niced(s, -5)
	}
	return s
}

func niced(s process.Spec, by int) process.Spec {
	if nice, err := exec.LookPath("nice"); err == nil {
		s.Args = append([]string{"-n", strconv.Itoa(by), s.Path}, s.Args...) // without the right to do so it only warns
		s.Path = nice
	}
	return s
}

// kubeRouter enforces NetworkPolicies. Its PATH begins with our iptables-restore.
func (n *Node) kubeRouter() process.Spec {
	s := n.spec("kube-router", []string{"--kubeconfig", n.path("kube-router.kubeconfig"), "--hostname-override", name, "--service-cluster-ip-range", services})
	s.Env = slices.Clone(s.Env)
	for i, v := range s.Env {
		if path, ok := strings.CutPrefix(v, "PATH="); ok {
			s.Env[i] = "PATH=" + n.path("kube-router") + ":" + path
		}
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

func (n *Node) kubeletArgs() []string {
	p := n.place()
	return []string{
		"--config", n.path("kubelet.yaml"), "--kubeconfig", n.path("kubelet.kubeconfig"), "--root-dir", n.path("kubelet"),
		"--cert-dir", n.path("pki"), "--hostname-override", p.name, "--node-ip", p.address,
		"--node-labels", "topology.kubernetes.io/region=" + region + ",topology.kubernetes.io/zone=" + p.zone,
		"--provider-id", "aws:///" + p.zone + "/" + p.instance,
	}
}

// startAll starts the daemons, then waits for the node.
func (n *Node) startAll(ctx context.Context, pause string) error {
	started := map[string]process.Record{}
	for _, c := range n.components(pause) {
		if err := n.start(ctx, c, started); err != nil {
			return err
		}
	}
	if err := n.awaitReady(ctx, started["kubelet"], n.nodeReady); err != nil {
		return err
	}
	if err := n.awaitReady(ctx, started["kubelet"], n.driversReady); err != nil {
		return err
	}
	return n.awaitReady(ctx, started["kube-controller-manager"], n.accountReady)
}

// start starts a daemon, waits for it as far as something has to, and keeps its record.
func (n *Node) start(ctx context.Context, c component, started map[string]process.Record) error {
	n.Log.Info("starting", "process", c.spec.Name)
	record, err := n.procs.Start(c.spec)
	if err != nil {
		return err
	}
	started[c.spec.Name] = record
	if c.ready != nil {
		if err := n.awaitReady(ctx, record, c.ready); err != nil {
			return err
		}
	}
	if c.then != nil {
		return c.then(ctx)
	}
	return nil
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
