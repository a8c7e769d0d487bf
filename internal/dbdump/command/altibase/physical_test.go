package altibase_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump/command"
	"keepset/internal/dbdump/command/altibase"
	"keepset/internal/dbdump/dbdumptest"
)

// run is a script in the container, with Altibase's variables.
func (c *container) run(t *testing.T, script string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", script)
	cmd.Env = append(c.env, "ALTIBASE_HOME="+c.home)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NotContains(t, string(out), "[ERR-", "%s", out)
}

func (c *container) sql(t *testing.T, statement string) {
	t.Helper()
	c.run(t, "echo '"+statement+";' | isql -s localhost -u sys -p manager -silent")
}

// newServer is a container with a database that was made by the server, in
// noarchivelog mode as it comes, and two tables.
func newServer(t *testing.T, env ...string) *container {
	t.Helper()
	c := newContainer(t, good, env...)
	require.NoError(t, os.RemoveAll(filepath.Join(c.home, "dbs")))
	require.NoError(t, os.Remove(filepath.Join(c.home, "running")))
	c.run(t, "server create utf8 utf8; server start")
	for _, table := range []string{"ORDERS", "ITEMS"} {
		c.sql(t, "CREATE TABLE "+table+" (ID INTEGER PRIMARY KEY, N INTEGER)")
		c.sql(t, "INSERT INTO "+table+" VALUES (1, 1)")
	}
	return c
}

// newArchiving is one in archivelog mode, with aku as the master.
func newArchiving(t *testing.T, env ...string) *container {
	t.Helper()
	c := newServer(t, env...)
	c.run(t, `server stop
		printf 'STARTUP CONTROL;\nALTER DATABASE ARCHIVELOG;\nSTARTUP SERVICE;\n' | isql -u sys -p manager -sysdba -silent | sed '/idle instance/d'
		aku -p start`)
	return c
}

// lie is what a program does from now on.
func (c *container) lie(t *testing.T, lie string) {
	t.Helper()
	c.file(t, "conf/lie", lie+"\n")
}

// TestPhysicalBackup: what the server writes, its logs, its properties and the
// list are in the archive; no licence, and nothing else.
func TestPhysicalBackup(t *testing.T) {
	t.Parallel()
	c := newArchiving(t)
	c.file(t, "conf/license", "of this host\n")
	m, _, err := c.dumpBy(t, altibase.Backup)
	require.NoError(t, err)
	files := filesOf(t, m.Bytes(command.Output))
	list := files["keepset-altibase"]
	require.Contains(t, list, "directory "+c.home+"/arch_logs\n", "the archived logs have to be set aside, or they are redone")
	require.Contains(t, list, "\ndatabase mydb\n")
	require.Contains(t, list, "\ntemporary temp001.dbf\n")
	require.Contains(t, list, "/logs/loganchor2\n")
	require.Regexp(t, `(?m)^file \d+ logfile0 `+regexp.QuoteMeta(c.home)+`/logs/logfile0$`, list)
	require.Regexp(t, `\nend\n$`, list)
	var names []string
	for name := range files {
		names = append(names, name)
	}
	require.ElementsMatch(t, []string{
		"keepset-altibase", "altibase.properties", "logfile0", "files/", "files/SYS_TBS_MEM_DIC-1-0", "files/SYS_TBS_MEM_DATA-1-0",
		"files/system001.dbf", "files/undo001.dbf", "files/loganchor0", "files/loganchor1", "files/loganchor2",
	}, names, "the images are those after the checkpoint, whose number was another before")
}

// TestPhysicalLies: each ends with status 0 somewhere, or says something else
// than it does, and none is a backup.
func TestPhysicalLies(t *testing.T) {
	t.Parallel()
	for lie, want := range map[string]string{
		"backup-full":    "isql ended with status 255: ALTER DATABASE BACKUP.*ERR-110A9",
		"backup-nothing": "has not archived the log of the backup",
		"backup-short":   "there is no system001.dbf, or an empty one",
		"backup-other":   "other files than it had named before.*user001.dbf",
		"unclosed":       "has not archived the log of the backup",
		"unarchived":     "has not archived the log of the backup",
		"lagging":        "has not archived the log of the backup",
		"unkept":         "there is no logfile0 in .*/arch_logs, which the backup needs",
	} {
		t.Run(lie, func(t *testing.T) {
			t.Parallel()
			c := newArchiving(t)
			c.lie(t, lie)
			_, _, err := c.dumpBy(t, altibase.Backup)
			require.Error(t, err)
			require.Regexp(t, "(?s)"+want, err.Error())
		})
	}
	t.Run("status 0", func(t *testing.T) {
		t.Parallel()
		c := newArchiving(t)
		c.lie(t, "isql-zero")
		c.file(t, "backup_running", "")
		_, _, err := c.dumpBy(t, altibase.Backup)
		require.ErrorContains(t, err, "isql: ALTER DATABASE BACKUP DATABASE TO")
		require.ErrorContains(t, err, "printed an error")
		require.ErrorContains(t, err, "ERR-110A4")
	})
}

// TestPhysicalRefusals: before the server is told to write.
func TestPhysicalRefusals(t *testing.T) {
	t.Parallel()
	refused := func(c *container, want string) {
		t.Helper()
		before := c.read("logs/loganchor0")
		_, _, err := c.dumpBy(t, altibase.Backup)
		require.ErrorContains(t, err, want)
		require.Equal(t, before, c.read("logs/loganchor0"), "the server was told to write a backup")
	}
	refused(newServer(t), "noarchivelog mode, in which it makes no backup while it runs: stop it, and in isql -sysdba: STARTUP CONTROL; ALTER DATABASE ARCHIVELOG;")

	c := newArchiving(t)
	df := "#!/bin/sh\necho Filesystem\necho none 9 9 %d 9 /\n"
	require.NoError(t, os.WriteFile(filepath.Join(c.bin, "df"), fmt.Appendf(nil, df, 0), 0o755))
	refused(c, "has 0 KiB free")

	c = newArchiving(t)
	require.NoError(t, os.Remove(filepath.Join(c.home, "dbs/system001.dbf")))
	refused(c, "the server names a file "+c.home+"/dbs/system001.dbf, which is not there")

	c = newArchiving(t)
	c.run(t, "server stop")
	refused(c, "isql ended with status 255: SELECT ARCHIVE_MODE")

	c = newArchiving(t, "SYS_PASSWORD=wrong")
	_, _, err := c.dumpBy(t, altibase.Backup)
	require.ErrorContains(t, err, "ERR-50032")
	require.NotContains(t, err.Error(), "wrong")

	c = newArchiving(t)
	c.work = c.home + "/dbs"
	_, err = c.engine(t, altibase.Backup).Dump(t.Context(), dbdumptest.NewMemory())
	require.ErrorContains(t, err, "a restore sets it aside as a whole")
}
