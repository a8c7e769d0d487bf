package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/test/programs"
)

func TestMain(m *testing.M) { os.Exit(programs.Main(m)) }

// TestDemo tells the story with our programs as they are now and little data, and looks for what it left behind.
func TestDemo(t *testing.T) {
	bin, err := programs.Build()
	require.NoError(t, err)
	scratch := t.TempDir()
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
