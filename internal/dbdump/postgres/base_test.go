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
	"testing"
	"time"

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

			mapped := t.TempDir()
			o := BaseRestore{Tablespaces: map[string]string{space: filepath.Join(mapped, "primary")}, Workers: 2, NoOwner: true}
			alone := s.On(t, func(data string) error {
				o.Path = data
				if _, err := o.Restore(t.Context(), m); err != nil {
					return err
				}
				return s.Run(t.Context(), "pg_verifybackup", "--no-parse-wal", data)
			})
			assert.Equal(t, "f", alone.Value(t, "postgres", "SELECT pg_is_in_recovery()"))
			assert.Equal(t, "100000", alone.Value(t, "bank", "SELECT sum(n) FROM account"), "one state")
			assert.Equal(t, "20000", alone.Value(t, "bank", "SELECT count(*) FROM far WHERE v = repeat('v', 500)"))
			assert.Equal(t, o.Tablespaces[space], alone.Value(t, "bank", "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'other'"))
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
			o.Tablespaces = map[string]string{standby.Tablespaces[space]: filepath.Join(mapped, "again")}
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
		"wal level":  {config: []string{"wal_level=minimal", "max_wal_senders=0"}, want: "raise max_wal_senders"},
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
		}, ""},
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
	require.ErrorContains(t, err, "ahead of the WAL flush position")
	require.ErrorIs(t, newEngine(t, options(s)).CanFollow(t.Context(), at, "nobody"), dbdump.ErrCoordinates)

	for range 8 {
		s.Exec(t, "postgres", "SELECT pg_switch_wal()", "CREATE TABLE IF NOT EXISTS t (a int)", "INSERT INTO t VALUES (1)", "CHECKPOINT")
	}
	err = newEngine(t, options(s)).CanFollow(t.Context(), at, "")
	require.ErrorIs(t, err, dbdump.ErrCoordinates)
	require.ErrorContains(t, err, "has already been removed")
}

// Where a base backup may not go is said before anything is touched.
func TestBaseRestoreRefusals(t *testing.T) {
	t.Parallel()
	tree := record.Object{Kind: filetree.KindTree, Name: "/space", Attributes: map[string]string{attrOID: "16400", attrLocation: "/space"}}
	r := record.Report{Layout: BaseLayout, Objects: []record.Object{tree, {Kind: filetree.KindTree, Attributes: map[string]string{}}}}
	dir := t.TempDir()
	full := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(full, "x"), nil, 0o600))
	for want, o := range map[string]BaseRestore{
		"--tablespace /space=/dir":      {Path: dir + "/a"},
		"no tablespace that was in /no": {Path: dir + "/a", Tablespaces: map[string]string{"/space": dir + "/b", "/no": dir + "/c"}},
		"the place of the data dir":     {Path: dir + "/a", Tablespaces: map[string]string{"/space": dir + "/a"}},
		`holds "x"`:                     {Path: full, Tablespaces: map[string]string{"/space": dir + "/b"}},
		full + ` holds`:                 {Path: dir + "/a", Tablespaces: map[string]string{"/space": full}},
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
		timeline, first, err := segmentOf(record.Coordinates{Position: n, File: walFile(n, 7, segment)})
		require.NoError(t, err)
		require.EqualValues(t, 7, timeline)
		require.Equal(t, (max(n, 1)-1)/segment*segment, first)
	})
}
