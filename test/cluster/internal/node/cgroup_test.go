package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// Processes in the cgroup or below it are killed, those beside it are not, and
// nothing of it is left in any hierarchy.
func TestCgroupTakesItsProcessesAlong(t *testing.T) {
	ours, theirs := cgroup(fmt.Sprintf("keepset-test-%d", os.Getpid())), cgroup(fmt.Sprintf("keepset-test-%d-other", os.Getpid()))
	for _, c := range []cgroup{ours, theirs} {
		t.Cleanup(func() {
			if err := c.remove(); err != nil {
				t.Error(err)
			}
		})
		if err := c.make(); err != nil {
			t.Fatalf("make a cgroup, which needs root: %v", err)
		}
	}
	inner := sleeper(t, ours, "kubepods/pod")
	outer := sleeper(t, theirs, "")
	if err := ours.kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := inner.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("the process inside ended with %v", err)
	}
	if err := outer.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the process beside is gone: %v", err)
	}
	if err := outer.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = outer.Wait() // it was killed
	if err := ours.remove(); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob("/sys/fs/cgroup/*/" + string(ours))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v (%v)", left, err)
	}
}

// sleeper starts a process in a cgroup below c, in each hierarchy.
func sleeper(t *testing.T, c cgroup, below string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	roots, err := cgroupRoots()
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range roots {
		if _, err := os.Stat(filepath.Join(root, "cpuset.cpus")); err == nil {
			continue // a new cpuset needs to be set up first
		}
		dir := filepath.Join(root, string(c), below)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	return cmd
}
