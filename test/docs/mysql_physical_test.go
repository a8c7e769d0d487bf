package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/test/programs"
	"keepset/test/servers"
)

// TestMariaDBPhysicalPage runs the commands of docs/mysql-physical.md: db0 is copied, and the copy follows it.
func TestMariaDBPhysicalPage(t *testing.T) {
	bin, err := programs.Build()
	require.NoError(t, err)
	page := read(t, "docs/mysql-physical.md")
	dir := t.TempDir()
	db0, db1 := servers.MariaDB(t), servers.MariaDB(t)
	db0.Exec(t, heading(t, "Replication account"), page.In("sql", "Account on MariaDB"), "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, note VARCHAR(40)); "+
		"INSERT INTO shop.orders (note) SELECT MD5(seq) FROM shop.seq_1_to_1000")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "srv"), 0o700))
	code := strings.NewReplacer("/srv/", dir+"/srv/", "db0:3306", db0.Addr).Replace(page.In("sh", "Back up", "Restore into a directory", "Prepare and follow: MariaDB"))
	cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -euo pipefail\n"+code)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + bin + ":" + filepath.Dir(servers.Tool(t, "mariadb-backup")) + ":/usr/bin:/bin", "HOME=" + dir, "KEEPSET_REPOSITORY=file://" + dir + "/repository"}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	gtid := regexp.MustCompile(`\n(\d+-\d+-\d+)\n$`).FindStringSubmatch(string(out))
	require.NotNil(t, gtid, "%s", out)

	db0.Exec(t, "INSERT INTO shop.orders (note) VALUES ('after the backup')")
	db1.Stop(t)
	require.NoError(t, os.RemoveAll(db1.DataDir))
	require.NoError(t, os.Rename(filepath.Join(dir, "srv", "copy"), db1.DataDir))
	require.NoError(t, db1.Start(t.Context(), "--skip-slave-start", "--event-scheduler=OFF"))
	require.Equal(t, "1000", db1.Value(t, "SELECT COUNT(*) FROM shop.orders"))
	sql := strings.NewReplacer("'GTID'", "'"+gtid[1]+"'", "'db0'", "'"+db0.Host+"'", "3306", strconv.Itoa(db0.Port)).Replace(page.In("sql", "Prepare and follow: MariaDB"))
	db1.Exec(t, sql)
	require.Eventually(t, func() bool {
		return db1.Value(t, "SELECT COUNT(*) FROM shop.orders WHERE note = 'after the backup'") == "1"
	}, 2*time.Minute, 100*time.Millisecond)
}

// TestMySQLPhysicalPage runs them for MySQL, with a stand-in for xtrabackup: db0 is copied, and the copy follows it.
func TestMySQLPhysicalPage(t *testing.T) {
	bin, err := programs.Build()
	require.NoError(t, err)
	standins, err := programs.StandIns()
	require.NoError(t, err)
	page := read(t, "docs/mysql-physical.md")
	dir := t.TempDir()
	config := servers.WithConfig("gtid_mode=ON", "enforce_gtid_consistency=ON", "plugin_load_add=mysql_clone.so")
	db0, db1 := servers.MySQL97(t, config), servers.MySQL97(t, config)
	db0.Exec(t, heading(t, "Replication account"), page.In("sql", "Account on MySQL 8 and later"), "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, note VARCHAR(70)); "+
		"INSERT INTO shop.orders (note) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT SHA2(i, 256) FROM n")
	for _, sub := range []string{"srv", "bin"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, sub), 0o700))
	}
	require.NoError(t, os.Symlink(standins, filepath.Join(dir, "bin", "xtrabackup")))
	code := strings.NewReplacer("/srv/", dir+"/srv/", "db0:3306", db0.Addr).Replace(page.In("sh", "Back up", "Restore into a directory", "Prepare and follow: MySQL"))
	cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -euo pipefail\n"+code)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + bin + ":" + dir + "/bin:/usr/bin:/bin", "HOME=" + dir, "KEEPSET_REPOSITORY=file://" + dir + "/repository"}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	gtid := regexp.MustCompile(`\n([0-9a-f-]{36}:[0-9-]+)\n$`).FindStringSubmatch(string(out))
	require.NotNil(t, gtid, "%s", out)

	db0.Exec(t, "INSERT INTO shop.orders (note) VALUES ('after the backup')")
	db1.Stop(t)
	require.NoError(t, os.RemoveAll(db1.DataDir))
	require.NoError(t, os.Rename(filepath.Join(dir, "srv", "copy"), db1.DataDir))
	require.NoError(t, db1.Start(t.Context(), "--skip-replica-start", "--event-scheduler=OFF"))
	require.Equal(t, "1000", db1.Value(t, "SELECT COUNT(*) FROM shop.orders"))
	sql := strings.NewReplacer("'GTID'", "'"+gtid[1]+"'", "'db0'", "'"+db0.Host+"'", "3306", strconv.Itoa(db0.Port)).Replace(page.In("sql", "Prepare and follow: MySQL"))
	db1.Exec(t, sql)
	require.Eventually(t, func() bool {
		return db1.Value(t, "SELECT COUNT(*) FROM shop.orders WHERE note = 'after the backup'") == "1"
	}, 2*time.Minute, 100*time.Millisecond)
}
