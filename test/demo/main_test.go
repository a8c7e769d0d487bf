package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDemo tells the story with our programs as they are now and little data, and looks for what it left behind.
func TestDemo(t *testing.T) {
	bin, scratch := t.TempDir(), t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", bin+"/", "keepset/cmd/backup", "keepset/cmd/restore")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Setenv("TMPDIR", scratch)
	require.NoError(t, run(t.Context(), []string{"-bin", bin, "-rows", "2000"}))
	left, err := os.ReadDir(scratch)
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestDemoFails: a restore that does nothing must not end in a success.
func TestDemoFails(t *testing.T) {
	bin := t.TempDir()
	for _, name := range []string{"backup", "restore"} {
		require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"), 0o700))
	}
	err := run(t.Context(), []string{"-bin", bin, "-rows", "2000"})
	require.ErrorContains(t, err, "replica 2")
}
