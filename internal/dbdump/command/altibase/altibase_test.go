package altibase_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump/command"
	"keepset/internal/dbdump/command/altibase"
	"keepset/internal/dbdump/dbdumptest"
	"keepset/internal/record"
	standin "keepset/test/standins/altibase"
)

// TestMain is the stand-ins' programs where the tests' containers run them.
func TestMain(m *testing.M) {
	if name := filepath.Base(os.Args[0]); standin.Has(name) {
		os.Exit(standin.Run(name, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// container is pod 0 of a set: a home of Altibase whose server runs and has two
// tables, and the stand-ins in its path.
type container struct {
	home, work, bin string
	env             []string
}

func newContainer(t *testing.T, properties string, env ...string) *container {
	t.Helper()
	shared, bin := t.TempDir(), t.TempDir()
	c := &container{home: filepath.Join(shared, "altibase_home_altibase-sts-0"), work: t.TempDir(), bin: bin}
	self, err := os.Executable()
	require.NoError(t, err)
	for _, name := range []string{"aexport", "aku", "iloader", "isql", "server"} {
		require.NoError(t, os.Symlink(self, filepath.Join(bin, name)))
	}
	require.NoError(t, os.WriteFile(filepath.Join(bin, "hostname"), []byte("#!/bin/sh\necho altibase-sts-${POD:-0}\n"), 0o755))
	c.file(t, "conf/aexport.properties", properties)
	c.file(t, "conf/aku.conf", "TABLE_NAME=ORDERS\n")
	c.file(t, "running", "")
	for _, table := range []string{"ORDERS", "ITEMS"} {
		c.file(t, "dbs/"+table+".columns", "ID INTEGER PRIMARY KEY, N INTEGER")
		c.file(t, "dbs/"+table+".rows", "1,1\n2,2\n")
	}
	// As in the guide, a variable that is not set is no mistake.
	c.file(t, "set_altibase.env", "export ALTIBASE_HOME="+c.home+"\nexport LD_LIBRARY_PATH=${ALTIBASE_HOME}/lib:${LD_LIBRARY_PATH};\necho welcome\nfalse\n")
	c.env = append([]string{"PATH=" + bin + ":" + os.Getenv("PATH"), "GORACE=" + os.Getenv("GORACE"), "SYS_PASSWORD=manager", "STANDIN_AKU_FLAG=" + c.flag()}, env...)
	return c
}

func (c *container) flag() string { return filepath.Join(c.home, "aku_start_completed") }

func (c *container) file(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(c.home, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

func (c *container) read(name string) string {
	text, err := os.ReadFile(filepath.Join(c.home, name))
	if err != nil {
		return "none"
	}
	return string(text)
}

// program is one of the package's functions.
type program = func(altibase.Options) ([]string, error)

// engine runs a program of the preset in the container, whose /tmp is elsewhere.
func (c *container) engine(t *testing.T, program program) *command.Engine {
	t.Helper()
	argv, err := program(altibase.Options{
		Environment: filepath.Join(c.home, "set_altibase.env"), Directory: c.work, PasswordVariable: "SYS_PASSWORD", Port: altibase.DefaultPort,
	})
	require.NoError(t, err)
	for i := range argv {
		argv[i] = strings.ReplaceAll(argv[i], "/tmp/aku_start_completed", c.flag())
	}
	e, err := command.New(command.Options{Exec: command.Local(c.env), Program: argv, Clock: time.Now})
	require.NoError(t, err)
	return e
}

func (c *container) nothingLeft(t *testing.T) {
	t.Helper()
	left, err := filepath.Glob(c.work + "/*")
	require.NoError(t, err)
	require.Empty(t, left, "an archive is left in the container")
	left, err = filepath.Glob("*.log")
	require.NoError(t, err)
	require.Empty(t, left, "a script wrote where it was started")
}

func (c *container) dump(t *testing.T) (*dbdumptest.Memory, error) {
	t.Helper()
	m, _, err := c.dumpBy(t, altibase.Export)
	return m, err
}

func (c *container) dumpBy(t *testing.T, program program) (*dbdumptest.Memory, record.Report, error) {
	t.Helper()
	m := dbdumptest.NewMemory()
	report, err := c.engine(t, program).Dump(t.Context(), m)
	require.Empty(t, m.Open())
	c.nothingLeft(t)
	return m, report, err
}

const good = "# as the manual has it\nOPERATION = OUT\nEXECUTE=OFF # run by hand\nTWO_PHASE_SCRIPT = off\n"

// filesOf are the files of an archive.
func filesOf(t *testing.T, data []byte) map[string]string {
	t.Helper()
	files := map[string]string{}
	archive := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		require.NoError(t, err)
		content, err := io.ReadAll(archive)
		require.NoError(t, err)
		files[h.Name] = string(content)
	}
}

// TestBackup: the archive has the scripts and the rows.
func TestBackup(t *testing.T) {
	m, err := newContainer(t, good).dump(t)
	require.NoError(t, err)
	files := filesOf(t, m.Bytes(command.Output))
	require.Contains(t, files, "./ALL_CRT_TBL.sql")
	require.Contains(t, files, "./run_il_out.sh")
	require.Equal(t, "1,1\n2,2\n", files["./SYS_ORDERS.dat"])
	require.Equal(t, "1,1\n2,2\n", files["./SYS_ITEMS.dat"])
}

// TestLies: each of these ends with status 0 somewhere, or says something else
// than it does, and none is a backup.
func TestLies(t *testing.T) {
	for lie, want := range map[string]string{
		"failed":     "aexport printed an error.*ERR-91144",
		"silent":     "did not say that the scripts were generated",
		"nothing":    "no run_il_out.sh, or an empty one",
		"rejected":   "iloader ended with status 254",
		"error":      "iloader ended with status 255.*ERR-91067",
		"false-zero": "iloader printed an error.*ERR-91067",
		"missing":    "2 tables, and iloader wrote 1 files",
		"bad":        "iloader rejected rows: ./SYS_",
	} {
		t.Run(lie, func(t *testing.T) {
			_, err := newContainer(t, good, "LIE="+lie).dump(t)
			require.Error(t, err)
			require.Regexp(t, want, err.Error())
		})
	}
}

// TestRefusals: what would make something else than a whole export.
func TestRefusals(t *testing.T) {
	for properties, want := range map[string]string{
		"OPERATION=IN\nEXECUTE=OFF\nTWO_PHASE_SCRIPT=OFF\n":   "has to say OPERATION=OUT",
		"OPERATION=OUT\nEXECUTE=ON\nTWO_PHASE_SCRIPT=OFF\n":   "has to say EXECUTE=OFF",
		"OPERATION=OUT\n#EXECUTE=OFF\nTWO_PHASE_SCRIPT=OFF\n": "has to say EXECUTE=OFF",
		"OPERATION=OUT\nEXECUTE=OFF\n":                        "has to say TWO_PHASE_SCRIPT=OFF",
	} {
		_, err := newContainer(t, properties).dump(t)
		require.ErrorContains(t, err, want)
	}
	_, err := newContainer(t, good, "SYS_PASSWORD=").dump(t)
	require.ErrorContains(t, err, "variable SYS_PASSWORD with the password of SYS is empty")
	_, err = newContainer(t, good, "SYS_PASSWORD=wrong").dump(t)
	require.ErrorContains(t, err, "aexport ended with status 1")
	require.NotContains(t, err.Error(), "wrong")
}

// TestOneAtATime: an export that is at work is not disturbed.
func TestOneAtATime(t *testing.T) {
	c := newContainer(t, good)
	other := filepath.Join(c.work, "keepset-export")
	require.NoError(t, os.Mkdir(other, 0o700))
	_, err := c.engine(t, altibase.Export).Dump(t.Context(), dbdumptest.NewMemory())
	require.ErrorContains(t, err, "another export is at work")
	require.DirExists(t, other)
}

// TestOptions: what a shell would take apart is refused.
func TestOptions(t *testing.T) {
	for _, o := range []altibase.Options{
		{Directory: "/d", Port: 1},
		{Directory: "/d", Port: 1, PasswordVariable: "a;b"},
		{Directory: "d", Port: 1, PasswordVariable: "p"},
		{Directory: "/d", PasswordVariable: "p"},
	} {
		_, err := altibase.Export(o)
		require.Error(t, err)
	}
}
