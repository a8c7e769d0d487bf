package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/filetree"
	"keepset/internal/record"
	"keepset/test/servers"
)

// memoryTree keeps the streams of a tree.
type memoryTree struct {
	mu      sync.Mutex
	streams map[string]*memoryStream
	report  record.Report
}

type memoryStream struct {
	bytes.Buffer
	closed, aborted bool
}

func (s *memoryStream) Section(string, []byte) error        { return nil }
func (s *memoryStream) Reuse(string, []byte) (int64, error) { return 0, nil }
func (s *memoryStream) Forget()                             {}
func (s *memoryStream) Cut() error                          { return nil }
func (s *memoryStream) Close() error                        { s.closed = true; return nil }
func (s *memoryStream) Abort(error)                         { s.aborted = true }

func (m *memoryTree) Create(_ context.Context, name string) (filetree.Stream, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.streams[name] != nil {
		return nil, fmt.Errorf("stream %s twice", name)
	}
	m.streams[name] = &memoryStream{}
	return m.streams[name], nil
}

func (m *memoryTree) Report() record.Report { return m.report }

func (m *memoryTree) Streams() (names []string) {
	for name := range m.streams {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (m *memoryTree) Open(_ context.Context, name string) (io.ReadCloser, error) {
	s := m.streams[name]
	if s == nil || !s.closed {
		return nil, fmt.Errorf("no whole stream %s", name)
	}
	return io.NopCloser(bytes.NewReader(s.Bytes())), nil
}

// copied takes a base backup, which must succeed, and ends every stream whole.
func copied(t *testing.T, o Options) *memoryTree {
	t.Helper()
	m := &memoryTree{streams: map[string]*memoryStream{}}
	var err error
	m.report, err = newEngine(t, o).Copy(t.Context(), m)
	require.NoError(t, err)
	for name, s := range m.streams {
		require.True(t, s.closed && !s.aborted, name)
	}
	return m
}

// A server's files are copied while it is written to. A server that is started
// on them has all that was there before, is one state of what was written
// meanwhile, and is what the server's own verifier takes for whole; another one
// follows the first, and catches up with what was written afterwards.
func TestBaseBackup(t *testing.T) {
	for _, v := range versions() {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			s := v.start(t, servers.WithPostgresConfig("full_page_writes=on")) // without, no backup can be taken of a standby
			fill(t, s)
			space := t.TempDir()
			s.Exec(t, "postgres", "CREATE TABLESPACE other LOCATION '"+space+"'", "CREATE DATABASE bank")
			s.Exec(t, "bank", "CREATE TABLE account (id int PRIMARY KEY, n bigint)", "INSERT INTO account SELECT g, 100 FROM generate_series(1, 1000) g",
				"CREATE TABLE far (id int, v text) TABLESPACE other", "INSERT INTO far SELECT g, repeat('v', 500) FROM generate_series(1, 20000) g")
			still := describe(t, s, false)

			ctx, stop := context.WithCancel(t.Context())
			var transfers sync.WaitGroup
			transfers.Go(func() {
				conn := s.Connect(t, "bank")
				for i := 0; ctx.Err() == nil; i++ {
					sql := fmt.Sprintf("UPDATE account SET n = n - 1 WHERE id = %d; UPDATE account SET n = n + 1 WHERE id = %d", 1+i%1000, 1+(i*7+1)%1000)
					if _, err := conn.Exec(context.Background(), "BEGIN; "+sql+"; COMMIT").ReadAll(); err != nil {
						t.Error(err)
						return
					}
				}
			})
			m := copied(t, options(s))
			stop()
			transfers.Wait()
			r := m.report
			assert.Equal(t, BaseLayout, r.Layout)
			assert.Len(t, r.Objects, 2)
			assert.Len(t, r.Coordinates.File, 24)
			assert.NotZero(t, r.Coordinates.Position)
			assert.Contains(t, strings.Join(r.Omitted, "\n"), "unlogged")

			require.Equal(t, "other", Tablespaces(r)[0].Name)
			mapped, seen := t.TempDir(), filepath.Join(t.TempDir(), "seen")
			require.NoError(t, os.Symlink(mapped, seen), "where the server sees it under another name")
			o := BaseRestore{
				Tablespaces: map[string]string{space: filepath.Join(mapped, "primary")}, Seen: map[string]string{space: filepath.Join(seen, "primary")}, Workers: 2, NoOwner: true,
			}
			alone := s.On(t, func(data string) error {
				o.Path = data
				if _, err := o.Restore(t.Context(), m); err != nil {
					return err
				}
				return s.Run(t.Context(), "pg_verifybackup", data)
			})
			assert.Equal(t, "f", alone.Value(t, "postgres", "SELECT pg_is_in_recovery()"))
			assert.Equal(t, "100000", alone.Value(t, "bank", "SELECT sum(n) FROM account"), "one state")
			assert.Equal(t, "20000", alone.Value(t, "bank", "SELECT count(*) FROM far WHERE v = repeat('v', 500)"))
			assert.Equal(t, o.Seen[space], alone.Value(t, "bank", "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'other'"))
			now := describe(t, alone, false)
			for name, content := range still {
				if name != "bank rows" {
					assert.Equal(t, strings.Replace(content, "public.unlogged|(7)\n", "", 1), now[name], name)
				}
			}

			standby := BaseRestore{
				Tablespaces: map[string]string{space: filepath.Join(mapped, "standby")}, Workers: 2, NoOwner: true, // the server runs in a user namespace
				Upstream: &dbdump.Upstream{Host: s.Host, Port: s.Port, User: s.User, Password: s.Password},
			}
			require.NoError(t, newEngine(t, options(s)).CanFollow(t.Context(), r.Coordinates, ""))
			follower := s.On(t, func(data string) error {
				standby.Path = data
				_, err := standby.Restore(t.Context(), m)
				return err
			})
			s.Exec(t, "bank", "INSERT INTO account VALUES (2000, 0)")
			require.Eventually(t, func() bool {
				return follower.Value(t, "bank", "SELECT count(*) FROM account WHERE id = 2000") == "1"
			}, time.Minute, 100*time.Millisecond)
			assert.Equal(t, "t", follower.Value(t, "postgres", "SELECT pg_is_in_recovery()"))

			// From a standby: its files make a primary again, and the backup says whom it followed.
			second := copied(t, options(follower))
			require.NotNil(t, second.report.Coordinates.Upstream)
			o.Tablespaces, o.Seen = map[string]string{standby.Tablespaces[space]: filepath.Join(mapped, "again")}, nil
			again := s.On(t, func(data string) error {
				o.Path = data
				_, err := o.Restore(t.Context(), second)
				return err
			})
			assert.Equal(t, "f", again.Value(t, "postgres", "SELECT pg_is_in_recovery()"))
			assert.Equal(t, "1", again.Value(t, "bank", "SELECT count(*) FROM account WHERE id = 2000"))
			assert.Empty(t, again.Value(t, "postgres", "SHOW primary_conninfo"))
			again.Exec(t, "bank", "INSERT INTO account VALUES (3000, 0)")
		})
	}
}

