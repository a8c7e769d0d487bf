package cli

import (
	"os"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"keepset/internal/repository"
	"keepset/internal/storage/dir"
)

// TestFlagsOfFiles: what cannot be meant is a usage error, before anything is
// written.
func TestFlagsOfFiles(t *testing.T) {
	t.Setenv("KUBECONFIG", "/nowhere") // no set is to be found, whatever cluster there is
	data := t.TempDir()
	for _, args := range [][]string{
		{},
		{"--source", "mysql://u@h"},
		{"--source", "file:/relative"},
		{"--source", "file://" + data, "--source", "file://" + data + "/"},
		{"--source", "file://" + data, "--database", "shop"},
		{"--source", "file://" + data, "--role", "follower"},
		{"--source", "file://" + data, "--exclude-path", "../x"},
		{"--method", "dump", "--source", "mysql://u@h", "--exclude-path", "x"},
		{"--source", "file:///"}, // holds the repository, wherever that is
	} {
		_, err := backupJob(t, append([]string{"--set", "www", "--method", "files"}, args...)...)
		require.Error(t, err, "%q", args)
		require.True(t, isUsage(err), "%q: %v", args, err)
	}
	for _, args := range [][]string{
		{"--source", "mysql://u@h", "--database", "shop"},
		{"--source", "mysql://u@h", "--lock-mode", "ftwrl"},
		{"--source", "postgres://u@h", "--database", "shop"},
		{"--engine", "command", "--command", "cat", "--source", "local"},
		{"--source", "file:///x"},
	} {
		_, err := backupJob(t, append([]string{"--set", "todo", "--method", "physical"}, args...)...)
		require.Error(t, err, "%q", args)
		require.True(t, isUsage(err), "%q: %v", args, err)
	}
	_, err := backupJob(t, "--set", "www", "--method", "files", "--source", "file://"+data, "--exclude-path", "*.tmp")
	require.NoError(t, err)
}

// TestRepositoryWithinTheSource: also behind a link, and before it is there.
func TestRepositoryWithinTheSource(t *testing.T) {
	data, elsewhere := t.TempDir(), t.TempDir()
	require.NoError(t, os.Symlink(data, elsewhere+"/link"))
	for repo, refused := range map[string]bool{
		data + "/repo": true, data: true, elsewhere + "/link/a/b": true, elsewhere + "/repo": false, data + "x": false,
	} {
		f := &BackupFlags{}
		f.Repository.Store.URL = "file://" + repo
		err := f.checkOutside(data)
		require.Equal(t, refused, err != nil, repo)
	}
}

// TestFlagsOfADirectoryAsTarget: flags for servers and for files do not mix.
func TestFlagsOfADirectoryAsTarget(t *testing.T) {
	repo := t.TempDir()
	store, err := dir.Create(dir.Options{Path: repo})
	require.NoError(t, err)
	_, err = repository.Init(t.Context(), store, repository.InitOptions{})
	require.NoError(t, err)
	for _, args := range [][]string{
		{"--target", "file:///tmp/x", "--database", "shop"},
		{"--target", "file:///tmp/x", "--with-users"},
		{"--target", "file:///tmp/x", "--as-follower-of", "db:5432"}, // and no account
		{"--target", "file:///tmp/x", "--replication-slot", "s1", "--replication-user", "repl"},
		{"--target", "file:///tmp/x", "--tablespace", "old=new"},
		{"--target", "file:///tmp/x", "--tablespace", "/a=/b", "--tablespace", "/a=/c"},
		{"--target", "postgres://u@h", "--tablespace", "/a=/b"},
		{"--target", "file:x"},
		{"--target", "file:///tmp/x", "--include-path", "["},
		{"--target", "mysql://u@h", "--no-owner"},
		{"--target", "mysql://u@h", "--include-path", "x"},
	} {
		a, _ := app()
		var f LoadFlags
		fs := pflag.NewFlagSet("load", pflag.ContinueOnError)
		f.Add(fs)
		require.NoError(t, fs.Parse(append(args, "--set", "www", "--repository", "file://"+repo)))
		_, _, err := f.Job(t.Context(), a)
		require.Error(t, err, "%q", args)
		require.True(t, isUsage(err), "%q: %v", args, err)
		require.NotContains(t, err.Error(), "no backup of that set", "%q", args)
	}
}
