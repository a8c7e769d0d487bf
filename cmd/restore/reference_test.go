package main

import (
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/cli"
)

var update = flag.Bool("update", false, "write the reference page anew")

// TestReference holds docs/commands to what the program really has.
func TestReference(t *testing.T) {
	const page = "../../docs/commands/restore.md"
	text := cli.Reference(newRoot(&cli.App{Name: "restore"}))
	if *update {
		require.NoError(t, os.MkdirAll("../../docs/commands", 0o755))
		require.NoError(t, os.WriteFile(page, []byte(text), 0o644))
	}
	stored, err := os.ReadFile(page)
	require.NoError(t, err)
	require.Equal(t, string(stored), text, "run go test ./cmd/restore -update")
}
