package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/cli/clitest"
	"keepset/internal/repository"
	"keepset/internal/storage/dir"
	"keepset/test/servers"
)

// TestCommands holds every command to --json, --dry-run and examples.
func TestCommands(t *testing.T) {
	source, target, spare := servers.MariaDB(t), servers.MariaDB(t), servers.MariaDB(t)
	source.Exec(t, "CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY)", "INSERT INTO shop.orders VALUES (1), (2)")
	tables := func(t *testing.T) string {
		const query = "SELECT GROUP_CONCAT(table_schema, '.', table_name ORDER BY 1) FROM information_schema.tables"
		return target.Value(t, query) + spare.Value(t, query)
	}
	world := clitest.NewWorld(t, tables, "KEEPSET_SOURCE_PASSWORD="+source.Password, "KEEPSET_TARGET_PASSWORD="+target.Password, "KEEPSET_TARGET_USER=root")
	store, err := dir.Create(dir.Options{Path: world.Repository})
	require.NoError(t, err)
	_, err = repository.Init(t.Context(), store, repository.InitOptions{})
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(source.Addr)
	require.NoError(t, err)
	world.Cluster.Run(nil) // the set's pod, which is that server
	clitest.Backup(t, world.Env, "--source-user", "root", "--source-port", port)

	load := []string{"--target", "mysql://root@" + target.Addr}
	password := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(password, []byte(spare.Password), 0o600))
	drill := []string{"--target", "mysql://root@" + spare.Addr, "--target-password-file", password, "--check-sql", "SELECT COUNT(*) = 2 FROM shop.orders"}
	grow := []string{"--replicas=2", "--as-follower-of=none", "--base=0"}
	elsewhere := []string{"--set", "staging/mysql", "--from-set", "mysql/mysql"}
	order := []string{"plan", "run", "load", "drill", "export", "objects", "status", "abort", "version", "completion"}
	program.Tree(t, world, order, clitest.Commands{
		"plan":  {Cases: [][]string{grow, {"--replicas=2", "--as-follower-of=127.0.0.1:1", "--replication-user=repl"}}},
		"run":   {Preview: "dry-run", Cases: [][]string{append(grow, "--dry-run"), grow}},
		"load":  {Preview: "dry-run", Cases: [][]string{append(load, "--dry-run"), load}},
		"drill": {Preview: "dry-run", Cases: [][]string{append(drill, "--dry-run"), drill}},
		// What it makes is new, and a file that exists is never replaced.
		"export":     {Cases: [][]string{{"--list"}, {"--to", filepath.Join(t.TempDir(), "out")}}},
		"objects":    {Preview: "dry-run", Cases: [][]string{append(elsewhere, "--dry-run"), elsewhere}},
		"status":     {Cases: [][]string{{}}},
		"abort":      {Preview: "dry-run", Cases: [][]string{{"--dry-run"}, {}}},
		"version":    {Cases: [][]string{{}}},
		"completion": {Cases: [][]string{{"bash"}}},
	})
}
