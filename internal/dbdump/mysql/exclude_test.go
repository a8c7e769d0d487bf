package mysql

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A dump from which databases and tables are left out is still one of a server:
// it has the accounts, and a server loaded from it lets everybody in. Rights on
// what was left out cannot be given; the load says so.
func TestExcludeKeepsAccounts(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			source := f.server(t)
			source.Exec(t,
				"CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY)", "CREATE TABLE shop.log (id INT PRIMARY KEY)",
				"CREATE DATABASE scratch", "CREATE TABLE scratch.t (id INT PRIMARY KEY)", "CREATE PROCEDURE scratch.p() SELECT 1",
				"INSERT INTO shop.orders VALUES (1), (2)",
				"CREATE USER app@'%' IDENTIFIED BY 'Secret-1'", "GRANT SELECT ON shop.* TO app@'%'",
				"GRANT INSERT ON shop.orders TO app@'%'", "GRANT SELECT ON shop.log TO app@'%'",
				"GRANT SELECT ON scratch.t TO app@'%'", "GRANT EXECUTE ON PROCEDURE scratch.p TO app@'%'")
			o := options(t, source)
			o.Filter.Exclude = []string{"scratch", "shop.log"}
			m, report := dumpMemory(t, o)
			omitted := strings.Join(report.Omitted, "\n")
			require.Contains(t, omitted, "databases and tables that the filter leaves out: scratch, shop.log")
			require.NotContains(t, omitted, "accounts, roles, grants")

			target := f.server(t)
			o = options(t, target)
			o.Load.Accounts = AccountsReplace
			loaded, err := loadWith(t, o, m, report)
			require.NoError(t, err)
			require.Equal(t, "2", target.Value(t, "SELECT COUNT(*) FROM shop.orders"))
			require.Equal(t, describe(t, source)["account 'app'@'%'"], describe(t, target)["account 'app'@'%'"])
			grants := describe(t, target)["grants 'app'@'%'"]
			require.Contains(t, grants, "ON `shop`.* ")
			require.Contains(t, grants, "ON `shop`.`orders` ")
			require.NotContains(t, grants, "scratch")
			warnings := strings.Join(loaded.Warnings, "\n")
			require.Contains(t, warnings, "a right was not given, its object is not among what was loaded")
			require.Contains(t, warnings, "scratch")
			require.Contains(t, warnings, "shop.log")

			// A filter that names what is wanted is no dump of a server.
			o = options(t, source)
			o.Filter.Include = []string{"shop"}
			m, report = dumpMemory(t, o)
			require.Contains(t, strings.Join(report.Omitted, "\n"), "accounts, roles, grants and server objects: the dump is filtered")
			require.NotContains(t, m.Names(), usersStream)
		})
	}
}
