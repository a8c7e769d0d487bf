package mysql

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/dbdumptest"
	"keepset/internal/record"
)

// Rows longer than 64 MiB arrive, by either method where the server takes such statements; where it does not, the
// error says what to change.
func TestLoadRowsLargerThan64MiB(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			const size = 66 << 20
			source := f.server(t, "max_allowed_packet=256M")
			source.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, a LONGBLOB, b LONGTEXT CHARACTER SET latin1)",
				fmt.Sprintf("INSERT INTO d.t VALUES (1, REPEAT('x\\'', %d), 'y'), (2, 'small', REPEAT('z', %d))", size/2, size))
			m, report := dumpMemory(t, options(t, source))
			const query = "SELECT GROUP_CONCAT(CONCAT(id, ' ', SHA2(a, 256), ' ', SHA2(b, 256)) ORDER BY id) FROM d.t"
			for _, rows := range []RowMethod{RowsLoadData, RowsInsert} {
				target := f.server(t, "max_allowed_packet=256M", "local_infile=ON")
				o := options(t, target)
				o.Load.Rows = rows
				_, err := loadWith(t, o, m, report)
				require.NoError(t, err, rows)
				require.Equal(t, source.Value(t, query), target.Value(t, query), rows)
			}
			small := f.server(t, "max_allowed_packet=16M", "local_infile=OFF")
			_, err := loadWith(t, options(t, small), m, report)
			require.ErrorContains(t, err, "raise max_allowed_packet")
		})
	}
}

// manyTables is how many tables a test makes: a sample, or as many as promised in a soak.
func manyTables(sample int) int {
	if os.Getenv("KEEPSET_SOAK") != "" {
		return 10000
	}
	return sample
}

// A load of very many tables takes a few statements for each, and no session per table.
func TestLoadManyTables(t *testing.T) {
	t.Parallel()
	for _, f := range families() {
		t.Run(f.String(), func(t *testing.T) {
			n := manyTables(300)
			config := []string{"innodb_flush_log_at_trx_commit=0", "sync_binlog=0", "table_open_cache=4000"}
			source := f.server(t, config...)
			var b strings.Builder
			b.WriteString("CREATE DATABASE many;")
			for i := range n {
				fmt.Fprintf(&b, "CREATE TABLE many.t%05d (id INT PRIMARY KEY, v INT, KEY (v));", i)
				if i%10 == 0 {
					fmt.Fprintf(&b, "INSERT INTO many.t%05d VALUES (1, %d);", i, i)
				}
			}
			source.Exec(t, b.String())
			m, report := dumpMemory(t, options(t, source))
			target := f.server(t, config...)
			status := func(name string) int {
				value, err := strconv.Atoi(target.Value(t, "SELECT VARIABLE_VALUE FROM "+statusTable(t, target)+" WHERE VARIABLE_NAME='"+name+"'"))
				require.NoError(t, err)
				return value
			}
			questions, connections := status("Questions"), status("Connections")
			start := time.Now()
			_, err := loadWith(t, options(t, target), m, report)
			require.NoError(t, err)
			t.Logf("measured: %d tables loaded in %s", n, time.Since(start).Round(time.Millisecond))
			require.Equal(t, strconv.Itoa(n), target.Value(t, "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA='many'"))
			require.Less(t, status("Questions")-questions, 15*n+500)
			require.Less(t, status("Connections")-connections, 30)
		})
	}
}

// endless is a source with one table whose rows are made up as they are read.
type endless struct {
	*dbdumptest.Source
	stream string
	line   string
	rows   int64
}

func (e endless) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	if name != e.stream {
		return e.Source.Open(ctx, name)
	}
	return io.NopCloser(&lineReader{line: e.line, left: e.rows * int64(len(e.line))}), nil
}

// lineReader repeats a line.
type lineReader struct {
	line string
	left int64
	at   int
}

func (r *lineReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := 0
	for n < len(p) && r.left > 0 {
		c := copy(p[n:], r.line[r.at:])
		n, r.left, r.at = n+c, r.left-int64(c), (r.at+c)%len(r.line)
	}
	return n, nil
}

// What a load keeps in memory does not depend on how much it loads: half a gigabyte passes through a few megabytes.
func TestLoadMemoryIsBounded(t *testing.T) {
	for _, rows := range []RowMethod{RowsLoadData, RowsInsert} {
		t.Run(string(rows), func(t *testing.T) {
			f := mariadb1011
			s := f.server(t, "skip_log_bin")
			m := dbdumptest.NewMemory()
			put := func(name, text string) {
				w, err := m.Create(t.Context(), name, dbdump.StreamOptions{})
				require.NoError(t, err)
				_, err = io.WriteString(w, text)
				require.NoError(t, err)
				require.NoError(t, w.Close())
			}
			put("schema.sql", "CREATE DATABASE d;\n")
			put("t.sql", "CREATE TABLE `t` (`a` int, `b` text) ENGINE=BLACKHOLE;\n")
			line := "1\t" + strings.Repeat("0123456789abcdef", 64) + "\n"
			count := int64(512<<20) / int64(len(line))
			report := record.Report{Engine: "mysql", Layout: Layout, Flavor: f.name, Version: "10.11.0", Objects: []record.Object{
				{Kind: KindSchema, Schema: "d", Name: "d", DDL: "schema.sql", Rows: -1},
				{
					Kind: KindTable, Schema: "d", Name: "t", DDL: "t.sql", Data: []string{"rows"}, Rows: count,
					Columns: []record.Column{{Name: "a"}, {Name: "b"}}, Attributes: map[string]string{AttrEngine: "BLACKHOLE"},
				},
			}}
			s.Exec(t, "INSTALL SONAME 'ha_blackhole'")
			o := options(t, s)
			o.Load.Rows = rows
			e := newEngine(t, o)
			debug.FreeOSMemory()
			var before runtime.MemStats
			runtime.ReadMemStats(&before)
			var peak atomic.Uint64
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				for ctx.Err() == nil {
					var now runtime.MemStats
					runtime.ReadMemStats(&now)
					peak.Store(max(peak.Load(), now.HeapInuse))
					time.Sleep(10 * time.Millisecond)
				}
			}()
			_, err := e.Load(t.Context(), endless{Source: m.Source(report), stream: "rows", line: line, rows: count})
			cancel()
			<-done
			// A black hole holds no rows when they are counted.
			require.ErrorContains(t, err, fmt.Sprintf("has 0 rows, the backup has %d", count))
			require.Less(t, int64(peak.Load()-min(peak.Load(), before.HeapInuse)), int64(48<<20))
		})
	}
}

// A piece that the server gave up for a deadlock is loaded again, a few times; anything else is not.
func TestAgain(t *testing.T) {
	l := &loader{log: slog.New(slog.DiscardHandler)}
	run := func(results ...error) (calls int, err error) {
		err = l.again(t.Context(), func() error {
			calls++
			return results[min(calls, len(results))-1]
		})
		return calls, err
	}
	deadlock := &mysqldriver.MySQLError{Number: errDeadlock}
	calls, err := run(deadlock, deadlock, nil)
	require.NoError(t, err)
	require.Equal(t, 3, calls)
	calls, err = run(errors.New("other"))
	require.ErrorContains(t, err, "other")
	require.Equal(t, 1, calls)
	calls, err = run(deadlock)
	require.ErrorIs(t, err, deadlock)
	require.Equal(t, 10, calls)
}
