package e2e

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/cli"
	"keepset/internal/job"
	"keepset/test/servers"
)

// followPlain makes a plain server follow another one.
func followPlain(t *testing.T, follower, upstream *servers.MySQL) {
	t.Helper()
	follower.Exec(t, "CHANGE MASTER TO MASTER_HOST='"+upstream.Host+"', MASTER_PORT="+portOf(upstream)+
		", MASTER_USER='repl', MASTER_PASSWORD='repl-secret', MASTER_USE_GTID=slave_pos", "START SLAVE")
	require.Eventually(t, func() bool {
		return follower.Value(t, "SELECT @@gtid_slave_pos") == upstream.Value(t, "SELECT @@gtid_binlog_pos")
	}, caughtUpWithin, pollEvery, "the follower catches up")
}

// roles are the members of the newest backup in the record: ordinal -> role.
func roles(b cli.BackupSummary) map[int]string {
	found := map[int]string{}
	for _, m := range b.Members {
		found[m.Ordinal] = m.Role
	}
	return found
}

// With --role follower the servers are asked, and who follows nobody is left
// out, whatever its ordinal. Who cannot be asked is not silently left out.
func TestPlainFollowersOnly(t *testing.T) {
	t.Parallel()
	leader, first, last := servers.MariaDB(t), servers.MariaDB(t), servers.MariaDB(t)
	leader.Exec(t, "CREATE USER repl@'%' IDENTIFIED BY 'repl-secret'", "GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO repl@'%'")
	shop(t, leader, 500)
	followPlain(t, first, leader)
	followPlain(t, last, leader)
	p := newPlain(t, "KEEPSET_SOURCE_PASSWORD="+leader.Password)
	repository := "file://" + filepath.Join(t.TempDir(), "repository")
	p.ok("backup", "init", "--repository", repository)
	all := withoutJSON(runArgs(repository, first, leader, last))
	followers := append(append([]string{}, all...), "--role", "follower")

	plan := p.ok(append(followers, "--dry-run")...)
	assert.Contains(t, plan, "would hold 2 of 3 members")
	assert.NotContains(t, plan, leader.Addr)
	r := p.run(append(followers, "--json")...)
	require.Zero(t, r.code, r.stderr)
	var report job.BackupReport
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &report))
	assert.Equal(t, "complete", report.Status)
	assert.Contains(t, r.stderr, "member left out")
	assert.Contains(t, r.stderr, leader.Addr)
	taken := p.list(repository, "shop")[0]
	assert.Equal(t, map[int]string{0: job.RoleFollower, 2: job.RoleFollower}, roles(taken))
	assert.Equal(t, 2, taken.Planned)
	assert.Equal(t, "complete", taken.Status, "it holds what was planned")
	target := servers.MariaDB(t)
	line := p.with("KEEPSET_TARGET_PASSWORD="+target.Password).fails(64, "restore", "load", "--repository", repository, "--set", "shop", "--ordinal", "1", "--target", "mysql://root@"+target.Addr)
	assert.Contains(t, line, "ordinal 1")

	// A follower whose replication stands still is one nevertheless, and doubtful.
	last.Exec(t, "STOP SLAVE")
	line = p.fails(4, followers...)
	assert.Contains(t, line, "ordinal 2")
	assert.NotContains(t, line, "ordinal 0")

	// One that cannot be asked stays in the plan, and fails there.
	last.Stop(t)
	line = p.fails(3, append(followers, "--connect-timeout", "2s")...)
	assert.Contains(t, line, "ordinal 2")
	assert.Contains(t, line, "ask for the member's role")
	assert.Equal(t, 2, p.list(repository, "shop")[0].Planned)

	alone := append(withoutJSON(runArgs(repository, leader)), "--role", "follower")
	assert.Contains(t, p.fails(64, alone...), "no member of set _/shop follows another")
	assert.Contains(t, p.fails(64, append(all, "--role", "leader")...), `--role "leader" is not one of any, follower`)
}
