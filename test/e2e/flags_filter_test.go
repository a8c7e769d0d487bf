package e2e

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/test/servers"
)

// TestPlainFilteredBackups: a backup of one database does not stand in for that
// of a server, and one without a scratch database has the accounts all the same.
func TestPlainFilteredBackups(t *testing.T) {
	t.Parallel()
	source := servers.MariaDB(t)
	shop(t, source, 200)
	source.Exec(t, "CREATE DATABASE crm", "CREATE TABLE crm.people (id INT PRIMARY KEY)", "INSERT INTO crm.people VALUES (1), (2), (3)",
		"CREATE DATABASE scratch", "CREATE TABLE scratch.t (id INT PRIMARY KEY)", "INSERT INTO scratch.t VALUES (1)",
		"CREATE USER app@'%' IDENTIFIED BY 'app-secret'", "GRANT SELECT ON crm.* TO app@'%'", "GRANT INSERT ON scratch.t TO app@'%'")
	p := newPlain(t, "KEEPSET_SOURCE_PASSWORD="+source.Password)
	repository := "file://" + filepath.Join(t.TempDir(), "repository")
	p.ok("backup", "init", "--repository", repository)
	run := withoutJSON(runArgs(repository, source))
	for _, args := range [][]string{nil, {"--exclude", "scratch"}, {"--database", "shop"}} {
		p.ok(append(run, args...)...)
		last := p.list(repository, "shop")[0].Backup // of one second, none is the newer one
		require.Eventually(t, func() bool { return time.Since(last.Time()) >= time.Second }, 5*time.Second, 50*time.Millisecond)
	}
	all := p.list(repository, "shop") // the newest first
	only, without, whole := string(all[0].Backup), string(all[1].Backup), string(all[2].Backup)
	assert.Equal(t, []string{"shop"}, all[0].Databases)
	assert.Equal(t, []string{"!scratch"}, all[1].Databases)

	load := func(target *servers.MySQL, args ...string) (*plain, []string) {
		args = append([]string{"restore", "load", "--repository", repository, "--set", "shop", "--target", "mysql://root@" + target.Addr}, args...)
		return p.with("KEEPSET_TARGET_PASSWORD=" + target.Password), args
	}
	target := servers.MariaDB(t)
	q, args := load(target)
	refused := q.fails(64, args...)
	assert.Contains(t, refused, without, "the newest of the server is not passed over for an older one by itself")
	assert.Contains(t, refused, "(--allow-filtered takes it)")
	assert.Contains(t, refused, "--backup "+whole)
	q, args = load(target, "--backup", whole)
	assert.Contains(t, q.ok(args...), whole)
	assert.Equal(t, "3", target.Value(t, "SELECT COUNT(*) FROM crm.people"))
	q, args = load(target, "--database", "shop", "--replace")
	assert.Contains(t, q.ok(args...), only, "for one database any backup will do")
	q, args = load(target, "--backup", only, "--replace")
	assert.Contains(t, q.fails(64, args...), "holds only shop and no accounts; --allow-filtered")
	q, args = load(target, "--backup", only, "--replace", "--allow-filtered")
	assert.Contains(t, q.ok(args...), only)

	target = servers.MariaDB(t)
	q, args = load(target, "--backup", without)
	assert.Contains(t, q.fails(64, args...), "was taken without scratch; --allow-filtered")
	q, args = load(target, "--allow-filtered", "--with-users")
	assert.Contains(t, q.ok(args...), without, "the newest that is of the server")
	assert.Equal(t, "3", target.Value(t, "SELECT COUNT(*) FROM crm.people"))
	assert.Equal(t, "1", target.Value(t, "SELECT COUNT(*) FROM mysql.user WHERE User='app'"))
	assert.Equal(t, "0", target.Value(t, "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name='scratch'"))
}