// What a server refuses is said with its remedy.
func TestBaseBackupRefusals(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config []string
		access []string
		sql    string
		user   string
		want   string
		is     error
	}{
		"account":    {sql: "CREATE ROLE plain LOGIN PASSWORD 'x'", user: "plain", want: "ALTER ROLE <account> REPLICATION", is: dbdump.ErrPrivilege},
		"wal level":  {config: []string{"wal_level=minimal", "max_wal_senders=0"}, want: "wal_level is minimal"},
		"no access":  {access: []string{"host postgres postgres all reject", "host template1 postgres all reject"}, want: "pg_hba.conf rejects connection", is: dbdump.ErrAccess},
		"no senders": {config: []string{"max_wal_senders=0"}, want: "raise max_wal_senders"},
		"no slots":   {config: []string{"max_replication_slots=0"}, want: "raise max_replication_slots"},
		"access":     {access: []string{"host replication all all reject"}, want: "host replication <account>", is: dbdump.ErrAccess},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := servers.Postgres15(t, servers.WithPostgresConfig(c.config...), servers.WithPostgresAccess(c.access...))
			o := options(s)
			if c.sql != "" {
				s.Exec(t, "postgres", c.sql)
				o.User, o.Password = c.user, "x"
			}
			m := &memoryTree{streams: map[string]*memoryStream{}}
			_, err := newEngine(t, o).Copy(t.Context(), m)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, s.Addr)
			require.Equal(t, name == "access", strings.Contains(err.Error(), "allow it in pg_hba.conf"), "the right remedy or none: %v", err)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
			for name, stream := range m.streams {
				require.False(t, stream.closed, name)
			}
		})
	}
}

