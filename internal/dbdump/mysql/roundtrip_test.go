package mysql

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump/dbdumptest"
	"keepset/internal/record"
	"keepset/test/servers"
)

// otherDefaults are the settings of a target that agree with those of the source in nothing that a dump could be
// tempted to rely on.
var (
	otherDefaultsMariaDB = []string{
		"sql_mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,IGNORE_SPACE",
		"default_time_zone=-07:30", "character_set_server=latin1", "collation_server=latin1_danish_ci", "default_storage_engine=MyISAM",
		"explicit_defaults_for_timestamp=OFF", "innodb_strict_mode=ON", "lower_case_table_names=0", "innodb_default_row_format=dynamic",
		"sql_safe_updates=ON", "autocommit=1", "auto_increment_increment=3", "auto_increment_offset=2",
	}
	otherDefaultsMySQL = []string{
		"sql_mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,IGNORE_SPACE",
		"default_time_zone=-07:30", "character_set_server=latin1", "collation_server=latin1_danish_ci", "default_storage_engine=MyISAM",
		"explicit_defaults_for_timestamp=OFF", "innodb_strict_mode=ON", "sql_require_primary_key=ON", "sql_generate_invisible_primary_key=ON",
		"auto_increment_increment=3", "auto_increment_offset=2",
	}
)

// fixture runs the scripts of testdata against the server, statement by statement on one connection.
func fixture(t testing.TB, s *servers.MySQL, files ...string) {
	t.Helper()
	conn, err := s.DB(t).Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close() //nolint:errcheck // every statement's own result is checked
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join("testdata", file))
		require.NoError(t, err)
		statements, err := splitScript(string(text))
		require.NoError(t, err)
		for _, statement := range statements {
			_, err := conn.ExecContext(t.Context(), statement)
			require.NoError(t, err, statement)
		}
	}
}

// allowProxy lets the administrator give PROXY rights, which the accounts of the images can and a bare one cannot.
func allowProxy(t testing.TB, s *servers.MySQL) {
	t.Helper()
	s.Exec(t, "SET sql_log_bin=0", "SET sql_mode=''",
		"REPLACE INTO mysql.proxies_priv (Host, User, Proxied_host, Proxied_user, With_grant, Grantor) SELECT SUBSTRING_INDEX(CURRENT_USER(),'@',-1), 'root', '', '', 1, ''",
		"FLUSH PRIVILEGES")
}

// loadWith loads a dump with the options' own Load settings.
func loadWith(t testing.TB, o Options, m *dbdumptest.Memory, report record.Report) (record.Report, error) {
	t.Helper()
	e, err := New(o)
	require.NoError(t, err)
	defer func() { require.NoError(t, e.Close()) }()
	return e.Load(t.Context(), m.Source(report))
}

// dumpMemory dumps a server into memory.
func dumpMemory(t testing.TB, o Options) (*dbdumptest.Memory, record.Report) {
	t.Helper()
	e, err := New(o)
	require.NoError(t, err)
	defer func() { require.NoError(t, e.Close()) }()
	m := dbdumptest.NewMemory()
	report, err := e.Dump(t.Context(), m)
	require.NoError(t, err)
	return m, report
}

// Everything that the fixture holds comes back as it was, object by object and value by value, in a server whose
// defaults are different.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, f := range everyFlavour() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			other, methods := otherDefaultsMariaDB, []RowMethod{RowsAuto, RowsInsert}
			if f.name == "mysql" {
				other, methods = append([]string{"local_infile=ON"}, otherDefaultsMySQL...), []RowMethod{RowsLoadData, RowsInsert}
			}
			source := f.server(t, "default_time_zone=+00:00", "max_allowed_packet=1G")
			require.True(t, strings.HasPrefix(source.Value(t, "SELECT VERSION()"), f.version+"."))
			allowProxy(t, source)
			fixture(t, source, f.fixture...)
			m, report := dumpMemory(t, options(t, source))
			want := describe(t, source)

			for _, rows := range methods {
				t.Run(string(rows), func(t *testing.T) {
					target := f.server(t, append([]string{"max_allowed_packet=1G"}, other...)...)
					allowProxy(t, target)
					o := options(t, target)
					o.Load = LoadOptions{Accounts: AccountsReplace, Rows: rows}
					o.Logger = slog.New(slog.NewTextHandler(testWriter{t}, nil))
					loaded, err := loadWith(t, o, m, report)
					require.NoError(t, err)
					require.Equal(t, report.Rows, loaded.Rows)
					if f.version == mariadb105.version {
						const lost = "table `shop`.`versioned`: its history"
						require.Contains(t, loaded.Warnings, lost+" (3 rows) was left out: MariaDB before 10.11 cannot be given any")
						require.Contains(t, strings.Join(report.Warnings, "\n"), lost)
					}
					if diff := difference(want, describe(t, target)); diff != "" {
						t.Errorf("the copy differs:\n%s", diff)
					}
					requireSameDump(t, m, report, target)
				})
			}
		})
	}
}

// requireSameDump: a dump of the copy records the checksums that the first one recorded, table by table, and writes the
// same definitions. That is what a drill compares. The history of a versioned table is another matter: a server that
// takes none has fewer rows.
func requireSameDump(t *testing.T, m *dbdumptest.Memory, report record.Report, target *servers.MySQL) {
	t.Helper()
	again, copied := dumpMemory(t, options(t, target))
	have := map[string]record.Object{}
	for _, o := range copied.Objects {
		have[o.Kind+"\x00"+o.DDL+"\x00"+o.Name] = o
	}
	tables, e := 0, &Engine{}
	for _, o := range report.Objects {
		c, ok := have[o.Kind+"\x00"+o.DDL+"\x00"+o.Name]
		if o.Kind == KindEvent || !assert.True(t, ok, "%s %s.%s", o.Kind, o.Schema, o.Name) || o.Kind == KindUser || o.Kind == KindServer {
			continue
		}
		if o.Rows >= 0 && o.Rows == c.Rows {
			tables++
			assert.NotEmpty(t, o.Checksum)
			assert.Equal(t, o.Checksum, c.Checksum, "%s.%s", o.Schema, o.Name)
		}
		if o.Kind != KindTable || o.Rows < 0 || o.Rows == c.Rows {
			assert.Equal(t, string(e.Canonical(m.Bytes(o.DDL))), string(e.Canonical(again.Bytes(c.DDL))), "%s %s.%s", o.Kind, o.Schema, o.Name)
		}
	}
	require.Greater(t, tables, 10)
}

// testWriter sends a log to the test's.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Helper()
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}
