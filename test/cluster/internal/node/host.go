package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// hostPathVolumes is where Kubernetes's own hostPath provisioner makes its
// volumes; the place is a constant in its code.
const hostPathVolumes = "/tmp/hostpath_pv"

// settings are the kernel's settings that the cluster needs or the kubelet
// changes. Those with a value are set by Up; all get their old value back.
var settings = map[string]string{
	"net/ipv4/ip_forward":                       "1",
	"net/bridge/bridge-nf-call-iptables":        "",
	"net/ipv4/conf/all/route_localnet":          "",
	"vm/overcommit_memory":                      "",
	"vm/panic_on_oom":                           "",
	"kernel/panic":                              "",
	"kernel/panic_on_oops":                      "",
	"kernel/keys/root_maxkeys":                  "",
	"kernel/keys/root_maxbytes":                 "",
	"net/netfilter/nf_conntrack_max":            "",
	"net/netfilter/nf_conntrack_tcp_be_liberal": "",
}

// memory is what Down needs to know of the machine before Up.
type memory struct {
	Boot     string            `json:"boot"` // what follows means nothing after a reboot
	Settings map[string]string `json:"settings"`
	Firewall map[string]string `json:"firewall"` // command to what it printed
	IPSets   []string          `json:"ipsets"`   // names
	Absent   []string          `json:"absent"`   // directories that did not exist
	Cgroup   cgroup            `json:"cgroup"`   // of the pods
	// Hierarchies of cgroups that are mounted for the time of the cluster.
	Hierarchies []string `json:"hierarchies"`
}

// traces are directories with a fixed place that the daemons make. Those that
// did not exist before Up are removed by Down.
var traces = []string{
	"/var/lib/kubelet", "/var/log/containers", "/var/lib/cni", "/run/containerd", hostPathVolumes,
}

// changeHost remembers the machine as it is and makes it ready for a node.
func (n *Node) changeHost(ctx context.Context) error {
	switch used, err := addressInUse(ctx); {
	case err != nil:
		return err
	case used:
		return fmt.Errorf("address %s is in use: another cluster runs on this machine; stop it with `cluster down` and its KEEPSET_CLUSTER_DIR", Address)
	}
	m, err := n.remember(ctx)
	if err != nil {
		return err
	}
	for setting, value := range settings {
		if value == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join("/proc/sys", setting), []byte(value), 0o644); err != nil {
			return fmt.Errorf("set %s: %w", setting, err)
		}
	}
	if _, err := n.run(ctx, "ip", "address", "replace", Address+"/32", "dev", "lo"); err != nil {
		return fmt.Errorf("add the node's address: %w", err)
	}
	if err := mountHierarchies(m.Hierarchies); err != nil {
		return err
	}
	if err := n.cgroup().make(); err != nil {
		return err
	}
	for _, dir := range []string{hostPathVolumes, n.path("volumes")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("create directory of volumes: %w", err)
		}
	}
	if err := syscall.Mount(n.path("volumes"), hostPathVolumes, "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", n.path("volumes"), hostPathVolumes, err)
	}
	return nil
}

// addressInUse tells whether another cluster of this kind runs on the machine:
// it then has our address and listens there. The address alone may be left over.
func addressInUse(ctx context.Context) (bool, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return false, fmt.Errorf("read addresses: %w", err)
	}
	var d net.Dialer
	for _, a := range addresses {
		if ip, ok := a.(*net.IPNet); !ok || ip.IP.String() != Address {
			continue
		}
		if conn, err := d.DialContext(ctx, "tcp", Address+":6443"); err == nil {
			return true, conn.Close()
		}
	}
	return false, nil
}

