package mysql

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/mysql/xbstream"
	"keepset/test/servers"
)

// programsFunc is Programs as a function.
type programsFunc func(ctx context.Context, p Program) error

func (f programsFunc) Run(ctx context.Context, p Program) error { return f(ctx, p) }

// copyingBy runs a backup by fn, and asks the genuine program for its version.
func copyingBy(t testing.TB, fn programsFunc) Programs {
	genuine := installed(t)
	return programsFunc(func(ctx context.Context, p Program) error {
		if len(p.Args) == 1 {
			return genuine.Run(ctx, p)
		}
		return fn(ctx, p)
	})
}

// without writes a stream anew, without what drop says.
func without(t testing.TB, stream []byte, drop func(xbstream.Chunk) bool) []byte {
	t.Helper()
	var b []byte
	r := xbstream.NewReader(bytes.NewReader(stream), xbstream.MariaDB)
	for {
		c, err := r.Next()
		if errors.Is(err, io.EOF) {
			return b
		}
		require.NoError(t, err)
		if drop(c) {
			continue
		}
		b = append(append(b, "XBSTCK01\x00"...), byte(c.Kind))
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(c.Path))), c.Path...)
		switch c.Kind {
		case xbstream.Payload:
			data, err := io.ReadAll(r)
			require.NoError(t, err)
			b = binary.LittleEndian.AppendUint64(b, uint64(len(data)))
			b = binary.LittleEndian.AppendUint64(b, uint64(c.Offset))
			b = append(binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(data)), data...)
		case xbstream.End:
		default:
			t.Fatalf("a chunk of kind %c", c.Kind)
		}
	}
}

func ofFile(name string) func(xbstream.Chunk) bool {
	return func(c xbstream.Chunk) bool { return c.Path == name }
}

// A program that fails at whatever moment, or that ends early and well, is no backup; what it said is in the error.
func TestCopyFails(t *testing.T) {
	t.Parallel()
	s := servers.MariaDB(t)
	s.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (a INT)", "CREATE TABLE d.a (a INT) ENGINE=Aria", "CREATE TABLE d.m (a INT) ENGINE=MyISAM")
	var stream, words bytes.Buffer
	o := copyOptions(t, s)
	o.Programs = copyingBy(t, func(ctx context.Context, p Program) error {
		p.Stdout, p.Stderr = io.MultiWriter(p.Stdout, &stream), io.MultiWriter(p.Stderr, &words)
		return installed(t).Run(ctx, p)
	})
	// The stream is sent again below, which is right for as long as the server's log does not move on: what the server does
	// after tables are made has to be over.
	log := func() string {
		return s.Value(t, "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'Innodb_lsn_current'")
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for at, still := "", 0; still < 10; <-tick.C {
		if now := log(); now != at {
			at, still = now, 0
		}
		still++
	}
	copied(t, o)
	require.Contains(t, words.String(), completed)
	require.NotContains(t, words.String(), s.Password)

	harmed := bytes.Clone(stream.Bytes())
	harmed[bytes.LastIndex(harmed, []byte("last_lsn"))] ^= 1
	status := errors.New("exit status 1")
	last := without(t, stream.Bytes(), ofFile("xtrabackup_info")) // ends between two chunks
	for name, c := range map[string]struct {
		stream []byte
		words  string
		err    error
		want   string
		is     error
	}{
		"cut off half-way, status 0":          {stream: stream.Bytes()[:stream.Len()/2], want: "cut off at byte", is: io.ErrUnexpectedEOF},
		"cut off half-way, connection lost":   {stream: stream.Bytes()[:stream.Len()/2], err: status, want: "run mariadb-backup: exit status 1", is: status},
		"nothing, status 0":                   {want: "without the file in which mariadb-backup says"},
		"status 1 after full output":          {stream: stream.Bytes(), err: status, want: completed, is: status},
		"status 0, and not a word of success": {stream: stream.Bytes(), words: "mariabackup: something is wrong", want: "something is wrong", is: errUnfinished},
		"a byte is turned":                    {stream: harmed, want: "the checksum of", is: xbstream.ErrStream},
		"no end of a file":                    {stream: without(t, stream.Bytes(), func(c xbstream.Chunk) bool { return c.Kind == xbstream.End && c.Path == "ib_logfile0" }), want: `"ib_logfile0"`, is: io.ErrUnexpectedEOF},
		"cut off between two files":           {stream: last, want: "without the file in which"},
		"no checkpoints":                      {stream: without(t, stream.Bytes(), ofFile("xtrabackup_checkpoints")), want: "without the file in which"},
		"no log":                              {stream: without(t, stream.Bytes(), ofFile("ib_logfile0")), want: "no file ib_logfile0"},
		"no position":                         {stream: without(t, stream.Bytes(), ofFile("xtrabackup_binlog_info")), want: "where in its binary log"},
		"a table without rows":                {stream: without(t, stream.Bytes(), ofFile("d/a.MAD")), want: "d/a (Aria) is without its file .MAD"},
		"a table that is lost":                {stream: without(t, stream.Bytes(), func(c xbstream.Chunk) bool { return strings.HasPrefix(c.Path, "d/a.") }), want: "1 tables have not come: d.a"},
		"another one":                         {stream: without(t, stream.Bytes(), ofFile("d/m.MYI")), want: "d/m (MyISAM) is without its file .MYI"},
	} {
		t.Run(name, func(t *testing.T) {
			o := copyOptions(t, s)
			o.Programs = copyingBy(t, func(_ context.Context, p Program) error {
				said := c.words
				if said == "" {
					said = words.String()
				}
				_, _ = io.WriteString(p.Stderr, said)
				_, _ = p.Stdout.Write(c.stream)
				return c.err
			})
			broken := &memoryFiles{}
			_, err := newEngine(t, o).Copy(t.Context(), broken)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, s.Addr)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
			require.False(t, broken.streams["tree/3-others.tar"].closed, "the archive was ended")
		})
	}

	t.Run("the files of another server", func(t *testing.T) {
		s.Exec(t, "INSERT INTO d.t VALUES (1)", "INSERT INTO d.t SELECT seq FROM d.t, mysql.seq_1_to_1000")
		o := copyOptions(t, s)
		o.Programs = copyingBy(t, func(_ context.Context, p Program) error {
			_, _ = io.WriteString(p.Stderr, words.String())
			_, err := p.Stdout.Write(stream.Bytes())
			return err
		})
		_, err := newEngine(t, o).Copy(t.Context(), &memoryFiles{})
		require.ErrorContains(t, err, "the files are not those of the server")
	})
}

