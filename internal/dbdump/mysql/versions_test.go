package mysql

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/test/servers"
)

// The versions of the tests are those that docs/mysql.md promises.
func TestTheDocumentedVersionsAreTheTestedOnes(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../docs/mysql.md")
	require.NoError(t, err)
	_, section, ok := strings.Cut(string(text), "## Versions\n")
	require.True(t, ok)
	section, _, _ = strings.Cut(section, "\n## ")
	var documented []string
	for _, m := range regexp.MustCompile(`\*\*(MariaDB|MySQL) ([0-9., and]+)\*\*`).FindAllStringSubmatch(section, -1) {
		for _, version := range regexp.MustCompile(`[0-9]+\.[0-9]+`).FindAllString(m[2], -1) {
			documented = append(documented, strings.ToLower(m[1])+"-"+version)
		}
	}
	var tested []string
	for _, f := range everyFlavour() {
		tested = append(tested, f.String())
	}
	require.ElementsMatch(t, tested, documented)
}

// newerKeeps is what a dump of an older server has to keep in a newer one: all values, what can be seen of them, the
// collations that make keys unique, and rights.
func newerKeeps(t testing.TB, s *servers.MySQL) map[string]string {
	t.Helper()
	kept := make(map[string]string)
	for name, text := range describeWith(t, s, true) {
		for _, prefix := range []string{"rows ", "trigger ", "event ", "grants ", "mysql.proxies_priv", "mysql.roles_mapping", "information_schema.REFERENTIAL_CONSTRAINTS"} {
			if strings.HasPrefix(name, prefix) {
				kept[name] = shownDifferently.ReplaceAllString(strings.ReplaceAll(text, latestTimes[0], latestTimes[1]), "")
			}
		}
	}
	d := &describer{t: t, db: s.DB(t)}
	d.exec("SET NAMES utf8mb4")
	for name, query := range map[string]string{
		"collations of schemas": "SELECT SCHEMA_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME" + notSystem,
		"collations of tables":  "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_COLLATION FROM information_schema.TABLES WHERE TABLE_SCHEMA" + notSystem,
		"columns":               "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, COLLATION_NAME, IS_NULLABLE, GENERATION_EXPRESSION FROM information_schema.COLUMNS WHERE TABLE_SCHEMA" + notSystem,
		"keys":                  "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX, COLUMN_NAME, SUB_PART, NON_UNIQUE, INDEX_TYPE FROM information_schema.STATISTICS WHERE TABLE_SCHEMA" + notSystem,
		"servers":               "SELECT Server_name, Host, Db, Username, Password, Port, Wrapper FROM mysql.servers",
		"accounts":              "SELECT User, Host, JSON_REMOVE(Priv, '$.version_id', '$.access', '$.password_last_changed') FROM mysql.global_priv WHERE User NOT IN ('root', 'mariadb.sys')",
		"parameters":            "SELECT SPECIFIC_SCHEMA, SPECIFIC_NAME, ORDINAL_POSITION, DTD_IDENTIFIER, COLLATION_NAME FROM information_schema.PARAMETERS WHERE SPECIFIC_SCHEMA" + notSystem,
		"present":               "SELECT (SELECT GROUP_CONCAT(id, v ORDER BY id) FROM shop.versioned), (SELECT GROUP_CONCAT(id, w ORDER BY id) FROM shop.versioned2)",
		"sequences":             "SELECT NEXTVAL(shop.seq1), NEXTVAL(shop.`seq;2`), NEXTVAL(shop.seq3)",
	} {
		lines := d.lines(query)
		slices.Sort(lines)
		kept[name] = strings.Join(lines, "\n")
	}
	return kept
}

// shownDifferently are the lines of SHOW GRANTS that some versions do not quote.
var shownDifferently = regexp.MustCompile(`GRANT (?:PROXY|USAGE) .*\n?`)

