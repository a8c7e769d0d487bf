package timesten_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/command"
	"keepset/internal/dbdump/command/timesten"
	"keepset/internal/record"
)

// operator notes what it is told, and what the databases were like then.
type operator struct {
	pods     []*pod
	told     []string
	refuses  string
	handBack func() error
}

func (o *operator) Suspend(context.Context) error {
	o.told = append(o.told, "suspend"+o.databases())
	if o.refuses == "suspend" {
		return errors.New("it does not let go")
	}
	return nil
}

func (o *operator) HandBack(context.Context) error {
	o.told = append(o.told, "hand back"+o.databases())
	if o.handBack != nil {
		return o.handBack()
	}
	return nil
}

func (o *operator) databases() string {
	var b strings.Builder
	for _, p := range o.pods {
		switch {
		case !p.has("data"):
			b.WriteString(" none")
		case p.has("loaded"):
			b.WriteString(" loaded")
		default:
			b.WriteString(" unloaded")
		}
	}
	return b.String()
}

func (p *pod) has(name string) bool {
	_, err := os.Stat(filepath.Join(p.database, name))
	return err == nil
}

func (p *pod) data(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(p.database, "data"))
	require.NoError(t, err)
	return string(data)
}

// managed is an active database and its standby, in use, under an operator.
func managed(t *testing.T) (target, other *pod, o *operator, engine func() *timesten.Engine) {
	t.Helper()
	target, other = newPod(t, "ACTIVE"), newPod(t, "STANDBY")
	for _, p := range []*pod{target, other} {
		p.write(t, "data", "other rows\nend\n")
		for _, name := range []string{"loaded", "agent", "scheme"} {
			p.write(t, name, "")
		}
	}
	o = &operator{pods: []*pod{target, other}}
	return target, other, o, func() *timesten.Engine {
		e := target.engine(t)
		e.Replace(timesten.Pair{Operator: o, Others: map[string]command.Exec{"sample-1": other.exec()}, Log: slog.New(slog.DiscardHandler)})
		return e
	}
}

func source(t *testing.T) (dbdump.Source, record.Report, string) {
	t.Helper()
	p := newPod(t, "ACTIVE")
	m, report, err := p.dump(t)
	require.NoError(t, err)
	return m.Source(report), report, p.data(t)
}

// TestReplace: the steps in their order, and again after an attempt that was
// killed.
func TestReplace(t *testing.T) {
	target, other, o, engine := managed(t)
	src, _, want := source(t)
	_, err := engine().Load(t.Context(), src)
	require.NoError(t, err)
	require.Equal(t, []string{"suspend loaded loaded", "hand back loaded unloaded"}, o.told)
	require.Equal(t, want, target.data(t))
	require.Equal(t, "other rows\nend\n", other.data(t), "the other database is the way back")
	for _, name := range []string{"scheme", "agent"} {
		require.False(t, target.has(name), name)
	}
	require.False(t, other.has("agent"))

	target.write(t, "data", "half a resto") // what a killed ttRestore leaves
	target.write(t, "scheme", "")
	_, err = engine().Load(t.Context(), src)
	require.NoError(t, err)
	require.Equal(t, want, target.data(t))

	require.NoError(t, os.Remove(filepath.Join(target.database, "data"))) // one that was killed after ttDestroy
	_, err = engine().Load(t.Context(), src)
	require.NoError(t, err)
	require.Equal(t, want, target.data(t))
}

// cut is a source whose stream breaks off.
type cut struct{ dbdump.Source }

func (c cut) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	r, err := c.Source.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(r, 100), broken{}), r}, nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("chunk is damaged") }

// TestReplaceHarmsNothing: what goes wrong before the database is destroyed leaves
// it as it is, and what goes wrong later leaves the operator suspended and the
// other pod's database.
func TestReplaceHarmsNothing(t *testing.T) {
	src, report, _ := source(t)
	t.Run("a damaged backup", func(t *testing.T) {
		target, _, o, engine := managed(t)
		_, err := engine().Load(t.Context(), cut{src})
		require.ErrorContains(t, err, "chunk is damaged")
		require.ErrorContains(t, err, "nothing was changed")
		require.Empty(t, o.told)
		require.True(t, target.has("agent"))
		require.Equal(t, "other rows\nend\n", target.data(t))
	})
	t.Run("a shorter stream than was recorded", func(t *testing.T) {
		_, _, o, engine := managed(t)
		longer := report
		longer.Bytes++
		_, err := engine().Load(t.Context(), recorded{src, longer})
		require.ErrorIs(t, err, dbdump.ErrMismatch)
		require.Empty(t, o.told)
	})
	t.Run("another pod that does not answer", func(t *testing.T) {
		target, _, o, _ := managed(t)
		e := target.engine(t)
		lost := func(context.Context, []string, io.Reader, io.Writer, io.Writer) error {
			return errors.New("no route to host")
		}
		e.Replace(timesten.Pair{Operator: o, Others: map[string]command.Exec{"sample-1": lost}, Log: slog.New(slog.DiscardHandler)})
		_, err := e.Load(t.Context(), src)
		require.ErrorContains(t, err, "pod sample-1")
		require.ErrorContains(t, err, "no route to host")
		require.ErrorContains(t, err, "the operator was not suspended and nothing was changed")
		require.Empty(t, o.told)
		require.True(t, target.has("agent"))
	})
	t.Run("an operator that does not let go", func(t *testing.T) {
		target, _, o, engine := managed(t)
		o.refuses = "suspend"
		_, err := engine().Load(t.Context(), src)
		require.ErrorContains(t, err, "no database was touched")
		require.Len(t, o.told, 1)
		require.True(t, target.has("agent"))
	})
	t.Run("another release", func(t *testing.T) {
		target, _, o, engine := managed(t)
		target.env = append(target.env, "RELEASE=22.1.1.18.0")
		_, err := engine().Load(t.Context(), src)
		require.ErrorIs(t, err, dbdump.ErrMismatch)
		require.Empty(t, o.told)
	})
	t.Run("the other pod is in use and stays so", func(t *testing.T) {
		target, other, o, engine := managed(t)
		other.env = append(other.env, "LIE=busy")
		_, err := engine().Load(t.Context(), src)
		require.ErrorContains(t, err, "take the database of pod sample-1 down: ttStatus says of database sample: There are 12 connections")
		require.ErrorContains(t, err, "the operator stays suspended")
		require.Len(t, o.told, 1)
		require.Equal(t, "other rows\nend\n", target.data(t))
	})
	t.Run("a database that cannot be destroyed", func(t *testing.T) {
		target, _, o, engine := managed(t)
		target.env = append(target.env, "LIE=undestroyed")
		_, err := engine().Load(t.Context(), src)
		require.ErrorContains(t, err, "exists already")
		require.ErrorContains(t, err, "ttDestroy")
		require.Len(t, o.told, 1)
		require.Equal(t, "other rows\nend\n", target.data(t))
	})
	t.Run("an operator that does not take over", func(t *testing.T) {
		_, _, o, engine := managed(t)
		o.handBack = func() error { return errors.New("it went back to ManualInterventionRequired") }
		_, err := engine().Load(t.Context(), src)
		require.ErrorContains(t, err, "the database is restored and loaded, and the operator has not taken it over")
	})
}

// recorded is a source with another report.
type recorded struct {
	dbdump.Source
	report record.Report
}

func (r recorded) Report() record.Report { return r.report }
