package mysql

import (
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"keepset/test/servers"
)

// keyTypes are types of key columns, with generators of values as SQL.
func keyTypes() map[string]*rapid.Generator[string] {
	sprintf := func(format string) func(int64) string {
		return func(n int64) string { return fmt.Sprintf(format, n) }
	}
	edges := rapid.SampledFrom([]int64{-1 << 63, -1<<63 + 1, -1, 0, 1, 1<<63 - 1, 1<<63 - 2})
	text := rapid.StringOfN(rapid.SampledFrom([]rune("aAäÄbBß zZ0😀\\'\t")), 0, 6, -1)
	quoted := rapid.Map(text, func(s string) string { return quoteString(s) })
	return map[string]*rapid.Generator[string]{
		"BIGINT":          rapid.Map(rapid.OneOf(rapid.Int64(), edges, rapid.Int64Range(-50, 50)), sprintf("%d")),
		"BIGINT UNSIGNED": rapid.Map(rapid.OneOf(rapid.Uint64(), rapid.SampledFrom([]uint64{1 << 63, 1<<64 - 1, 0})), func(n uint64) string { return fmt.Sprint(n) }),
		"TINYINT":         rapid.Map(rapid.Int64Range(-128, 127), sprintf("%d")),
		"DECIMAL(30,5)":   rapid.Map(rapid.Int64(), sprintf("%d.00001")),
		"VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci": quoted,
		"VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin":        quoted,
		"CHAR(10) CHARACTER SET latin1 COLLATE latin1_german2_ci":      rapid.Map(rapid.StringOfN(rapid.SampledFrom([]rune("aäAosß ")), 0, 5, -1), func(s string) string { return quoteString(s) }),
		"VARBINARY(8)":                      rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0x20, 0x5c, 0xff}), 0, 6), func(b []byte) string { return "CAST(UNHEX('" + string(appendHex(nil, b)) + "') AS BINARY)" }),
		"BINARY(4)":                         rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0x20, 0x5c, 0xff}), 0, 4), func(b []byte) string { return "CAST(UNHEX('" + string(appendHex(nil, b)) + "') AS BINARY)" }),
		"DATETIME(3)":                       rapid.Map(rapid.Int64Range(0, 4000), func(n int64) string { return fmt.Sprintf("'2024-01-01' + INTERVAL %d * 1000 MICROSECOND", n) }),
		"DATE":                              rapid.Map(rapid.Int64Range(0, 4000), sprintf("'2024-01-01' + INTERVAL %d DAY")),
		"TIMESTAMP":                         rapid.Map(rapid.Int64Range(0, 100000), sprintf("'2024-03-31 00:00:00' + INTERVAL %d SECOND")),
		"TIME(2)":                           rapid.Map(rapid.Int64Range(-1000, 1000), sprintf("SEC_TO_TIME(%d)")),
		"DOUBLE":                            rapid.Map(rapid.Float64Range(-1e10, 1e10), func(f float64) string { return fmt.Sprintf("%.17g", f) }),
		"FLOAT":                             rapid.Map(rapid.Float64Range(-1000, 1000), func(f float64) string { return fmt.Sprintf("%.9g", f) }),
		"BIT(20)":                           rapid.Map(rapid.Int64Range(0, 1<<20-1), sprintf("%d")),
		"YEAR":                              rapid.Map(rapid.Int64Range(1901, 2155), sprintf("%d")),
		"ENUM('b','a','z','c','y','d','x')": rapid.Map(rapid.Int64Range(1, 7), sprintf("%d")),
		"SET('b','a','z','c')":              rapid.Map(rapid.Int64Range(0, 15), sprintf("%d")),
		"VARCHAR(10) CHARACTER SET sjis":    rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]string{"835C", "955C", "61", "20", "41"}), 0, 5), func(b []string) string { return "CONVERT(UNHEX('" + strings.Join(b, "") + "') USING sjis)" }),
		"VARCHAR(10) CHARACTER SET utf16":   rapid.Map(rapid.StringOfN(rapid.SampledFrom([]rune("aA 😀\\")), 0, 5, -1), func(s string) string { return quoteString(s) }),
	}
}

