package node

import (
	"bytes"
	"context"
	"embed"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"

	"keepset/test/cluster/internal/pki"
)

//go:embed config
var configFiles embed.FS

const (
	networkName = "keepset-test"
	// PauseImage keeps a pod's namespaces; Up needs it in the cache's images.
	PauseImage = "docker.io/keepset-test/pause:1"
)

// values fill the templates in config.
type values struct {
	Dir, Socket, Debian, Snapshotter        string
	Address, PodNetwork, DNSService, Domain string
	NetworkName, Cgroup, PauseImage         string
	Resolvers                               string // of the machine, blank-separated; may be empty
	PlainDriver, EBSDriver                  string
	PlainZoneKey, EBSZoneKey, Zone          string
	Taint                                   string // key of the node's taint; empty: none
}

func (n *Node) values() values {
	return values{
		Dir: n.Dir, Socket: n.socket(), Debian: n.Tools.Debian, Snapshotter: n.snapshotter(),
		Address: n.place().address, PodNetwork: podNetwork, DNSService: dnsService, Domain: domain,
		NetworkName: networkName, Cgroup: string(n.cgroup()), PauseImage: PauseImage,
		Resolvers:   strings.Join(resolvers("/etc/resolv.conf"), " "),
		PlainDriver: plainDriver, EBSDriver: ebsDriver, PlainZoneKey: plainZoneKey, EBSZoneKey: ebsZoneKey,
		Zone: n.place().zone, Taint: n.place().taint,
	}
}

// prepare writes everything that the daemons read, and makes the machine ready.
func (n *Node) prepare(ctx context.Context) error {
	for _, dir := range []string{"pki", "run", "cni", "logs", "containerd", "kubelet/plugins_registry", "kube-router", "processes"} {
		if err := os.MkdirAll(n.path(dir), 0o755); err != nil {
			return fmt.Errorf("create state directory: %w", err)
		}
	}
	if err := n.changeHost(ctx); err != nil {
		return err
	}
	if err := n.writeCredentials(); err != nil {
		return err
	}
	// Pods with the node's own resolver get the machine's, if it has one.
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		resolv = nil
	}
	if err := os.WriteFile(n.path("resolv.conf"), resolv, 0o644); err != nil {
		return fmt.Errorf("write resolv.conf: %w", err)
	}
	v := n.values()
	for file, dest := range map[string]string{
		"iptables-restore.sh": "kube-router/iptables-restore",
		"containerd.toml":     "containerd.toml", "kubelet.yaml": "kubelet.yaml", "kube-proxy.yaml": "kube-proxy.yaml",
		"Corefile": "Corefile", "cni.conflist": "cni/10-keepset.conflist",
	} {
		data, err := render(file, v)
		if err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if filepath.Ext(file) == ".sh" {
			mode = 0o755
		}
		if err := os.WriteFile(n.path(dest), data, mode); err != nil {
			return fmt.Errorf("write configuration: %w", err)
		}
	}
	return nil
}

