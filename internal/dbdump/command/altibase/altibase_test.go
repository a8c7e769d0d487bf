package altibase_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump/command"
	"keepset/internal/dbdump/command/altibase"
	"keepset/internal/dbdump/dbdumptest"
)

// container is a home of Altibase with the stand-ins of testdata in its path.
type container struct {
	home, work string
	env        []string
}

func newContainer(t *testing.T, properties string, env ...string) *container {
	t.Helper()
	tools, err := filepath.Abs("testdata")
	require.NoError(t, err)
	c := &container{home: t.TempDir(), work: t.TempDir()}
	require.NoError(t, os.Mkdir(filepath.Join(c.home, "conf"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(c.home, "conf", "aexport.properties"), []byte(properties), 0o600))
	file := "ALTIBASE_HOME=" + c.home + "\nexport ALTIBASE_HOME\necho welcome\n"
	require.NoError(t, os.WriteFile(filepath.Join(c.home, "set_altibase.env"), []byte(file), 0o600))
	c.env = append([]string{"PATH=" + tools + ":" + os.Getenv("PATH"), "SYS_PASSWORD=manager"}, env...)
	return c
}

func (c *container) dump(t *testing.T) (*dbdumptest.Memory, error) {
	t.Helper()
	program, err := altibase.Program(altibase.Options{
		Environment: filepath.Join(c.home, "set_altibase.env"), Directory: c.work, PasswordVariable: "SYS_PASSWORD", Port: altibase.DefaultPort,
	})
	require.NoError(t, err)
	e, err := command.New(command.Options{Exec: command.Local(c.env), Program: program, Clock: time.Now})
	require.NoError(t, err)
	m := dbdumptest.NewMemory()
	_, err = e.Dump(t.Context(), m)
	require.Empty(t, m.Open())
	left, globErr := filepath.Glob(c.work + "/*")
	require.NoError(t, globErr)
	require.Empty(t, left, "the export is left in the container")
	return m, err
}

const good = "# as the manual has it\nOPERATION = OUT\nEXECUTE=OFF # run by hand\nTWO_PHASE_SCRIPT = off\n"

// TestBackup: the archive has the scripts and the rows.
func TestBackup(t *testing.T) {
	m, err := newContainer(t, good).dump(t)
	require.NoError(t, err)
	files := map[string]string{}
	archive := tar.NewReader(bytes.NewReader(m.Bytes(command.Output)))
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		content, err := io.ReadAll(archive)
		require.NoError(t, err)
		files[h.Name] = string(content)
	}
	require.Contains(t, files, "./ALL_CRT_TBL.sql")
	require.Contains(t, files, "./run_il_out.sh")
	require.Equal(t, "1^DELIM\n2^DELIM\n", files["./SHOP_orders.dat"])
	require.Equal(t, "1^DELIM\n2^DELIM\n", files["./SHOP_items.dat"])
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
		"bad":        "iloader rejected rows: ./SHOP_",
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
	program, err := altibase.Program(altibase.Options{Environment: filepath.Join(c.home, "set_altibase.env"), Directory: c.work, PasswordVariable: "SYS_PASSWORD", Port: 20300})
	require.NoError(t, err)
	e, err := command.New(command.Options{Exec: command.Local(c.env), Program: program, Clock: time.Now})
	require.NoError(t, err)
	_, err = e.Dump(t.Context(), dbdumptest.NewMemory())
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
		_, err := altibase.Program(o)
		require.Error(t, err)
	}
}
