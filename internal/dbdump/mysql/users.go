package mysql

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"keepset/internal/dbdump"
)

// userObject is an account or a role.
type userObject struct {
	user, host string
	role       bool
	// privileges is what MariaDB keeps of the account in mysql.global_priv, as JSON.
	privileges string
}

// name is how the report calls it: user@host, or a MariaDB role's bare name.
func (u userObject) name() string {
	if u.host == "" && u.role {
		return u.user
	}
	return u.user + "@" + u.host
}

// sql is the name as statements want it.
func (u userObject) sql() string {
	if u.everybody() {
		return u.user
	}
	if u.host == "" && u.role {
		return quoteIdentifier(u.user)
	}
	return quoteIdentifier(u.user) + "@" + quoteIdentifier(u.host)
}

// everybody tells whether it is MariaDB's role that all accounts have, and that nobody creates.
func (u userObject) everybody() bool { return u.role && u.host == "" && u.user == "PUBLIC" }

// systemAccounts are made by the server itself and are the same everywhere.
var systemAccounts = []string{"mysql.sys@localhost", "mysql.session@localhost", "mysql.infoschema@localhost", "mariadb.sys@localhost"}

// readUsers lists accounts and roles, system accounts left out.
func (d *dump) readUsers(ctx context.Context, s *session) ([]userObject, error) {
	query := "SELECT User, Host, 0, '' FROM mysql.user"
	switch {
	case d.server.MariaDB():
		query = "SELECT User, Host, JSON_VALUE(Priv, '$.is_role') IS NOT NULL, Priv FROM mysql.global_priv"
	case d.server.AtLeast(8, 0, 0):
		query = `SELECT User, Host, account_locked = 'Y' AND authentication_string = '' AND password_expired = 'Y'
			OR EXISTS (SELECT 1 FROM mysql.role_edges WHERE FROM_USER = User AND FROM_HOST = Host), '' FROM mysql.user`
	}
	var list []userObject
	err := s.each(ctx, query, func(r row) error {
		u := userObject{user: r.at(0), host: r.at(1), role: r.at(2) == "1", privileges: r.at(3)}
		if !slices.Contains(systemAccounts, u.name()) {
			list = append(list, u)
		}
		return nil
	})
	// Roles first: accounts may name them.
	slices.SortFunc(list, func(a, b userObject) int {
		if a.role != b.role {
			if a.role {
				return -1
			}
			return 1
		}
		return strings.Compare(a.name(), b.name())
	})
	return list, err
}

// accountTables hold accounts and grants. They are compared, not dumped.
func (d *dump) accountTables() []string {
	tables := []string{"db", "tables_priv", "columns_priv", "procs_priv", "proxies_priv", "servers"}
	switch {
	case d.server.MariaDB():
		return append(tables, "global_priv", "roles_mapping")
	case d.server.AtLeast(8, 0, 0):
		return append(tables, "user", "global_grants", "role_edges", "default_roles")
	}
	return append(tables, "user")
}

// accountsFingerprint changes when an account or a grant does.
func (d *dump) accountsFingerprint(ctx context.Context, s *session) (string, error) {
	if d.opts.SkipUsers || !d.wholeServer() {
		return "", nil
	}
	all := sha256.New()
	for _, table := range d.accountTables() {
		var lines []string
		err := s.each(ctx, "SELECT * FROM mysql."+table, func(r row) error {
			lines = append(lines, fmt.Sprintf("%+q", fmt.Sprint(r.values)))
			return nil
		})
		if err != nil {
			return "", fmt.Errorf("read accounts and grants: %w", err)
		}
		slices.Sort(lines)
		all.Write(fmt.Appendln(nil, table, lines))
	}
	return hex.EncodeToString(all.Sum(nil)), nil
}

// writeUsers writes users.sql: first all accounts, then what they may do, then
// who has which role, last the default roles, which need all of these.
func (d *dump) writeUsers(ctx context.Context, s *session) error {
	var err error
	if d.users, err = d.readUsers(ctx, s); err != nil {
		return fmt.Errorf("read accounts: %w", err)
	}
	var parts userScript
	for _, u := range d.users {
		if err := d.readUser(ctx, s, u, &parts); err != nil {
			return fmt.Errorf("read account %s: %w", u.sql(), err)
		}
	}
	if err := d.readProxies(ctx, s, &parts); err != nil {
		return err
	}
	if err := d.readAttributes(ctx, s, &parts); err != nil {
		return err
	}
	script := newScript()
	for _, q := range slices.Concat(parts.create, parts.grants, parts.packages, parts.roles, parts.defaults) {
		script.add(q)
	}
	return d.out.script(ctx, usersStream, dbdump.StreamOptions{Secret: true}, script)
}

// userScript collects the statements of users.sql.
type userScript struct{ create, grants, packages, roles, defaults []string }