// faulty passes bytes between a client and a server, and does something to those
// that come from the server after so many.
func faulty(t *testing.T, server string, after int64, fault func(p []byte) (rest []byte, cut bool)) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			up, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", server)
			if err != nil {
				_ = client.Close()
				return
			}
			go func() { _, _ = io.Copy(up, client); _ = up.Close() }()
			go func() {
				defer client.Close() //nolint:errcheck // of the test
				passed, buf, done := int64(0), make([]byte, 64<<10), false
				for {
					n, err := up.Read(buf)
					p := buf[:n]
					if passed += int64(n); passed > after && !done {
						var cut bool
						if p, cut = fault(p); cut {
							_ = up.Close()
							return
						}
						done = true
					}
					if _, werr := client.Write(p); err != nil || werr != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// A connection that is cut, and a byte that is turned on the way, are no backup.
func TestBaseBackupHarmed(t *testing.T) {
	t.Parallel()
	s := servers.Postgres15(t)
	s.Exec(t, "postgres", "CREATE TABLE big AS SELECT g, repeat('abcdefgh', 100) AS v FROM generate_series(1, 30000) g", "CHECKPOINT")
	for name, c := range map[string]struct {
		fault func(p []byte) ([]byte, bool)
		want  string
	}{
		"cut": {func([]byte) ([]byte, bool) { return nil, true }, "EOF"},
		"flipped": {func(p []byte) ([]byte, bool) {
			if i := bytes.LastIndex(p, []byte("abcdefghabcdefgh")); i >= 0 {
				p[i] = 'x'
			} else {
				p[len(p)-1] ^= 1
			}
			return p, false
		}, "checksum"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(s)
			o.Address = faulty(t, s.Addr, 15<<20, c.fault)
			m := &memoryTree{streams: map[string]*memoryStream{}}
			_, err := newEngine(t, o).Copy(t.Context(), m)
			require.ErrorContains(t, err, c.want)
			t.Log(err)
			require.False(t, m.streams["tree/3-others.tar"].closed && m.streams[manifestStream] != nil && m.streams[manifestStream].closed)
		})
	}
}

// Whether a standby can follow is asked before anything is touched.
func TestCanFollow(t *testing.T) {
	t.Parallel()
	s := servers.Postgres15(t, servers.WithPostgresConfig("wal_keep_size=0", "min_wal_size=32MB", "max_wal_size=32MB"))
	m := copied(t, options(s))
	at := m.report.Coordinates
	require.NoError(t, newEngine(t, options(s)).CanFollow(t.Context(), at, ""))

	stranger := at
	stranger.Server = "1"
	require.ErrorIs(t, newEngine(t, options(s)).CanFollow(t.Context(), stranger, ""), dbdump.ErrCoordinates)
	ahead := at
	ahead.Position += 1 << 33
	ahead.File = walFile(ahead.Position, 1, 16<<20)
	err := newEngine(t, options(s)).CanFollow(t.Context(), ahead, "")
	require.ErrorIs(t, err, dbdump.ErrCoordinates)
	require.ErrorContains(t, err, "behind the backup")
	err = newEngine(t, options(s)).CanFollow(t.Context(), at, "nobody")
	require.ErrorIs(t, err, dbdump.ErrCoordinates)
	require.ErrorContains(t, err, "pg_create_physical_replication_slot('nobody', true)")
	s.Exec(t, "postgres", "SELECT pg_create_physical_replication_slot('somebody', true)")
	require.NoError(t, newEngine(t, options(s)).CanFollow(t.Context(), at, "somebody"))
	other, err := newEngine(t, options(s)).replication(t.Context())
	require.NoError(t, err)
	other.conn.Frontend().SendQuery(&pgproto3.Query{String: "START_REPLICATION SLOT somebody PHYSICAL " + s.Value(t, "postgres", "SELECT pg_current_wal_lsn()")})
	require.NoError(t, other.conn.Frontend().Flush())
	taken := func() bool {
		return errors.Is(newEngine(t, options(s)).CanFollow(t.Context(), at, "somebody"), ErrSlotInUse)
	}
	require.Eventually(t, taken, time.Minute, 50*time.Millisecond)
	other.abandon()
	require.Eventually(t, func() bool { return newEngine(t, options(s)).CanFollow(t.Context(), at, "somebody") == nil }, time.Minute, 50*time.Millisecond)
	s.Exec(t, "postgres", "SELECT pg_drop_replication_slot('somebody')")

	// The backup has its own last file, so that the server need not keep that.
	s.Exec(t, "postgres", "CREATE TABLE u (a int)", "CHECKPOINT", "INSERT INTO u VALUES (1)", "CHECKPOINT")
	require.Equal(t, "0", s.Value(t, "postgres", "SELECT count(*) FROM pg_ls_waldir() WHERE name = '"+at.File+"'"))
	require.NoError(t, newEngine(t, options(s)).CanFollow(t.Context(), at, ""))

	for range 8 {
		s.Exec(t, "postgres", "SELECT pg_switch_wal()", "CREATE TABLE IF NOT EXISTS t (a int)", "INSERT INTO t VALUES (1)", "CHECKPOINT")
	}
	err = newEngine(t, options(s)).CanFollow(t.Context(), at, "")
	require.ErrorIs(t, err, dbdump.ErrCoordinates)
	require.ErrorContains(t, err, "has already been removed")
}

// A server that was promoted before the end of the backup has another history,
// and one that was promoted afterwards the same.
func TestCanFollowPromoted(t *testing.T) {
	t.Parallel()
	s := servers.Postgres15(t)
	s.Exec(t, "postgres", "CREATE TABLE t (a int)")
	standby, heir := s.Standby(t), s.Standby(t)
	standby.Exec(t, "postgres", "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
	require.Eventually(t, func() bool { return standby.Value(t, "postgres", "SELECT count(*) FROM pg_stat_wal_receiver") == "0" }, time.Minute, 50*time.Millisecond)
	s.Exec(t, "postgres", "INSERT INTO t SELECT generate_series(1, 1000)")
	m := copied(t, options(s))
	at := m.report.Coordinates

	err := newEngine(t, options(standby)).CanFollow(t.Context(), at, "")
	require.ErrorIs(t, err, dbdump.ErrCoordinates)
	require.ErrorContains(t, err, "behind the backup")
	standby.Exec(t, "postgres", "SELECT pg_promote()", "CREATE TABLE u AS SELECT generate_series(1, 100000) a", "SELECT pg_switch_wal()", "CHECKPOINT",
		"CREATE TABLE v AS SELECT generate_series(1, 100000) a", "SELECT pg_switch_wal()", "CREATE TABLE w AS SELECT generate_series(1, 100000) a")
	err = newEngine(t, options(standby)).CanFollow(t.Context(), at, "")
	require.ErrorIs(t, err, dbdump.ErrCoordinates)
	require.ErrorContains(t, err, "another history")

	require.Eventually(t, func() bool { return newEngine(t, options(heir)).CanFollow(t.Context(), at, "") == nil }, time.Minute, 100*time.Millisecond)
	heir.Exec(t, "postgres", "SELECT pg_promote()", "INSERT INTO t VALUES (4711)")
	require.NoError(t, newEngine(t, options(heir)).CanFollow(t.Context(), at, ""))
	o := BaseRestore{Workers: 2, NoOwner: true, Upstream: &dbdump.Upstream{Host: heir.Host, Port: heir.Port, User: heir.User, Password: heir.Password}}
	follower := s.On(t, func(data string) error {
		o.Path = data
		_, err := o.Restore(t.Context(), m)
		return err
	})
	require.Eventually(t, func() bool { return follower.Value(t, "postgres", "SELECT count(*) FROM t WHERE a = 4711") == "1" }, time.Minute, 100*time.Millisecond)

	// Files of a server that is on its second timeline, and just there.
	second := copied(t, options(heir))
	require.True(t, strings.HasPrefix(second.report.Coordinates.File, "00000002"), second.report.Coordinates.File)
	require.ErrorIs(t, newEngine(t, options(s)).CanFollow(t.Context(), second.report.Coordinates, ""), dbdump.ErrCoordinates)
}

// What the server leaves out or warns of is a doubt; the owner of everything is
// the data directory's; a copy does not write into the original's archive.
func TestBaseBackupDetails(t *testing.T) {
	t.Parallel()
	s := servers.Postgres15(t, servers.WithPostgresConfig("archive_mode=on", "archive_command='true'"))
	elsewhere := t.TempDir()
	require.NoError(t, os.Symlink(elsewhere, filepath.Join(s.DataDir, "base", "4242")))
	m := copied(t, options(s))
	require.Len(t, m.report.Doubts, 1)
	require.Contains(t, m.report.Doubts[0], `base/4242`)

	target := t.TempDir()
	o := BaseRestore{Path: filepath.Join(t.TempDir(), "link"), Workers: 2}
	require.NoError(t, os.Symlink(target, o.Path))
	r, err := o.Restore(t.Context(), m)
	require.NoError(t, err)
	require.Contains(t, strings.Join(r.Warnings, "\n"), "archive_mode is off")
	settings, err := os.ReadFile(filepath.Join(target, settingsFile))
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(string(settings), "archive_mode = off\n"), string(settings))
	owner := func(name string) uint32 {
		info, err := os.Stat(filepath.Join(target, name))
		require.NoError(t, err)
		return info.Sys().(*syscall.Stat_t).Uid //nolint:errcheck // what os.Stat gives on Linux
	}
	for _, name := range []string{".", "PG_VERSION", controlFile, settingsFile, manifestStream} {
		require.Equal(t, owner("PG_VERSION"), owner(name), name)
	}
	if os.Geteuid() == 0 {
		require.EqualValues(t, 1000, owner("PG_VERSION"), "what root is called where the server runs")
	}
}

// broken gives out a stream but for its end, and then an error.
type broken struct{ *memoryTree }

func (b broken) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	r, err := b.memoryTree.Open(ctx, name)
	if err != nil || name != "tree/2-files/000000.tar" {
		return r, err
	}
	return io.NopCloser(io.MultiReader(io.LimitReader(r, int64(b.streams[name].Len()-1)), iotest.ErrReader(errors.New("the store is gone")))), nil
}

