package altibase_test

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump/command"
	"keepset/internal/dbdump/command/altibase"
	"keepset/internal/record"
)

// physical is a backup of a server, during which a client wrote, and what the
// server went through afterwards: a mistake, which is in its logs.
type physical struct {
	*container
	data   []byte
	report record.Report
}

const (
	// whole are the rows of both tables as the backup has them, one written meanwhile.
	whole = "1,1\n9,9\n"
	// stale is where a replication was at the time of the backup.
	stale = "1591138\n"
)

// made is the first of them, which takes many programs; the others are copies.
var made struct {
	sync.Mutex
	home   string
	files  map[string]string
	data   []byte
	report record.Report
}

func newPhysical(t *testing.T) physical {
	t.Helper()
	made.Lock()
	defer made.Unlock()
	if made.files == nil {
		makePhysical(t)
	}
	c := newContainer(t, good)
	require.NoError(t, os.RemoveAll(filepath.Join(c.home, "dbs")))
	for name, text := range made.files {
		c.file(t, name, strings.ReplaceAll(text, made.home, c.home))
	}
	data := without(t, made.data, "keepset-altibase", func(list string) string { return strings.ReplaceAll(list, made.home, c.home) })
	return physical{c, data, made.report}
}

func makePhysical(t *testing.T) {
	t.Helper()
	c := newArchiving(t)
	c.sql(t, "DELETE FROM ITEMS")
	c.sql(t, "INSERT INTO ITEMS VALUES (1, 1)")
	other := c.other(t)
	c.run(t, "ALTIBASE_HOME="+other.home+" STANDIN_AKU_FLAG="+other.flag()+" aku -p start")
	require.Equal(t, stale, c.read("dbs/repl/AKU_REP_01"))
	c.file(t, "conf/meanwhile", "9,9")
	m, report, err := c.dumpBy(t, altibase.Backup)
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(c.home, "conf/meanwhile")))
	c.sql(t, "DELETE FROM ITEMS")
	c.sql(t, "DROP TABLE ORDERS")
	c.run(t, "echo 'ALTER SYSTEM SWITCH LOGFILE;' | isql -u sys -p manager -sysdba -silent") // now both are in an archived log
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(c.home, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, c.home+"/")] = string(text)
		return err
	}))
	made.home, made.files, made.data, made.report = c.home, files, m.Bytes(command.Output), report
}

func (p physical) restore(t *testing.T) error {
	t.Helper()
	return p.loadBy(t, altibase.Restore, p.data, p.report)
}

// untouched: it is as it was before the restore.
func (p physical) untouched(t *testing.T) {
	t.Helper()
	require.FileExists(t, p.flag(), "aku was stopped")
	require.FileExists(t, filepath.Join(p.home, "running"), "the server was stopped")
	require.Equal(t, "none", p.read("dbs/ORDERS.rows"))
	old, err := filepath.Glob(p.home + "/*.old")
	require.NoError(t, err)
	require.Empty(t, old)
	p.nothingLeft(t)
}

// restored: the tables are as the backup has them, which takes its logs and no
// others; aku runs as the master, and knows of no position.
func (p physical) restored(t *testing.T) {
	t.Helper()
	require.Equal(t, whole, p.read("dbs/ITEMS.rows"), "the last row is in the logs of the backup only; the deletion is in later ones")
	require.Equal(t, "1,1\n", p.read("dbs/ORDERS.rows"))
	require.FileExists(t, p.flag())
	require.FileExists(t, filepath.Join(p.home, "aku_started"))
	require.Equal(t, "-1\n", p.read("dbs/repl/AKU_REP_01"))
	require.NoFileExists(t, filepath.Join(p.home, "keepset-restore-unfinished"))
	p.nothingLeft(t)
}

