package mysql

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/test/servers"
)

// countSink counts bytes and forgets them.
type countSink struct{ bytes atomic.Int64 }

type countStream struct{ sink *countSink }

func (s *countSink) Create(context.Context, string, dbdump.StreamOptions) (dbdump.Stream, error) {
	return countStream{s}, nil
}

func (s countStream) Write(p []byte) (int, error) {
	s.sink.bytes.Add(int64(len(p)))
	return len(p), nil
}
func (countStream) Close() error { return nil }
func (countStream) Abort(error)  {}

func TestRowsLargerThan64MiB(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		s.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, a LONGBLOB, b LONGTEXT CHARACTER SET latin1)")
		const size = 70 << 20
		s.Exec(t, fmt.Sprintf("INSERT INTO app.t VALUES (1, REPEAT('x', %d), 'y'), (2, REPEAT('\\n', 1000), REPEAT('z', %d))", size, size))
		sink := &countSink{}
		report, err := tryDump(t, options(t, s), sink)
		require.NoError(t, err)
		require.EqualValues(t, 2, object(t, report, KindTable, "app", "t").Rows)
		require.Greater(t, sink.bytes.Load(), int64(2*size))
	}, "max_allowed_packet=256M")
}

func TestManyTables(t *testing.T) {
	t.Parallel()
	eachServer(t, families(), func(t *testing.T, s *servers.MySQL) {
		tables := manyTables(1000)
		var b strings.Builder
		b.WriteString("CREATE DATABASE many;")
		for i := range tables {
			fmt.Fprintf(&b, "CREATE TABLE many.t%05d (id INT PRIMARY KEY, v INT);", i)
			if i%100 == 0 {
				fmt.Fprintf(&b, "INSERT INTO many.t%05d VALUES (1, %d);", i, i)
			}
		}
		s.Exec(t, b.String())
		questions := func() int {
			var n int
			_, err := fmt.Sscan(s.Value(t, "SELECT VARIABLE_VALUE FROM "+statusTable(t, s)+" WHERE VARIABLE_NAME = 'Questions'"), &n)
			require.NoError(t, err)
			return n
		}
		before := questions()
		start := time.Now()
		sink, report := dumpWith(t, options(t, s))
		t.Logf("measured: %d tables dumped in %s", tables, time.Since(start).Round(time.Millisecond))
		require.Less(t, questions()-before, 5*tables+500, "a fixed number of queries per table, none on information_schema")
		require.EqualValues(t, tables/100, report.Rows)
		require.Len(t, object(t, report, KindTable, "many", "t00100").Data, 1)
		require.Contains(t, sink.text(t, "schemas/many/tables/t00999.sql"), "CREATE TABLE `t00999`")
	}, "innodb_flush_log_at_trx_commit=0", "sync_binlog=0", "table_open_cache=4000")
}

func statusTable(t testing.TB, s *servers.MySQL) string {
	t.Helper()
	if strings.Contains(s.Value(t, "SELECT VERSION()"), "MariaDB") {
		return "information_schema.GLOBAL_STATUS"
	}
	return "performance_schema.global_status"
}

// cuttingProxy passes bytes on until as many have come from the server as it
// is told, then resets all connections.
func cuttingProxy(t testing.TB, target string, after int64) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	var passed atomic.Int64
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", target)
			if err != nil {
				_ = client.Close()
				continue
			}
			go func() { _, _ = io.Copy(server, client); _ = server.Close() }()
			go func() {
				buf := make([]byte, 4096)
				for {
					n, err := server.Read(buf)
					if err != nil || passed.Add(int64(n)) > after {
						break
					}
					if _, err := client.Write(buf[:n]); err != nil {
						break
					}
				}
				_ = client.Close()
				_ = server.Close()
			}()
		}
	}()
	return l.Addr().String()
}

// Wherever the connection is cut, the dump fails; it never looks short.
func TestACutConnectionIsAnError(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		s.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, v VARCHAR(200))",
			"INSERT INTO app.t SELECT seq, REPEAT('x', 100) FROM (WITH RECURSIVE n (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq < 900) SELECT seq FROM n) x")
		whole := &countSink{}
		direct := options(t, s)
		direct.Workers = 2
		want, err := tryDump(t, direct, whole)
		require.NoError(t, err)
		succeeded := 0
		for after := int64(2000); after < 400000; after += after/6 + 1 {
			o := direct
			o.Address = cuttingProxy(t, s.Addr, after)
			o.Logger = nil
			report, err := tryDump(t, o, &countSink{})
			if err == nil {
				succeeded++
				require.Equal(t, want.Rows, report.Rows)
				continue
			}
			require.Zero(t, succeeded, "cut after %d bytes", after)
		}
		require.Positive(t, succeeded, "the last ones were not cut at all")
	})
}
