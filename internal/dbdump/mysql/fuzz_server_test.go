package mysql

import (
	"database/sql"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A version is understood as its numbers, in their order, or not at all.
func FuzzVersion(f *testing.F) {
	for _, v := range []string{
		"10.11.14-MariaDB-0+deb12u2-log", "5.7.44", "9.7.0", "8.0.36-28.1", "8.0.mysql_aurora.3.04.0", "11.8", "8.0.100", "10", ".", "8..1",
		"99999999999999999999.1.1", "922337203685477.5.8",
	} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, text string) {
		version, number, err := parseVersion(text)
		if err != nil {
			require.Empty(t, version)
			return
		}
		require.True(t, strings.HasPrefix(text, version))
		require.Regexp(t, regexp.MustCompile(`^\d+\.\d+(\.\d+)*$`), version)
		s := Server{number: number}
		var parts [3]int
		for i, p := range strings.Split(version, ".") {
			if i < 3 {
				parts[i], err = strconv.Atoi(p)
				require.NoError(t, err)
			}
		}
		require.True(t, s.AtLeast(parts[0], parts[1], min(parts[2], 99)), text)
		require.False(t, s.AtLeast(parts[0], parts[1]+1, 0), text)
		require.False(t, s.AtLeast(parts[0]+1, 0, 0), text)
	})
}

// A GTID position that is written down again is the same position, and every
// position has reached itself.
func FuzzMariaDBGTID(f *testing.F) {
	for _, s := range []string{"", "0-1-100", "0-1-100,1-2-3", "[0-1-5, 1-1-1]", "1-2", "a-b-c", "0-1-18446744073709551615", "4294967296-1-1", "0--1-1", "0-+1-1", "0-1-1,0-2-7"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, position, goal string) {
		list, err := parseMariaDB(position)
		if err != nil {
			require.ErrorContains(t, err, "want domain-server-sequence")
			return
		}
		texts := make([]string, len(list))
		for i, g := range list {
			texts[i] = fmt.Sprintf("%d-%d-%d", g.domain, g.server, g.sequence)
			require.True(t, wrote(list, g))
		}
		again, err := parseMariaDB(strings.Join(texts, ","))
		require.NoError(t, err)
		require.Equal(t, list, again)
		reached, err := includesMariaDB(position, position)
		require.NoError(t, err)
		require.True(t, reached)
		if want, err := parseMariaDB(goal); err == nil {
			reached, err := includesMariaDB(position, goal)
			require.NoError(t, err)
			higher := slices.IndexFunc(want, func(g mariaGTID) bool { return newest(list)[g.domain] < g.sequence })
			require.Equal(t, higher < 0, reached)
		}
	})
}

// The replication status of whatever server gives a channel that does not run
// unless it says so, and whose lag is not known unless it says so.
func FuzzChannel(f *testing.F) {
	f.Add("db-0", "3306", "binlog.000002", "157", "Yes", "Yes", "0", true)
	f.Add("", "", "", "", "Connecting", "No", "NULL", false)
	f.Fuzz(func(t *testing.T, host, port, file, position, io, applier, lag string, source bool) {
		words, replica := "Master", "Slave"
		if source {
			words, replica = "Source", "Replica"
		}
		var r row
		for name, value := range map[string]string{
			words + "_Host": host, words + "_Port": port, "Relay_" + words + "_Log_File": file, "Exec_" + words + "_Log_Pos": position,
			replica + "_IO_Running": io, replica + "_SQL_Running": applier, "Seconds_Behind_" + words: lag,
		} {
			r.names = append(r.names, name)
			r.values = append(r.values, sql.NullString{String: value, Valid: true})
		}
		c := parseChannel(r, words)
		require.Equal(t, io == "Yes" && applier == "Yes", c.Running)
		require.Equal(t, host+"/"+file, c.Host+"/"+c.File)
		if c.LagSeconds != -1 {
			n, err := strconv.ParseInt(lag, 10, 64)
			require.NoError(t, err)
			require.Equal(t, n, c.LagSeconds)
		}
		if c.Position != 0 {
			n, err := strconv.ParseUint(position, 10, 64)
			require.NoError(t, err)
			require.Equal(t, n, c.Position)
		}
	})
}

