package mysql

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A table that is versioned by transaction numbers loses its history, which means nothing in another server: the backup
// and every load of it say so, and the rows of the present and the definition come back.
func TestHistoryByTransactionNumberIsOmittedLoudly(t *testing.T) {
	t.Parallel()
	for _, f := range []flavour{mariadb105, mariadb118} {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			source, target := f.server(t), f.server(t)
			source.Exec(t, "CREATE DATABASE d",
				`CREATE TABLE d.numbered (id INT PRIMARY KEY, v VARCHAR(10), rs BIGINT UNSIGNED GENERATED ALWAYS AS ROW START, re BIGINT UNSIGNED GENERATED ALWAYS AS ROW END,
					PERIOD FOR SYSTEM_TIME (rs, re)) WITH SYSTEM VERSIONING`,
				"CREATE TABLE d.keyless LIKE d.numbered", "ALTER TABLE d.keyless DROP PRIMARY KEY", "INSERT INTO d.keyless (id, v) VALUES (1, 'a'), (2, 'b')", "DELETE FROM d.keyless WHERE id=1",
				"INSERT INTO d.numbered (id, v) VALUES (1, 'a'), (2, 'b'), (3, 'c')", "UPDATE d.numbered SET v='a2' WHERE id=1", "DELETE FROM d.numbered WHERE id=2")
			require.Equal(t, "4", source.Value(t, "SELECT COUNT(*) FROM d.numbered FOR SYSTEM_TIME ALL"))

			m, report := dumpMemory(t, options(t, source))
			const lost = "history of table `d`.`numbered`: it is versioned by transaction numbers"
			require.Contains(t, strings.Join(report.Omitted, "\n"), lost)
			o := options(t, target)
			o.Load.Accounts = AccountsKeep
			loaded, err := loadWith(t, o, m, report)
			require.NoError(t, err)
			require.Contains(t, strings.Join(loaded.Omitted, "\n"), lost, "a restore says it as well")
			require.EqualValues(t, 3, loaded.Rows)
			for what, query := range map[string]string{
				"definition": "SELECT GROUP_CONCAT(COLUMN_NAME, COLUMN_TYPE, EXTRA, GENERATION_EXPRESSION ORDER BY ORDINAL_POSITION) FROM information_schema.COLUMNS WHERE TABLE_NAME='numbered'",
				"present":    "SELECT GROUP_CONCAT(id, v ORDER BY id) FROM d.numbered",
			} {
				require.Equal(t, source.Value(t, query), target.Value(t, query), what)
			}
			require.Equal(t, "1a2,3c", target.Value(t, "SELECT GROUP_CONCAT(id, v ORDER BY id) FROM d.numbered"))
			require.Equal(t, "2b", target.Value(t, "SELECT GROUP_CONCAT(id, v) FROM d.keyless"), "what was deleted stays deleted")
			require.Equal(t, "2", target.Value(t, "SELECT COUNT(*) FROM d.numbered FOR SYSTEM_TIME ALL"), "no history that is not theirs")
		})
	}
}
