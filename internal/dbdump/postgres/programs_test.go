package postgres

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/dbdumptest"
	"keepset/test/servers"
)

// programsFunc is Programs as a function.
type programsFunc func(ctx context.Context, p Program) error

func (f programsFunc) Run(ctx context.Context, p Program) error { return f(ctx, p) }

// TestProgramFails: a program that fails, at whatever moment, or that ends early and well, fails the dump.
func TestProgramFails(t *testing.T) {
	s := servers.Postgres15(t)
	s.Exec(t, "postgres", "CREATE DATABASE shop")
	s.Exec(t, "shop", "CREATE TABLE public.t (a int PRIMARY KEY)", "INSERT INTO public.t VALUES (1)")
	genuine := Local{Dir: s.Programs}
	broken := errors.New("exit status 1")
	for _, c := range []struct {
		name, program, arg string
		run                func(ctx context.Context, p Program, output []byte) error
		want               error
		text               string
	}{
		{"ends with 1 after full output", "pg_dump", "--section=pre-data", func(_ context.Context, p Program, out []byte) error {
			_, _ = p.Stdout.Write(out)
			_, _ = io.WriteString(p.Stderr, "pg_dump: error: something")
			return broken
		}, broken, "pg_dump: error: something"},
		{"ends with 0 after half", "pg_dump", "--section=pre-data", func(_ context.Context, p Program, out []byte) error {
			_, err := p.Stdout.Write(before(out, "CREATE TABLE"))
			return err
		}, errTruncated, ""},
		{"ends with 0 within a statement", "pg_dump", "--section=post-data", func(_ context.Context, p Program, out []byte) error {
			_, err := p.Stdout.Write(before(out, "PRIMARY KEY"))
			return err
		}, errUnended, ""},
		{"ends with 0 and says nothing", "pg_dump", "--section=post-data", func(context.Context, Program, []byte) error { return nil }, errTruncated, ""},
		{"ends with 0 before its last line", "pg_dumpall", "--roles-only", func(_ context.Context, p Program, out []byte) error {
			_, err := p.Stdout.Write(before(out, dumpAllComplete))
			return err
		}, errTruncated, ""},
		{"is cut off", "pg_dumpall", "--tablespaces-only", func(context.Context, Program, []byte) error { return io.ErrUnexpectedEOF }, io.ErrUnexpectedEOF, ""},
		{"talks to psql", "pg_dump", "--section=post-data", func(_ context.Context, p Program, out []byte) error {
			_, err := p.Stdout.Write(append([]byte("\\! rm -rf /\n"), out...))
			return err
		}, nil, "a command to psql that does not belong there"},
		{"is of another version", "pg_dump", "--version", func(_ context.Context, p Program, _ []byte) error {
			_, err := io.WriteString(p.Stdout, "pg_dump (PostgreSQL) 14.9\n")
			return err
		}, nil, "the same major version"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(s)
			o.Programs = programsFunc(func(ctx context.Context, p Program) error {
				if p.Name != c.program || !strings.Contains(strings.Join(p.Args, " "), c.arg) {
					return genuine.Run(ctx, p)
				}
				var out bytes.Buffer
				whole := p
				whole.Stdout = &out
				if err := genuine.Run(ctx, whole); err != nil {
					return err
				}
				return c.run(ctx, p, out.Bytes())
			})
			m := dbdumptest.NewMemory()
			_, err := newEngine(t, o).Dump(t.Context(), m)
			require.Error(t, err)
			require.Empty(t, m.Open())
			if c.want != nil {
				require.ErrorIs(t, err, c.want)
			}
			require.ErrorContains(t, err, c.text)
			require.NotContains(t, err.Error(), s.Password)
		})
	}
}

// before is what comes before a text, and everything where there is no such text.
func before(out []byte, text string) []byte {
	head, _, _ := bytes.Cut(out, []byte(text))
	return head
}

// TestNoProgram: the error says what to install.
func TestNoProgram(t *testing.T) {
	s := servers.Postgres15(t)
	o := options(s)
	o.Programs = Local{Dir: t.TempDir()}
	_, err := newEngine(t, o).Dump(t.Context(), dbdumptest.NewMemory())
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "postgresql-client-15")
}

