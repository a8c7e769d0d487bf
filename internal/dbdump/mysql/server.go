package mysql

import (
	"context"
	"fmt"
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

// parseVersion reads "10.11.14-MariaDB-0+deb12u2-log" and the like.
func parseVersion(v string) (string, int, error) {
	end := strings.IndexFunc(v, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if end >= 0 {
		v = v[:end]
	}
	parts := strings.Split(v, ".")
	if len(parts) < 2 {
		return "", 0, fmt.Errorf("server version %q is not understood", v)
	}
	number := 0
	for i := range 3 {
		n := 0
		if i < len(parts) && parts[i] != "" {
			var err error
			if n, err = strconv.Atoi(parts[i]); err != nil {
				return "", 0, fmt.Errorf("server version %q is not understood", v)
			}
		}
		number = number*100 + n
	}
	return v, number, nil
}
