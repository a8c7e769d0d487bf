package e2e

import (
	"io/fs"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/test/servers"
)

// TestPlainBadInput is the table of what goes wrong in practice: each ends
// with the documented exit code and one clear line, and leaves the backup
// that was taken before as it was.
func TestPlainBadInput(t *testing.T) {
	t.Parallel()
	db, s3 := servers.MariaDB(t), servers.S3(t, servers.WithBuckets("backups"))
	shop(t, db, 3000)
	db.Exec(t, "CREATE DATABASE hollow")
	p := newPlain(t, s3Env(s3)...)
	const repository = "s3://backups/shop"
	p.ok("backup", "init", "--repository", repository)
	first := p.backup(repository, db)
	good := "KEEPSET_SOURCE_PASSWORD=" + db.Password
	closed := closedPort(t)
	source := "mysql://root@" + db.Addr

	for _, c := range []struct {
		name string
		env  []string
		args []string
		code int
		says []string
	}{
		{"wrong password", []string{"KEEPSET_SOURCE_PASSWORD=wrong"}, runArgs(repository, db), 1, []string{"backup failed", "access denied by the server", db.Addr}},
		{"missing bucket", []string{good}, runArgs("s3://nowhere/shop", db), 64, []string{"bucket", "nowhere", "does not exist"}},
		{"wrong S3 key", []string{good, "AWS_SECRET_ACCESS_KEY=wrong"}, runArgs(repository, db), 1, []string{"credentials not accepted"}},
		{"no S3 server", []string{good, "AWS_ENDPOINT_URL_S3=http://" + closed}, runArgs(repository, db), 1, []string{"connection refused"}},
		{"no repository", []string{good}, runArgs("s3://backups/elsewhere", db), 64, []string{"not a keepset repository"}},
		{"unreachable replica", []string{good}, append(runArgs(repository, db), "--source", "mysql://root@"+closed), 3, []string{"incomplete", "ordinal 1 (" + closed + ") failed", "server unreachable"}},
		{"unknown ordinal", []string{good}, append(runArgs(repository, db), "--ordinals", "1"), 64, []string{"the set has no ordinal 1"}},
		{"wrong flag", []string{good}, append(runArgs(repository, db), "--sauce", source), 64, []string{"unknown flag: --sauce"}},
		{"empty database", []string{good}, append(runArgs(repository, db), "--database", "hollow"), 4, []string{"suspect", "holds no table"}},
		{"unknown database", []string{good}, append(runArgs(repository, db), "--database", "nothing"), 1, []string{"backup failed", `nothing on the server is selected by "nothing"`}},
		{"unknown set", nil, []string{"restore", "load", "--repository", repository, "--set", "shoop", "--target", source}, 64, []string{"no backup of that set", "_/shop"}},
		{"unknown member", []string{"KEEPSET_TARGET_PASSWORD=x"}, []string{"restore", "load", "--repository", repository, "--set", "shop", "--backup", string(first.Backup), "--ordinal", "7", "--target", source}, 64, []string{"ordinal 7"}},
		{"backup from before time", nil, []string{"restore", "load", "--repository", repository, "--set", "shop", "--backup", "2001-01-01", "--target", source}, 64, []string{"no eligible backup", "was captured", "after 2001-01-01"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := p.with(c.env...)
			q.t = t
			args := withoutJSON(c.args)
			line := q.fails(c.code, args...)
			for _, want := range c.says {
				assert.Contains(t, line, want)
			}
			assert.NotContains(t, line, db.Password)
			assert.Equal(t, "complete", status(p, repository, "shop", string(first.Backup)), "the earlier backup is untouched")
		})
	}
	assert.Contains(t, p.ok("backup", "verify", "--repository", repository, "--read-data", "100"), "0 damaged")
}

// withoutJSON makes the error a plain line.
func withoutJSON(args []string) []string {
	var kept []string
	for _, a := range args {
		if a != "--json" {
			kept = append(kept, a)
		}
	}
	return kept
}

// status of one backup.
func status(p *plain, repository, set, id string) string {
	p.t.Helper()
	for _, b := range p.list(repository, set) {
		if string(b.Backup) == id {
			return b.Status
		}
	}
	return "gone"
}

func s3Env(s *servers.S3Server) []string {
	return []string{
		"AWS_ENDPOINT_URL_S3=" + s.Endpoint, "AWS_ACCESS_KEY_ID=" + s.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s.SecretKey,
		"AWS_REGION=" + s.Region, "AWS_EC2_METADATA_DISABLED=true",
	}
}

// closedPort is an address that nobody listens on.
func closedPort(t *testing.T) string {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

// TestPlainStoreGoesDown stops the S3 server in the middle of a backup: the run
// fails, the earlier backup is whole, and the next run completes.
func TestPlainStoreGoesDown(t *testing.T) {
	t.Parallel()
	db, s3 := servers.MariaDB(t), servers.S3(t, servers.WithBuckets("backups"))
	shop(t, db, 2000)
	p := newPlain(t, s3Env(s3)...)
	const repository = "s3://backups/shop"
	p.ok("backup", "init", "--repository", repository)
	first := p.backup(repository, db)
	addOrders(t, db, 60000)

	cmd := p.with("KEEPSET_SOURCE_PASSWORD=" + db.Password).command(append(withoutJSON(runArgs(repository, db)), "--limit-upload", "600")...)
	var errs strings.Builder
	cmd.Stderr = &errs
	require.NoError(t, cmd.Start())
	plans := len(objects(t, s3, "plan"))
	require.Eventually(t, func() bool { return len(objects(t, s3, "plan")) > plans }, time.Minute, 50*time.Millisecond)
	s3.Stop(t)
	require.Error(t, cmd.Wait())
	assert.Equal(t, 1, cmd.ProcessState.ExitCode(), errs.String())
	assert.Regexp(t, "(?m)^backup: (begin )?backup .*"+regexp.QuoteMeta(strings.TrimPrefix(s3.Endpoint, "http://")), errs.String())
	s3.Start(t)

	assert.Equal(t, "complete", status(p, repository, "shop", string(first.Backup)))
	assert.Equal(t, "incomplete", p.list(repository, "shop")[0].Status)
	second := p.backup(repository, db)
	assert.Equal(t, "complete", second.Status)
	assert.Contains(t, p.ok("backup", "verify", "--repository", repository, "--read-data", "100"), "0 damaged")
}

// objects lists the files of the S3 server whose name is name.
func objects(t *testing.T, s *servers.S3Server, name string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(s.Dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && e.Name() == name {
			found = append(found, path)
		}
		return nil
	})
	require.NoError(t, err)
	return found
}

// TestPlainFullDisk takes a backup into a directory that has no room for it.
func TestPlainFullDisk(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, syscall.Mount("keepset-e2e", dir, "tmpfs", 0, "size=6m"), "mount a small file system (needs root)")
	t.Cleanup(func() { assert.NoError(t, syscall.Unmount(dir, 0)) })
	db := servers.MariaDB(t)
	shop(t, db, 5000)
	p := newPlain(t)
	repository := "file://" + dir + "/repository"
	p.ok("backup", "init", "--repository", repository)
	first := p.backup(repository, db)
	addOrders(t, db, 80000)
	line := p.with("KEEPSET_SOURCE_PASSWORD="+db.Password).fails(1, withoutJSON(runArgs(repository, db))...)
	assert.Contains(t, line, "no space left")
	assert.Equal(t, "complete", status(p, repository, "shop", string(first.Backup)))
	assert.Contains(t, p.ok("backup", "verify", "--repository", repository, "--read-data", "100"), "0 damaged")
}