// TestContainer: run through a shell of the database's container, the password travels by standard input alone.
func TestContainer(t *testing.T) {
	s := servers.Postgres15(t)
	o := options(s)
	var commands [][]string
	o.Programs = Container{Exec: func(ctx context.Context, command []string, stdin io.Reader, stdout, stderr io.Writer) error {
		commands = append(commands, command)
		cmd := exec.CommandContext(ctx, "/usr/bin/env", command...)
		cmd.Env = []string{"PATH=" + s.Programs + ":" + filepath.Dir("/bin/sh") + ":/usr/bin"}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
		return cmd.Run()
	}}
	o.Workers = 1
	_, report := dumpOf(t, o)
	require.Len(t, report.Objects, 4, "role, tablespace, database, schema")
	require.NotContains(t, strings.Join(flatten(commands), "\n"), s.Password)
	require.Contains(t, strings.Join(flatten(commands), "\n"), "host='127.0.0.1'")
}

func flatten(lists [][]string) (all []string) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// TestRefusals: what the server refuses is said as what it is.
func TestRefusals(t *testing.T) {
	s := servers.Postgres15(t)
	s.Exec(t, "postgres", "CREATE ROLE weak LOGIN PASSWORD 'weak'", "CREATE DATABASE shop")
	s.Exec(t, "shop", "CREATE TABLE public.t (a int)", "INSERT INTO public.t VALUES (1)")
	weak := options(s)
	weak.User, weak.Password = "weak", "weak"
	dump := func(o Options) error {
		m := dbdumptest.NewMemory()
		_, err := newEngine(t, o).Dump(t.Context(), m)
		require.Empty(t, m.Open())
		return err
	}
	t.Run("no right to read", func(t *testing.T) {
		require.ErrorIs(t, dump(weak), dbdump.ErrPrivilege)
	})
	s.Exec(t, "postgres", "GRANT pg_read_all_data TO weak")
	t.Run("enough rights", func(t *testing.T) {
		m, report := dumpOf(t, weak)
		require.Contains(t, strings.Join(report.Omitted, "\n"), "passwords of roles")
		require.NotContains(t, string(m.Bytes("roles.sql")), "SCRAM")
	})
	t.Run("rows that are hidden", func(t *testing.T) {
		s.Exec(t, "shop", "ALTER TABLE public.t ENABLE ROW LEVEL SECURITY", "CREATE POLICY p ON public.t USING (a > 1)")
		require.ErrorContains(t, dump(weak), "row-level security")
	})
	t.Run("a change under way", func(t *testing.T) {
		conn := s.Connect(t, "shop")
		_, err := conn.Exec(t.Context(), "BEGIN; TRUNCATE public.t").ReadAll()
		require.NoError(t, err)
		o := options(s)
		o.LockWait = 100e6
		require.ErrorIs(t, dump(o), dbdump.ErrLockTimeout)
	})
	t.Run("a change that waits", func(t *testing.T) {
		// It waits for the holder's lock, and a worker's lock would queue up behind it.
		s.Exec(t, "shop", "CREATE TABLE public.first (a text)", "INSERT INTO public.first SELECT repeat('x', 100) FROM generate_series(1, 1000)")
		o := options(s)
		o.Workers = 1
		described := make(chan struct{})
		o.Programs = programsFunc(func(ctx context.Context, p Program) error {
			err := Local{Dir: s.Programs}.Run(ctx, p)
			if strings.Contains(strings.Join(p.Args, " "), "post-data") && p.Server.Database == "shop" {
				close(described)
			}
			return err
		})
		m := dbdumptest.NewMemory()
		changed := make(chan error, 1)
		m.OnCreate = func(name string) error {
			if name != "databases/shop/data/public/first/000000.copy" {
				return nil
			}
			<-described
			conn := s.Connect(t, "shop")
			go func() {
				_, err := conn.Exec(context.Background(), "ALTER TABLE public.t ADD COLUMN b int").ReadAll()
				changed <- err
			}()
			require.Eventually(t, func() bool {
				return s.Value(t, "shop", "SELECT count(*) FROM pg_locks WHERE NOT granted") == "1"
			}, time.Minute, 20*time.Millisecond)
			return nil
		}
		report, err := newEngine(t, o).Dump(t.Context(), m)
		require.NoError(t, err)
		require.EqualValues(t, 1001, report.Rows)
		require.NoError(t, <-changed)
	})
	t.Run("roles are missing", func(t *testing.T) {
		s.Exec(t, "postgres", "CREATE ROLE boss", "ALTER DATABASE shop OWNER TO boss")
		m, report := dumpOf(t, options(s))
		target := servers.Postgres15(t)
		_, err := newEngine(t, options(target)).Load(t.Context(), m.Source(report))
		require.ErrorContains(t, err, "roles boss")
		require.Equal(t, "0", target.Value(t, "postgres", "SELECT count(*) FROM pg_database WHERE datname = 'shop'"), "nothing was touched")
	})
}
