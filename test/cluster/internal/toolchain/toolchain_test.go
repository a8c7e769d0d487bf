package toolchain

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
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
	tools := Tools{CoreDNS: "/cache/coredns", Bin: []string{filepath.Join(dir, "empty"), filepath.Join(dir, "k8s")}}
	for name, want := range map[string]string{
		"kubectl": filepath.Join(dir, "k8s", "kubectl"), "coredns": "/cache/coredns", "ip": "ip",
	} {
		if got := tools.Path(name); got != want {
			t.Errorf("%s is at %s, want %s", name, got, want)
		}
	}
}

// The version that the binaries report is that of the module they are built from.
func TestVersionIsThatOfTheModule(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), "\tk8s.io/kubernetes "+KubernetesVersion+"\n") {
		t.Fatalf("go.mod does not require k8s.io/kubernetes %s", KubernetesVersion)
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
