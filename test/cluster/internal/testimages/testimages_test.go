package testimages

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"keepset/test/cluster/internal/toolchain"
)

func TestEntrypointsParse(t *testing.T) {
	scripts, err := fs.Glob(files, "files/*.sh")
	if err != nil || len(scripts) != 2 {
		t.Fatalf("entry points: %v (%v)", scripts, err)
	}
	for _, name := range scripts {
		script, err := files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "bash", "-n")
		cmd.Stdin = bytes.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}

func TestImageIsBuiltOncePerKey(t *testing.T) {
	b := Builder{Toolchain: toolchain.Toolchain{Cache: t.TempDir()}, Log: slog.New(slog.DiscardHandler)}
	builds := 0
	build := func(_, dest string) error {
		builds++
		return os.WriteFile(dest, nil, 0o600)
	}
	first, err := b.cached("a/thing:1", "key", build)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := b.cached("a/thing:1", "key", build); err != nil || again != first || builds != 1 {
		t.Fatalf("got %v (%v) after %d builds, want %v after 1", again, err, builds, first)
	}
	other, err := b.cached("a/thing2:1", "key", build)
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.cached("a/thing:1", "new key", build)
	if err != nil || second == first || builds != 3 {
		t.Fatalf("got %v (%v) after %d builds", second, err, builds)
	}
	if _, err := os.Stat(first.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the replaced archive is still there: %v", err)
	}
	if _, err := os.Stat(other.Path); err != nil {
		t.Errorf("another image's archive is gone: %v", err)
	}
}

func TestFailedBuildLeavesNothing(t *testing.T) {
	b := Builder{Toolchain: toolchain.Toolchain{Cache: t.TempDir()}, Log: slog.New(slog.DiscardHandler)}
	broken := errors.New("broken")
	if _, err := b.cached("a/thing:1", "key", func(string, string) error { return broken }); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	left, err := filepath.Glob(filepath.Join(b.Toolchain.Cache, "images", "*"))
	if err != nil || len(left) != 0 {
		t.Fatalf("left over: %v (%v)", left, err)
	}
}