// holdsMinusZero tells whether the server keeps the sign of a zero that is written to a DOUBLE. MariaDB does up to
// 10.5 at least, and of the versions that the tests ran 10.11.19 and 11.8.9 do not, however it is written.
func holdsMinusZero(t testing.TB, s *servers.MySQL) bool {
	t.Helper()
	s.Exec(t, "CREATE DATABASE minus_zero", "CREATE TABLE minus_zero.t (d DOUBLE)", "INSERT INTO minus_zero.t VALUES (-5e-324 * 0.1)")
	defer s.Exec(t, "DROP DATABASE minus_zero")
	return s.Value(t, "SELECT ATAN2(d, -1) < 0 FROM minus_zero.t") == "1"
}

// A backup of an older version is loaded into a newer one without a change of meaning, whatever the newer one's
// defaults have become.
func TestLoadIntoANewerVersion(t *testing.T) {
	t.Parallel()
	target := mariadb118
	for _, f := range []flavour{mariadb105, mariadb1011} {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			source := f.server(t)
			allowProxy(t, source)
			fixture(t, source, f.fixture...)
			m, report := dumpMemory(t, options(t, source))
			want := newerKeeps(t, source)
			for _, rows := range []RowMethod{RowsAuto, RowsInsert} {
				s := target.server(t)
				allowProxy(t, s)
				o := options(t, s)
				o.Load = LoadOptions{Accounts: AccountsReplace, Rows: rows}
				_, err := loadWith(t, o, m, report)
				require.NoError(t, err)
				want := want
				if !holdsMinusZero(t, s) {
					want = maps.Clone(want)
					want["rows `shop`.`numbers`"] = strings.ReplaceAll(want["rows `shop`.`numbers`"], "| -0 |", "| 0 |")
				}
				if diff := difference(want, newerKeeps(t, s)); diff != "" {
					t.Errorf("%s: the copy differs:\n%s", rows, diff)
				}
			}
		})
	}
}

// silentSource is a dump by a version that does not name a collation that is the default of its character set, as
// MariaDB before 10.5.18 did not.
type silentSource struct{ dbdump.Source }

func (s silentSource) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	stream, err := s.Source.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer stream.Close() //nolint:errcheck // read to its end
	text, err := io.ReadAll(stream)
	text = regexp.MustCompile(` COLLATE=?[ ]?utf8mb4_general_ci`).ReplaceAll(text, nil)
	return io.NopCloser(bytes.NewReader(text)), err
}

// A character set alone means the collation that it meant on the older server.
func TestACharacterSetKeepsItsCollation(t *testing.T) {
	t.Parallel()
	source, target := mariadb105.server(t), mariadb118.server(t)
	source.Exec(t, "CREATE DATABASE d CHARACTER SET utf8mb4", "CREATE TABLE d.t (a VARCHAR(10) PRIMARY KEY, b VARCHAR(10) CHARACTER SET utf8mb4) CHARACTER SET utf8mb4",
		"INSERT INTO d.t VALUES ('ß', 'x'), ('ss', 'y')") // two keys, but for the new default they are one
	m, report := dumpMemory(t, options(t, source))
	_, err := newEngine(t, options(t, target)).Load(t.Context(), silentSource{m.Source(report)})
	require.NoError(t, err)
	for _, query := range []string{
		"SELECT DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME='d'",
		"SELECT TABLE_COLLATION FROM information_schema.TABLES WHERE TABLE_SCHEMA='d'",
		"SELECT GROUP_CONCAT(COLLATION_NAME) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA='d'",
	} {
		require.Equal(t, source.Value(t, query), target.Value(t, query), query)
	}
}

