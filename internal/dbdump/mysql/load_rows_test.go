package mysql

import (
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
)

// Tables of many pieces are loaded side by side, their keys built afterwards, and are what they were: in MariaDB as a
// bulk and, with more pieces than that is used for, piece by piece.
func TestLoadLargeTables(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			s := f.server(t)
			s.Exec(t, "CREATE DATABASE d", "USE d",
				"CREATE TABLE parent (id INT NOT NULL PRIMARY KEY)", "INSERT INTO parent VALUES (1), (2)",
				"CREATE TABLE l (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, u VARCHAR(80) NOT NULL, p INT, g INT GENERATED ALWAYS AS (p % 7) VIRTUAL, UNIQUE KEY u (u), KEY p (p, id), KEY g (g), CONSTRAINT fk FOREIGN KEY (p) REFERENCES parent (id))",
				"INSERT INTO l (u, p) VALUES ('a', 1), ('b', 2)")
			for range 14 {
				s.Exec(t, "INSERT INTO d.l (u, p) SELECT SHA2(id + (SELECT MAX(id) FROM d.l), 256), p FROM d.l")
			}
			s.Exec(t, "USE d",
				"CREATE TABLE second (g INT NOT NULL, n INT NOT NULL AUTO_INCREMENT, v VARCHAR(80), PRIMARY KEY (g, n), KEY n (n), KEY v (v)) PARTITION BY HASH (g) PARTITIONS 3",
				"INSERT INTO second SELECT id % 5, id, u FROM l",
				"CREATE TABLE bare (v VARCHAR(80), n INT, KEY v (v), KEY n (n))", "INSERT INTO bare SELECT u, p FROM l",
				"CREATE TABLE longs (id INT PRIMARY KEY, v LONGTEXT, n INT, KEY n (n))", "INSERT INTO longs SELECT id, u, p FROM l")
			want := describe(t, s)
			for _, chunk := range []int64{64 << 20, 32 << 10} {
				o := options(t, s)
				o.ChunkBytes, o.Workers = chunk, 4
				m, report := dumpMemory(t, o)
				target := f.server(t)
				o = options(t, target)
				o.Workers = 4
				_, err := loadWith(t, o, m, report)
				require.NoError(t, err)
				require.Empty(t, difference(want, describe(t, target)), "pieces of %d bytes", chunk)
			}
		})
	}
}

// A value that does not fit its column is an error, whichever way it travels: LOAD DATA by itself would only warn.
func TestLoadRefusesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			source := f.server(t)
			source.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v VARCHAR(20))", "INSERT INTO d.t VALUES (1, 'fits'), (2, 'does not fit')")
			m, report := dumpMemory(t, options(t, source))
			target := f.server(t, "local_infile=ON")
			ddl := object(t, report, KindTable, "d", "t").DDL
			for name, change := range map[string][2]string{
				"shorter column":  {"varchar(20)", "varchar(5)"},
				"another type":    {"varchar(20)", "date"},
				"a key too many":  {"PRIMARY KEY (`id`)", "PRIMARY KEY (`id`), `one` int DEFAULT 1, UNIQUE KEY (`one`)"},
				"a missing value": {"varchar(20) DEFAULT NULL", "int NOT NULL"},
			} {
				for _, rows := range []RowMethod{RowsLoadData, RowsInsert} {
					t.Run(name+"/"+string(rows), func(t *testing.T) {
						src := m.Source(report)
						src.Wrap = func(stream string, r io.Reader) io.Reader {
							if stream != ddl {
								return r
							}
							text, err := io.ReadAll(r)
							require.NoError(t, err)
							require.Contains(t, string(text), change[0])
							return strings.NewReader(strings.Replace(string(text), change[0], change[1], 1))
						}
						o := options(t, target)
						o.Load.Rows, o.Load.Replace = rows, true // what the test before it left goes
						_, err := newEngine(t, o).Load(t.Context(), src)
						require.Error(t, err)
						if rows == RowsLoadData && name != "a key too many" { // MariaDB's bulk load has an error of its own for it
							require.ErrorIs(t, err, dbdump.ErrMismatch)
						}
					})
				}
			}
		})
	}
}