// Whatever the key is made of, the pieces together are the table: no row is
// lost at a boundary and none is there twice.
func TestPiecesTogetherAreTheTable(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		types := keyTypes()
		names := make([]string, 0, len(types))
		for name := range types {
			names = append(names, name)
		}
		slices.Sort(names)
		s.Exec(t, "CREATE DATABASE app")
		n, several := 0, 0
		expect := map[string]int{}
		rapid.Check(t, func(rt *rapid.T) {
			if n >= 60 {
				return // enough tables for one dump
			}
			n++
			var columns, keys []string
			var kinds []string
			for i := range rapid.IntRange(1, 3).Draw(rt, "columns of the key") {
				kind := names[(n+i*7)%len(names)]
				if i > 0 {
					kind = rapid.SampledFrom(names).Draw(rt, "type")
				}
				kinds = append(kinds, kind)
				columns = append(columns, fmt.Sprintf("k%d %s NOT NULL", i, kind))
				keys = append(keys, fmt.Sprintf("k%d", i))
			}
			table := fmt.Sprintf("app.t%03d", n)
			partitions := ""
			if strings.Contains(kinds[0], "INT") && rapid.Bool().Draw(rt, "partitioned") {
				partitions = " PARTITION BY HASH (k0) PARTITIONS 3"
			}
			key := "PRIMARY KEY"
			if rapid.Bool().Draw(rt, "unique key instead of a primary one") {
				key = "UNIQUE KEY"
			}
			s.Exec(t, fmt.Sprintf("SET sql_mode = ''; CREATE TABLE %s (%s, v INT, %s (%s)) ENGINE=InnoDB%s", table, strings.Join(columns, ", "), key, strings.Join(keys, ", "), partitions))
			var rows []string
			for r := range 60 {
				var values []string
				for _, kind := range kinds {
					values = append(values, types[kind].Draw(rt, "value"))
				}
				rows = append(rows, fmt.Sprintf("(%s, %d)", strings.Join(values, ", "), r))
			}
			s.Exec(t, "SET NAMES utf8mb4; SET sql_mode = ''; INSERT IGNORE INTO "+table+" VALUES "+strings.Join(rows, ", "), "ANALYZE TABLE "+table)
			var count int
			_, err := fmt.Sscan(s.Value(t, "SELECT COUNT(*) FROM "+table), &count)
			require.NoError(t, err)
			expect[fmt.Sprintf("t%03d", n)] = count
		})
		o := options(t, s)
		o.ChunkBytes = 1500 // a few rows
		sink, report := dumpWith(t, o)
		for name, count := range expect {
			table := object(t, report, KindTable, "app", name)
			seen := map[string]bool{}
			for _, row := range sink.rows(t, table) {
				v := row[len(row)-1]
				require.False(t, seen[v], "table %s: row %s is there twice", name, v)
				seen[v] = true
			}
			require.Len(t, seen, count, "table %s:\n%s", name, sink.text(t, table.DDL))
			require.EqualValues(t, count, table.Rows)
			if len(table.Data) > 3 {
				several++
			}
		}
		require.Greater(t, several, len(expect)/2, "the test means little when tables are not cut")
	})
}

// Boundaries of floating point keys have all their digits, and a SET of many
// members, which servers compare as doubles, is not cut. MySQL rounds what it
// casts to text: planning the first table did not end.
func TestBoundariesOfKeysThatRoundAdvance(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		var members []string
		for i := range 64 {
			members = append(members, fmt.Sprintf("'m%d'", i))
		}
		s.Exec(t, "CREATE DATABASE app",
			"CREATE TABLE app.f (k0 BIGINT, k1 FLOAT, k2 TIME(2), v INT, PRIMARY KEY (k0, k1, k2)) PARTITION BY HASH (k0) PARTITIONS 3",
			"INSERT INTO app.f VALUES (1, 0.0425631673, '-00:00:02', 1), (1, -2.60281979, '-00:07:13', 2), (1, -3.78566548e-07, '-00:03:48', 3), "+
				"(1, -1.2666377e-36, '-00:11:54', 4), (1, 1.88735029e-14, '-00:00:07', 5), (4, 25.4226837, '-00:02:10', 6), (4, -0.147113172, '00:00:06', 7)",
			"CREATE TABLE app.d (k DOUBLE PRIMARY KEY, v INT)",
			"INSERT INTO app.d VALUES (-1.2345678901234567e-136, 1), (1.2345678901234567e-136, 2), (-1.7976931348623157e308, 3), (1.7976931348623157e308, 4), (5e-324, 5), (-0.1, 6), (0, 7)",
			"CREATE TABLE app.s (k SET("+strings.Join(members, ", ")+") PRIMARY KEY, v INT)",
			"INSERT INTO app.s VALUES (18446744073709551615, 1), (18446744073709551614, 2), (9223372036854775808, 3), (9223372036854775807, 4), (9223372036854775806, 5), (1, 6), (0, 7)",
			"ANALYZE TABLE app.f, app.d, app.s")
		o := options(t, s)
		o.ChunkBytes = 1
		sink, report := dumpWith(t, o)
		for name, streams := range map[string]int{"f": 7, "d": 7, "s": 1} {
			table := object(t, report, KindTable, "app", name)
			require.Len(t, table.Data, streams, "table %s", name)
			seen := map[string]bool{}
			for _, row := range sink.rows(t, table) {
				seen[row[len(row)-1]] = true
			}
			require.Len(t, seen, 7, "table %s", name)
		}
	})
}