// writeCredentials makes the certificates and kubeconfigs of all components.
func (n *Node) writeCredentials() error {
	ca, err := pki.NewAuthority("keepset-test-cluster")
	if err != nil {
		return err
	}
	if err := os.WriteFile(n.path("pki", "ca.crt"), ca.PEM, 0o644); err != nil {
		return fmt.Errorf("write CA certificate: %w", err)
	}
	signing, err := pki.SigningKey()
	if err != nil {
		return err
	}
	if err := signing.Write(n.path("pki", "service-account")); err != nil {
		return err
	}
	for file, subject := range map[string]pki.Subject{
		"apiserver": {CommonName: "kube-apiserver", Hosts: []string{
			Address, apiService, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + domain,
		}},
		"apiserver-kubelet": {CommonName: "kube-apiserver-kubelet-client", Organization: []string{"system:masters"}},
		"kubelet-server":    {CommonName: name, Hosts: []string{Address, name, secondAddress, secondName}},
	} {
		pair, err := ca.Issue(subject)
		if err != nil {
			return err
		}
		if err := pair.Write(n.path("pki", file)); err != nil {
			return err
		}
	}
	for user, subject := range map[string]pki.Subject{
		"admin":              {CommonName: "admin", Organization: []string{"system:masters"}},
		"controller-manager": {CommonName: "system:kube-controller-manager"},
		"scheduler":          {CommonName: "system:kube-scheduler"},
		"kube-proxy":         {CommonName: "system:kube-proxy"},
		"kube-router":        {CommonName: "system:kube-router"},
		"coredns":            {CommonName: "system:coredns"},
		"kubelet":            {CommonName: "system:node:" + name, Organization: []string{"system:nodes"}},
		"kubelet-b":          {CommonName: "system:node:" + secondName, Organization: []string{"system:nodes"}},
	} {
		pair, err := ca.Issue(subject)
		if err != nil {
			return err
		}
		if err := os.WriteFile(n.path(user+".kubeconfig"), kubeconfig(ca.PEM, pair), 0o600); err != nil {
			return fmt.Errorf("write kubeconfig: %w", err)
		}
	}
	return nil
}

// kubeconfig is complete in itself: it can be copied anywhere.
func kubeconfig(ca []byte, pair pki.Pair) []byte {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: keepset-test
  cluster: {server: %q, certificate-authority-data: %s}
users:
- name: user
  user: {client-certificate-data: %s, client-key-data: %s}
contexts:
- name: keepset-test
  context: {cluster: keepset-test, user: user}
current-context: keepset-test
`, apiURL, b64(ca), b64(pair.Cert), b64(pair.Key))
}

// applyBase creates what every cluster has.
func (n *Node) applyBase(ctx context.Context) error {
	data, err := render("base.yaml", n.values())
	if err != nil {
		return err
	}
	if _, err := n.kubectl(ctx, data, "apply", "--server-side", "-f", "-", "-f", n.Tools.SnapshotCRDs); err != nil {
		return fmt.Errorf("create storage classes, DNS, roles and definitions of VolumeSnapshots: %w", err)
	}
	return nil
}

func render(file string, v values) ([]byte, error) {
	t, err := template.ParseFS(configFiles, "config/"+file)
	if err != nil {
		return nil, fmt.Errorf("read template %s: %w", file, err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, v); err != nil {
		return nil, fmt.Errorf("fill template %s: %w", file, err)
	}
	return out.Bytes(), nil
}

// resolvers returns the name servers that a resolv.conf names.
func resolvers(file string) []string {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil // no file, no resolver: the cluster then knows its own names only
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == "nameserver" {
			found = append(found, fields[1])
		}
	}
	return found
}

// snapshotter is overlayfs where the kernel can mount one on our directory,
// else native, which copies whole images and works everywhere.
func (n *Node) snapshotter() string {
	probe, err := os.MkdirTemp(n.Dir, "overlay-probe-")
	if err != nil {
		return "native"
	}
	defer func() { _ = os.RemoveAll(probe) }() // what stays behind does no harm
	var dirs [4]string
	for i, dir := range []string{"lower", "upper", "work", "merged"} {
		dirs[i] = filepath.Join(probe, dir)
		if err := os.Mkdir(dirs[i], 0o755); err != nil {
			return "native"
		}
	}
	options := "lowerdir=" + dirs[0] + ",upperdir=" + dirs[1] + ",workdir=" + dirs[2]
	if err := syscall.Mount("overlay", dirs[3], "overlay", 0, options); err != nil {
		n.Log.Warn("no overlay file system here, images are copied for each container", "error", err)
		return "native"
	}
	if err := syscall.Unmount(dirs[3], 0); err != nil {
		n.Log.Warn("cannot unmount the overlay probe", "error", err)
	}
	return "overlayfs"
}
