// Package toolchain gets the programs that a cluster runs: Kubernetes,
// CoreDNS, kube-router and what serves volumes built from their Go modules,
// and Debian's etcd, containerd, crun, network plugins, iptables, ipset and
// e2fsprogs, unpacked into the cache. Nothing is installed on the machine, so
// nothing of it can start, stop or clash with a service.
//
// [Prepare] fills the cache and returns [Tools]. Everything in the cache lies
// under a key that names its version or is a hash of its sources, and appears
// there by a rename, whole. A filled cache makes Prepare a matter of
// milliseconds.
package toolchain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// KubernetesVersion is that of the module k8s.io/kubernetes in go.mod.
const KubernetesVersion = "v1.36.3"

// programs are the names that the multi-call binary of cmd/kubernetes answers to.
var programs = []string{"kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"}

// Toolchain knows where things come from and where they go.
type Toolchain struct {
	Cache  string // directory that keeps what was built and downloaded
	Source string // directory of this Go module
	Log    *slog.Logger
}

// Tools is where the programs are.
type Tools struct {
	Kubernetes   string            // directory with one symlink per program of Kubernetes
	Programs     map[string]string // files of the other programs that were built, by name
	SnapshotCRDs string            // directory of the manifests of VolumeSnapshots
	Debian       string            // root directory of the unpacked packages
	Bin          []string          // directories to put before PATH
}

// Prepare builds and downloads what the cache lacks.
func (t Toolchain) Prepare(ctx context.Context) (Tools, error) {
	if os.Geteuid() != 0 {
		return Tools{}, errors.New("prepare tools: not root; run as root, the kubelet and containerd need it")
	}
	debian, err := t.debian(ctx)
	if err != nil {
		return Tools{}, err
	}
	kubernetes, err := t.kubernetes(ctx)
	if err != nil {
		return Tools{}, err
	}
	coredns, err := t.Build(ctx, Binary{Name: "coredns", Dir: t.Source, Package: "./cmd/coredns", Arch: runtime.GOARCH})
	if err != nil {
		return Tools{}, err
	}
	kubeRouter, err := t.Build(ctx, Binary{Name: "kube-router", Dir: t.Source, Package: "./cmd/kube-router", Arch: runtime.GOARCH})
	if err != nil {
		return Tools{}, err
	}
	built, err := t.csi(ctx)
	if err != nil {
		return Tools{}, err
	}
	built["coredns"], built["kube-router"] = coredns, kubeRouter
	crds, err := t.snapshotCRDs(ctx)
	if err != nil {
		return Tools{}, err
	}
	return Tools{
		Kubernetes:   kubernetes,
		Programs:     built,
		SnapshotCRDs: crds,
		Debian:       debian,
		Bin: []string{
			filepath.Join(debian, "links"), kubernetes,
			filepath.Join(debian, "usr/sbin"), filepath.Join(debian, "usr/bin"), filepath.Join(debian, "sbin"),
		},
	}, nil
}

// Env is the environment that lets the unpacked programs find each other,
// their libraries and, for iptables, its extensions.
func (t Tools) Env() []string {
	var libraries []string
	for _, pattern := range []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*"} {
		found, _ := filepath.Glob(filepath.Join(t.Debian, pattern)) // the only error is a bad pattern
		libraries = append(libraries, found...)
	}
	var extensions string
	for _, dir := range libraries {
		if _, err := os.Stat(filepath.Join(dir, "xtables")); err == nil {
			extensions = filepath.Join(dir, "xtables")
		}
	}
	// Addresses of the cluster are never asked for through a proxy of the environment.
	const direct = "localhost,127.0.0.0/8,10.244.0.0/15,10.96.0.0/16,.svc,.cluster.local"
	return []string{
		"NO_PROXY=" + direct, "no_proxy=" + direct,
		"PATH=" + strings.Join(t.Bin, ":") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LD_LIBRARY_PATH=" + strings.Join(libraries, ":"),
		"XTABLES_LIBDIR=" + extensions,
	}
}

// Path returns the file of one of the programs.
func (t Tools) Path(name string) string {
	if file, ok := t.Programs[name]; ok {
		return file
	}
	for _, dir := range t.Bin {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return filepath.Join(dir, name)
		}
	}
	return name
}

