package cli

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump/dbdumptest"
	"keepset/internal/dbdump/mysql"
	"keepset/test/servers"
)

// An image's scripts fill a new volume before the seed is loaded: what they have made makes room for the backup, be it
// in the backup or not.
func TestSeedOfAnImageWithScripts(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(testing.TB, ...servers.MySQLOption) *servers.MySQL{"mariadb-10.11": servers.MariaDB, "mysql-9.7": servers.MySQL97} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := servers.WithConfig("log_bin=binlog", "server_id=77")
			source := start(t, config)
			source.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY)", "INSERT INTO app.t VALUES (1), (2)")
			e, err := mysql.New(mysql.Options{Address: source.Addr, User: source.User, Password: source.Password})
			require.NoError(t, err)
			m := dbdumptest.NewMemory()
			report, err := e.Dump(t.Context(), m)
			require.NoError(t, err)
			require.NoError(t, e.Close())

			for _, follower := range []bool{true, false} {
				seed := start(t, config)
				seed.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (other TEXT)", "INSERT INTO app.t VALUES ('of the script')",
					"CREATE DATABASE script", "CREATE TABLE script.t (id INT)", "CREATE USER script@'%' IDENTIFIED BY 'x'")
				a, _ := app("KEEPSET_TARGET_PASSWORD=" + seed.Password)
				s := &mysqlServers{app: a, server: &ServerFlags{side: "target", User: seed.User, TLS: "preferred", Engine: "mysql"}, log: a.Log}
				target, err := s.Target(seed.Addr, follower)
				require.NoError(t, err)
				_, err = target.Load(t.Context(), m.Source(report))
				require.NoError(t, err)
				closer, ok := target.(io.Closer)
				require.True(t, ok)
				require.NoError(t, closer.Close())
				require.Equal(t, "3", seed.Value(t, "SELECT SUM(id) FROM app.t"))
				require.Equal(t, "0", seed.Value(t, "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME='script'"))
				require.Equal(t, "0", seed.Value(t, "SELECT COUNT(*) FROM mysql.user WHERE User='script'"))
			}
		})
	}
}
