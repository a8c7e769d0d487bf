package mysql

import (
	"os"
	"testing"

	"keepset/test/servers"
)

// flavour is a version of a server with the settings that its replication wants in tests.
type flavour struct {
	name    string // its family: mariadb or mysql
	version string // its release series
	start   func(testing.TB, ...servers.MySQLOption) *servers.MySQL
	config  []string
	fixture []string // the scripts of testdata that it understands
}

var (
	mariadb105 = flavour{
		"mariadb", "10.5", servers.MariaDB105,
		[]string{"log_slave_updates=ON", "gtid_strict_mode=ON", "plugin_load_add=auth_ed25519"},
		[]string{"common.sql", "mariadb.sql"},
	}
	mariadb1011 = flavour{"mariadb", "10.11", servers.MariaDB, mariadb105.config, append(mariadb105.fixture, "mariadb-10.11.sql")}
	mariadb118  = flavour{
		"mariadb", "11.8", servers.MariaDB118, append(mariadb105.config, "plugin_load_add=auth_parsec"),
		append(mariadb1011.fixture, "mariadb-11.8.sql"),
	}
	mysql97 = flavour{
		"mysql", "9.7", servers.MySQL97, []string{"gtid_mode=ON", "enforce_gtid_consistency=ON"}, []string{"common.sql", "mysql.sql"},
	}
)

// everyFlavour are all versions that the tests have: for the tests that decide whether a version is supported.
func everyFlavour() []flavour { return []flavour{mariadb105, mariadb1011, mariadb118, mysql97} }

// flavours are one version of each family, and all of them with KEEPSET_SOAK: for the tests of what depends on the
// family rather than on the version.
func flavours() []flavour {
	if os.Getenv("KEEPSET_SOAK") != "" {
		return everyFlavour()
	}
	return families()
}

// families are one version of each family, in a soak too.
func families() []flavour { return []flavour{mariadb1011, mysql97} }

// String names the version in the names of tests.
func (f flavour) String() string { return f.name + "-" + f.version }

// with is the version with other settings for its replication.
func (f flavour) with(config ...string) flavour {
	f.config = config
	return f
}

// server starts a server with the settings that replication wants, and others.
func (f flavour) server(t testing.TB, extra ...string) *servers.MySQL {
	t.Helper()
	return f.start(t, servers.WithConfig(append(append([]string{}, f.config...), extra...)...))
}

// eachServer runs a test on a server of each of the flavours, with its own defaults but for config.
func eachServer(t *testing.T, list []flavour, test func(t *testing.T, s *servers.MySQL), config ...string) {
	t.Helper()
	for _, f := range list {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			test(t, f.start(t, servers.WithConfig(config...)))
		})
	}
}
