package mysql

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/test/servers"
)

// documented extracts the statements of a section of docs/mysql.md: the first
// sql block behind the heading.
func documented(t testing.TB, heading string) []string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/mysql.md")
	require.NoError(t, err)
	_, section, ok := strings.Cut(string(text), heading+"\n")
	require.True(t, ok, "docs/mysql.md has no heading %q", heading)
	block := regexp.MustCompile("(?s)```sql\n(.*?)```").FindStringSubmatch(section)
	require.NotNil(t, block, "no statements under %q", heading)
	var list []string
	for q := range strings.SplitSeq(block[1], ";") {
		if q = strings.TrimSpace(q); q != "" {
			list = append(list, q)
		}
	}
	return list
}

// asBackup is options for the documented account.
func asBackup(t testing.TB, s *servers.MySQL) Options {
	t.Helper()
	o := options(t, s)
	o.User, o.Password = "keepset_backup", "change-me"
	return o
}

// backupAccount is what the documentation says for the server's version.
func backupAccount(t testing.TB, s *servers.MySQL) []string {
	t.Helper()
	switch version := s.Value(t, "SELECT VERSION()"); {
	case !strings.Contains(version, "MariaDB"):
		return documented(t, "#### Backup account on MySQL 8 and 9")
	case strings.HasPrefix(version, mariadb118.version):
		return append(documented(t, "#### Backup account on MariaDB"), documented(t, "#### Backup account on MariaDB 11.3 and later")...)
	case strings.HasPrefix(version, mariadb105.version):
		return append(documented(t, "#### Backup account on MariaDB"), "GRANT INSERT ON app.s TO keepset_backup@'%'")
	}
	return documented(t, "#### Backup account on MariaDB")
}

// everyClass makes an object of every class that needs a privilege of its own.
func everyClass(t testing.TB, s *servers.MySQL) {
	t.Helper()
	s.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, v INT)", "INSERT INTO app.t VALUES (1, 2)",
		"CREATE TABLE app.m (id INT) ENGINE=MyISAM", "INSERT INTO app.m VALUES (1)",
		"CREATE DEFINER=root@localhost SQL SECURITY INVOKER VIEW app.v AS SELECT * FROM app.t",
		"CREATE DEFINER=root@localhost FUNCTION app.f() RETURNS INT DETERMINISTIC RETURN 1",
		"CREATE DEFINER=root@localhost PROCEDURE app.p() SELECT 'body'",
		"CREATE DEFINER=root@localhost TRIGGER app.tr BEFORE INSERT ON app.t FOR EACH ROW SET NEW.v = 1",
		"CREATE DEFINER=root@localhost EVENT app.e ON SCHEDULE EVERY 1 DAY DO SELECT 1",
		"CREATE USER someone@localhost IDENTIFIED BY 'x'", "GRANT SELECT ON app.t TO someone@localhost",
		"CREATE SERVER elsewhere FOREIGN DATA WRAPPER mysql OPTIONS (HOST '10.0.0.1', PASSWORD 'p')")
	if strings.Contains(s.Value(t, "SELECT VERSION()"), "MariaDB") {
		s.Exec(t, "CREATE SEQUENCE app.s", "CREATE TABLE app.d (id BIGINT DEFAULT NEXTVAL(app.s))")
	}
	s.Exec(t, "SET NAMES utf8mb4; CREATE TABLE app.face (f ENUM('a','😀') CHARACTER SET utf8mb4 DEFAULT '😀', s SET('😎','b') CHARACTER SET utf8mb4)")
}

func TestTheDocumentedAccountCanDumpEverything(t *testing.T) {
	t.Parallel()
	eachServer(t, everyFlavour(), func(t *testing.T, s *servers.MySQL) {
		everyClass(t, s)
		s.Exec(t, backupAccount(t, s)...)
		sink, report := dumpWith(t, asBackup(t, s))
		// The administrator's dump is the same.
		all, want := dumpWith(t, options(t, s))
		require.Equal(t, want.Objects, report.Objects)
		require.Equal(t, want.Omitted, report.Omitted)
		require.Equal(t, want.Consistency, report.Consistency)
		for name := range all.streams {
			require.Equal(t, all.text(t, name), sink.text(t, name), name)
		}
		require.Empty(t, report.Warnings)
		require.Contains(t, sink.text(t, "schemas/app/tables/face.sql"), "enum('a','😀')")
		require.Contains(t, sink.text(t, "schemas/app/tables/face.sql"), "set('😎','b')")
	})
}

