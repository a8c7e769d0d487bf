package mysql

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"keepset/internal/dbdump"
)

// grants is what SHOW GRANTS says of the account, its active roles included.
// information_schema.USER_PRIVILEGES is no substitute: it knows nothing of
// roles and is blind on some managed services.
type grants struct {
	account string
	// global privileges, upper case.
	global map[string]bool
	all    bool
	// restricted: partial revokes exist, so that a global privilege does not
	// reach every schema.
	restricted []string
}

// has tells whether a global privilege is there.
func (g *grants) has(privilege string) bool { return g.all || g.global[privilege] }

// globalGrant has no quote among its privileges: in one, " ON *.* TO " may be part of a name.
var globalGrant = regexp.MustCompile("(?is)^GRANT ([^`'\"]+?) ON \\*\\.\\* TO ")

// readGrants activates what roles the account may use and lists the grants.
func readGrants(ctx context.Context, s *session, server Server) (*grants, error) {
	g := &grants{global: map[string]bool{}}
	if err := s.queryRow(ctx, "SELECT CURRENT_USER()", &g.account); err != nil {
		return nil, err
	}
	query := "SHOW GRANTS"
	if !server.MariaDB() && server.AtLeast(8, 0, 0) {
		var roles string
		if err := s.queryRow(ctx, "SELECT CURRENT_ROLE()", &roles); err != nil {
			return nil, err
		}
		if roles != "" && roles != "NONE" {
			query = "SHOW GRANTS FOR CURRENT_USER() USING " + roles
		}
	}
	err := s.each(ctx, query, func(r row) error {
		g.parse(r.at(0))
		return nil
	})
	return g, err
}

// parse takes in one line of SHOW GRANTS.
func (g *grants) parse(line string) {
	if m := globalGrant.FindStringSubmatch(line); m != nil {
		for p := range strings.SplitSeq(m[1], ",") {
			p = strings.ToUpper(strings.TrimSpace(p))
			if p == "ALL PRIVILEGES" || p == "ALL" {
				g.all = true
			}
			g.global[p] = true
		}
		return
	}
	if strings.HasPrefix(strings.ToUpper(line), "REVOKE ") {
		g.restricted = append(g.restricted, line)
	}
}

// activateRoles lets a MySQL account use all roles that it was granted, not
// only the default ones.
func activateRoles(server Server) []string {
	if !server.MariaDB() && server.AtLeast(8, 0, 0) {
		return []string{"SET ROLE ALL"}
	}
	return nil
}

// need is one privilege that a dump cannot do without, and what for. Any of
// names will do.
type need struct {
	names []string
	what  string
}

// needs are the privileges for what the options ask.
func (d *dump) needs() []need {
	list := []need{
		{[]string{"SELECT"}, "read the rows"},
		{[]string{"SHOW VIEW"}, "read the definitions of views"},
		{[]string{"TRIGGER"}, "see triggers"},
		{[]string{"EVENT"}, "see events"},
	}
	list = append(list, d.positionNeeds()...)
	switch {
	case d.server.MariaDB() && d.server.AtLeast(11, 3, 0):
		list = append(list, need{[]string{"SHOW CREATE ROUTINE"}, "read the definitions of routines"})
	case !d.server.MariaDB() && d.server.AtLeast(8, 0, 20):
		list = append(list, need{[]string{"SHOW_ROUTINE"}, "read the definitions of routines"})
	}
	list = append(list, need{[]string{"PROCESS"}, "read tablespaces, and see what holds up the lock"})
	switch d.opts.LockMode {
	case LockFTWRL:
		list = append(list, need{[]string{"RELOAD", "FLUSH_TABLES"}, "lock by FLUSH TABLES WITH READ LOCK"})
	case LockBackupStage:
		list = append(list, need{[]string{"RELOAD"}, "lock by BACKUP STAGE"})
	case LockTables:
		list = append(list, need{[]string{"LOCK TABLES"}, "lock by LOCK TABLES"})
	case LockAuto:
		list = append(list, need{[]string{"RELOAD", "FLUSH_TABLES", "LOCK TABLES"}, "lock for the consistent point"})
	}
	return list
}

// positionNeeds are the privileges for the coordinates.
func (d *dump) positionNeeds() []need {
	if d.server.MariaDB() {
		return []need{
			{[]string{"BINLOG MONITOR", "REPLICATION CLIENT", "SUPER"}, "read the server's own binary log position"},
			{[]string{"SLAVE MONITOR", "REPLICA MONITOR", "REPLICATION SLAVE ADMIN", "SUPER"}, "read the position in its upstream"},
		}
	}
	return []need{{[]string{"REPLICATION CLIENT", "SUPER"}, "read the replication positions"}}
}

// require fails with one error that names everything that is missing.
func (d *dump) require(needs []need) error {
	var missing, why []string
	for _, n := range needs {
		if !slices.ContainsFunc(n.names, d.grants.has) {
			missing = append(missing, n.names[0])
			why = append(why, n.names[0]+" to "+n.what)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("account %s on %s: %w: %s; run: GRANT %s ON *.* TO %s",
			d.grants.account, d.opts.Address, dbdump.ErrPrivilege, strings.Join(why, ", "), strings.Join(missing, ", "), grantee(d.grants.account))
	}
	return nil
}

// checkPrivileges makes sure that a dump can see everything.
func (d *dump) checkPrivileges() error {
	if err := d.require(d.needs()); err != nil {
		return err
	}
	for _, r := range d.grants.restricted {
		for _, p := range []string{"SELECT", "SHOW VIEW", "TRIGGER", "EVENT"} {
			if strings.Contains(strings.ToUpper(r), p) && d.restrictionMatters(r) {
				return fmt.Errorf("account %s on %s: %w: a partial revoke hides a schema: %s; lift it, or exclude the schema", d.grants.account, d.opts.Address, dbdump.ErrPrivilege, r)
			}
		}
	}
	return nil
}

var revokedSchema = regexp.MustCompile("(?is) ON `((?:[^`]|``)+)`\\.\\* FROM ")

// restrictionMatters tells whether a partial revoke concerns what is dumped.
func (d *dump) restrictionMatters(line string) bool {
	m := revokedSchema.FindStringSubmatch(line)
	if m == nil {
		return true
	}
	name := strings.ReplaceAll(m[1], "``", "`")
	if strings.EqualFold(name, "mysql") {
		return !d.opts.SkipUsers
	}
	return !systemSchema(name) && d.opts.Filter.Schema(name)
}

// grantee writes CURRENT_USER()'s user@host as a grantee.
func grantee(account string) string {
	if i := strings.LastIndexByte(account, '@'); i >= 0 {
		return quoteIdentifier(account[:i]) + "@" + quoteIdentifier(account[i+1:])
	}
	return quoteIdentifier(account)
}
