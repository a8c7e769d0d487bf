package mysql

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/test/servers"
)

// typeCase is a column and values for it, as SQL. Every table has a row of
// each value, and one of NULLs.
type typeCase struct {
	column string
	values []string
}

// anyServer are the types of both families.
var anyServer = []typeCase{
	{"TINYINT", []string{"-128", "0", "127"}},
	{"TINYINT UNSIGNED", []string{"255"}},
	{"BIGINT", []string{"-9223372036854775808", "9223372036854775807"}},
	{"BIGINT UNSIGNED", []string{"18446744073709551615"}},
	{"INT(8) UNSIGNED ZEROFILL", []string{"42"}},
	{"DECIMAL(65,30)", []string{"'12345678901234567890123456789012345.123456789012345678901234567890'", "-0.5"}},
	{"BIT(1)", []string{"b'0'", "b'1'"}},
	{"BIT(64)", []string{"b'1111111111111111111111111111111111111111111111111111111111111111'", "9", "10", "92"}},
	{"DATE", []string{"'0000-00-00'", "'2024-00-00'", "'9999-12-31'"}},
	{"DATETIME(6)", []string{"'2024-02-29 23:59:59.999999'", "'0000-00-00 00:00:00'"}},
	{"TIMESTAMP(3) NULL", []string{"'2024-03-31 02:30:00.123'", "0"}},
	{"TIME(6)", []string{"'-838:59:58.000001'", "'838:59:59'"}},
	{"YEAR", []string{"1901", "0", "2155"}},
	{"CHAR(10) CHARACTER SET utf8mb4", []string{"'é😀'", "''", "' x'"}},
	{"VARCHAR(40) CHARACTER SET utf8mb4", []string{"'a\\tb\\nc\\\\d\\0e\\rf\\Zg\\bh'", "'trailing  '", "'\\\\N'", "'NULL'"}},
	{"VARCHAR(20) CHARACTER SET latin1", []string{"_latin1 0xE9E8FF0A095C"}},
	{"VARCHAR(20) CHARACTER SET sjis", []string{"_sjis 0x955C94685C", "_sjis 0x835C"}}, // second bytes that are backslashes
	{"VARCHAR(20) CHARACTER SET gbk", []string{"_gbk 0xE55C0A"}},
	{"VARCHAR(20) CHARACTER SET big5", []string{"_big5 0xA55C"}},
	{"VARCHAR(20) CHARACTER SET ucs2", []string{"_ucs2 0x005C000A00090000"}},
	{"VARCHAR(20) CHARACTER SET utf16", []string{"_utf16 0xD83DDE00005C"}},
	{"VARCHAR(20) CHARACTER SET utf32", []string{"_utf32 0x0001F6000000005C"}},
	{"LONGTEXT CHARACTER SET utf8mb4", []string{"REPEAT('wide\\n', 30000)", "''"}},
	{"BINARY(5)", []string{"0x0061005C00", "'a'"}},
	{"VARBINARY(300)", []string{"0x00010203040506070809090A0B0C0D1A5C2227", "''", "0xFFFE"}},
	{"LONGBLOB", []string{"''", "REPEAT(0x00FF5C0A, 100000)"}},
	{"ENUM('a','b\\'c','','é') CHARACTER SET utf8mb4", []string{"'a'", "'b\\'c'", "4", "''"}},
	{"SET('x','y','é') CHARACTER SET latin1", []string{"'x,é'", "''"}},
	{"GEOMETRY", []string{"ST_GeomFromText('POINT(1 -0.5)')", "ST_GeomFromText('POLYGON((0 0,10 0,10 10,0 0))', 4326)"}},
	{"FLOAT", []string{"0.1", "16777217", "-3.40282e38", "1.17549e-38", "1e-45", "123456.789"}},
	{"DOUBLE", []string{"0.1", "1.7976931348623157e308", "2.2250738585072014e-308", "5e-324", "1e15", "123456789.123456789"}},
	{"FLOAT(7,4)", []string{"999.00009", "-0.0001"}},
	{"DOUBLE(20,3)", []string{"12345678901234567.891", "-0.001"}},
}

var mariadbOnly = []typeCase{
	{"INET6", []string{"'2001:db8::ff00:42:8329'", "'::ffff:1.2.3.4'"}},
	{"JSON", []string{"'{\"a\": [1, \"\\\\\\\\\"]}'"}},
	{"VARCHAR(100) COMPRESSED", []string{"REPEAT('a\\n', 20)"}},
	{"LONGBLOB COMPRESSED", []string{"REPEAT(0x00, 5000)"}},
}

var mariadb1011Only = []typeCase{
	{"UUID", []string{"'123e4567-e89b-12d3-a456-426655440000'"}},
	{"INET4", []string{"'1.2.3.4'"}},
}

var mariadb118Only = []typeCase{
	{"VECTOR(3)", []string{"VEC_FromText('[1,-2.5,0]')", "x'5c270a095c4e0d221a00ffff'"}},
	{"TIMESTAMP(6) NULL", []string{"'2106-02-07 06:28:15.999999'"}},
	{"VARCHAR(20) COLLATE uca1400_as_cs", []string{"'é😀'"}},
}

