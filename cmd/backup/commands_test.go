package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"keepset/internal/cli/clitest"
	"keepset/test/servers"
)

// TestCommands holds every command to --json, --dry-run and examples.
func TestCommands(t *testing.T) {
	server := servers.MariaDB(t)
	server.Exec(t, "CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY)", "INSERT INTO shop.orders VALUES (1), (2)")
	source := []string{"--source", "mysql://root@" + server.Addr}
	world := clitest.NewWorld(t, nil, "KEEPSET_SOURCE_PASSWORD="+server.Password)
	second := filepath.Join(t.TempDir(), "second")
	mine, heirs, heir, fingerprint, keysOf := keysWorld(t)
	order := []string{"init", "keygen", "keys list", "keys add-recipient", "keys remove-recipient", "keys rotate-writer", "keys new-epoch", "run", "list", "show", "verify", "status", "pin", "unpin", "accept", "adopt", "copy", "prune", "delete", "suspend", "resume", "schedule", "version", "completion"}
	program.Tree(t, world, order, clitest.Commands{
		"init": {Preview: "dry-run", Cases: [][]string{{"--dry-run"}, {}}},
		// What it makes is new, and a file that exists is never replaced.
		"keygen":    {Cases: [][]string{{}, {"--out", t.TempDir()}}},
		"keys list": {Cases: [][]string{{}, keysOf(0, mine)}},
		"keys add-recipient": {Preview: "dry-run", Cases: [][]string{
			keysOf(0, mine, heir.String(), "--dry-run"), keysOf(0, mine, heir.String()),
		}},
		"keys remove-recipient": {Preview: "dry-run", Cases: [][]string{keysOf(0, heirs, fingerprint, "--dry-run"), keysOf(0, heirs, fingerprint)}},
		"keys rotate-writer":    {Preview: "dry-run", Cases: [][]string{keysOf(0, heirs, "--dry-run"), keysOf(0, heirs, "--out="+t.TempDir())}},
		"keys new-epoch": {Preview: "dry-run", Cases: [][]string{
			keysOf(1, mine, "--recipient="+heir.String(), "--dry-run"), keysOf(1, mine, "--recipient="+heir.String(), "--out="+t.TempDir()),
		}},
		"run":        {Preview: "dry-run", Cases: [][]string{append(source, "--dry-run"), source}},
		"list":       {Cases: [][]string{{}}},
		"show":       {Cases: [][]string{{}}},
		"verify":     {Cases: [][]string{{"--read-data=100"}}},
		"status":     {Cases: [][]string{{"--schedule=0 2 * * *"}, {"--schedule=0 2 * * *", "--metrics-file=" + filepath.Join(t.TempDir(), "keepset.prom")}}},
		"pin":        {Preview: "dry-run", Cases: [][]string{{clitest.NewestBackup, "--dry-run"}, {clitest.NewestBackup, "--reason=a test"}}},
		"unpin":      {Preview: "dry-run", Cases: [][]string{{clitest.NewestBackup, "--dry-run"}, {clitest.NewestBackup}}},
		"accept":     {Preview: "dry-run", Cases: [][]string{{clitest.NewestBackup, "--dry-run"}, {clitest.NewestBackup, "--reason=a test"}}},
		"adopt":      {Preview: "dry-run", Cases: [][]string{{"--origin=here", "--force", "--dry-run"}, {"--origin=here", "--force"}}},
		"copy":       {Preview: "dry-run", Cases: [][]string{{"--to=file://" + second, "--dry-run"}, {"--to=file://" + second}}},
		"prune":      {Preview: "dry-run", Cases: [][]string{{"--keep-last=1", "--dry-run"}, {"--keep-last=1"}}},
		"delete":     {Preview: "dry-run", Cases: [][]string{{clitest.NewestBackup, "--force", "--dry-run"}, {clitest.NewestBackup, "--force"}}},
		"suspend":    {Preview: "dry-run", Cases: [][]string{{"--dry-run"}, {}}},
		"resume":     {Preview: "dry-run", Cases: [][]string{{"--dry-run"}, {}}},
		"schedule":   {Cases: [][]string{{"0 2 * * *"}, {"30 2 * * *", "--time-zone=Europe/Berlin", "--took=26h"}}},
		"version":    {Cases: [][]string{{}}},
		"completion": {Cases: [][]string{{"bash"}}},
	})
}

// keysWorld is two encrypted repositories, a file with the identity that opens them,
// one of an heir with its public key, and the fingerprint of the first; keysOf are the
// flags of one of them, opened with the identity of a file.
func keysWorld(t *testing.T) (mine, heirs string, heir *age.X25519Recipient, fingerprint string, keysOf func(repository int, identity string, args ...string) []string) {
	t.Helper()
	list := []*stored{layDown(t, "encrypted", 0), layDown(t, "encrypted", 0)}
	dir := t.TempDir()
	mine, heirs = filepath.Join(dir, "mine.key"), filepath.Join(dir, "heir.key")
	identity, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(mine, []byte(list[0].env["KEEPSET_RESTORE_IDENTITY"]), 0o600))
	require.NoError(t, os.WriteFile(heirs, []byte(identity.String()), 0o600))
	files, err := filepath.Glob(list[0].root + "/keys/*")
	require.NoError(t, err)
	require.Len(t, files, 1)
	fingerprint = strings.Split(filepath.Base(files[0]), ".")[1]
	return mine, heirs, identity.Recipient(), fingerprint, func(n int, identity string, args ...string) []string {
		return append(args, "--repository=file://"+list[n].root, "--trusted-writers="+list[n].env["KEEPSET_TRUSTED_WRITERS"], "--restore-identity-file="+identity)
	}
}
