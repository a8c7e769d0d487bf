package e2e

import (
	"archive/tar"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/job"
	"keepset/test/servers"
)

// checksum of the table that the tests compare.
func checksum(t *testing.T, s *servers.MySQL, table string) string {
	t.Helper()
	return s.Value(t, "SELECT CONCAT(COUNT(*), ' ', COALESCE(SUM(CRC32(CONCAT_WS('|', id, customer, amount, note))), 0)) FROM "+table)
}

// TestPlainStory is the vertical slice without Kubernetes: init, run, list,
// show, verify, load into an empty server, export.
func TestPlainStory(t *testing.T) {
	source, target := servers.MariaDB(t), servers.MariaDB(t)
	shop(t, source, 20000)
	p := newPlain(t)
	repository := "file://" + filepath.Join(t.TempDir(), "repository")
	p.ok("backup", "init", "--repository", repository)

	report := p.backup(repository, source)
	assert.Equal(t, job.StatusComplete, report.Status)
	assert.EqualValues(t, 20000, report.Members[0].Rows)

	all := p.list(repository, "shop")
	require.Len(t, all, 1)
	assert.Equal(t, "complete", all[0].Status)
	assert.Contains(t, p.ok("backup", "show", "--repository", repository, "--set", "shop"), string(report.Backup))
	assert.Contains(t, p.ok("backup", "verify", "--repository", repository, "--read-data", "100"), "0 damaged")

	load := p.with("KEEPSET_TARGET_PASSWORD=" + target.Password)
	args := []string{"restore", "load", "--repository", repository, "--set", "shop", "--ordinal", "0", "--target", "mysql://root@" + target.Addr}
	load.ok(append(args, "--dry-run")...)
	assert.Equal(t, "0", target.Value(t, "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'shop'"))
	load.ok(args...)
	assert.Equal(t, checksum(t, source, "shop.orders"), checksum(t, target, "shop.orders"))
	assert.Equal(t, source.Value(t, "SELECT COUNT(*) FROM shop.big"), target.Value(t, "SELECT COUNT(*) FROM shop.big"))
	assert.Contains(t, load.fails(64, args...), "not empty")

	// One table under another name, beside the living database.
	target.Exec(t, "CREATE DATABASE old")
	load.ok(append(args, "--table", "shop.orders", "--rename", "shop=old")...)
	assert.Equal(t, checksum(t, source, "shop.orders"), checksum(t, target, "old.orders"))
}

func TestPlainExport(t *testing.T) {
	source := servers.MariaDB(t)
	shop(t, source, 1000)
	p := newPlain(t)
	repository := "file://" + filepath.Join(t.TempDir(), "repository")
	p.ok("backup", "init", "--repository", repository)
	p.backup(repository, source)
	export := []string{"restore", "export", "--repository", repository, "--set", "shop"}

	assert.Contains(t, p.ok(append(export, "--list")...), "schemas/shop/tables/orders.sql")
	ddl := p.ok(append(export, "--stream", "schemas/shop/tables/orders.sql", "--to", "-")...)
	assert.Contains(t, ddl, "CREATE TABLE")
	p.fails(64, append(export, "--stream", "schemas/shop/nothing.sql", "--to", "-")...)

	dir := filepath.Join(t.TempDir(), "out")
	p.ok(append(export, "--table", "shop.orders", "--to", dir)...)
	rows := 0
	require.NoError(t, filepath.WalkDir(filepath.Join(dir, "schemas/shop/data/orders"), func(path string, e os.DirEntry, err error) error {
		require.NoError(t, err)
		if !e.IsDir() {
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			rows += strings.Count(string(content), "\n")
		}
		return nil
	}))
	assert.Equal(t, 1000, rows)
	assert.NoFileExists(t, filepath.Join(dir, "schemas/shop/tables/empty.sql"))
	assert.NoFileExists(t, filepath.Join(dir, "users.sql"), "password hashes only when they are asked for")
	p.fails(1, append(export, "--table", "shop.orders", "--to", dir)...)

	archive := tar.NewReader(strings.NewReader(p.ok(append(export, "--to", "-")...)))
	names := 0
	for {
		_, err := archive.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		names++
	}
	assert.Greater(t, names, 3)
}

// firstLog is the oldest binary log that a server still has.
func firstLog(t *testing.T, s *servers.MySQL) string {
	t.Helper()
	var name string
	var rest any
	require.NoError(t, s.DB(t).QueryRowContext(t.Context(), "SHOW BINARY LOGS").Scan(&name, &rest))
	return name
}

// TestPlainFollower loads a lost follower from the backup and lets it catch up
// with what was written since.
func TestPlainFollower(t *testing.T) {
	primary := servers.MariaDB(t)
	primary.Exec(t, "CREATE USER repl@'%' IDENTIFIED BY 'repl-secret'", "GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO repl@'%'")
	shop(t, primary, 5000)
	p := newPlain(t)
	repository := "file://" + filepath.Join(t.TempDir(), "repository")
	p.ok("backup", "init", "--repository", repository)
	p.backup(repository, primary)
	addOrders(t, primary, 3000)

	follower := servers.MariaDB(t)
	out := p.with("KEEPSET_TARGET_PASSWORD="+follower.Password, "KEEPSET_REPLICATION_PASSWORD=repl-secret").ok(
		"restore", "load", "--json", "--repository", repository, "--set", "shop", "--target", "mysql://root@"+follower.Addr,
		"--as-follower-of", primary.Addr, "--replication-user", "repl")
	var report job.LoadReport
	require.NoError(t, json.Unmarshal([]byte(out), &report), out)
	assert.Equal(t, primary.Addr, report.Follows)
	assert.Equal(t, checksum(t, primary, "shop.orders"), checksum(t, follower, "shop.orders"), "it has caught up before the command ends")

	// Once the logs are gone, the check refuses before the target is touched.
	follower.Stop(t) // a log that is being read is not purged
	require.Eventually(t, func() bool {
		primary.Exec(t, "FLUSH BINARY LOGS", "PURGE BINARY LOGS BEFORE NOW() + INTERVAL 1 DAY")
		return firstLog(t, primary) > "binlog.000002"
	}, 30*time.Second, 200*time.Millisecond, "the logs since the backup are purged")
	late := servers.MariaDB(t)
	line := p.with("KEEPSET_TARGET_PASSWORD="+late.Password, "KEEPSET_REPLICATION_PASSWORD=repl-secret").fails(64,
		"restore", "load", "--repository", repository, "--set", "shop", "--target", "mysql://root@"+late.Addr,
		"--as-follower-of", primary.Addr, "--replication-user", "repl")
	assert.Contains(t, line, "purged")
	assert.Equal(t, "0", late.Value(t, "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'shop'"))
}
