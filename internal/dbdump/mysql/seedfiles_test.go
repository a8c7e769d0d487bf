package mysql

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPrepareFiles(t *testing.T) {
	t.Parallel()
	script, _ := PrepareFiles()
	for _, shell := range []string{"sh", "bash"} {
		out, err := exec.CommandContext(t.Context(), shell, "-n", "-c", script).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	data := []string{"ibdata1", "auto.cnf", "mysql-0.pid", "mysql.sock", "mysql.sock.lock", "master.info", "relay-log.info", "multi-master.info", "d/t.ibd"}
	kept := []string{"d/t.ibd", "ibdata1", "master.info", "multi-master.info", "relay-log.info"}
	for _, below := range []string{"", "data", "var lib/mysql"} {
		mount, other := t.TempDir(), t.TempDir()
		touch(t, filepath.Join(mount, below), data...)
		touch(t, other, "lost+found/x")
		out, err := prepare(t, other, mount)
		require.NoError(t, err, out)
		require.Equal(t, kept, filesBelow(t, filepath.Join(mount, below)))
		require.Equal(t, []string{"lost+found/x"}, filesBelow(t, other))
	}
	mount := t.TempDir()
	touch(t, mount, "some/auto.cnf", "a/b/c/ibdata1")
	out, err := prepare(t, mount)
	require.Error(t, err)
	require.Contains(t, out, "not a database")
	touch(t, mount, "data/mysql.ibd", "data/grastate.dat")
	out, err = prepare(t, mount)
	require.Error(t, err)
	require.Contains(t, out, "Galera")
	_, err = prepare(t, filepath.Join(mount, "missing"))
	require.Error(t, err)
	_, err = prepare(t)
	require.Error(t, err)
}

func touch(t testing.TB, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
	}
}

func filesBelow(t testing.TB, dir string) []string {
	t.Helper()
	var list []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			list = append(list, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	}))
	slices.Sort(list)
	return list
}
