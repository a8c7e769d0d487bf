package mysql

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/dbdumptest"
)

// TestLaxValues: values that a server took under a lax sql_mode come back as they are, whether their row is text or,
// for the sake of a JSON document in it, a statement.
func TestLaxValues(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			source, target := f.start(t), f.start(t)
			const lax = "SET SESSION sql_mode = 'ALLOW_INVALID_DATES'; "
			source.Exec(t, "CREATE DATABASE app",
				lax+"CREATE TABLE app.dates (id INT PRIMARY KEY, d DATE DEFAULT '2023-02-31', at DATETIME, doc JSON)",
				lax+"INSERT INTO app.dates VALUES (1, '2024-02-31', '2023-02-30 01:02:03', '1')",
				lax+"CREATE TABLE app.enums (id INT PRIMARY KEY AUTO_INCREMENT, `e'x` ENUM('a','b'), n INT, f ENUM('','c') NOT NULL, doc JSON, g ENUM('it''s','\\'') NOT NULL)",
				lax+"INSERT INTO app.enums (`e'x`, n, doc) VALUES ('zzz', 1, '1'), ('b', 2, '1'), (NULL, NULL, NULL)",
				lax+"INSERT INTO app.enums (`e'x`, g) WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 100) SELECT 'zzz', 'zzz' FROM c")
			if f.name == "mysql" {
				const typed = "JSON_OBJECT('d', CAST('1.50' AS DECIMAL(5,2)))"
				source.Exec(t, lax+"INSERT INTO app.dates VALUES (2, '2024-02-31', '2023-02-30 01:02:03', "+typed+")",
					lax+"INSERT INTO app.enums (`e'x`, g, doc) VALUES ('zzz', 'zzz', "+typed+"), (NULL, \"'\", "+typed+")")
			}
			const numbers = "SELECT GROUP_CONCAT(COALESCE(`e'x` + 0, 'NULL'), f + 0, g + 0 ORDER BY id) FROM app.enums"
			m, report := dumpMemory(t, options(t, source))
			// Earlier backups did not name the mode that lets such dates in.
			earlier := rewritten(t, m, func(_ string, content []byte) []byte {
				return bytes.Replace(content, []byte(typedPreamble), []byte(preamble), 1)
			})
			for how, memory := range map[RowMethod]*dbdumptest.Memory{RowsLoadData: m, RowsInsert: earlier} {
				o := options(t, target)
				o.Load.Rows, o.Load.Replace = how, true
				if f.name == "mysql" {
					target.Exec(t, "SET GLOBAL local_infile = ON")
				}
				_, err := loadWith(t, o, memory, report)
				require.NoError(t, err)
				again, copied := dumpMemory(t, options(t, target))
				for _, table := range []string{"dates", "enums"} {
					want, have := object(t, report, KindTable, "app", table), object(t, copied, KindTable, "app", table)
					for _, stream := range append(want.Data, strings.Fields(want.Attributes[AttrTyped])...) {
						assert.Equal(t, string(m.Bytes(stream)), string(again.Bytes(stream)), stream)
					}
					require.Equal(t, want, have)
				}
				require.Equal(t, source.Value(t, numbers), target.Value(t, numbers))
			}
		})
	}
}

// rewritten is a dump with other streams.
func rewritten(t *testing.T, m *dbdumptest.Memory, edit func(stream string, content []byte) []byte) *dbdumptest.Memory {
	t.Helper()
	changed := dbdumptest.NewMemory()
	for _, stream := range m.Names() {
		w, err := changed.Create(t.Context(), stream, dbdump.StreamOptions{})
		require.NoError(t, err)
		_, err = w.Write(edit(stream, m.Bytes(stream)))
		require.NoError(t, err)
		require.NoError(t, w.Close())
	}
	return changed
}

// TestEnumOfOtherMembers: what is let pass is the empty value, and no other.
func TestEnumOfOtherMembers(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			source, target := f.start(t), f.start(t)
			source.Exec(t, "CREATE DATABASE app", "SET SESSION sql_mode = ''; CREATE TABLE app.t (id INT PRIMARY KEY, e ENUM('a','b'))",
				"SET SESSION sql_mode = ''; INSERT INTO app.t VALUES (1, 'zzz'), (2, 'a'), (3, 'b')")
			m, report := dumpMemory(t, options(t, source))
			name := object(t, report, KindTable, "app", "t").DDL
			changed := rewritten(t, m, func(stream string, content []byte) []byte {
				if stream == name {
					content = bytes.Replace(content, []byte("'b'"), []byte("'c'"), 1)
				}
				return content
			})
			for _, how := range []RowMethod{RowsLoadData, RowsInsert} {
				o := options(t, target)
				o.Load.Rows, o.Load.Replace = how, true
				if f.name == "mysql" {
					target.Exec(t, "SET GLOBAL local_infile = ON")
				}
				_, err := loadWith(t, o, changed, report)
				require.ErrorIs(t, err, dbdump.ErrMismatch)
			}
		})
	}
}
