package node

import (
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keepset/test/cluster/internal/toolchain"
)

// Rules of Kubernetes go; those of others stay, also those that came while
// the cluster ran, and also another's of the same look that were there before.
func TestFirewallIsLeftToOthers(t *testing.T) {
	before := `*nat
:PREROUTING ACCEPT [1:60]
:CNI-other - [3:4]
-A POSTROUTING -j CNI-other
COMMIT
`
	now := `*nat
:PREROUTING ACCEPT [9:540]
:CNI-other - [7:8]
:CNI-5f3a - [0:0]
:DOCKER - [0:0]
:KUBE-SERVICES - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -j DOCKER
-A POSTROUTING -j CNI-other
-A POSTROUTING -s 10.244.0.2/32 -j CNI-5f3a
COMMIT
`
	want := `*nat
:PREROUTING ACCEPT [9:540]
:CNI-other - [7:8]
:DOCKER - [0:0]
-A PREROUTING -j DOCKER
-A POSTROUTING -j CNI-other
COMMIT
`
	if got := withoutCluster(before, now); got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
	if got := withoutCluster(now, now); got != now {
		t.Fatal("rules that were there before are removed")
	}
}

// So do sets of addresses.
func TestSetsAreLeftToOthers(t *testing.T) {
	before := []string{"blocked", "KUBE-theirs"}
	now := []string{"KUBE-DST-UE2S", "KUBE-theirs", "TMP-7VH3", "blocked", "later"}
	if got, want := ofCluster(before, now), []string{"KUBE-DST-UE2S", "TMP-7VH3"}; !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func TestResolversOfTheMachine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("# nameserver 9.9.9.9\nsearch lan\nnameserver 192.0.2.1\nnameserver\nnameserver 2001:db8::1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := resolvers(file), []string{"192.0.2.1", "2001:db8::1"}; !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	if got := resolvers(file + ".absent"); got != nil {
		t.Fatalf("got %v from no file", got)
	}
}

func TestVolumesAreOpenedAsTheyAppear(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	if err := os.Mkdir(filepath.Join(dir, "before"), 0o750); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- OpenVolumes(ctx, dir) }()
	open := func(name string) func(context.Context) error {
		return func(context.Context) error {
			info, err := os.Stat(filepath.Join(dir, name))
			if err == nil && info.Mode().Perm() != 0o777 {
				return fs.ErrPermission
			}
			return err
		}
	}
	if err := await(ctx, 5*time.Second, time.Millisecond, open("before")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "pvc-87f49c06-320f-4777-94f4-e2bef0812016"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := await(ctx, 5*time.Second, time.Millisecond, open(name)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestOnlyEmptyDirectoriesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	for _, d := range []string{filepath.Join(ours, "a", "b"), filepath.Join(theirs, "a")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(theirs, "a", "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{ours, theirs, filepath.Join(dir, "absent")} {
		if err := removeEmptyTree(d); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(ours); !os.IsNotExist(err) {
		t.Errorf("the empty tree is still there: %v", err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the file is gone: %v", err)
	}
}

func TestEveryTemplateIsFilled(t *testing.T) {
	n := &Node{Dir: t.TempDir(), Tools: toolchain.Tools{Debian: "/debian"}, Log: slog.New(slog.DiscardHandler)}
	entries, err := configFiles.ReadDir("config")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		text, err := render(entry.Name(), n.values())
		if err != nil {
			t.Errorf("%s: %v", entry.Name(), err)
		}
		if strings.Contains(string(text), "<no value>") || strings.Contains(string(text), "{{") {
			t.Errorf("%s is not filled:\n%s", entry.Name(), text)
		}
	}
}

func TestPathTooLongForSockets(t *testing.T) {
	_, err := New("/"+strings.Repeat("long/", 20), toolchain.Tools{}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "KEEPSET_CLUSTER_DIR") {
		t.Fatalf("got %v", err)
	}
}

// After a reboot nothing that was remembered of processes, rules and settings
// is true any more, and another cluster may run: all that goes is the state.
func TestStateFromBeforeARebootIsCleared(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	n, err := New(dir, toolchain.Tools{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"machine.json":        `{"boot":"00000000-0000-0000-0000-000000000000","cgroup":"/","settings":{"kernel/panic":"77"},"firewall":{"iptables-save":""}}`,
		"processes/etcd.json": `{"name":"etcd","pid":1,"start":1,"boot":"00000000-0000-0000-0000-000000000000"}`,
		"etcd/member/db":      "data",
	}
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Fatalf("the state is still there: %v", err)
	}
	if value, err := os.ReadFile("/proc/sys/kernel/panic"); err != nil || strings.TrimSpace(string(value)) == "77" {
		t.Fatalf("a setting from before the reboot was restored: %s (%v)", value, err)
	}
}

// What was never started is cleared without touching the machine.
func TestDownWithoutUp(t *testing.T) {
	n, err := New(filepath.Join(t.TempDir(), "c"), toolchain.Tools{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// The cgroup of no name is not the root's, with every process of the machine.
func TestNamelessCgroupHoldsNothing(t *testing.T) {
	pids, err := cgroup("").processes()
	if err != nil || len(pids) != 0 {
		t.Fatalf("got %v (%v)", pids, err)
	}
}

// An image is listed under its name and under its digest; it is copied once.
func TestImagesAreListedByName(t *testing.T) {
	list := "docker.io/keepset-test/pause:1\ndocker.io/library/keepset:dev\nsha256:0a1b\n"
	if got, want := imageNames(list), []string{"docker.io/keepset-test/pause:1", "docker.io/library/keepset:dev"}; !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// The second node's pods are in the cluster's cgroup, and its files below the
// cluster's: what takes the one back takes the other.
func TestSecondNodeLiesWithinTheFirst(t *testing.T) {
	n, err := New(filepath.Join(t.TempDir(), "c"), toolchain.Tools{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := n.second()
	if !strings.HasPrefix(string(s.cgroup()), string(n.cgroup())+"/") || !strings.HasPrefix(s.Dir, n.Dir+"/") {
		t.Errorf("cgroup %s and directory %s", s.cgroup(), s.Dir)
	}
	if s.Kubeconfig() != n.Kubeconfig() || s.socket() == n.socket() || s.place().address == n.place().address {
		t.Errorf("kubeconfig %s, socket %s, place %v", s.Kubeconfig(), s.socket(), s.place())
	}
	if n.hasSecond() || len(n.nodes()) != 1 {
		t.Error("there is a second node before it was added")
	}
}
