package main

import (
	"path/filepath"
	"testing"

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
	order := []string{"init", "keygen", "run", "list", "show", "verify", "status", "pin", "unpin", "accept", "adopt", "copy", "prune", "delete", "suspend", "resume", "schedule", "version", "completion"}
	program.Tree(t, world, order, clitest.Commands{
		"init": {Preview: "dry-run", Cases: [][]string{{"--dry-run"}, {}}},
		// What it makes is new, and a file that exists is never replaced.
		"keygen":     {Cases: [][]string{{}, {"--out", t.TempDir()}}},
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
