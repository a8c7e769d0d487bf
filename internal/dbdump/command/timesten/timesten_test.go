package timesten_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/command"
	"keepset/internal/dbdump/command/timesten"
	"keepset/internal/dbdump/dbdumptest"
	"keepset/internal/record"
	standin "keepset/test/standins/timesten"
)

// TestMain is ttenv of the stand-in where the tests' pods run it.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "ttenv" {
		os.Exit(standin.Programs(filepath.Dir(filepath.Dir(os.Args[0])), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

const content = "\x00a database\xff\n"

// pod has an instance of the stand-in in a folder that takes /tt/home's place.
type pod struct {
	home, database string
	env            []string
	// silence that is borne.
	silence time.Duration
}

func newPod(t *testing.T, state string, env ...string) *pod {
	t.Helper()
	p := &pod{home: t.TempDir(), env: append(os.Environ(), env...)}
	instance := filepath.Join(p.home, "oracle", "instances", "instance1")
	p.database = filepath.Join(instance, "database")
	require.NoError(t, os.MkdirAll(filepath.Join(instance, "bin"), 0o755))
	require.NoError(t, os.Mkdir(p.database, 0o755))
	self, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.Symlink(self, filepath.Join(instance, "bin", "ttenv")))
	p.write(t, "data", strings.Repeat(content, 20)+"end\n")
	p.write(t, "state", state+"\n")
	p.write(t, "backups", "< 0, <NULL>, <NULL>, <NULL>, <NULL>, <NULL>, <NULL>, 0, <NULL> >\n")
	return p
}

func (p *pod) write(t *testing.T, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(p.database, name), []byte(text), 0o644))
}

// exec runs programs in the pod.
func (p *pod) exec() command.Exec {
	return func(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) error {
		here := make([]string, len(argv))
		for i := range argv {
			here[i] = strings.ReplaceAll(argv[i], "/tt/home", p.home)
		}
		return command.Local(p.env)(ctx, here, stdin, stdout, stderr)
	}
}

func (p *pod) engine(t *testing.T) *timesten.Engine {
	t.Helper()
	e, err := timesten.New(command.Options{Exec: p.exec(), Silence: p.silence, Clock: time.Now}, "sample")
	require.NoError(t, err)
	return e
}

func (p *pod) dump(t *testing.T) (*dbdumptest.Memory, record.Report, error) {
	t.Helper()
	m := dbdumptest.NewMemory()
	report, err := p.engine(t).Dump(t.Context(), m)
	require.Empty(t, m.Open())
	return m, report, err
}

// TestRoundTrip goes from an active database into an empty instance.
func TestRoundTrip(t *testing.T) {
	source := newPod(t, "ACTIVE")
	m, report, err := source.dump(t)
	require.NoError(t, err)
	require.Equal(t, "18.1.4.1.0", report.Version)
	require.Equal(t, map[string]string{"dsn": "sample", "state": "ACTIVE", "platform": "64 bit Linux/x86_64"}, report.Objects[0].Attributes)

	target := newPod(t, "IDLE")
	_, err = target.engine(t).Load(t.Context(), m.Source(report))
	require.ErrorContains(t, err, "exists already")
	require.NoError(t, os.Remove(filepath.Join(target.database, "data")))
	_, err = target.engine(t).Load(t.Context(), m.Source(report))
	require.NoError(t, err)
	got, err := os.ReadFile(filepath.Join(target.database, "data"))
	require.NoError(t, err)
	require.Equal(t, strings.Repeat(content, 20)+"end\n", string(got))

	_, _, err = source.dump(t) // the row of the first is there
	require.NoError(t, err)
}