// An older version gets what it understands; what it does not is an error that names it, never another value.
func TestLoadIntoAnOlderVersion(t *testing.T) {
	t.Parallel()
	const versioned = "SET time_zone='+00:00'; CREATE TABLE d.h (id INT PRIMARY KEY, v INT) WITH SYSTEM VERSIONING; INSERT INTO d.h VALUES (1, 1), (2, 2); UPDATE d.h SET v=3 WHERE id=1; DELETE FROM d.h WHERE id=2"
	for i, c := range []struct {
		target flavour
		create string
		fails  string // with this; "" when it is loaded
		values string // query whose answers agree
	}{
		{mariadb1011, "CREATE TABLE d.t (a VARCHAR(20) PRIMARY KEY) DEFAULT CHARACTER SET utf8mb4; INSERT INTO d.t VALUES ('ß'), ('😀')", "", "SELECT CONCAT(COUNT(*), MAX(COLLATION(a))) FROM d.t"},
		{mariadb105, "CREATE TABLE d.t (a VARCHAR(20) PRIMARY KEY) DEFAULT CHARACTER SET utf8mb4; INSERT INTO d.t VALUES ('ß'), ('😀')", "create table `d`.`t`: run", ""},
		{mariadb1011, "CREATE TABLE d.t (v VECTOR(2) NOT NULL, VECTOR INDEX (v)); INSERT INTO d.t VALUES (x'0000000000000000')", "create table `d`.`t`: run", ""},
		{mariadb1011, "SET time_zone='+00:00'; CREATE TABLE d.t (t TIMESTAMP NULL); INSERT INTO d.t VALUES ('2038-01-19 03:14:08')", "load rows of table `d`.`t`", ""},
		{mariadb1011, versioned, "", "SELECT CONCAT((SELECT GROUP_CONCAT(id, v) FROM d.h), ' ', GROUP_CONCAT(CONCAT_WS(' ', id, v, row_start, IF(YEAR(row_end) >= 2038, 'now', row_end)) ORDER BY id, v)) FROM d.h FOR SYSTEM_TIME ALL"},
		{mariadb105, versioned, "", "SELECT GROUP_CONCAT(id, v) FROM d.h"},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			source := mariadb118.server(t)
			source.Exec(t, "CREATE DATABASE d CHARACTER SET ascii COLLATE ascii_bin", c.create)
			m, report := dumpMemory(t, options(t, source))
			target := c.target.server(t)
			o := options(t, target)
			o.Logger = slog.New(slog.NewTextHandler(testWriter{t}, nil))
			for _, o.Load.Rows = range []RowMethod{RowsAuto, RowsInsert} {
				_, err := loadWith(t, o, m, report)
				o.Load.Replace = true
				if c.fails != "" {
					require.ErrorContains(t, err, c.fails, c.create)
					t.Log(err)
					continue
				}
				require.NoError(t, err)
				require.Equal(t, source.Value(t, c.values), target.Value(t, c.values))
			}
		})
	}
}

// The way to a newer version: a follower of the older one is seeded with the newer.
func TestANewerVersionFollowsAnOlderOne(t *testing.T) {
	t.Parallel()
	p, up := primary(t, mariadb105)
	m, report := dumpMemory(t, options(t, p))
	p.Exec(t, "INSERT INTO d.t (v) VALUES ('after')")
	s := seed(t, mariadb118, m.Source(report), up)
	p.Exec(t, "INSERT INTO d.t (v) VALUES ('later')")
	sameRows(t, p, s)

	// 11.8 encrypts by itself where the upstream can prove who it is.
	m, report = dumpMemory(t, options(t, s))
	next := seed(t, mariadb118, m.Source(report), upstreamAt(s))
	sameRows(t, p, next)
	require.Equal(t, "Yes", slaveStatus(t, next, "Master_SSL_Allowed"))
	require.Equal(t, "No", slaveStatus(t, s, "Master_SSL_Allowed"))
}

// slaveStatus is a column of a follower's SHOW SLAVE STATUS.
func slaveStatus(t testing.TB, s *servers.MySQL, column string) string {
	t.Helper()
	rows, err := s.DB(t).QueryContext(t.Context(), "SHOW SLAVE STATUS")
	require.NoError(t, err)
	defer rows.Close() //nolint:errcheck // only read
	names, err := rows.Columns()
	require.NoError(t, err)
	values, into := make([]sql.NullString, len(names)), make([]any, len(names))
	for i := range values {
		into[i] = &values[i]
	}
	require.True(t, rows.Next())
	require.NoError(t, rows.Scan(into...))
	require.NoError(t, rows.Err())
	require.Contains(t, names, column)
	return values[slices.Index(names, column)].String
}