func (n *Node) remember(ctx context.Context) (*memory, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	m := memory{Boot: boot, Cgroup: n.cgroup(), Settings: map[string]string{}, Firewall: map[string]string{}}
	for setting := range settings {
		if value, err := os.ReadFile(filepath.Join("/proc/sys", setting)); err == nil { // not every kernel has each
			m.Settings[setting] = strings.TrimSpace(string(value))
		}
	}
	for save := range firewallSaves {
		rules, err := n.run(ctx, save)
		if err != nil {
			return nil, fmt.Errorf("read firewall rules: %w", err)
		}
		m.Firewall[save] = rules
	}
	if m.IPSets, err = n.ipsets(ctx); err != nil {
		return nil, err
	}
	if m.Hierarchies, err = leftOver(); err != nil {
		return nil, err
	}
	for _, dir := range traces {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			m.Absent = append(m.Absent, dir)
		}
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode state of the machine: %w", err)
	}
	if err := os.WriteFile(n.path("machine.json"), data, 0o600); err != nil {
		return nil, fmt.Errorf("write state of the machine: %w", err)
	}
	return &m, nil
}

// recall returns what remember wrote, and nil if Up never came so far. A
// memory from before a reboot holds only what outlives one.
func (n *Node) recall() (*memory, error) {
	data, err := os.ReadFile(n.path("machine.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state of the machine: %w", err)
	}
	var m memory
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("read state of the machine %s: %w; remove the file to go on without", n.path("machine.json"), err)
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	if m.Boot != boot {
		return &memory{Absent: m.Absent}, nil
	}
	return &m, nil
}

// restoreHost takes back what changeHost and the daemons did to the machine.
// The daemons have been stopped.
func (n *Node) restoreHost(ctx context.Context, m memory) error {
	if m.Boot == "" {
		// Another directory's cluster may run since the reboot: all there is is its own then.
		if used, err := addressInUse(ctx); used || err != nil {
			return err
		}
	}
	return errors.Join(
		n.removeTraces(m),
		m.Cgroup.remove(),
		unmountHierarchies(m.Hierarchies),
		n.restoreFirewall(ctx, m),
		n.removeIPSets(ctx, m), // no rule names them any more
		n.restoreSettings(m),
		n.removeAddress(ctx),
	)
}

func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot ID: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

func (n *Node) restoreSettings(m memory) error {
	var errs []error
	for setting, value := range m.Settings {
		file := filepath.Join("/proc/sys", setting)
		if now, err := os.ReadFile(file); err != nil || strings.TrimSpace(string(now)) == value {
			continue
		}
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
			errs = append(errs, fmt.Errorf("restore %s: %w", setting, err))
		}
	}
	return errors.Join(errs...)
}

func (n *Node) removeAddress(ctx context.Context) error {
	addresses, err := n.run(ctx, "ip", "-oneline", "address", "show", "dev", "lo")
	if err != nil {
		return fmt.Errorf("read addresses: %w", err)
	}
	for _, address := range []string{Address + "/32", secondAddress + "/32"} {
		if !strings.Contains(addresses, address) {
			continue
		}
		if _, err := n.run(ctx, "ip", "address", "delete", address, "dev", "lo"); err != nil {
			return fmt.Errorf("remove the node's address: %w", err)
		}
	}
	return nil
}

// removeTraces removes what the daemons put into places that are not ours to
// choose.
func (n *Node) removeTraces(m memory) error {
	var errs []error
	// The only error of Glob is a bad pattern.
	links, _ := filepath.Glob("/var/log/containers/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, n.Dir+"/") {
			errs = append(errs, os.Remove(link))
		}
	}
	const prefix = "/var/lib/cni/results/" + networkName + "-"
	results, _ := filepath.Glob(prefix + "*")
	for _, file := range results {
		id := strings.TrimSuffix(strings.TrimPrefix(file, prefix), "-eth0")
		errs = append(errs, os.Remove(file), ignoreAbsent(os.Remove("/var/lib/cni/results/cni-loopback-"+id+"-lo")))
	}
	for _, dir := range m.Absent {
		if dir == hostPathVolumes || dir == "/run/containerd" || dir == "/var/log/containers" {
			errs = append(errs, removeEmptyTree(dir))
			continue
		}
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// removeEmptyTree removes a directory and those below it as far as they hold
// no file.
func removeEmptyTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeEmptyTree(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	return removeIfEmpty(dir)
}
