// Package programs builds Keepset's two programs, and those that stand in for products, for tests that run them as a user does.
package programs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
)

// dir is this process's own.
func dir() string {
	return filepath.Join(os.TempDir(), "keepset-programs-"+strconv.Itoa(os.Getpid()))
}

// Build makes the programs backup and restore, once for all tests of a package, and returns the directory in which they
// are. They are built with the flags of the image, so that what both need is compiled once.
var Build = sync.OnceValues(func() (string, error) {
	if err := os.Mkdir(dir(), 0o700); err != nil {
		return "", fmt.Errorf("make a place for the programs: %w", err)
	}
	cmd := exec.CommandContext(context.Background(), "go", "build", "-trimpath", "-o", dir(), "keepset/cmd/backup", "keepset/cmd/restore")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("build the programs: %w: %s", err, out), os.RemoveAll(dir()))
	}
	return dir(), nil
})

// StandIns makes the program that stands in for products that cannot run here, and returns its file.
var StandIns = sync.OnceValues(func() (string, error) {
	if _, err := Build(); err != nil {
		return "", err
	}
	file := filepath.Join(dir(), "standins")
	if out, err := exec.CommandContext(context.Background(), "go", "build", "-o", file, "keepset/test/standins").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the stand-ins: %w: %s", err, out)
	}
	return file, nil
})

// Main runs the tests of a package that calls Build, and takes the programs away; TestMain ends with the code it returns.
func Main(m *testing.M) int {
	code := m.Run()
	if err := os.RemoveAll(dir()); err != nil {
		fmt.Fprintln(os.Stderr, "remove the programs:", err)
		return max(code, 1)
	}
	return code
}
