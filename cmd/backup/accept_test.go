package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/cli"
	"keepset/internal/storage"
	"keepset/internal/storage/dir"
	"keepset/internal/storage/s3"
	"keepset/test/servers"
)

// backup runs a command in this process, with these variables.
func backup(t *testing.T, env []string, args ...string) (code int, out string) {
	t.Helper()
	var b bytes.Buffer
	a := &cli.App{
		Name: "backup", In: strings.NewReader(""), Out: &b, Err: &b, Clock: time.Now, Log: slog.New(slog.DiscardHandler),
		Environ: func() []string { return env },
	}
	code = a.Run(t.Context(), newRoot(a), args)
	return code, b.String()
}

func newest(t *testing.T, env []string) cli.BackupSummary {
	t.Helper()
	code, out := backup(t, env, "list", "--json")
	require.Zero(t, code, out)
	var list []cli.BackupSummary
	require.NoError(t, json.Unmarshal([]byte(out), &list), out)
	require.NotEmpty(t, list)
	return list[0]
}

// TestAcceptAShrink: a table was emptied on purpose. Until somebody says so
// every run is suspect; from then on the small size is the measure, and nothing
// is found any more.
func TestAcceptAShrink(t *testing.T) {
	db := servers.MariaDB(t)
	db.Exec(t, "CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY)", "INSERT INTO shop.orders SELECT seq FROM shop.seq_1_to_1000")
	env := []string{"KEEPSET_REPOSITORY=file://" + t.TempDir() + "/r", "KEEPSET_SET=shop", "KEEPSET_SOURCE_PASSWORD=" + db.Password, "KEEPSET_SCHEDULE=0 2 * * *"}
	run := func(want int) {
		t.Helper()
		code, out := backup(t, env, "run", "--source", "mysql://root@"+db.Addr)
		require.Equal(t, want, code, out)
	}
	code, out := backup(t, env, "init")
	require.Zero(t, code, out)
	run(cli.ExitComplete)
	db.Exec(t, "DELETE FROM shop.orders WHERE id > 10")
	run(cli.ExitSuspect)
	run(cli.ExitSuspect)
	code, out = backup(t, env, "status")
	require.Equal(t, cli.ExitSuspect, code, out)
	require.Contains(t, out, "alert: _/shop: newest: ")
	require.Contains(t, out, "rows fell from 1000 to 10")

	id := string(newest(t, env).Backup)
	code, out = backup(t, env, "accept", id, "--dry-run")
	require.Zero(t, code, out)
	require.Contains(t, out, "would accept: ordinal 0: rows fell from 1000 to 10")
	require.Equal(t, "suspect", newest(t, env).Status)
	code, out = backup(t, env, "accept", id, "--reason", "archived")
	require.Zero(t, code, out)
	require.Contains(t, out, "backup "+id+" of _/shop counts as complete")
	summary := newest(t, env)
	require.Equal(t, "complete", summary.Status)
	require.Equal(t, "complete", summary.Members[0].Status)
	require.Len(t, summary.Accepted, 1)
	require.Contains(t, summary.Accepted[0], ": archived")
	code, out = backup(t, env, "status")
	require.Zero(t, code, out)
	run(cli.ExitComplete)
	code, out = backup(t, env, "accept", id)
	require.Zero(t, code, out)
	require.Contains(t, out, "nothing to accept")
}

// stores are a directory and a bucket of a real server, as --to takes them.
func stores(t *testing.T) map[string]struct {
	url   string
	store storage.Store
} {
	t.Helper()
	server := servers.S3(t, servers.WithBuckets("copies"))
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_S3": server.Endpoint, "AWS_ACCESS_KEY_ID": server.AccessKey, "AWS_SECRET_ACCESS_KEY": server.SecretKey,
		"AWS_REGION": server.Region, "AWS_EC2_METADATA_DISABLED": "true",
	} {
		t.Setenv(name, value)
	}
	bucket, err := s3.New(t.Context(), s3.Options{Bucket: "copies", Prefix: "prod"})
	require.NoError(t, err)
	path := t.TempDir()
	directory, err := dir.New(dir.Options{Path: path})
	require.NoError(t, err)
	return map[string]struct {
		url   string
		store storage.Store
	}{"bucket": {"s3://copies/prod", bucket}, "directory": {"file://" + path, directory}}
}

