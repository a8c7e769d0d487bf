package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"keepset/internal/dbdump"
)

// wholeServer tells whether the dump is of a server, though perhaps not of all
// its databases, and so holds its roles; not of single databases.
func (d *dump) wholeServer() bool { return len(d.opts.Filter.Include) == 0 }

// writeRoles writes what belongs to the server and not to a database. No
// snapshot covers pg_dumpall, so the roles have to be the same before and after.
func (d *dump) writeRoles(ctx context.Context, admin *session, before string) error {
	switch {
	case !d.wholeServer():
		return nil
	case d.opts.SkipRoles:
		d.omit("roles and tablespaces: the options leave them out")
		return nil
	}
	args := []string{"--roles-only"}
	if !d.server.superuser {
		args = append(args, "--no-role-passwords")
		d.omit("passwords of roles: the account that dumps is no superuser, and may not read them")
	}
	everybody, err := settingsOfAll(ctx, admin)
	if err != nil {
		return err
	}
	if err := d.writeAll(ctx, rolesStream, dbdump.StreamOptions{Secret: true}, args, everybody); err != nil {
		return err
	}
	if err := d.writeAll(ctx, tablespacesStream, dbdump.StreamOptions{}, []string{"--tablespaces-only"}, ""); err != nil {
		return err
	}
	after, err := rolesFingerprint(ctx, admin)
	if err != nil {
		return err
	}
	if after != before {
		return fmt.Errorf("%w: roles or tablespaces were changed while they were read: repeat the backup", dbdump.ErrDrift)
	}
	if d.roles, err = names(ctx, admin, `SELECT rolname FROM pg_catalog.pg_roles WHERE rolname !~ '^pg_' ORDER BY rolname COLLATE "C"`); err != nil {
		return err
	}
	d.spaces, err = names(ctx, admin, `SELECT spcname FROM pg_catalog.pg_tablespace WHERE spcname !~ '^pg_' ORDER BY spcname COLLATE "C"`)
	return err
}

// writeAll writes what pg_dumpall says, and what it does not say.
func (d *dump) writeAll(ctx context.Context, stream string, opts dbdump.StreamOptions, args []string, more string) error {
	out := d.out.create(ctx, stream, opts)
	p := Program{Name: "pg_dumpall", Major: d.server.major, Args: args, Server: d.engine.serverFor("postgres")}
	err := d.runScript(ctx, p, dumpAllComplete, stream, &sorter{other: out})
	if err == nil {
		_, err = out.Write([]byte(more))
	}
	_, err = out.end(err)
	return err
}

// allRoles begins the statements that settingsOfAll writes.
const allRoles = "ALTER ROLE ALL SET "

// lists are the settings whose value is a list of names, each of them quoted
// where it has to be, and not one text.
var lists = []string{
	"local_preload_libraries", "search_path", "session_preload_libraries", "shared_preload_libraries", "temp_tablespaces", "unix_socket_directories",
}

// settingsOfAll are the statements that make the settings of all roles in all
// databases. They belong to none of either, and pg_dumpall leaves them out.
func settingsOfAll(ctx context.Context, s *session) (string, error) {
	const q = "SELECT pg_catalog.unnest(setconfig) FROM pg_catalog.pg_db_role_setting WHERE setrole = 0 AND setdatabase = 0"
	settings, err := names(ctx, s, q)
	if err != nil || len(settings) == 0 {
		return "", err
	}
	var b strings.Builder
	b.WriteString("\n")
	for _, setting := range settings {
		name, value, _ := strings.Cut(setting, "=")
		b.WriteString(allRoles + quoteIdentifier(name) + " TO ")
		if !slices.Contains(lists, name) {
			b.WriteString(quoteString(value) + ";\n")
			continue
		}
		var items []string
		for _, t := range tokensOf([]byte(value), len(value)+1) {
			if t.name {
				items = append(items, quoteString(t.text))
			}
		}
		b.WriteString(strings.Join(items, ", ") + ";\n")
	}
	return b.String(), nil
}

// rolesFingerprint is a text that changes with roles, memberships, their
// settings and tablespaces, as far as the account may see them.
func rolesFingerprint(ctx context.Context, s *session) (string, error) {
	var b strings.Builder
	for _, q := range []string{
		"SELECT pg_catalog.row_to_json(x) FROM pg_catalog.pg_roles x ORDER BY oid",
		"SELECT pg_catalog.row_to_json(x) FROM pg_catalog.pg_auth_members x ORDER BY roleid, member, grantor",
		"SELECT pg_catalog.row_to_json(x) FROM pg_catalog.pg_db_role_setting x ORDER BY setdatabase, setrole",
		"SELECT pg_catalog.row_to_json(x) FROM pg_catalog.pg_tablespace x ORDER BY oid",
	} {
		err := s.each(ctx, q, func(r row) error {
			b.Write(r[0])
			b.WriteByte('\n')
			return nil
		})
		if err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

// names are the first columns of a small result.
func names(ctx context.Context, s *session, query string) ([]string, error) {
	var list []string
	err := s.each(ctx, query, func(r row) error {
		list = append(list, r.at(0))
		return nil
	})
	return list, err
}