// TestPhysicalRestore: into the home that has made the mistake, which is set aside;
// into one whose files are lost; and the set's next backup is one.
func TestPhysicalRestore(t *testing.T) {
	t.Parallel()
	p := newPhysical(t)
	p.run(t, "aku -p end")
	p.file(t, "aku_start_completed", "")
	p.file(t, "conf/license", "of this host\n")
	p.file(t, "conf/altibase.properties", "# changed since\n")
	require.NoError(t, p.restore(t))
	p.restored(t)
	require.Equal(t, "", p.read("dbs.old/ITEMS.rows"), "the database before is kept")
	require.NotEqual(t, "none", p.read("logs.old/loganchor0"))
	require.NotEqual(t, "none", p.read("arch_logs.old/logfile0"))
	require.Equal(t, "of this host\n", p.read("conf/license"))
	require.Contains(t, p.read("conf/altibase.properties"), "ARCHIVE_DIR", "the properties are the backup's, as the manual wants them")
	require.Equal(t, "# changed since\n", p.read("conf/altibase.properties.old"))
	p.sql(t, "INSERT INTO ORDERS VALUES (3, 3)")
	for range 2 { // nobody writes before the second
		_, _, err := p.dumpBy(t, altibase.Backup)
		require.NoError(t, err)
	}

	require.ErrorContains(t, p.restore(t), ".old is there, a database that was set aside before: take it away first")
	require.Equal(t, "1,1\n3,3\n", p.read("dbs/ORDERS.rows"))
	require.FileExists(t, filepath.Join(p.home, "running"))

	p.run(t, "server stop; rm -r $ALTIBASE_HOME/dbs $ALTIBASE_HOME/dbs.old $ALTIBASE_HOME/logs $ALTIBASE_HOME/logs.old $ALTIBASE_HOME/arch_logs.old")
	require.ErrorContains(t, p.restore(t), "properties that were set aside before: take it away first")
	p.run(t, "rm $ALTIBASE_HOME/conf/altibase.properties.old")
	require.NoError(t, p.restore(t))
	p.restored(t)
}

// TestPhysicalRestoreRefuses: before anything is touched.
func TestPhysicalRestoreRefuses(t *testing.T) {
	t.Parallel()
	p := newPhysical(t)
	whole := p.data
	refused := func(want string) {
		t.Helper()
		require.ErrorContains(t, p.restore(t), want)
		p.untouched(t)
		p.data = whole
	}
	p.data = whole[:600]
	refused("cannot be unpacked")
	p.data = without(t, whole, "logfile0", nil)
	refused("the archive does not have all")
	p.data = without(t, whole, "keepset-altibase", nil)
	refused("no list that says keepset-altibase 1")
	p.data = without(t, whole, "keepset-altibase", func(list string) string { return strings.TrimSuffix(list, "end\n") })
	refused("the archive's list has no end")
	p.data = without(t, whole, "keepset-altibase", func(list string) string { return strings.ReplaceAll(list, "-sts-0", "-sts-1") })
	refused("paths in the database are absolute")
	p.data = without(t, whole, "keepset-altibase", func(list string) string {
		return strings.Replace(list, "directory ", "directory "+p.home+"\ndirectory ", 1)
	})
	refused("a restore sets it aside as a whole")
	p.data = without(t, whole, "keepset-altibase", func(list string) string {
		return strings.Replace(list, p.home+"/dbs/system001.dbf", p.home+"/dbs/../../system001.dbf", 1)
	})
	refused("is no plain path")
	p.data, _ = archive(t)
	refused("this is a logical backup: restore it with the preset altibase")
	mark := filepath.Join(p.home, "keepset-restore-unfinished")
	p.file(t, "keepset-restore-unfinished", "")
	refused("a server runs on what an unfinished restore has put in place: shut it down for another attempt, or delete " + mark + " to keep it")
	require.NoError(t, os.Remove(mark))
	p.env = append(p.env, "POD=2")
	refused("this is not pod 0")

	c := empty(t)
	require.ErrorContains(t, c.load(t, whole, p.report), "this is a physical backup: restore it with the preset altibase-physical")
	require.FileExists(t, c.flag())
}

