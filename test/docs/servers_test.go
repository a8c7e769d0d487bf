package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/test/programs"
	"keepset/test/servers"
)

// heading returns the SQL below a heading of docs/mysql.md.
func heading(t *testing.T, name string) string {
	t.Helper()
	code := read(t, "docs/mysql.md").In("sql", name)
	require.NotEmpty(t, code, name)
	return code
}

// machines are what docs/servers.md takes for granted: db0 is a primary with
// the documented accounts, db1 follows it, db2 and db3 are empty.
func machines(t *testing.T) map[string]*servers.MySQL {
	t.Helper()
	list := map[string]*servers.MySQL{}
	for _, name := range []string{"db0", "db1", "db2", "db3"} {
		list[name] = servers.MariaDB(t, servers.WithConfig("log_slave_updates", "gtid_strict_mode=ON"))
	}
	db0 := list["db0"]
	for _, name := range []string{"Backup account on MariaDB", "Replication account"} {
		db0.Exec(t, heading(t, name))
	}
	list["db1"].Exec(t, "CHANGE MASTER TO MASTER_HOST='"+db0.Host+"', MASTER_PORT="+strings.TrimPrefix(db0.Addr, db0.Host+":")+
		", MASTER_USER='keepset_replication', MASTER_PASSWORD='change-me', MASTER_USE_GTID=slave_pos", "START SLAVE")
	db0.Exec(t, "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, note VARCHAR(40)); "+
		"INSERT INTO shop.orders (note) SELECT MD5(seq) FROM shop.seq_1_to_1000")
	gtid := db0.Value(t, "SELECT @@gtid_binlog_pos")
	require.Equal(t, "0", list["db1"].Value(t, "SELECT MASTER_GTID_WAIT('"+gtid+"', 60)"))
	return list
}

var dots = regexp.MustCompile(`\b(KEEPSET_[A-Z_]+)=\.\.\.`)

// follow runs code in one shell, with the names of a page replaced.
func follow(t *testing.T, list map[string]*servers.MySQL, dir, code string) string {
	t.Helper()
	bin, err := programs.Build()
	require.NoError(t, err)
	names := []string{"file:///srv/", "file://" + dir + "/srv/"}
	for name, s := range list {
		names = append(names, name+":3306", s.Addr)
	}
	passwords := map[string]string{"KEEPSET_SOURCE_PASSWORD": "change-me", "KEEPSET_REPLICATION_PASSWORD": "change-me"}
	if target := list["db2"]; target != nil {
		passwords["KEEPSET_TARGET_PASSWORD"] = target.Password
	}
	code = dots.ReplaceAllStringFunc(strings.NewReplacer(names...).Replace(code), func(s string) string {
		name := dots.FindStringSubmatch(s)[1]
		require.Contains(t, passwords, name)
		return name + "=" + passwords[name]
	})
	cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -euo pipefail\n"+code)
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + bin + ":/usr/bin:/bin", "HOME=" + dir}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

const orders = "SELECT CONCAT(COUNT(*), ' ', SUM(CRC32(CONCAT_WS('|', id, note)))) FROM "

// TestServersPage does what docs/servers.md says, in its order.
func TestServersPage(t *testing.T) {
	list := machines(t)
	db0 := list["db0"]
	want := db0.Value(t, orders+"shop.orders")
	page := read(t, "docs/servers.md")
	dir := t.TempDir()

	said := follow(t, list, dir, page.In("sh", "Back up"))
	assert.Contains(t, said, "neither encrypted nor signed")
	assert.Contains(t, said, "encrypted and signed")
	assert.Contains(t, said, "0 damaged")
	db0.Exec(t, "INSERT INTO shop.orders (note) VALUES ('after the backup')")

	follow(t, list, dir, page.In("sh", "A server that is lost", "A follower that is lost", "One table"))
	assert.Equal(t, want, list["db2"].Value(t, orders+"shop.orders"))
	assert.Equal(t, db0.Value(t, orders+"shop.orders"), list["db3"].Value(t, orders+"shop.orders"), "the follower has caught up")
	assert.Equal(t, want, db0.Value(t, orders+"shop_then.orders"), "the table as it was")
	assert.FileExists(t, filepath.Join(dir, "orders/schemas/shop/tables/orders.sql"))
	for _, k := range page.Blocks {
		require.Contains(t, []string{"Back up", "A server that is lost", "A follower that is lost", "One table"}, k.Heading, "line %d is not followed", k.Line)
	}

	// What the README shows of it.
	readme := read(t, "README.md").In("sh", "Without Kubernetes")
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "srv")))
	list["db2"].Exec(t, "DROP DATABASE shop")
	follow(t, list, dir, readme)
	assert.Equal(t, db0.Value(t, orders+"shop.orders"), list["db2"].Value(t, orders+"shop.orders"))
}