var mysqlOnly = []typeCase{
	{"VECTOR(3)", []string{"TO_VECTOR('[1,-2.5,0]')"}},
	{"POINT SRID 4326", []string{"ST_GeomFromText('POINT(10 20)', 4326)"}},
	{"JSON", []string{`'{"a": [1, 2.5, null, true, "tab\\tq\\"é😀"], "": {}}'`, `'null'`, `'"x"'`, `'9007199254740993'`, `'18446744073709551615'`, `'-0.0'`, `'1e300'`}},
	{"DOUBLE", []string{"-0e0"}},
	{"FLOAT", []string{"-0e0"}},
}

// makeTypes makes a table for every type and returns their cases.
func makeTypes(t testing.TB, s *servers.MySQL) []typeCase {
	t.Helper()
	cases := append(append([]typeCase{}, anyServer...), mysqlOnly...)
	if version := s.Value(t, "SELECT VERSION()"); strings.Contains(version, "MariaDB") {
		cases = append(append([]typeCase{}, anyServer...), mariadbOnly...)
		if !strings.HasPrefix(version, mariadb105.version) {
			cases = append(cases, mariadb1011Only...)
		}
		if strings.HasPrefix(version, mariadb118.version) {
			cases = append(cases, mariadb118Only...)
		}
	}
	const session = "SET sql_mode = 'ALLOW_INVALID_DATES'; SET NAMES utf8mb4; SET time_zone = '+00:00'; "
	s.Exec(t, "CREATE DATABASE app")
	for i, c := range cases {
		table := fmt.Sprintf("app.t%03d", i)
		s.Exec(t, session+"CREATE TABLE "+table+" (n INT PRIMARY KEY, c "+c.column+")")
		for n, v := range append(c.values, "NULL") {
			s.Exec(t, session+fmt.Sprintf("INSERT INTO %s VALUES (%d, %s)", table, n, v))
		}
	}
	return cases
}

// Encrypted connections are read through the driver, others past it: what is
// written is the same.
func TestTheWayOfReadingDoesNotShow(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			s := f.start(t, servers.WithTLS())
			makeTypes(t, s)
			s.Exec(t, "CREATE TABLE app.none (id INT)", "CREATE TABLE app.wide (a INT, b VARCHAR(10), c INT)", "INSERT INTO app.wide VALUES (1, '', NULL), (NULL, NULL, 2)")
			o := options(t, s)
			o.TLS = TLS{CA: s.TLS.CA}
			encrypted, report := dumpWith(t, o)
			o = options(t, s)
			o.Address = s.Socket
			plain, report2 := dumpWith(t, o)
			require.Equal(t, report.Objects, report2.Objects)
			require.Len(t, plain.streams, len(encrypted.streams))
			for name := range encrypted.streams {
				require.Equal(t, encrypted.text(t, name), plain.text(t, name), name)
			}
		})
	}
}

func TestEveryTypeArrivesByteForByte(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		cases := makeTypes(t, s)
		db := s.DB(t)
		sink, report := dumpWith(t, options(t, s))
		for i, c := range cases {
			name := fmt.Sprintf("t%03d", i)
			o := object(t, report, KindTable, "app", name)
			rows := sink.rows(t, o)
			require.Len(t, rows, len(c.values)+1, c.column)
			require.Equal(t, `\N`, rows[len(c.values)][1], c.column)
			for n, row := range rows[:len(c.values)] {
				what := fmt.Sprintf("%s, value %s", c.column, c.values[n])
				value := string(unescape(t, []byte(row[1])))
				var want string
				expression, got := "HEX(c)", string(appendHex(nil, []byte(value)))
				switch encoding := o.Columns[1].Encoding; {
				case strings.HasPrefix(c.column, "BIT"):
					expression, got = fmt.Sprintf("LPAD(HEX(c), %d, '0')", len(value)), value
				case strings.HasPrefix(c.column, "INT(8)"):
					expression, got = "CAST(c + 0 AS CHAR)", value
				case encoding == EncodingHex:
					got = value
				case encoding == EncodingDouble:
					// Stored again, it is equal, and so is its sign.
					s.Exec(t, fmt.Sprintf("SET sql_mode = ''; INSERT INTO app.%s VALUES (%d, '%s')", name, 1000+n, value))
					expression = fmt.Sprintf("(SELECT a.c = b.c AND ATAN2(a.c, -1) = ATAN2(b.c, -1) FROM app.%s a, app.%s b WHERE a.n = %d AND b.n = %d)", name, name, n, 1000+n)
					got = "1"
				case encoding == EncodingJSON:
					expression = "HEX(CONVERT(c USING utf8mb4))"
				case !strings.ContainsAny(c.column, "(") && !strings.Contains(c.column, "TEXT") && !strings.Contains(c.column, "BLOB") && c.column != "JSON",
					strings.HasPrefix(c.column, "DECIMAL"), strings.Contains(c.column, "TIME"):
					expression = "HEX(CONVERT(CAST(c AS CHAR) USING utf8mb4))"
				}
				conn, err := db.Conn(t.Context())
				require.NoError(t, err)
				_, err = conn.ExecContext(t.Context(), "SET time_zone = '+00:00'")
				require.NoError(t, err)
				require.NoError(t, conn.QueryRowContext(t.Context(), fmt.Sprintf("SELECT %s FROM app.%s WHERE n = %d", expression, name, n)).Scan(&want))
				require.NoError(t, conn.Close())
				if got != want && len(got) < 500 {
					t.Errorf("%s: dumped %q (%s), server has %s", what, row[1], got, want)
				} else if got != want {
					t.Errorf("%s: long values differ", what)
				}
			}
		}
	})
}
