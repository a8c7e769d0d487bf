// Package node runs a real Kubernetes of one node out of plain processes: etcd,
// the API server, its controllers and scheduler, containerd, the kubelet,
// kube-proxy, kube-router and CoreDNS. A [Node] is the state directory of one such cluster.
//
// It promises three things. Up on a healthy cluster changes nothing; Up on
// whatever a crash, a kill or a reboot left clears that away first, and starts
// an empty cluster. Down ends exactly the processes that Up started, and takes
// back what they did to the machine: mounts, cgroups, network namespaces,
// firewall rules and their sets, addresses, kernel settings. Nothing listens outside the
// machine, and no fixed port of the loopback device is taken: the node has an
// address of its own, [Address].
package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"keepset/test/cluster/internal/lock"
	"keepset/test/cluster/internal/process"
	"keepset/test/cluster/internal/toolchain"
)

// Addresses of the cluster. They are private ones that a host seldom uses.
const (
	Address     = "10.245.0.1"    // the node, on the loopback device
	podNetwork  = "10.244.0.0/16" // pods
	services    = "10.96.0.0/16"  // Services
	apiService  = "10.96.0.1"     // Service kubernetes/default
	dnsService  = "10.96.0.10"    // Service kube-dns/kube-system
	domain      = "cluster.local"
	name        = "keepset-node"
	etcdURL     = "http://127.0.0.77:2379" // a loopback address: pods cannot reach it
	etcdPeerURL = "http://127.0.0.77:2380"
	apiURL      = "https://" + Address + ":6443"
)

// Node is a cluster on this machine, known by its state directory.
type Node struct {
	Dir   string // state of the cluster, removed by Down
	Tools toolchain.Tools
	Log   *slog.Logger

	procs  process.Set
	parent *Node // of a second node: the cluster
}

// maxPath leaves room for the longest sockets below the state directory,
// b/kubelet/plugins_registry/plain.sock and b/kubelet/device-plugins/kubelet.sock,
// in the 107 characters of their address.
const maxPath = 68

// New returns the node of a state directory, running or not.
func New(dir string, tools toolchain.Tools, log *slog.Logger) (*Node, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if len(abs) > maxPath {
		return nil, fmt.Errorf("state directory %s: longer than %d characters, and the path of a unix socket below it is limited to 107; set KEEPSET_CLUSTER_DIR", abs, maxPath)
	}
	n := &Node{Dir: abs, Tools: tools, Log: log}
	n.procs = process.Set{Records: n.path("processes"), Logs: n.path("logs")}
	return n, nil
}

// Kubeconfig is the file that makes its holder cluster administrator.
func (n *Node) Kubeconfig() string {
	if n.parent != nil {
		return n.parent.Kubeconfig()
	}
	return n.path("admin.kubeconfig")
}

// Up makes the cluster run. It returns when the node is ready, names resolve
// and pods can be created. pause is the archive of [PauseImage], without which
// no pod starts.
func (n *Node) Up(ctx context.Context, pause string) error {
	unlock, err := n.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	unhealthy := n.Healthy(ctx)
	if unhealthy == nil {
		return nil
	}
	n.Log.Info("clearing what an earlier cluster left", "dir", n.Dir, "because", unhealthy)
	if err := n.clear(ctx); err != nil {
		return fmt.Errorf("clear %s: %w", n.Dir, err)
	}
	if err := n.prepare(ctx); err != nil {
		return err
	}
	return n.startAll(ctx, pause)
}

// Down stops the cluster and removes its state, logs included.
func (n *Node) Down(ctx context.Context) error {
	unlock, err := n.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return n.clear(ctx)
}

// patience is how long a cluster whose processes all run may take to answer:
// on a busy machine it is slow, and must not be taken for broken.
const patience = time.Minute

// Healthy is nil when every process runs, those that can be asked answer, the
// node is ready and names resolve. Otherwise it says what is wrong.
func (n *Node) Healthy(ctx context.Context) error {
	dead, err := n.dead()
	if err != nil {
		return err
	}
	if len(dead) > 0 {
		return fmt.Errorf("not running: %s", strings.Join(dead, ", "))
	}
	for _, check := range []func(context.Context) error{n.apiReady, n.containerdReady, n.kubeletReady, n.nodeReady, n.policiesReady, n.dnsReady, n.secondHealthy} {
		if err := await(ctx, patience, time.Second, check); err != nil {
			return err
		}
	}
	return nil
}

// dead names the components that do not run.
func (n *Node) dead() ([]string, error) {
	records, err := n.procs.All()
	if err != nil {
		return nil, err
	}
	alive := map[string]bool{}
	for _, r := range records {
		alive[r.Name] = r.Alive()
	}
	var dead []string
	components := n.components("")
	if n.hasSecond() {
		components = append(components, n.secondComponents("")...)
	}
	for _, c := range components {
		if !alive[c.spec.Name] {
			dead = append(dead, c.spec.Name)
		}
	}
	return dead, nil
}

// Status is one line per process, then one on the whole.
func (n *Node) Status(ctx context.Context) (lines []string, err error) {
	records, err := n.procs.All()
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		state := "running"
		if !r.Alive() {
			state = "dead"
		}
		lines = append(lines, fmt.Sprintf("%-24s pid %-8d %-8s log %s", r.Name, r.PID, state, n.procs.LogFile(r.Name)))
	}
	return lines, n.Healthy(ctx)
}

func (n *Node) path(elem ...string) string {
	return filepath.Join(append([]string{n.Dir}, elem...)...)
}

// lock keeps two commands from working on one cluster. It lies beside the
// directory, which Down removes.
func (n *Node) lock(ctx context.Context) (unlock func(), err error) {
	return lock.Acquire(ctx, n.Dir+".lock", func() { n.Log.Info("waiting for another command", "dir", n.Dir) })
}

// await calls check until it returns nil, and returns its last error when the
// time is over.
func await(ctx context.Context, limit, pause time.Duration, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("gave up after %s: %w", limit, err)
		case <-time.After(pause):
		}
	}
}

// removeIfEmpty removes a directory that we may have made, unless somebody
// else uses it.
func removeIfEmpty(dir string) error {
	err := os.Remove(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EBUSY) {
		return nil
	}
	return err
}