// What keeps a copy from beginning is said with its remedy.
func TestCopyRefusals(t *testing.T) {
	t.Parallel()
	s := servers.MariaDB(t)
	s.Exec(t, "CREATE USER poor@'%' IDENTIFIED BY 'x'", "GRANT SELECT, PROCESS, SHOW VIEW, BINLOG MONITOR, SLAVE MONITOR ON *.* TO poor@'%'")
	older := programsFunc(func(_ context.Context, p Program) error {
		_, err := io.WriteString(p.Stderr, "mariadb-backup based on MariaDB server 10.6.18-MariaDB debian-linux-gnu (x86_64)\n")
		return err
	})
	for name, c := range map[string]struct {
		change func(o *Options)
		want   string
		is     error
	}{
		"no program":     {func(o *Options) { o.Programs = Local{Dir: t.TempDir()} }, "in the folder that --mysql-programs names", os.ErrNotExist},
		"other version":  {func(o *Options) { o.Programs = older }, "the server is MariaDB 10.11", nil},
		"no version":     {func(o *Options) { o.Programs = programsFunc(func(context.Context, Program) error { return nil }) }, "not a version of mariadb-backup", nil},
		"privilege":      {func(o *Options) { o.User, o.Password = "poor", "x" }, "GRANT RELOAD ON *.* TO", dbdump.ErrPrivilege},
		"wrong password": {func(o *Options) { o.Password = "wrong" }, "Access denied", dbdump.ErrAccess},
		"wrong password of the program": {func(o *Options) {
			o.Programs = copyingBy(t, func(ctx context.Context, p Program) error {
				p.Password = "wrong"
				return installed(t).Run(ctx, p)
			})
		}, "using password: YES", nil},
	} {
		t.Run(name, func(t *testing.T) {
			o := copyOptions(t, s)
			c.change(&o)
			_, err := newEngine(t, o).Copy(t.Context(), &memoryFiles{})
			require.ErrorContains(t, err, c.want)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
		})
	}

	away := t.TempDir()
	s.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.away (a INT) DATA DIRECTORY='"+away+"'")
	_, err := newEngine(t, copyOptions(t, s)).Copy(t.Context(), &memoryFiles{})
	require.ErrorContains(t, err, `file "d/away.isl"`)
	require.ErrorContains(t, err, "move the table")
}

// Whoever gives up leaves no program behind.
func TestCopyCancelled(t *testing.T) {
	t.Parallel()
	s := servers.MariaDB(t)
	ctx, cancel := context.WithCancel(t.Context())
	o := copyOptions(t, s)
	ended := make(chan error, 1)
	o.Programs = copyingBy(t, func(ctx context.Context, p Program) error {
		p.Stdout = writerFunc(func([]byte) (int, error) { cancel(); return 1, errors.New("nobody takes it") })
		err := installed(t).Run(ctx, p)
		ended <- err
		return err
	})
	_, err := newEngine(t, o).Copy(ctx, &memoryFiles{})
	require.ErrorIs(t, err, context.Canceled)
	select {
	case err := <-ended:
		require.Error(t, err)
	case <-time.After(time.Minute):
		t.Fatal("the program is still there")
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// A container is told the password by standard input, and never on a command line.
func TestContainerPassword(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := "#!/bin/sh\nprintf '%s|%s\\n' \"$MYSQL_PWD\" \"$*\"; cat\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, backupProgram), []byte(script), 0o700)) //nolint:gosec // a program
	var words string
	c := Container{Exec: func(ctx context.Context, command []string, stdin io.Reader, stdout, stderr io.Writer) error {
		words = strings.Join(command, " ")
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = []string{"PATH=" + dir + ":/usr/bin:/bin"}, stdin, stdout, stderr
		return cmd.Run()
	}}
	var out bytes.Buffer
	require.NoError(t, c.Run(t.Context(), Program{Name: backupProgram, Args: []string{"--backup", "--user=a b"}, Password: `p'a"s $x\n`, Stdout: &out, Stderr: io.Discard}))
	require.Equal(t, "p'a\"s $x\\n|--backup --user=a b\n", out.String())
	require.NotContains(t, words, "p'a")
}