// TestCopyAndAdopt: a copy to a bucket and to a directory takes no key, of an
// encrypted repository neither; the golden backup is old, and counts there once
// it is adopted.
func TestCopyAndAdopt(t *testing.T) {
	for name, to := range stores(t) {
		for _, repo := range []string{"plain", "encrypted"} {
			t.Run(name+" "+repo, func(t *testing.T) {
				s := layDown(t, repo, 0)
				url := to.url + "/" + repo
				read := []string{"KEEPSET_REPOSITORY=" + url, "KEEPSET_SET=shop/mysql"}
				for variable, value := range s.env {
					read = append(read, variable+"="+value)
				}
				keyless := []string{"KEEPSET_REPOSITORY=file://" + s.root, "KEEPSET_SET=shop/mysql"}
				code, out := backup(t, keyless, "copy", "--to", url, "--dry-run")
				require.Zero(t, code, out)
				require.Contains(t, out, "would copy 1 backups of shop/mysql")
				code, out = backup(t, keyless, "copy", "--to", url)
				require.Zero(t, code, out)
				require.Contains(t, out, "copied 1 backups of shop/mysql to "+url+", 0 were there")
				code, out = backup(t, keyless, "copy", "--to", url, s.id)
				require.Zero(t, code, out)
				require.Contains(t, out, "copied 0 backups of shop/mysql to "+url+", 1 were there: 0 B in 0 objects")
				code, out = backup(t, read, "verify", "--read-data", "100", s.id, "--accept-copied-times")
				require.Zero(t, code, out)
				require.Contains(t, out, "0 damaged")

				code, out = backup(t, append(read, s.writer...), "adopt", "--origin", "golden")
				require.Zero(t, code, out)
				require.Contains(t, out, "backup "+s.id+" adopted")
				code, out = backup(t, read, "verify", s.id)
				require.Zero(t, code, "it counts like any other: %s", out)
				code, out = backup(t, keyless, "copy", "--to", "file://"+s.root)
				require.Equal(t, cli.ExitUsage, code, out)
			})
		}
	}
}

// TestAdoptAcrossClusters asks for consent where the other one may live.
func TestAdoptAcrossClusters(t *testing.T) {
	db := servers.MariaDB(t)
	db.Exec(t, "CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY)", "INSERT INTO shop.orders VALUES (1)")
	env := []string{"KEEPSET_REPOSITORY=file://" + t.TempDir() + "/r", "KEEPSET_SET=shop", "KEEPSET_SOURCE_PASSWORD=" + db.Password}
	code, out := backup(t, env, "init")
	require.Zero(t, code, out)
	from := func(origin string) (int, string) {
		return backup(t, env, "run", "--source", "mysql://root@"+db.Addr, "--origin", origin)
	}
	code, out = from("old")
	require.Zero(t, code, out)
	code, out = from("new")
	require.Equal(t, cli.ExitUsage, code)
	require.Contains(t, out, "backup adopt")
	code, out = backup(t, env, "adopt", "--origin", "new")
	require.Equal(t, cli.ExitUsage, code)
	require.Contains(t, out, fmt.Sprintf("origin %q has taken backup", "old"))
	code, out = backup(t, env, "adopt", "--origin", "new", "--dry-run")
	require.Zero(t, code, out)
	require.Contains(t, out, `would be adopted by "new"`)
	code, out = backup(t, env, "adopt", "--origin", "new", "--force")
	require.Zero(t, code, out)
	code, out = from("new")
	require.Zero(t, code, out)
	code, _ = from("old")
	require.Equal(t, cli.ExitUsage, code)
	code, out = backup(t, env, "adopt", "--origin", "new")
	require.Zero(t, code, out)
	require.Contains(t, out, "nothing to adopt")
}