// What an account may do everywhere is told from what it may do in one schema,
// whatever that schema and the account are called.
func FuzzGrants(f *testing.F) {
	f.Add("SELECT, RELOAD", "app", "keepset", "%")
	f.Add("ALL PRIVILEGES", "x ON *.* TO `y", "a` ON *.* TO `b", "localhost")
	f.Add("select,PROCESS", "m`y", "REVOKE ", "10.%")
	words := regexp.MustCompile(`^[A-Za-z_]+( [A-Za-z_]+)*(, ?[A-Za-z_]+( [A-Za-z_]+)*)*$`)
	f.Fuzz(func(t *testing.T, privileges, schema, user, host string) {
		if !words.MatchString(privileges) || regexp.MustCompile(`(?i)\bON\b`).MatchString(privileges) || strings.ContainsAny(schema+user+host, "\x00\n") {
			return
		}
		to := " TO " + quoteIdentifier(user) + "@" + quoteIdentifier(host)
		g := &grants{global: map[string]bool{}}
		g.parse("GRANT " + privileges + " ON " + quoteIdentifier(schema) + ".*" + to)
		g.parse("GRANT " + privileges + " ON PROCEDURE " + quoteQualified(schema, schema) + to + " WITH GRANT OPTION")
		g.parse("GRANT " + quoteIdentifier(schema) + "@" + quoteIdentifier(host) + to)
		require.Empty(t, g.global, "%q gives nothing everywhere", schema)
		require.False(t, g.all)
		g.parse("REVOKE " + privileges + " ON " + quoteIdentifier(schema) + ".* FROM " + quoteIdentifier(user))
		require.Len(t, g.restricted, 1)
		if schema != "" {
			m := revokedSchema.FindStringSubmatch(g.restricted[0])
			require.NotNil(t, m)
			require.Equal(t, schema, strings.ReplaceAll(m[1], "``", "`"))
		}
		g.parse("GRANT " + privileges + " ON *.*" + to + " IDENTIFIED BY PASSWORD '*0' WITH GRANT OPTION")
		for p := range strings.SplitSeq(privileges, ",") {
			require.True(t, g.has(strings.ToUpper(strings.TrimSpace(p))), p)
		}
	})
}

// A line of SHOW GRANTS is about the account that it is about, and without its
// authentication it says the same of its privileges.
func FuzzGrantLines(f *testing.F) {
	f.Add("app", "keepset", "%", "other", "localhost")
	f.Add("a` TO `b`@`c", "x` TO `y", "h", "y", "h")
	f.Add("0", "0 TO `  ", "^.\x94`\xc3h", "x", "y")
	f.Add(" WITH GRANT OPTION", "u WITH MAX_QUERIES_PER_HOUR 1", "%", "u", "%")
	f.Fuzz(func(t *testing.T, schema, user, host, otherUser, otherHost string) {
		u, other := userObject{user: user, host: host}, userObject{user: otherUser, host: otherHost}
		grant := "GRANT SELECT ON " + quoteIdentifier(schema) + ".* TO " + u.sql()
		if strings.ContainsRune(schema+user+host+otherUser, '\n') || u == other {
			return
		}
		for _, tail := range []string{"", " WITH GRANT OPTION"} {
			require.True(t, grantFor(grant+tail, u))
			require.False(t, grantFor(grant+tail, other), "%s is not about %s", grant, other.sql())
			require.Equal(t, grant+tail, withoutAuthentication(grant+tail))
			require.Equal(t, grant+tail, withoutAuthentication(grant+" IDENTIFIED BY PASSWORD '*94BDCEBE19083CE2A1F959FD02F964C7AF4CFC29' REQUIRE SSL"+tail))
			require.False(t, roleGrant.MatchString(grant+tail))
		}
		require.True(t, roleGrant.MatchString("GRANT "+other.sql()+" TO "+u.sql()))
	})
}

// Names that differ make streams that differ, and no name leaves its folder.
func FuzzNames(f *testing.F) {
	f.Add("app", "App")
	f.Add("..", "a/b")
	f.Add(".x", "%2Ex")
	f.Add("ü ", "\xff")
	f.Fuzz(func(t *testing.T, a, b string) {
		if a == "" || b == "" { // no object is called so
			return
		}
		require.Regexp(t, regexp.MustCompile(`^([A-Za-z0-9_-]|%[0-9A-F]{2})([A-Za-z0-9_.-]|%[0-9A-F]{2})*$`), escapeElement(a))
		require.Equal(t, a == b, escapeElement(a) == escapeElement(b))
		require.Equal(t, 4, strings.Count(dataStream(a, b, 1, 2), "/"))
	})
}

// A filter that leaves something of a schema to be dumped does not leave out
// the schema, and what it excludes is never dumped.
func FuzzFilter(f *testing.F) {
	f.Add("app.*", "app.log_*", "app", "log_1")
	f.Add("a/b", "", "a/b", "t")
	f.Add("[", "*", "x", "y")
	f.Fuzz(func(t *testing.T, include, exclude, schema, table string) {
		filter := Filter{Include: []string{include}, Exclude: []string{exclude}}
		if filter.validate() != nil {
			return
		}
		if filter.Table(schema, table) {
			require.True(t, filter.Schema(schema))
			require.True(t, Filter{Include: filter.Include}.Table(schema, table))
		}
		if s, tab, dotted := cutPattern(exclude); dotted && glob(s, schema) && glob(tab, table) || !dotted && glob(s, schema) {
			require.False(t, filter.Table(schema, table))
		}
	})
}
