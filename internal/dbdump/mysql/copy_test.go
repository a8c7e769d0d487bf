package mysql

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/filetree"
	"keepset/internal/record"
	"keepset/test/servers"
)

// memoryFiles keeps the streams of a copy.
type memoryFiles struct {
	mu      sync.Mutex
	streams map[string]*memoryFile
	report  record.Report
	raw     bytes.Buffer // what mariadb-backup sent
}

type memoryFile struct {
	bytes.Buffer
	closed bool
}

func (f *memoryFile) Section(string, []byte) error        { return nil }
func (f *memoryFile) Reuse(string, []byte) (int64, error) { return 0, nil }
func (f *memoryFile) Forget()                             {}
func (f *memoryFile) Cut() error                          { return nil }
func (f *memoryFile) Close() error                        { f.closed = true; return nil }
func (f *memoryFile) Abort(error)                         {}

func (m *memoryFiles) Create(_ context.Context, name string) (filetree.Stream, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.streams == nil {
		m.streams = map[string]*memoryFile{}
	}
	if m.streams[name] != nil {
		return nil, fmt.Errorf("stream %s twice", name)
	}
	m.streams[name] = &memoryFile{}
	return m.streams[name], nil
}

func (m *memoryFiles) Report() record.Report { return m.report }

func (m *memoryFiles) Streams() (names []string) {
	for name := range m.streams {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (m *memoryFiles) Open(_ context.Context, name string) (io.ReadCloser, error) {
	s := m.streams[name]
	if s == nil || !s.closed {
		return nil, fmt.Errorf("no whole stream %s", name)
	}
	return io.NopCloser(bytes.NewReader(s.Bytes())), nil
}

// installed is the mariadb-backup of the tests.
func installed(t testing.TB) Local { return Local{Dir: filepath.Dir(servers.Tool(t, backupProgram))} }

// copyOptions are those of a copy by the account.
func copyOptions(t testing.TB, s *servers.MySQL) Options {
	o := options(t, s)
	o.Programs = installed(t)
	return o
}

// copied takes a copy that must succeed and end every stream whole. When tables change at the wrong moment, mariadb-backup
// fails, or loses some of them, which is found out: then it is tried again, as the error says.
func copied(t testing.TB, o Options) *memoryFiles {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; {
		m, err := tryCopy(t, o)
		if err != nil && (strings.Contains(err.Error(), lossRemedy) || strings.Contains(err.Error(), "exit status 1")) && time.Now().Before(deadline) {
			t.Log("again:", err)
			continue
		}
		require.NoError(t, err)
		for name, s := range m.streams {
			require.True(t, s.closed, name)
		}
		return m
	}
}

func tryCopy(t testing.TB, o Options) (*memoryFiles, error) {
	m := &memoryFiles{}
	programs := o.Programs
	o.Programs = programsFunc(func(ctx context.Context, p Program) error {
		if len(p.Args) > 1 {
			p.Stdout = io.MultiWriter(p.Stdout, &m.raw)
		}
		return programs.Run(ctx, p)
	})
	var err error
	m.report, err = newEngine(t, o).Copy(t.Context(), m)
	return m, err
}

// readied restores a copy and makes it ready for a server.
func readied(t testing.TB, m *memoryFiles) (volume string) {
	t.Helper()
	volume = t.TempDir()
	o := CopyRestore{Path: volume + "/data", Workers: 2}
	require.NoError(t, o.Check(m.report))
	r, err := o.Restore(t.Context(), m)
	require.NoError(t, err)
	sameAsMbstream(t, m, o.Path)
	require.Contains(t, strings.Join(r.Warnings, "\n"), "--prepare --target-dir="+o.Path)
	out, err := exec.CommandContext(t.Context(), servers.Tool(t, backupProgram), "--prepare", "--target-dir="+o.Path).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.True(t, strings.HasSuffix(strings.TrimSpace(string(out)), completed), "%s", out)
	return volume
}

// sameAsMbstream compares a restored directory with what MariaDB's own program makes of the stream.
func sameAsMbstream(t testing.TB, m *memoryFiles, dir string) {
	t.Helper()
	theirs := t.TempDir()
	cmd := exec.CommandContext(t.Context(), servers.Tool(t, "mbstream"), "-x", "-C", theirs)
	cmd.Stdin = bytes.NewReader(m.raw.Bytes())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = exec.CommandContext(t.Context(), "diff", "-r", theirs, dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// copyAdopter is an engine for a seed on copied files.
func copyAdopter(t testing.TB, s *servers.MySQL) *Engine {
	t.Helper()
	o := options(t, s)
	o.Load = LoadOptions{Follower: true, Copied: true, DataDirectory: s.DataDir}
	return newEngine(t, o)
}

// busy writes, and makes, changes, renames and drops tables of several engines, until stop is called.
func busy(t testing.TB, s *servers.MySQL) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	db := s.DB(t)
	for i := range 10 {
		s.Exec(t, fmt.Sprintf("CREATE TABLE d.m%d (a INT) ENGINE=MyISAM", i), fmt.Sprintf("CREATE TABLE d.a%d (a INT, c TEXT) ENGINE=Aria", i), fmt.Sprintf("CREATE TABLE d.i%d (a INT)", i))
	}
	ended := make(chan error, 2)
	work := func(statements func(n int) []string) {
		for n := 0; ctx.Err() == nil; n++ {
			for _, q := range statements(n) {
				if _, err := db.ExecContext(context.WithoutCancel(ctx), q); err != nil {
					ended <- fmt.Errorf("%s: %w", q, err)
					return
				}
			}
		}
		ended <- nil
	}
	go work(func(int) []string { return []string{"INSERT INTO d.t (v) VALUES (LEFT(UUID(), 20))"} })
	go work(func(n int) []string {
		i := n % 10
		list := []string{
			fmt.Sprintf("INSERT INTO d.m%d VALUES (%d)", i, n), fmt.Sprintf("INSERT INTO d.a%d VALUES (%d, REPEAT('x', 100))", i, n), fmt.Sprintf("INSERT INTO d.i%d VALUES (%d)", i, n),
			"UPDATE d.big SET v = REVERSE(v) WHERE id % 97 = 0",
		}
		if n%20 == 0 { // more of these, and mariadb-backup fails or loses something almost every time
			list = append(list, fmt.Sprintf("ALTER TABLE d.m%d ENGINE=MyISAM, COMMENT='%d'", i, n), fmt.Sprintf("RENAME TABLE d.m%d TO d.mm, d.mm TO d.m%d", i, i),
				fmt.Sprintf("RENAME TABLE d.a%d TO d.aa, d.aa TO d.a%d", i, i))
		}
		return list
	})
	return func() {
		cancel()
		for range 2 {
			require.NoError(t, <-ended)
		}
	}
}

// sameTables compares all tables of the database d. Nobody may be writing.
func sameTables(t testing.TB, a, b *servers.MySQL) {
	t.Helper()
	var names []string
	db := a.DB(t)
	rows, err := db.QueryContext(t.Context(), "SELECT CONCAT('d.', TABLE_NAME) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'd' AND TABLE_NAME <> 'ticks' ORDER BY 1")
	require.NoError(t, err)
	for rows.Next() {
		var name string
		require.NoError(t, rows.Scan(&name))
		names = append(names, name)
	}
	require.NoError(t, errors.Join(rows.Err(), rows.Close()))
	require.Greater(t, len(names), 30)
	d, other := &describer{t: t, db: db}, &describer{t: t, db: b.DB(t)}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	want, have := d.lines("CHECKSUM TABLE "+strings.Join(names, ", ")), []string(nil)
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		if have = other.lines("CHECKSUM TABLE " + strings.Join(names, ", ")); slices.Equal(have, want) {
			return
		}
	}
	require.Equal(t, want, have)
}

// A server that is written to and whose tables are made, changed, renamed and dropped is copied, and the copy follows it
// from the recorded position, and so does one of a follower.
func TestCopyUnderLoad(t *testing.T) {
	t.Parallel()
	f := flavours()[0].with("log_slave_updates=ON")
	require.Equal(t, "mariadb", f.name)
	p, up := primary(t, f)
	p.Exec(t, "USE d", "CREATE DATABASE `a-b ü`", "CREATE TABLE `a-b ü`.`c.d/é` (a INT)", "CREATE TABLE d.big (id INT AUTO_INCREMENT PRIMARY KEY, v TEXT)", "INSERT INTO d.big (v) SELECT REPEAT(MD5(seq), 30) FROM seq_1_to_8000")
	stop := busy(t, p)
	o := copyOptions(t, p)
	p.Exec(t, documented(t, "#### Snapshot account on MariaDB")...)
	o.User, o.Password = "keepset_snapshot", "change-me"
	m := copied(t, o)
	again := copied(t, o)
	stop()
	require.Nil(t, m.report.Coordinates.Upstream)
	require.NotEmpty(t, m.report.Coordinates.GTID)
	require.NotZero(t, m.report.Coordinates.Position)
	require.Equal(t, p.Value(t, "SELECT @@server_id"), m.report.Coordinates.Server)
	require.WithinDuration(t, time.Now(), m.report.CapturedAt, time.Hour)
	require.Greater(t, len(m.report.Objects), 1, "the large table has a stream of its own")

	p.Exec(t, "INSERT INTO d.t (v) VALUES ('after')")
	for _, m := range []*memoryFiles{m, again} {
		follower := seedFrom(t, f, readied(t, m))
		e := copyAdopter(t, follower)
		c, err := e.Adopt(t.Context(), m.report.Coordinates)
		require.NoError(t, err)
		require.Equal(t, m.report.Coordinates.GTID, c.GTID)
		follow(t, copyAdopter(t, follower), c, up)
		sameRows(t, p, follower)
		sameTables(t, p, follower)
	}
}

// The copy of a follower knows where that was in its upstream, by GTID or without, and follows the same one, or the follower.
func TestCopyOfFollower(t *testing.T) {
	t.Parallel()
	f := flavours()[0].with("log_slave_updates=ON")
	p, up := primary(t, f)
	p.Exec(t, "GRANT BINLOG MONITOR ON *.* TO repl@'%'")
	for _, gtid := range []string{"slave_pos", "no"} {
		t.Run("MASTER_USE_GTID="+gtid, func(t *testing.T) {
			m, report := dumpMemory(t, options(t, p))
			s := seed(t, f, m.Source(report), up)
			if gtid == "no" {
				s.Exec(t, "STOP SLAVE", "CHANGE MASTER TO MASTER_USE_GTID=no", "START SLAVE")
			}
			p.Exec(t, "INSERT INTO d.t (v) VALUES ('followed')")
			sameRows(t, p, s)
			c := copied(t, copyOptions(t, s))
			at := c.report.Coordinates
			require.Equal(t, s.Value(t, "SELECT @@server_id"), at.Server)
			require.NotNil(t, at.Upstream)
			require.Equal(t, up.Port, at.Upstream.Port)
			require.True(t, at.Upstream.Running)
			require.Empty(t, at.OtherUpstreams)
			require.Equal(t, gtid == "slave_pos", at.Upstream.GTID != "", "%+v", at.Upstream)
			require.Equal(t, gtid == "no", at.Upstream.File != "" && at.Upstream.Position > 0, "%+v", at.Upstream)
			p.Exec(t, "INSERT INTO d.t (v) VALUES ('after')")
			volume := readied(t, c)
			for _, whom := range []dbdump.Upstream{up, upstreamAt(s)} {
				twin := seedFrom(t, f, volume)
				adopted, err := copyAdopter(t, twin).Adopt(t.Context(), at)
				require.NoError(t, err)
				follow(t, copyAdopter(t, twin), adopted, whom)
				p.Exec(t, "INSERT INTO d.t (v) VALUES ('later')")
				sameRows(t, p, twin)
				require.Equal(t, "SLAVESIDE_DISABLED", twin.Value(t, "SELECT STATUS FROM information_schema.EVENTS WHERE EVENT_NAME='tick'"))
				twin.Stop(t)
			}
		})
	}
}

// Files that lack what their record says are not adopted.
func TestCopyAdoptRefused(t *testing.T) {
	t.Parallel()
	s := servers.MariaDB(t)
	at := record.Coordinates{Server: "1", GTID: "0-1-5", Upstream: &record.UpstreamCoordinates{Host: "h", Port: 3306, GTID: "0-9-7"}}
	_, err := copyAdopter(t, s).Adopt(t.Context(), at)
	require.ErrorIs(t, err, dbdump.ErrCoordinates)
	require.ErrorContains(t, err, "0-9-7")
	_, err = copyAdopter(t, s).Adopt(t.Context(), record.Coordinates{})
	require.ErrorContains(t, err, "no record of where the server was")
	o := options(t, s)
	o.Load = LoadOptions{Copied: true, DataDirectory: "/var/lib/elsewhere"}
	_, err = newEngine(t, o).Adopt(t.Context(), record.Coordinates{Server: "1"})
	require.ErrorIs(t, err, dbdump.ErrMismatch, "the image has made a new database, beside the files")
	require.ErrorContains(t, err, "--data-directory")
}

// What a seed pod does before its database starts on a copy: it is prepared by the image's own program, which has to say
// that it completed, and is none afterwards.
func TestPrepareCopy(t *testing.T) {
	t.Parallel()
	script, arguments := PrepareCopy()
	_, want := PrepareFiles()
	require.Equal(t, want, arguments)
	run := func(path, volume string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "sh", "-ec", script, "keepset", volume)
		cmd.Env = []string{"PATH=" + path + ":/usr/bin:/bin"}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	genuine := filepath.Dir(servers.Tool(t, backupProgram))
	s := servers.MariaDB(t)
	s.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (a INT)", "INSERT INTO d.t VALUES (42)")
	m := copied(t, copyOptions(t, s))
	volume := t.TempDir()
	o := CopyRestore{Path: volume + "/data", Workers: 1}
	_, err := o.Restore(t.Context(), m)
	require.NoError(t, err)

	silent := t.TempDir()
	require.NoError(t, os.WriteFile(silent+"/"+backupProgram, []byte("#!/bin/sh\necho completed nothing\n"), 0o700)) //nolint:gosec // a program
	said, err := run(silent, volume)
	require.Error(t, err, said)
	require.Contains(t, said, "did not say that it completed")
	require.FileExists(t, o.Path+"/xtrabackup_checkpoints")
	said, err = run("/nowhere", volume)
	require.Error(t, err, said)
	require.Contains(t, said, "this image has no mariadb-backup")

	said, err = run(genuine, volume)
	require.NoError(t, err, said)
	require.Contains(t, said, completed)
	require.NoFileExists(t, o.Path+"/xtrabackup_checkpoints")
	other := servers.MariaDB(t, servers.WithConfig("innodb_doublewrite=ON"))
	restartOn(t, other, volume)
	require.Equal(t, "42", other.Value(t, "SELECT a FROM d.t"))

	said, err = run(genuine, volume)
	require.Error(t, err)
	require.Contains(t, said, "no copy of a server")
}