// TestStates: the active of a pair, or a database without one.
func TestStates(t *testing.T) {
	for state, good := range map[string]bool{"ACTIVE": true, "IDLE": true, "STANDBY": false, "FAILED": false, "RECOVERING": false} {
		p := newPod(t, state)
		got, err := p.engine(t).State(t.Context())
		require.NoError(t, err)
		require.Equal(t, timesten.State(state), got)
		_, _, err = p.dump(t)
		if good {
			require.NoError(t, err, state)
		} else {
			require.ErrorIs(t, err, timesten.ErrState)
		}
	}
}

// TestLies: what a ttBackup that ends with status 0 may have left undone, and
// what ends otherwise.
func TestLies(t *testing.T) {
	for lie, want := range map[string]string{
		"half":       "status 1.*Backup died",
		"half-zero":  "the backup failed with error TT-611",
		"stale":      "began before it",
		"duplicate":  "another backup than ours",
		"unfinished": "does not say that the backup is complete",
		"asleep":     "dump command: it neither read nor wrote",
	} {
		t.Run(lie, func(t *testing.T) {
			p := newPod(t, "ACTIVE", "LIE="+lie)
			if lie == "asleep" {
				p.silence = 3 * time.Second
			}
			p.write(t, "backups", "< 2, 1, 1, 2021-09-13 13:10:32.587557, 2021-09-13 13:10:33.193269, 1, 1531840, 0, 6968 >\n")
			_, _, err := p.dump(t)
			require.Error(t, err)
			require.Regexp(t, want, err.Error())
		})
	}
}

// TestRefusals: nothing is run that cannot be meant.
func TestRefusals(t *testing.T) {
	p := newPod(t, "ACTIVE")
	require.NoError(t, os.Remove(filepath.Join(p.database, "data")))
	_, _, err := p.dump(t)
	require.ErrorContains(t, err, "No data store exists")
	require.NoFileExists(t, filepath.Join(p.database, "data"), "asking for the state has made an empty database")

	p = newPod(t, "ACTIVE")
	require.NoError(t, os.RemoveAll(filepath.Join(p.home, "oracle")))
	_, _, err = p.dump(t)
	require.ErrorContains(t, err, "no TimesTen instance under")

	m, report, err := newPod(t, "ACTIVE").dump(t)
	require.NoError(t, err)
	_, err = newPod(t, "IDLE", "RELEASE=22.1.1.18.0").engine(t).Load(t.Context(), m.Source(report))
	require.ErrorIs(t, err, dbdump.ErrMismatch)
	require.ErrorContains(t, err, "ttMigrate")

	for _, dsn := range []string{"", "a b", "sample;UID=root", "-x", "$(id)"} {
		_, err := timesten.New(command.Options{}, dsn)
		require.Error(t, err, dsn)
	}
}

// TestChoose: exactly one database is backed up.
func TestChoose(t *testing.T) {
	down := timesten.Answer{Pod: "sample-1", Err: io.ErrUnexpectedEOF}
	says := func(pod string, s timesten.State) timesten.Answer { return timesten.Answer{Pod: pod, State: s} }
	for name, c := range map[string]struct {
		answers []timesten.Answer
		want    int
	}{
		"a pair":              {[]timesten.Answer{says("sample-0", "STANDBY"), says("sample-1", "ACTIVE")}, 1},
		"the standby is gone": {[]timesten.Answer{says("sample-0", "ACTIVE"), down}, 0},
		"the active is gone":  {[]timesten.Answer{says("sample-0", "STANDBY"), down}, -1},
		"both are active":     {[]timesten.Answer{says("sample-0", "ACTIVE"), says("sample-1", "ACTIVE")}, -1},
		"no replication":      {[]timesten.Answer{says("sample-0", "IDLE")}, 0},
		"two without it":      {[]timesten.Answer{says("sample-0", "IDLE"), says("sample-1", "IDLE")}, -1},
		"nobody":              {nil, -1},
	} {
		got, err := timesten.Choose(c.answers)
		require.Equal(t, c.want, got, name)
		if c.want < 0 {
			require.ErrorIs(t, err, timesten.ErrState, name)
		} else {
			require.NoError(t, err, name)
		}
	}
}