var (
	defaultRole = regexp.MustCompile(" DEFAULT ROLE ((?:(?:`(?:[^`]|``)*`@`(?:[^`]|``)*`|ALL|NONE),?)+)")
	roleGrant   = regexp.MustCompile("(?is)^GRANT `(?:[^`]|``)*`(?:@`(?:[^`]|``)*`)?(?:,`(?:[^`]|``)*`(?:@`(?:[^`]|``)*`)?)* TO ")
)

func (d *dump) readUser(ctx context.Context, s *session, u userObject, parts *userScript) error {
	switch {
	case u.everybody():
	case d.server.MariaDB() && u.role:
		parts.create = append(parts.create, "CREATE ROLE "+u.sql())
	default:
		create, err := d.createUser(ctx, s, u, parts)
		if err != nil {
			return err
		}
		parts.create = append(parts.create, create)
	}
	return s.each(ctx, "SHOW GRANTS FOR "+u.sql(), func(r row) error {
		line := r.at(0)
		switch {
		case strings.HasPrefix(line, "SET DEFAULT ROLE "):
			parts.defaults = append(parts.defaults, line)
		case d.server.MariaDB() && strings.HasPrefix(line, "GRANT PROXY ON "):
			// Not every version quotes these: readProxies writes them.
		case !grantFor(line, u):
			// MariaDB also shows what a role has through other roles.
		case roleGrant.MatchString(line):
			parts.roles = append(parts.roles, line)
		case d.server.MariaDB() && packageGrant.MatchString(line):
			// Understood under sql_mode=ORACLE alone.
			parts.packages = append(parts.packages, "SET SESSION sql_mode = 'ORACLE'", line, "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO'")
		default:
			if d.server.MariaDB() {
				line = withoutAuthentication(line)
			}
			if !strings.HasPrefix(line, "GRANT USAGE ON *.* TO ") || strings.HasSuffix(line, "WITH GRANT OPTION") {
				parts.grants = append(parts.grants, line)
			}
		}
		return nil
	})
}

var packageGrant = regexp.MustCompile("(?i) ON PACKAGE ")

// grantFor tells whether a line of SHOW GRANTS is about the account itself.
func grantFor(line string, u userObject) bool {
	for _, word := range []string{" TO ", " FROM "} {
		if i := strings.LastIndex(line, word+u.sql()); i >= 0 {
			rest := line[i+len(word)+len(u.sql()):]
			if rest == "" || rest[0] == ' ' {
				return true
			}
		}
	}
	return false
}

// withoutAuthentication takes password, TLS and limits out of MariaDB's first
// line of SHOW GRANTS: CREATE USER has said them, and saying the password
// again would lift its expiry.
func withoutAuthentication(line string) string {
	tokens, err := tokenize(line, quoting{})
	to := slices.IndexFunc(tokens, func(t token) bool { return t.is(line, "TO") })
	if err != nil || to < 0 || to+1 >= len(tokens) {
		return line
	}
	account := to + 1
	if account+2 < len(tokens) && tokens[account+1].is(line, "@") {
		account += 2
	}
	if (definition{tokens: tokens[account:]}).has(line, "GRANT", "OPTION") {
		return line[:tokens[account].end] + " WITH GRANT OPTION"
	}
	return line[:tokens[account].end]
}

// createUser is SHOW CREATE USER with the default role set apart.
func (d *dump) createUser(ctx context.Context, s *session, u userObject, parts *userScript) (string, error) {
	var create string
	if err := s.queryRow(ctx, "SHOW CREATE USER "+u.sql(), &create); err != nil {
		return "", err
	}
	if d.server.MariaDB() {
		return quoteTexts(create, u.privileges)
	}
	if m := defaultRole.FindStringSubmatchIndex(create); m != nil {
		parts.defaults = append(parts.defaults, "ALTER USER "+u.sql()+create[m[0]:m[1]])
		create = create[:m[0]] + create[m[1]:]
	}
	return create, nil
}

// readAttributes reads what MySQL keeps of accounts beside SHOW CREATE USER.
func (d *dump) readAttributes(ctx context.Context, s *session, parts *userScript) error {
	if d.server.MariaDB() || !d.server.AtLeast(8, 0, 21) {
		return nil
	}
	err := s.each(ctx, "SELECT USER, HOST, ATTRIBUTE FROM information_schema.USER_ATTRIBUTES WHERE ATTRIBUTE IS NOT NULL", func(r row) error {
		u := userObject{user: r.at(0), host: r.at(1)}
		if !slices.Contains(systemAccounts, u.name()) {
			parts.create = append(parts.create, "ALTER USER "+u.sql()+" ATTRIBUTE "+quoteString(r.at(2)))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read attributes of accounts: %w", err)
	}
	return s.each(ctx, "SELECT User, Host FROM mysql.user WHERE JSON_CONTAINS_PATH(User_attributes, 'one', '$.additional_password')", func(r row) error {
		u := userObject{user: r.at(0), host: r.at(1)}
		d.omit("second password (RETAIN CURRENT PASSWORD) of account " + u.sql() + ": the server has no statement that sets it from its hash")
		return nil
	})
}
