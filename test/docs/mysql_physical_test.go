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

// TestMariaDBPhysicalPage runs the commands of docs/mariadb-physical.md: db0 is copied, and the copy follows it.
func TestMariaDBPhysicalPage(t *testing.T) {
	bin, err := programs.Build()
	require.NoError(t, err)
	page := read(t, "docs/mariadb-physical.md")
	dir := t.TempDir()
	db0, db1 := servers.MariaDB(t), servers.MariaDB(t)
	db0.Exec(t, heading(t, "Replication account"), page.In("sql", "Account"), "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, note VARCHAR(40)); "+
		"INSERT INTO shop.orders (note) SELECT MD5(seq) FROM shop.seq_1_to_1000")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "srv"), 0o700))
	code := strings.NewReplacer("/srv/", dir+"/srv/", "db0:3306", db0.Addr).Replace(page.In("sh"))
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
	sql := strings.NewReplacer("'GTID'", "'"+gtid[1]+"'", "'db0'", "'"+db0.Host+"'", "3306", strconv.Itoa(db0.Port)).Replace(page.In("sql", "Restore into a directory"))
	db1.Exec(t, sql)
	require.Eventually(t, func() bool {
		return db1.Value(t, "SELECT COUNT(*) FROM shop.orders WHERE note = 'after the backup'") == "1"
	}, 2*time.Minute, 100*time.Millisecond)
}