// Where a boundary lies before its own row, the rest is one piece.
func TestBoundariesThatDoNotAdvanceEndTheCutting(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		s.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (k FLOAT PRIMARY KEY)", "INSERT INTO app.t VALUES (1), (2), (16777217), (16777220), (3e9)")
		o := options(t, s)
		engine, err := New(o)
		require.NoError(t, err)
		defer engine.Close() //nolint:errcheck // a pool without idle connections
		session, err := engine.openSession(t.Context())
		require.NoError(t, err)
		defer session.Close()
		// Read as a DECIMAL, a FLOAT has six digits: 16777200 is before 16777216.
		k := &key{name: "PRIMARY", columns: []string{"k"}, usable: true}
		p := piece{table: &table{schema: &schema{name: "app"}, name: "t", columns: []column{{name: "k", dataType: "decimal"}}}, key: k}
		d := &dump{opts: engine.opts, log: engine.opts.Logger}
		rows, pieces := 0, 0
		_, err = d.planSamples(t.Context(), session, p, 1, func(p piece) error {
			pieces++
			require.LessOrEqual(t, pieces, 5, "it goes on for ever")
			var n int
			_, err := fmt.Sscan(s.Value(t, "SELECT COUNT(*) FROM app.t"+p.where()), &n)
			rows += n
			return err
		})
		require.NoError(t, err)
		require.Equal(t, 4, pieces, "1, 2, none, and the rest")
		require.Equal(t, 5, rows)
	})
}

// Keys that cluster do not make one piece of the whole table.
func TestClusteredKeysAreCutToo(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		s.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (id BIGINT UNSIGNED PRIMARY KEY, v VARCHAR(100))",
			"INSERT INTO app.t SELECT seq, REPEAT('x', 100) FROM (WITH RECURSIVE n (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq < 900) SELECT seq FROM n) x",
			"INSERT INTO app.t VALUES (18446744073709551615, 'far'), (9223372036854775808, 'half')", "ANALYZE TABLE app.t")
		o := options(t, s)
		o.ChunkBytes = 8 << 10
		sink, report := dumpWith(t, o)
		table := object(t, report, KindTable, "app", "t")
		require.EqualValues(t, 902, table.Rows)
		require.Greater(t, len(table.Data), 5)
		last := ""
		for _, row := range sink.rows(t, table) {
			require.True(t, len(row[0]) > len(last) || row[0] > last, "streams are in key order: %s after %s", row[0], last)
			last = row[0]
		}
	})
}

func TestAFilterThatSelectsNothingFails(t *testing.T) {
	t.Parallel()
	s := servers.MariaDB(t)
	s.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (id INT)", "CREATE TABLE app.u (id INT)", "CREATE DATABASE other", "CREATE VIEW app.v AS SELECT 1")
	for _, include := range []string{"ap", "app.x", "mysql", "*.nothing"} {
		o := options(t, s)
		o.Filter.Include = []string{"app.t", include}
		_, err := tryDump(t, o, newMemSink())
		require.ErrorContains(t, err, include)
	}
	o := options(t, s)
	o.Filter = Filter{Include: []string{"a*"}, Exclude: []string{"*.u"}}
	_, report := dumpWith(t, o)
	var names []string
	for _, o := range report.Objects {
		names = append(names, o.Kind+" "+o.Name)
	}
	require.Equal(t, []string{"schema app", "table t", "view v"}, names)
	require.Contains(t, strings.Join(report.Omitted, "\n"), "accounts")
}

func TestPowersOfTwo(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Uint64().Draw(t, "v")
		p := powerOfTwo(new(big.Int).SetUint64(v))
		require.Equal(t, 1, p.Sign())
		require.Equal(t, uint(p.BitLen()-1), p.TrailingZeroBits())
		if v > 0 {
			require.LessOrEqual(t, p.Cmp(new(big.Int).SetUint64(v)), 0)
			require.Positive(t, new(big.Int).Lsh(p, 1).Cmp(new(big.Int).SetUint64(v)))
		}
	})
}

// Two conditions of neighbours are each other's negation, for any values.
func TestBoundariesAreNegations(t *testing.T) {
	t.Parallel()
	parts := []keyPart{{column: "`a`", value: "1"}, {column: "`b`", value: "'x'"}, {column: "`c`", value: "2.5"}}
	require.Equal(t, "(`a` > 1 OR (`a` = 1 AND (`b` > 'x' OR (`b` = 'x' AND (`c` > 2.5)))))", after(parts))
	require.Equal(t, "(`a` < 1 OR (`a` = 1 AND (`b` < 'x' OR (`b` = 'x' AND (`c` <= 2.5)))))", upTo(parts))
}