// A restore that was cut off leaves nothing that a server would start on, and
// nothing that a backup holds leads out of its directory.
func TestBaseRestoreHarmed(t *testing.T) {
	t.Parallel()
	s := servers.Postgres15(t)
	m := copied(t, options(s))
	o := BaseRestore{Path: filepath.Join(t.TempDir(), "data"), Workers: 2, NoOwner: true}
	_, err := o.Restore(t.Context(), broken{m})
	require.ErrorContains(t, err, "the store is gone")
	require.NoFileExists(t, filepath.Join(o.Path, controlFile))

	evil := &memoryTree{streams: map[string]*memoryStream{}}
	w, err := filetree.NewWriter(t.Context(), evil)
	require.NoError(t, err)
	require.NoError(t, w.Add(&filetree.Entry{Name: "x", Kind: filetree.Symlink, Target: "/etc"}, nil))
	_, err = w.Close("")
	require.NoError(t, err)
	m.streams["tree/3-others.tar"] = evil.streams["tree/3-others.tar"]
	o.Path = filepath.Join(t.TempDir(), "data")
	_, err = o.Restore(t.Context(), m)
	require.ErrorIs(t, err, filetree.ErrArchive)
	require.ErrorContains(t, err, "more than files and directories")
}

// Where a base backup may not go is said before anything is touched.
func TestBaseRestoreRefusals(t *testing.T) {
	t.Parallel()
	tree := record.Object{Kind: filetree.KindTree, Name: "/space", Attributes: map[string]string{attrOID: "16400", attrLocation: "/space"}}
	r := record.Report{Layout: BaseLayout, Objects: []record.Object{tree, {Kind: filetree.KindTree, Attributes: map[string]string{}}}}
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(dir+"/a", 0o700))
	require.NoError(t, os.Symlink(dir+"/a", dir+"/link"))
	full := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(full, "x"), nil, 0o600))
	for want, o := range map[string]BaseRestore{
		"--tablespace /space=/dir":      {Path: dir + "/a"},
		"no tablespace that was in /no": {Path: dir + "/a", Tablespaces: map[string]string{"/space": dir + "/b", "/no": dir + "/c"}},
		"are not apart":                 {Path: dir + "/a", Tablespaces: map[string]string{"/space": dir + "/a"}},
		dir + "/a/b: that and":          {Path: dir + "/a", Tablespaces: map[string]string{"/space": dir + "/a/b"}},
		dir + "/link/b: that and":       {Path: dir + "/a", Tablespaces: map[string]string{"/space": dir + "/link/b"}},
		"into " + dir + ":":             {Path: dir + "/a", Tablespaces: map[string]string{"/space": dir}},
		`holds "x"`:                     {Path: full, Tablespaces: map[string]string{"/space": dir + "/b"}},
		full + ` holds`:                 {Path: dir + "/a", Tablespaces: map[string]string{"/space": full}},
		`"elsewhere" is no absolute`:    {Path: dir + "/a", Tablespaces: map[string]string{"/space": dir + "/b"}, Seen: map[string]string{"/space": "elsewhere"}},
	} {
		require.ErrorContains(t, o.Check(r), want)
	}
	ok := BaseRestore{Path: dir + "/a", Tablespaces: map[string]string{"/space": dir + "/b"}}
	require.NoError(t, ok.Check(r))
	evil := r
	evil.Objects = []record.Object{{Kind: filetree.KindTree, Attributes: map[string]string{attrOID: "../../x", attrLocation: "/space"}}}
	require.ErrorIs(t, ok.Check(evil), filetree.ErrArchive)
	evil.Layout = Layout
	require.ErrorIs(t, ok.Check(evil), filetree.ErrArchive)
}