// TestPhysicalRestoreAmongOthers: not while a pod replicates with this one, or has
// gone without aku's knowledge; and where the server is gone that could tell, the
// other pods keep what they have.
func TestPhysicalRestoreAmongOthers(t *testing.T) {
	t.Parallel()
	p := newPhysical(t)
	require.NoError(t, os.Remove(p.flag())) // aku does not end what it has not started
	require.ErrorContains(t, p.restore(t), "XSN is not -1): AKU_REP_01; scale the set to one pod")
	require.FileExists(t, filepath.Join(p.home, "running"))
	require.NoDirExists(t, filepath.Join(p.home, "dbs.old"))

	other := p.other(t)
	other.file(t, "aku_started", "")
	p.run(t, "server stop")
	require.ErrorContains(t, p.restore(t), "the database is restored, and aku -p start said that it failed")
	require.Equal(t, "5,5\n", other.read("dbs/ORDERS.rows"), "a sender has carried the past to another pod")
}

// TestPhysicalRestoreLies: each of these ends with status 0 somewhere. No server is
// left in service by half a restore, the database before is kept, and the next
// attempt, without the lie, is a whole one.
func TestPhysicalRestoreLies(t *testing.T) {
	t.Parallel()
	for lie, want := range map[string]string{
		"stuck":          "is not shut down",
		"no-control":     "STARTUP CONTROL did not say",
		"recover":        "ALTER DATABASE RECOVER DATABASE UNTIL CANCEL.*ERR-110D0",
		"recover-silent": "ALTER DATABASE RECOVER did not say that it was a success",
		"no-service":     "isql ended with status 255: SELECT 1 FROM DUAL",
		"aku-end":        "^load command: .*welcome aku -p end said that it failed",
		"aku-clean":      "the database is recovered, and aku -p clean said that it failed",
	} {
		t.Run(lie, func(t *testing.T) {
			t.Parallel()
			p := newPhysical(t)
			p.lie(t, lie)
			err := p.restore(t)
			require.Error(t, err)
			require.Regexp(t, "(?s)"+want, err.Error())
			p.nothingLeft(t)
			require.NoFileExists(t, filepath.Join(p.home, "phase"), "a server is left in the midst of a recovery")
			p.lie(t, "none")
			require.NoError(t, p.restore(t))
			p.restored(t)
			require.Equal(t, "", p.read("dbs.old/ITEMS.rows"))
		})
	}
	for lie, want := range map[string]string{
		"aku":        "the database is restored, and aku -p start said that it failed",
		"aku-silent": "the database is restored, and aku -p start did not say that it ran successfully",
	} {
		t.Run(lie, func(t *testing.T) {
			t.Parallel()
			p := newPhysical(t)
			p.lie(t, lie)
			require.ErrorContains(t, p.restore(t), want)
			p.lie(t, "none")
			p.run(t, "aku -p start")
			p.restored(t)
		})
	}
}

// other is pod 1, whose server runs.
func (c *container) other(t *testing.T) *container {
	t.Helper()
	other := &container{home: strings.TrimSuffix(c.home, "0") + "1"}
	other.file(t, "running", "")
	other.file(t, "conf/aku.conf", c.read("conf/aku.conf"))
	other.file(t, "dbs/ITEMS.rows", "5,5\n")
	other.file(t, "dbs/ORDERS.rows", "5,5\n")
	return other
}

// without is an archive with one of its files taken out, or changed.
func without(t *testing.T, data []byte, name string, change func(string) string) []byte {
	t.Helper()
	files := filesOf(t, data)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, n := range slices.Sorted(maps.Keys(files)) {
		content := files[n]
		switch {
		case strings.HasSuffix(n, "/"), n == name && change == nil:
			continue
		case n == name:
			content = change(content)
			require.NotEqual(t, files[n], content, "nothing was changed")
		}
		require.NoError(t, w.WriteHeader(&tar.Header{Name: n, Mode: 0o600, Size: int64(len(content)), Typeflag: tar.TypeReg}), strconv.Quote(n))
		_, err := w.Write([]byte(content))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}
