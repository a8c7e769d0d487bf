package altibase_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/command"
	"keepset/internal/dbdump/command/altibase"
	"keepset/internal/dbdump/dbdumptest"
	"keepset/internal/record"
)

// archive is a backup of two tables.
func archive(t *testing.T) ([]byte, record.Report) {
	t.Helper()
	m := dbdumptest.NewMemory()
	report, err := newContainer(t, good).engine(t, altibase.Export).Dump(t.Context(), m)
	require.NoError(t, err)
	return m.Bytes(command.Output), report
}

// empty is a pod 0 whose database has no tables, where aku ran before.
func empty(t *testing.T, env ...string) *container {
	t.Helper()
	c := newContainer(t, good, env...)
	require.NoError(t, os.RemoveAll(filepath.Join(c.home, "dbs")))
	c.file(t, "dbs/.created", "")
	c.file(t, "aku_start_completed", "")
	c.file(t, "aku_started", "")
	return c
}

func (c *container) load(t *testing.T, data []byte, report record.Report) error {
	t.Helper()
	return c.loadBy(t, altibase.Import, data, report)
}

func (c *container) loadBy(t *testing.T, program program, data []byte, report record.Report) error {
	t.Helper()
	m := dbdumptest.NewMemory()
	stream, err := m.Create(t.Context(), command.Output, dbdump.StreamOptions{})
	require.NoError(t, err)
	_, err = stream.Write(data)
	require.NoError(t, err)
	require.NoError(t, stream.Close())
	report.Bytes = int64(len(data))
	_, err = c.engine(t, program).Load(t.Context(), m.Source(report))
	return err
}

// TestImport: the tables are back, and aku has started as the master.
func TestImport(t *testing.T) {
	data, report := archive(t)
	c := empty(t)
	require.NoError(t, c.load(t, data, report))
	require.Equal(t, "1,1\n2,2\n", clean(c.read("dbs/ORDERS.rows")))
	require.Equal(t, "1,1\n2,2\n", clean(c.read("dbs/ITEMS.rows")))
	require.Equal(t, "ID INTEGER PRIMARY KEY, N INTEGER", c.read("dbs/ORDERS.columns"))
	require.FileExists(t, c.flag())
	require.FileExists(t, filepath.Join(c.home, "aku_started"))
	require.Equal(t, "-1\n", c.read("dbs/repl/AKU_REP_01"))
	c.nothingLeft(t)
}

// clean takes empty lines away, which are no rows.
func clean(rows string) string {
	return string(bytes.TrimLeft(bytes.ReplaceAll([]byte(rows), []byte("\n\n"), []byte("\n")), "\n"))
}

// TestImportRefuses: before anything is touched.
func TestImportRefuses(t *testing.T) {
	data, report := archive(t)
	untouched := func(c *container) {
		t.Helper()
		require.FileExists(t, c.flag(), "aku was stopped")
		require.Equal(t, "none", c.read("dbs/ORDERS.rows"))
		c.nothingLeft(t)
	}
	c := empty(t, "POD=2")
	require.ErrorContains(t, c.load(t, data, report), "this is not pod 0")
	untouched(c)

	c = empty(t)
	require.ErrorContains(t, c.load(t, data[:len(data)/2], report), "cannot be unpacked")
	untouched(c)

	var other bytes.Buffer
	c = empty(t)
	require.Error(t, c.load(t, other.Bytes(), report))
	untouched(c)

	c = empty(t, "SYS_PASSWORD=")
	require.ErrorContains(t, c.load(t, data, report), "variable SYS_PASSWORD with the password of SYS is empty")
	untouched(c)
}

// TestImportAmongOthers: while a pod replicates with this one, or has gone without
// aku's knowledge, no row is restored.
func TestImportAmongOthers(t *testing.T) {
	data, report := archive(t)
	c := empty(t)
	require.NoError(t, os.Remove(c.flag())) // aku does not end what it has not started
	c.file(t, "dbs/repl/AKU_REP_01", "-1\n")
	c.file(t, "dbs/repl/AKU_REP_02", "1591138\n")
	require.ErrorContains(t, c.load(t, data, report), "XSN is not -1): AKU_REP_02; scale the set to one pod")
	require.Equal(t, "none", c.read("dbs/ORDERS.rows"))
	require.Equal(t, "1591138\n", c.read("dbs/repl/AKU_REP_02"))
}

// TestImportLies: each of these ends with status 0 somewhere, or leaves the set
// without what it had.
func TestImportLies(t *testing.T) {
	data, report := archive(t)
	for lie, want := range map[string]string{
		"rejected":   "run_il_in.sh ended with status 254",
		"error":      "run_il_in.sh ended with status 255.*ERR-91067",
		"false-zero": "run_il_in.sh printed an error.*ERR-91067",
		"bad":        "iloader rejected rows: ./SYS_",
		"aku":        "the rows are there, and aku -p start said that it failed",
		"aku-silent": "the rows are there, and aku -p start did not say that it ran successfully",
	} {
		t.Run(lie, func(t *testing.T) {
			c := empty(t, "LIE="+lie)
			err := c.load(t, data, report)
			require.Error(t, err)
			require.Regexp(t, "(?s)"+want, err.Error())
			require.NoFileExists(t, c.flag(), "aku started on half a restore")
		})
	}
	for _, lie := range []string{"aku-end", "aku-clean"} {
		t.Run(lie, func(t *testing.T) {
			c := empty(t, "LIE="+lie)
			require.ErrorContains(t, c.load(t, data, report), strings.Replace(lie, "-", " -p ", 1)+" said that it failed")
			require.Equal(t, "none", c.read("dbs/ORDERS.rows"))
		})
	}
	t.Run("isql-silent", func(t *testing.T) {
		c := empty(t, "LIE=isql-silent")
		require.ErrorContains(t, c.load(t, data, report), "isql ended with status 0 and did not answer: SELECT REPLICATION_NAME, XSN")
		require.Equal(t, "none", c.read("dbs/ORDERS.rows"))
	})
	t.Run("tables that are there", func(t *testing.T) {
		c := empty(t)
		c.file(t, "dbs/ORDERS.rows", "7,7\n")
		require.ErrorContains(t, c.load(t, data, report), "ERR-31031 : Table already exists")
		require.Equal(t, "7,7\n", c.read("dbs/ORDERS.rows"))
	})
}
