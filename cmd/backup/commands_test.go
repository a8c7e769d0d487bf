package main

import (
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
	order := []string{"init", "keygen", "run", "list", "show", "verify", "suspend", "resume", "schedule", "version", "completion"}
	program.Tree(t, world, order, clitest.Commands{
		"init": {Preview: "dry-run", Cases: [][]string{{"--dry-run"}, {}}},
		// What it makes is new, and a file that exists is never replaced.
		"keygen":     {Cases: [][]string{{}, {"--out", t.TempDir()}}},
		"run":        {Preview: "dry-run", Cases: [][]string{append(source, "--dry-run"), source}},
		"list":       {Cases: [][]string{{}}},
		"show":       {Cases: [][]string{{}}},
		"verify":     {Cases: [][]string{{"--read-data=100"}}},
		"suspend":    {Preview: "dry-run", Cases: [][]string{{"--dry-run"}, {}}},
		"resume":     {Preview: "dry-run", Cases: [][]string{{"--dry-run"}, {}}},
		"schedule":   {Cases: [][]string{{"0 2 * * *"}, {"30 2 * * *", "--time-zone=Europe/Berlin", "--took=26h"}}},
		"version":    {Cases: [][]string{{}}},
		"completion": {Cases: [][]string{{"bash"}}},
	})
}
