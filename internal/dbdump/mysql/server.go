package mysql

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// The two families of servers (record.Report.Flavor).
const (
	FlavorMariaDB = "mariadb"
	FlavorMySQL   = "mysql"
)

// Server is what a server says of itself.
type Server struct {
	// Flavor is FlavorMariaDB or FlavorMySQL; Percona Server counts as MySQL.
	Flavor string
	// Version without suffixes, for example "10.11.14".
	Version string
	// number is major*10000 + minor*100 + patch.
	number int
	// Comment is @@version_comment.
	Comment string
	// LowerCaseTableNames is @@lower_case_table_names: 0 keeps and respects case.
	LowerCaseTableNames int
}

// MariaDB tells the family.
func (s Server) MariaDB() bool { return s.Flavor == FlavorMariaDB }

// family is what the servers are called.
func (s Server) family() string {
	if s.MariaDB() {
		return "MariaDB"
	}
	return "MySQL"
}

// AtLeast compares the version, within the family that the caller knows.
func (s Server) AtLeast(major, minor, patch int) bool {
	return s.number >= major*10000+minor*100+patch
}

// detect reads version and flavour, and refuses servers that are too old to
// be dumped or loaded by what is known here.
func detect(ctx context.Context, c *session) (Server, error) {
	var version, comment string
	var s Server
	err := c.queryRow(ctx, "SELECT VERSION(), @@version_comment, @@lower_case_table_names", &version, &comment, &s.LowerCaseTableNames)
	if err != nil {
		return s, err
	}
	s.Comment = comment
	s.Flavor = FlavorMySQL
	if strings.Contains(strings.ToLower(version+" "+comment), "mariadb") {
		s.Flavor = FlavorMariaDB
	}
	// Replication from old masters made MariaDB call itself 5.5.5-10.x.
	version = strings.TrimPrefix(version, "5.5.5-")
	s.Version, s.number, err = parseVersion(version)
	if err != nil {
		return s, err
	}
	if s.MariaDB() && !s.AtLeast(10, 5, 0) || !s.MariaDB() && !s.AtLeast(5, 7, 0) {
		return s, fmt.Errorf("%s %s is too old: want MariaDB 10.5 or later, or MySQL 5.7 or later", s.Flavor, s.Version)
	}
	return s, nil
}

var versionNumbers = regexp.MustCompile(`^(\d+)\.(\d+)(?:\.(\d+))?`)

// parseVersion reads "10.11.14-MariaDB-0+deb12u2-log" and the like.
func parseVersion(v string) (string, int, error) {
	m := versionNumbers.FindStringSubmatch(v)
	if m == nil {
		return "", 0, fmt.Errorf("server version %q is not understood", v)
	}
	number := 0
	for i, part := range m[1:] {
		n, err := 0, error(nil)
		if part != "" {
			n, err = strconv.Atoi(part)
		}
		if i == 2 {
			n = min(n, 99) // a hundredth patch is not the next minor version
		}
		if err != nil || i == 0 && n > 9999 || n > 99 && i > 0 {
			return "", 0, fmt.Errorf("server version %q is not understood", v)
		}
		number = number*100 + n
	}
	return m[0], number, nil
}

// fold is a name of a schema or a table as the server compares it with others.
func (s Server) fold(name string) string {
	if s.LowerCaseTableNames == 0 {
		return name
	}
	return strings.ToLower(name)
}
