package toolchain

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// A program is built when what it is made of changes, and then only.
func TestProgramIsBuiltOncePerSource(t *testing.T) {
	module := t.TempDir()
	write(t, filepath.Join(module, "go.mod"), "module tiny\n\ngo 1.26.0\n")
	write(t, filepath.Join(module, "go.sum"), "")
	write(t, filepath.Join(module, "cmd", "tiny", "main.go"), "package main\n\nvar version = \"none\"\n\nfunc main() { println(version) }\n")
	tc := Toolchain{Cache: t.TempDir(), Source: module, Log: slog.New(slog.DiscardHandler)}
	tiny := Binary{Name: "tiny", Dir: module, Package: "./cmd/tiny", Arch: runtime.GOARCH, LinkerFlags: "-X main.version=one"}

	first := build(t, tc, tiny)
	if out, err := exec.CommandContext(t.Context(), first).CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "one" {
		t.Fatalf("it prints %q (%v)", out, err)
	}
	built, err := os.Stat(first)
	if err != nil {
		t.Fatal(err)
	}
	if again := build(t, tc, tiny); again != first {
		t.Errorf("the same sources are built again, as %s", again)
	}
	if now, err := os.Stat(first); err != nil || !os.SameFile(built, now) || !now.ModTime().Equal(built.ModTime()) {
		t.Errorf("the program was written again (%v)", err)
	}
	flags := tiny
	flags.LinkerFlags = "-X main.version=two"
	write(t, filepath.Join(module, "go.sum"), "\n")
	sum := build(t, tc, tiny)
	if other := build(t, tc, flags); other == sum || sum == first {
		t.Errorf("other flags or other modules give the same program: %s, %s, %s", first, sum, other)
	}
}

func TestFailedBuildSaysWhy(t *testing.T) {
	module := t.TempDir()
	write(t, filepath.Join(module, "go.mod"), "module tiny\n\ngo 1.26.0\n")
	write(t, filepath.Join(module, "go.sum"), "")
	write(t, filepath.Join(module, "main.go"), "package main\n\nfunc main() { nonsense() }\n")
	tc := Toolchain{Cache: t.TempDir(), Source: module, Log: slog.New(slog.DiscardHandler)}
	_, err := tc.Build(t.Context(), Binary{Name: "tiny", Dir: module, Package: ".", Arch: runtime.GOARCH})
	if err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Fatalf("got %v", err)
	}
}

func TestEveryProgramHasItsPath(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "k8s", "kubectl"), "")
	tools := Tools{Programs: map[string]string{"coredns": "/cache/coredns", "kube-router": "/cache/kube-router"}, Bin: []string{filepath.Join(dir, "empty"), filepath.Join(dir, "k8s")}}
	for name, want := range map[string]string{
		"kubectl": filepath.Join(dir, "k8s", "kubectl"), "coredns": "/cache/coredns",
		"kube-router": "/cache/kube-router", "ip": "ip",
	} {
		if got := tools.Path(name); got != want {
			t.Errorf("%s is at %s, want %s", name, got, want)
		}
	}
}

// The versions that the binaries report are those of the modules they are built from.
func TestVersionIsThatOfTheModule(t *testing.T) {
	for file, want := range map[string]string{
		"go.mod":                 "k8s.io/kubernetes " + KubernetesVersion,
		"csi/provisioner/go.mod": "github.com/kubernetes-csi/external-provisioner/v5 " + ProvisionerVersion,
		"csi/snapshotter/go.mod": "github.com/kubernetes-csi/external-snapshotter/v8 " + SnapshotterVersion,
	} {
		data, err := os.ReadFile(filepath.Join("..", "..", file))
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`(?m)^(require)?\s` + regexp.QuoteMeta(want) + `( // indirect)?$`).Match(data) {
			t.Errorf("%s does not require %s", file, want)
		}
	}
}

// A program that is its whole module is built again when any of its sources
// changes, and not for a test's sake.
func TestProgramOfAWholeModule(t *testing.T) {
	module := t.TempDir()
	write(t, filepath.Join(module, "go.mod"), "module tiny\n\ngo 1.26.0\n")
	write(t, filepath.Join(module, "go.sum"), "")
	write(t, filepath.Join(module, "main.go"), "package main\n\nimport \"tiny/inner\"\n\nfunc main() { inner.Do() }\n")
	write(t, filepath.Join(module, "inner", "inner.go"), "package inner\n\nfunc Do() {}\n")
	tc := Toolchain{Cache: t.TempDir(), Source: module, Log: slog.New(slog.DiscardHandler)}
	tiny := Binary{Name: "tiny", Dir: module, Package: ".", Arch: runtime.GOARCH, Whole: true}
	first := build(t, tc, tiny)
	write(t, filepath.Join(module, "inner", "inner_test.go"), "package inner\n")
	if again := build(t, tc, tiny); again != first {
		t.Error("it is built again for a test")
	}
	write(t, filepath.Join(module, "inner", "inner.go"), "package inner\n\nfunc Do() { println() }\n")
	if again := build(t, tc, tiny); again == first {
		t.Error("it is not built again after a change")
	}

	// One that is a folder of its module, and what is below it, is not built again for the rest.
	write(t, filepath.Join(module, "cmd", "main.go"), "package main\n\nimport \"tiny/cmd/part\"\n\nfunc main() { part.Do() }\n")
	write(t, filepath.Join(module, "cmd", "part", "part.go"), "package part\n\nfunc Do() {}\n")
	tree := Binary{Name: "tree", Dir: module, Package: "./cmd", Arch: runtime.GOARCH, Tree: true}
	first = build(t, tc, tree)
	write(t, filepath.Join(module, "inner", "inner.go"), "package inner\n\nfunc Do() {}\n")
	if again := build(t, tc, tree); again != first {
		t.Error("it is built again for another folder")
	}
	write(t, filepath.Join(module, "cmd", "part", "part.go"), "package part\n\nfunc Do() { println() }\n")
	if again := build(t, tc, tree); again == first {
		t.Error("it is not built again after a change below it")
	}
}

func build(t *testing.T, tc Toolchain, b Binary) string {
	t.Helper()
	path, err := tc.Build(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}
