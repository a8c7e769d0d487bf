package mysql

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"keepset/internal/dbdump"
)

// alwaysOmitted are classes of objects that a dump never holds.
var alwaysOmitted = []string{
	"server configuration: option files, persisted variables, plugins, components, keyrings and TLS certificates",
	"schemas mysql, information_schema, performance_schema and sys, but for accounts, grants, servers, tablespaces and reference systems: the server makes them itself",
	"statistics of the optimizer (histograms, engine-independent and InnoDB statistics): the server collects them again",
	"system accounts (" + "mysql.sys, mysql.session, mysql.infoschema, mariadb.sys" + "): the server makes them itself",
	"history of earlier passwords of accounts, temporary tables, prepared statements and user variables",
}

// AlwaysOmitted tells whether what a report lists as omitted is left out of
// every dump, whatever the server holds.
func AlwaysOmitted(what string) bool { return slices.Contains(alwaysOmitted, what) }

// writeServer writes server.sql: objects that belong to no schema.
func (d *dump) writeServer(ctx context.Context, s *session) error {
	out := newScript()
	empty := out.b.Len()
	readers := []func(context.Context, *session, *script) error{d.readServers, d.readLoadable}
	if !d.server.MariaDB() {
		readers = append(readers, d.readTablespaces)
		if d.server.AtLeast(8, 0, 0) {
			readers = append(readers, d.readSpatialSystems, d.readResourceGroups)
		}
	}
	for _, read := range readers {
		if err := read(ctx, s, out); err != nil {
			return fmt.Errorf("read server objects: %w", err)
		}
	}
	if out.b.Len() == empty {
		return nil
	}
	d.serverObjects = true
	return d.out.script(ctx, serverStream, dbdump.StreamOptions{Secret: true}, out)
}

// readServers reads what CREATE SERVER made.
func (d *dump) readServers(ctx context.Context, s *session, script *script) error {
	return s.each(ctx, "SELECT * FROM mysql.servers", func(r row) error {
		options, err := serverOptions(r)
		if err != nil {
			return fmt.Errorf("server %s: %w", quoteIdentifier(r.get("Server_name")), err)
		}
		script.addf("CREATE SERVER %s FOREIGN DATA WRAPPER %s OPTIONS (%s)",
			quoteIdentifier(r.get("Server_name")), quoteIdentifier(r.get("Wrapper")), strings.Join(options, ", "))
		return nil
	})
}

// serverOptions writes the options of a server. Since 11.7 MariaDB takes any, and keeps those that were given as JSON
// beside the columns of those that always existed.
func serverOptions(r row) ([]string, error) {
	var given map[string]string
	if document := r.get("Options"); document != "" {
		if err := json.Unmarshal([]byte(document), &given); err != nil {
			return nil, fmt.Errorf("read its options: %w", err)
		}
	}
	names := make(map[string]string, len(given)) // as given, by upper case
	for name := range given {
		names[strings.ToUpper(name)] = name
	}
	var options []string
	for _, o := range []struct{ keyword, column string }{
		{"HOST", "Host"}, {"DATABASE", "Db"}, {"USER", "Username"}, {"PASSWORD", "Password"}, {"SOCKET", "Socket"}, {"OWNER", "Owner"}, {"PORT", "Port"},
	} {
		_, ok := names[o.keyword]
		delete(names, o.keyword)
		switch v := r.get(o.column); {
		case v == "", o.keyword == "PORT" && v == "0":
		case given != nil && !ok: // the server's own default
		case o.keyword == "PORT":
			options = append(options, "PORT "+v)
		default:
			options = append(options, o.keyword+" "+quoteString(v))
		}
	}
	for _, name := range slices.Sorted(maps.Values(names)) {
		options = append(options, quoteIdentifier(name)+" "+quoteString(given[name]))
	}
	return options, nil
}