const manifestExample = `{ "PostgreSQL-Backup-Manifest-Version": 2,
"System-Identifier": 7,
"Files": [
{ "Path": "PG_VERSION", "Size": 3, "Last-Modified": "2026-01-01 00:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "64440205" },
{ "Encoded-Path": "ff", "Size": 0, "Last-Modified": "2026-01-01 00:00:00 GMT" }
],
"WAL-Ranges": [
{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }
],
"Manifest-Checksum": "%s"}
`

// A manifest is what it was written as, or an error.
func FuzzManifest(f *testing.F) {
	var sum string
	_, err := readManifest(strings.NewReader(fmt.Sprintf(manifestExample, "")), func(*manifestFile) error { return nil })
	if _, after, ok := strings.Cut(fmt.Sprint(err), "its checksum is "); ok {
		sum, _, _ = strings.Cut(after, ",")
	}
	whole := fmt.Sprintf(manifestExample, sum)
	f.Add(whole)
	f.Add(whole[:len(whole)-10])
	f.Add("{}")
	f.Fuzz(func(t *testing.T, text string) {
		var names []string
		m, err := readManifest(strings.NewReader(text), func(file *manifestFile) error {
			name, err := file.path()
			names = append(names, name)
			return err
		})
		if err != nil {
			require.True(t, errors.Is(err, errManifest))
			return
		}
		require.Equal(t, m.files, len(names))
		if text == whole {
			require.Equal(t, []string{"PG_VERSION", "\xff"}, names)
		}
	})
	if _, err := readManifest(strings.NewReader(whole), func(*manifestFile) error { return nil }); err != nil {
		f.Error(err)
	}
}

// A position in the log is what it was written as, and the file that holds it
// begins at or before it.
func FuzzLSN(f *testing.F) {
	f.Add("0/2000028", uint64(1)<<24)
	f.Add("16/B374D848", uint64(1)<<20)
	f.Add("FFFFFFFF/FFFFFFFF", uint64(1)<<30)
	f.Add("0/0", uint64(3))
	f.Add("1/", uint64(0))
	f.Fuzz(func(t *testing.T, text string, segment uint64) {
		n, err := parseLSN(text)
		if err != nil {
			return
		}
		again, err := parseLSN(formatLSN(n))
		require.NoError(t, err)
		require.Equal(t, n, again)
		if segment < 1<<20 || segment > 1<<30 || segment&(segment-1) != 0 {
			return
		}
		timeline, first, size, err := segmentOf(record.Coordinates{Position: n, File: walFile(n, 7, segment)})
		require.NoError(t, err)
		require.EqualValues(t, 7, timeline)
		require.Equal(t, (max(n, 1)-1)/segment*segment, first)
		require.Zero(t, first%size)
	})
}
