package mysql

import (
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/test/servers"
)

// as is options for the documented restore account.
func as(t testing.TB, s *servers.MySQL, user string) Options {
	t.Helper()
	o := options(t, s)
	o.User, o.Password = user, "change-me"
	return o
}

func TestTheDocumentedAccountsCanLoadEverything(t *testing.T) {
	t.Parallel()
	for _, f := range flavours() {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			source := f.server(t)
			everyClass(t, source)
			sample(t, source)
			source.Exec(t, "SET GLOBAL log_bin_trust_function_creators=ON", "CREATE FUNCTION app.r() RETURNS DOUBLE RETURN RAND()")
			m, report := dumpMemory(t, options(t, source))
			want := describe(t, source)

			for _, c := range []struct {
				heading string
				options LoadOptions
			}{
				{map[string]string{"mariadb": "#### Restore account on MariaDB", "mysql": "#### Restore account on MySQL 8 and 9"}[f.name], LoadOptions{}},
				{"#### Account that seeds followers", LoadOptions{Follower: true}},
			} {
				for _, extra := range []string{"local_infile=ON", "local_infile=OFF"} {
					target := f.server(t, extra)
					allowProxy(t, target)
					target.Exec(t, documented(t, c.heading)...)
					o := as(t, target, "keepset_restore")
					o.Load = c.options
					_, err := loadWith(t, o, m, report)
					require.NoError(t, err, "%s, %s", c.heading, extra)
					got := describe(t, target)
					for _, name := range []string{"information_schema.TABLES", "information_schema.TRIGGERS", "information_schema.VIEWS", "information_schema.ROUTINES", "rows `app`.`t`", "mysql.servers"} {
						require.Equal(t, want[name], got[name], name)
					}
					require.Equal(t, "0", target.Value(t, "SELECT @@GLOBAL.log_bin_trust_function_creators"), "a setting was not put back")
				}
			}

			// An account without rights is told what is missing, and nothing is changed.
			target := f.server(t)
			target.Exec(t, "CREATE USER keepset_restore@'%' IDENTIFIED BY 'change-me'", "GRANT SELECT ON *.* TO keepset_restore@'%'")
			_, err := loadWith(t, as(t, target, "keepset_restore"), m, report)
			require.ErrorIs(t, err, dbdump.ErrPrivilege)
		})
	}
}