func TestAMissingPrivilegeIsNamedBeforeAnythingIsRead(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		everyClass(t, s)
		statements := backupAccount(t, s)
		s.Exec(t, statements...)
		grant := regexp.MustCompile(`(?is)GRANT\s+(.+?)\s+ON \*\.\* TO (\S+)`)
		tried := 0
		for _, q := range statements {
			m := grant.FindStringSubmatch(q)
			if m == nil {
				continue
			}
			for p := range strings.SplitSeq(m[1], ",") {
				p = strings.Join(strings.Fields(p), " ")
				s.Exec(t, "REVOKE "+p+" ON *.* FROM "+m[2])
				sink := newMemSink()
				report, err := tryDump(t, asBackup(t, s), sink)
				switch {
				case err != nil:
					require.ErrorIs(t, err, dbdump.ErrPrivilege, p)
					require.ErrorContains(t, err, "GRANT "+p+" ON *.* TO `keepset_backup`@`%`")
					require.Empty(t, sink.streams, "nothing was written")
				case p == "RELOAD":
					require.Equal(t, "lock-tables", report.Consistency)
				case p == "BACKUP_ADMIN", p == "CREATE TEMPORARY TABLES":
					require.NotEmpty(t, report.Warnings)
				default:
					require.Contains(t, []string{"BINLOG ADMIN", "LOCK TABLES"}, p, "a dump without %s succeeded: is it needed?", p)
				}
				s.Exec(t, "GRANT "+p+" ON *.* TO "+m[2])
				tried++
			}
		}
		require.Greater(t, tried, 5)
	})
}

func TestRolesCount(t *testing.T) {
	t.Parallel()
	eachServer(t, flavours(), func(t *testing.T, s *servers.MySQL) {
		everyClass(t, s)
		for _, q := range backupAccount(t, s) {
			if strings.HasPrefix(q, "CREATE USER") {
				s.Exec(t, q, "CREATE ROLE backups")
				continue
			}
			s.Exec(t, regexp.MustCompile(`TO \S+$`).ReplaceAllString(q, "TO backups"))
		}
		s.Exec(t, "GRANT backups TO keepset_backup@'%'")
		if strings.Contains(s.Value(t, "SELECT VERSION()"), "MariaDB") {
			s.Exec(t, "SET DEFAULT ROLE backups FOR keepset_backup@'%'")
		}
		dumpWith(t, asBackup(t, s))
	})
}

func TestAWrongPasswordIsAccessDenied(t *testing.T) {
	t.Parallel()
	s := servers.MariaDB(t)
	o := options(t, s)
	o.Password = "wrong-password"
	_, err := tryDump(t, o, newMemSink())
	require.ErrorIs(t, err, dbdump.ErrAccess)
	require.NotContains(t, err.Error(), "wrong-password")
	s.Stop(t)
	_, err = tryDump(t, options(t, s), newMemSink())
	require.ErrorIs(t, err, dbdump.ErrUnreachable)
}

// MariaDB 10.5 wants INSERT on a sequence from whoever looks at a table with a default from it.
func TestADefaultThatMayNotBeReadIsNamed(t *testing.T) {
	t.Parallel()
	s := servers.MariaDB105(t)
	everyClass(t, s)
	s.Exec(t, backupAccount(t, s)...)
	s.Exec(t, "REVOKE INSERT ON app.s FROM keepset_backup@'%'")
	_, err := tryDump(t, asBackup(t, s), newMemSink())
	require.ErrorIs(t, err, dbdump.ErrPrivilege)
	require.ErrorContains(t, err, "table `app`.`d` cannot be opened")
	require.ErrorContains(t, err, "INSERT command denied to user 'keepset_backup'@'127.0.0.1' for table `app`.`s`")
}