// readLoadable names loadable functions. Their code is a library on the
// server's disk, which a dump cannot bring.
func (d *dump) readLoadable(ctx context.Context, s *session, _ *script) error {
	return s.each(ctx, "SELECT name, ret, dl, type FROM mysql.func", func(r row) error {
		d.omit(fmt.Sprintf("loadable function %s from library %s: install the library on the new server and run CREATE FUNCTION ... SONAME", quoteIdentifier(r.at(0)), r.at(2)))
		return nil
	})
}

// readTablespaces reads MySQL's general tablespaces.
func (d *dump) readTablespaces(ctx context.Context, s *session, script *script) error {
	table := "INNODB_TABLESPACES"
	extra := ", t.ENCRYPTION, t.AUTOEXTEND_SIZE"
	if !d.server.AtLeast(8, 0, 0) {
		table = "INNODB_SYS_TABLESPACES"
	}
	if !d.server.AtLeast(8, 0, 23) {
		extra = ", 'N', 0"
	}
	query := `SELECT t.NAME, f.FILE_NAME, t.ZIP_PAGE_SIZE` + extra + ` FROM information_schema.` + table + ` t
		JOIN information_schema.FILES f ON f.FILE_ID = t.SPACE
		WHERE t.SPACE_TYPE = 'General' AND t.NAME <> 'mysql' ORDER BY t.NAME`
	return s.each(ctx, query, func(r row) error {
		q := fmt.Sprintf("CREATE TABLESPACE %s ADD DATAFILE %s", quoteIdentifier(r.at(0)), quoteString(strings.TrimPrefix(r.at(1), "./")))
		if n := number(r.at(4)); n > 0 {
			q += fmt.Sprintf(" AUTOEXTEND_SIZE = %d", n)
		}
		if n := number(r.at(2)); n > 0 {
			q += fmt.Sprintf(" FILE_BLOCK_SIZE = %d", n)
		}
		if r.at(3) == "Y" {
			q += " ENCRYPTION = 'Y'"
		}
		script.add(q + " ENGINE = InnoDB")
		return nil
	})
}

// readSpatialSystems reads the spatial reference systems that are not MySQL's
// own: all of these are EPSG's, and users may not use the ranges of numbers
// that EPSG and MySQL keep for themselves.
func (d *dump) readSpatialSystems(ctx context.Context, s *session, script *script) error {
	return s.each(ctx, `SELECT SRS_ID, SRS_NAME, ORGANIZATION, ORGANIZATION_COORDSYS_ID, DEFINITION, DESCRIPTION
		FROM information_schema.ST_SPATIAL_REFERENCE_SYSTEMS
		WHERE SRS_ID <> 0 AND (ORGANIZATION IS NULL OR ORGANIZATION <> 'EPSG' OR SRS_ID > 32767 AND SRS_ID NOT BETWEEN 60000000 AND 69999999)
		ORDER BY SRS_ID`, func(r row) error {
		q := fmt.Sprintf("CREATE SPATIAL REFERENCE SYSTEM %s NAME %s", r.at(0), quoteString(r.at(1)))
		if !r.null(2) {
			q += " ORGANIZATION " + quoteString(r.at(2)) + " IDENTIFIED BY " + r.at(3)
		}
		q += " DEFINITION " + quoteString(r.at(4))
		if !r.null(5) {
			q += " DESCRIPTION " + quoteString(r.at(5))
		}
		script.add(q)
		return nil
	})
}

// readResourceGroups names resource groups, which fit one machine only.
func (d *dump) readResourceGroups(ctx context.Context, s *session, _ *script) error {
	return s.each(ctx, "SELECT RESOURCE_GROUP_NAME FROM information_schema.RESOURCE_GROUPS WHERE RESOURCE_GROUP_NAME NOT IN ('USR_default', 'SYS_default')", func(r row) error {
		d.omit("resource group " + quoteIdentifier(r.at(0)) + ": it is bound to the processors of its machine")
		return nil
	})
}
