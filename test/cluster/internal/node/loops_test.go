package node

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"keepset/test/cluster/internal/toolchain"
)

// What a driver that was killed leaves: a frozen file system on a loop device,
// and a device that is not mounted. All of it goes; a neighbour's stays.
func TestVolumesOfAKilledDriverAreTakenBack(t *testing.T) {
	n, err := New(filepath.Join(t.TempDir(), "c"), toolchain.Tools{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	image, point := filepath.Join(n.Dir, "image"), filepath.Join(n.Dir, "mounted")
	if err := os.MkdirAll(point, 0o755); err != nil {
		t.Fatal(err)
	}
	raw, theirs := filepath.Join(n.Dir, "raw"), n.Dir+"-theirs"
	for _, file := range []string{image, raw, theirs} {
		if err := os.WriteFile(file, make([]byte, 8<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run(t, "mkfs.ext4", "-q", "-F", image)
	t.Cleanup(func() { _ = syscall.Unmount(point, syscall.MNT_DETACH) })
	run(t, "mount", "-o", "loop", image, point)
	rawLoop, theirLoop := run(t, "losetup", "--find", "--show", raw), run(t, "losetup", "--find", "--show", theirs)
	t.Cleanup(func() { run(t, "losetup", "--detach", theirLoop) })
	freeze(t, point)

	if err := n.thawVolumes(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(point, "file"), nil, 0o600); err != nil { // hangs if it is frozen
		t.Fatal(err)
	}
	if err := n.detachLoops(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.unmountAll(memory{}); err != nil {
		t.Fatal(err)
	}
	if err := n.loopsGone(t.Context()); err != nil {
		t.Fatal(err)
	}
	if found, err := n.loops(); err != nil || len(found) > 0 {
		t.Errorf("left: %v (%v)", found, err)
	}
	if file, err := os.ReadFile("/sys/block/" + filepath.Base(rawLoop) + "/loop/backing_file"); err == nil && strings.HasPrefix(string(file), raw) {
		t.Errorf("%s still shows %s", rawLoop, file)
	}
	if file, err := os.ReadFile("/sys/block/" + filepath.Base(theirLoop) + "/loop/backing_file"); err != nil || strings.TrimSpace(string(file)) != theirs {
		t.Errorf("the neighbour's device shows %q (%v)", file, err)
	}
	if err := n.thawVolumes(); err != nil {
		t.Errorf("without any volume: %v", err)
	}
}

func freeze(t *testing.T, point string) {
	t.Helper()
	dir, err := os.Open(point)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dir.Close() }()
	const fiFreeze = 0xC0045877 // from <linux/fs.h>
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, dir.Fd(), fiFreeze, 0); errno != 0 {
		t.Fatalf("freeze: %v", errno)
	}
	t.Cleanup(func() {
		if err := thaw(point); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
}

// run runs a program of the machine and returns what it prints.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput() //nolint:noctx // cleanups outlive the test's context
	if err != nil {
		t.Fatalf("%s, which needs root and the packages e2fsprogs and mount: %v\n%s", name, err, out)
	}
	return strings.TrimSpace(string(out))
}