// kubernetes builds the multi-call binary and its links, and returns their directory.
func (t Toolchain) kubernetes(ctx context.Context) (string, error) {
	set := func(pkg, name, value string) string { return "-X " + pkg + "/version." + name + "=" + value }
	minor := strings.Split(KubernetesVersion, ".")[1]
	binary, err := t.Build(ctx, Binary{
		Name: "kubernetes", Dir: t.Source, Package: "./cmd/kubernetes", Arch: runtime.GOARCH,
		LinkerFlags: strings.Join([]string{
			set("k8s.io/component-base", "gitVersion", KubernetesVersion),
			set("k8s.io/component-base", "gitMajor", "1"),
			set("k8s.io/component-base", "gitMinor", minor),
			set("k8s.io/client-go/pkg", "gitVersion", KubernetesVersion),
		}, " "),
	})
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(binary)
	for _, name := range programs {
		link := filepath.Join(dir, name)
		if err := os.Symlink(filepath.Base(binary), link); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("link %s: %w", name, err)
		}
	}
	return dir, nil
}

// Binary is a static Go program to build.
type Binary struct {
	Name        string
	Dir         string // directory of the module
	Package     string // to build, relative to Dir
	Arch        string // GOARCH
	LinkerFlags string
	// Whole: the program is made of the whole module; Tree: of the package and
	// those in folders below it. Otherwise its code lies in the dependencies, and
	// in the package itself.
	Whole, Tree bool
}

// Build returns the file of the program, built unless the cache holds one of
// the same module files, sources, flags and Go version.
func (t Toolchain) Build(ctx context.Context, b Binary) (string, error) {
	flags := "-s -w " + b.LinkerFlags
	key, err := buildKey(b, flags)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", b.Name, err)
	}
	dest := filepath.Join(t.Cache, "build", b.Name+"-"+key, b.Name)
	if _, err := os.Stat(dest); err == nil {
		return dest, nil
	}
	t.Log.Info("building, the first time takes minutes", "program", b.Name, "arch", b.Arch)
	if err := t.compile(ctx, b, flags, dest); err != nil {
		return "", err
	}
	return dest, keepNewest(filepath.Join(t.Cache, "build", b.Name+"-????????????????"))
}

// keepNewest removes all but the two newest of the directories that match: they
// are large, and the older of the two may be what a running cluster was started from.
func keepNewest(pattern string) error {
	dirs, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	built := map[string]time.Time{}
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("look for old builds: %w", err)
		}
		built[dir] = info.ModTime()
	}
	slices.SortFunc(dirs, func(a, b string) int { return built[b].Compare(built[a]) })
	for _, dir := range dirs[min(2, len(dirs)):] {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove an old build: %w", err)
		}
	}
	return nil
}

// Install returns the static program of a published module, PACKAGE@VERSION.
func (t Toolchain) Install(ctx context.Context, name, pkg string) (string, error) {
	_, version, _ := strings.Cut(pkg, "@")
	dest := filepath.Join(t.Cache, "build", name+"-"+version, name)
	if _, err := os.Stat(dest); err == nil {
		return dest, nil
	}
	t.Log.Info("building", "program", name, "version", version)
	work := filepath.Dir(dest) + ".tmp"
	cmd := exec.CommandContext(ctx, "go", "install", "-trimpath", "-ldflags", "-s -w", pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOBIN="+work, "GOFLAGS=-p=2 -buildvcs=false", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", pkg, err, tail(out))
	}
	if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
		return "", fmt.Errorf("build %s: %w", pkg, err)
	}
	return dest, os.Rename(filepath.Join(work, name), dest)
}

// compile builds into a temporary file and renames it to dest.
func (t Toolchain) compile(ctx context.Context, b Binary, flags, dest string) error {
	if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
		return fmt.Errorf("build %s: %w", b.Name, err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", flags, "-o", dest+".tmp", b.Package)
	cmd.Dir = b.Dir
	// Two packages at a time: more of Kubernetes's at once than a small machine's memory holds.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+b.Arch, "GOFLAGS=-p=2 -buildvcs=false", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", b.Name, err, tail(out))
	}
	return os.Rename(dest+".tmp", dest)
}

// buildKey hashes all that decides what a build yields.
func buildKey(b Binary, flags string) (string, error) {
	files, err := sources(b)
	if err != nil {
		return "", err
	}
	files = append(files, filepath.Join(b.Dir, "go.mod"), filepath.Join(b.Dir, "go.sum"))
	slices.Sort(files)
	all := fmt.Appendf(nil, "%s\n%s\n%s\n", runtime.Version(), b.Arch, flags)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		all = fmt.Appendf(all, "%s %d\n%s", filepath.Base(file), len(data), data)
	}
	sum := sha256.Sum256(all)
	return hex.EncodeToString(sum[:8]), nil
}

// sources are the files, beside those of the module itself, that a program is
// known by.
func sources(b Binary) ([]string, error) {
	root := filepath.Join(b.Dir, b.Package)
	switch {
	case b.Whole:
		root = b.Dir
	case !b.Tree:
		return filepath.Glob(filepath.Join(root, "*.go"))
	}
	var files []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			files = append(files, path)
		}
		return err
	})
	return files, err
}

// tail is the end of a program's output, which is where it says what failed.
func tail(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}
