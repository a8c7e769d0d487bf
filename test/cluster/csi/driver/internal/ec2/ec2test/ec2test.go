// Package ec2test runs the fake EC2 of the project as a process of its own, as
// the test cluster does, for tests of what speaks to it.
package ec2test

import (
	"bufio"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// Start runs the fake until the test ends, and returns its URL. Its images are
// in dir.
func Start(t testing.TB, dir string, args ...string) string {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	binary := filepath.Join(t.TempDir(), "ebsfake")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./test/ebsfake")
	build.Dir = filepath.Join(filepath.Dir(here), "..", "..", "..", "..", "..", "..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the fake: %v\n%s", err, out)
	}
	cmd := exec.Command(binary, append([]string{"--dir", dir}, args...)...) //nolint:noctx // it is stopped below, not killed
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the fake ended with %v", err)
		}
	})
	url, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the fake does not say where it listens: %v", err)
	}
	return strings.TrimSpace(url)
}
