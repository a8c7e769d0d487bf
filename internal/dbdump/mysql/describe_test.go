package mysql

import (
	"database/sql"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/test/servers"
)

// describe writes down everything that a server holds, object by object and value by value, as lines that two servers
// with the same content share. It asks the servers' own catalogs and compares stored bytes; it knows nothing of dumps.
func describe(t testing.TB, s *servers.MySQL) map[string]string {
	t.Helper()
	// What cannot be given back is not compared.
	return describeWith(t, s, !strings.HasPrefix(s.Value(t, "SELECT VERSION()"), mariadb105.version))
}

// describeWith is describe with or without the history of system-versioned tables.
func describeWith(t testing.TB, s *servers.MySQL, history bool) map[string]string {
	t.Helper()
	db := s.DB(t)
	db.SetMaxOpenConns(1)
	d := &describer{t: t, db: db, history: history, out: make(map[string]string)}
	d.exec("SET NAMES utf8mb4, sql_mode='', time_zone='+00:00'")
	var version string
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT VERSION()").Scan(&version))
	d.mariadb = strings.Contains(version, "MariaDB")
	if d.mariadb {
		d.exec("SET max_statement_time=0")
	} else {
		d.exec("SET information_schema_stats_expiry=0")
	}
	d.catalog()
	d.code()
	d.tables()
	d.accounts()
	for name, text := range d.out {
		d.out[name] = passwordTime.ReplaceAllString(strings.ReplaceAll(text, "page_checksum=1 ", ""), "")
	}
	return d.out
}

type describer struct {
	t       testing.TB
	db      *sql.DB
	mariadb bool
	history bool // also what is past
	out     map[string]string
}

func (d *describer) exec(q string) {
	_, err := d.db.ExecContext(d.t.Context(), q)
	require.NoError(d.t, err, q)
}

// lines runs a query and returns its rows as text, "~" for NULL.
func (d *describer) lines(q string) []string {
	list, err := d.try(q)
	require.NoError(d.t, err, q)
	return list
}

func (d *describer) try(q string) ([]string, error) {
	rows, err := d.db.QueryContext(d.t.Context(), q)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // only read
	names, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	values := make([]sql.RawBytes, len(names))
	dest := make([]any, len(names))
	for i := range values {
		dest[i] = &values[i]
	}
	var list []string
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return nil, err
		}
		var b strings.Builder
		for i, v := range values {
			if i > 0 {
				b.WriteString(" | ")
			}
			if v == nil {
				b.WriteByte('~')
			} else {
				b.Write(v)
			}
		}
		list = append(list, b.String())
	}
	return list, rows.Err()
}

// put notes sorted lines under a name.
func (d *describer) put(name string, lines []string) {
	sort.Strings(lines)
	d.out[name] = strings.Join(lines, "\n")
}

const notSystem = " NOT IN ('mysql','information_schema','performance_schema','sys')"

// catalog notes the tables of information_schema, but for what differs between two equal servers: times, sizes,
// estimates.
func (d *describer) catalog() {
	type described struct{ table, schema, skip string }
	list := []described{
		{"SCHEMATA", "SCHEMA_NAME", ""},
		{"TABLES", "TABLE_SCHEMA", "TABLE_ROWS AVG_ROW_LENGTH DATA_LENGTH MAX_DATA_LENGTH INDEX_LENGTH DATA_FREE CREATE_TIME UPDATE_TIME CHECK_TIME MAX_INDEX_LENGTH CHECKSUM TABLE_COMMENT"},
		{"COLUMNS", "TABLE_SCHEMA", "PRIVILEGES"},
		{"STATISTICS", "TABLE_SCHEMA", "CARDINALITY"},
		{"TABLE_CONSTRAINTS", "CONSTRAINT_SCHEMA", ""},
		{"KEY_COLUMN_USAGE", "CONSTRAINT_SCHEMA", ""},
		{"REFERENTIAL_CONSTRAINTS", "CONSTRAINT_SCHEMA", ""},
		{"CHECK_CONSTRAINTS", "CONSTRAINT_SCHEMA", ""},
		{"PARTITIONS", "TABLE_SCHEMA", "TABLE_ROWS AVG_ROW_LENGTH DATA_LENGTH MAX_DATA_LENGTH INDEX_LENGTH DATA_FREE CREATE_TIME UPDATE_TIME CHECK_TIME CHECKSUM"},
		{"VIEWS", "TABLE_SCHEMA", ""},
		{"TRIGGERS", "TRIGGER_SCHEMA", "CREATED"},
		{"ROUTINES", "ROUTINE_SCHEMA", "CREATED LAST_ALTERED"},
		{"PARAMETERS", "SPECIFIC_SCHEMA", ""},
		{"EVENTS", "EVENT_SCHEMA", "CREATED LAST_ALTERED LAST_EXECUTED ORIGINATOR"},
	}
	if d.mariadb { // SHOW CREATE TABLE hides REF_SYSTEM_ID
		list = append(list, described{"GEOMETRY_COLUMNS", "G_TABLE_SCHEMA", ""})
	}
	for _, c := range list {
		var columns []string
		for _, name := range d.lines("SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA='information_schema' AND TABLE_NAME='" + c.table + "' ORDER BY ORDINAL_POSITION") {
			if !slices.Contains(strings.Fields(c.skip), strings.ToUpper(name)) {
				columns = append(columns, "`"+name+"`")
			}
		}
		require.NotEmpty(d.t, columns, c.table)
		where := c.schema + notSystem
		if c.table == "COLUMNS" { // what the catalog still knows of a broken view's columns is history
			where += " AND TABLE_NAME NOT IN ('broken_table','broken_column','broken_function','ghost_view','on_ghost','on_broken')"
		}
		d.put("information_schema."+c.table, d.lines("SELECT "+strings.Join(columns, ",")+" FROM information_schema."+c.table+" WHERE "+where))
	}
}

// code notes what SHOW CREATE says of everything that is not a base table.
func (d *describer) code() {
	show := func(kind, schema, name, cut string) {
		lines := d.lines("SHOW CREATE " + kind + " " + quoteQualified(schema, name))
		if cut != "" && len(lines) > 0 {
			fields := strings.Split(lines[0], " | ")
			lines[0] = strings.Join(fields[:len(fields)-1], " | ") // the time of creation
		}
		d.put(strings.ToLower(kind)+" "+schema+"."+name, lines)
	}
	for _, q := range []struct{ kind, query, cut string }{
		{"DATABASE", "SELECT SCHEMA_NAME, '' FROM information_schema.SCHEMATA WHERE SCHEMA_NAME" + notSystem, ""},
		{"VIEW", "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA" + notSystem, ""},
		{"PROCEDURE", "SELECT ROUTINE_SCHEMA, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_TYPE='PROCEDURE' AND ROUTINE_SCHEMA" + notSystem, ""},
		{"FUNCTION", "SELECT ROUTINE_SCHEMA, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_TYPE='FUNCTION' AND ROUTINE_SCHEMA" + notSystem, ""},
		{"PACKAGE", "SELECT ROUTINE_SCHEMA, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_TYPE='PACKAGE' AND ROUTINE_SCHEMA" + notSystem, ""},
		{"PACKAGE BODY", "SELECT ROUTINE_SCHEMA, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_TYPE='PACKAGE BODY' AND ROUTINE_SCHEMA" + notSystem, ""},
		{"TRIGGER", "SELECT TRIGGER_SCHEMA, TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA" + notSystem, "created"},
		{"EVENT", "SELECT EVENT_SCHEMA, EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA" + notSystem, ""},
	} {
		for _, line := range d.lines(q.query) {
			schema, name, _ := strings.Cut(line, " | ")
			if q.kind == "DATABASE" {
				d.put("database "+schema, d.lines("SHOW CREATE DATABASE "+quoteIdentifier(schema)))
				continue
			}
			show(q.kind, schema, name, q.cut)
		}
	}
}

// tables notes the definition and every value of every base table, and the state of every sequence.
func (d *describer) tables() {
	for _, line := range d.lines("SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, COALESCE(ENGINE,'') FROM information_schema.TABLES WHERE TABLE_TYPE <> 'VIEW' AND TABLE_SCHEMA" + notSystem) {
		f := strings.Split(line, " | ")
		name := quoteQualified(f[0], f[1])
		definition := d.lines("SHOW CREATE TABLE " + name)
		// MySQL remembers whether a column's collation was written down, and writes down more for one that was.
		definition[0] = characterSet.ReplaceAllString(definition[0], " $1")
		d.put("definition "+name, definition)
		if f[2] == "SEQUENCE" {
			d.put("sequence "+name, append(d.lines("SHOW CREATE SEQUENCE "+name), d.lines("SELECT * FROM "+name)...))
			continue
		}
		d.put("rows "+name, d.lines(d.selectRows(f[0], f[1], f[2])))
	}
}

// passwordTime is when the password was set: CREATE USER makes it now.
var passwordTime = regexp.MustCompile(`"password_last_changed":\d+,?`)

var characterSet = regexp.MustCompile(` CHARACTER SET \w+ (COLLATE \w+)`)

// selectRows writes a query for every value of a table, each in a form that shows all its bits.
func (d *describer) selectRows(schema, table, kind string) string {
	var list []string
	query := "SELECT COLUMN_NAME, DATA_TYPE FROM information_schema.COLUMNS WHERE TABLE_SCHEMA=" + quoteString(schema) + " AND TABLE_NAME=" + quoteString(table) + " ORDER BY ORDINAL_POSITION"
	for _, line := range d.lines(query) {
		column, dataType, _ := strings.Cut(line, " | ")
		if kind == "SYSTEM VERSIONED" && !d.history && (column == "rs" || column == "re") {
			continue
		}
		c := quoteIdentifier(column)
		switch dataType {
		case "float", "double":
			list = append(list, "CAST("+c+" AS DOUBLE)") // the text of a DOUBLE reads back to the same bits, that of a FLOAT does not
		case "bit":
			list = append(list, "HEX("+c+"+0)")
		case "enum", "set":
			list = append(list, "CONCAT("+c+"+0, ' ', HEX("+c+"))")
		case "json":
			list = append(list, "CONCAT(JSON_TYPE("+c+"), ' ', JSON_STORAGE_SIZE("+c+"), ' ', HEX(CAST("+c+" AS CHAR CHARACTER SET utf8mb4)))")
		case "date", "datetime", "timestamp", "time", "year", "int", "bigint", "smallint", "tinyint", "mediumint", "decimal", "uuid", "inet4", "inet6":
			list = append(list, c)
		default:
			list = append(list, "IF(LENGTH("+c+")>2000, CONCAT(LENGTH("+c+"), ' ', SHA2(CAST("+c+" AS BINARY),256)), HEX("+c+"))")
		}
	}
	if d.mariadb {
		for i := range list {
			list[i] = strings.ReplaceAll(list[i], "JSON_STORAGE_SIZE", "LENGTH")
		}
	}
	from := " FROM " + quoteQualified(schema, table)
	if kind == "SYSTEM VERSIONED" && d.history {
		from += " FOR SYSTEM_TIME ALL"
		columns := d.lines(query)
		if !slices.ContainsFunc(columns, func(c string) bool { return strings.HasPrefix(c, "re |") }) {
			list = append(list, "row_start", "row_end")
		}
	}
	return "SELECT " + strings.Join(list, ", ") + from
}

// accounts notes accounts, grants, roles and servers.
func (d *describer) accounts() {
	for _, line := range d.lines("SELECT User, Host FROM mysql.user WHERE User NOT IN ('root','mysql.sys','mysql.session','mysql.infoschema','mariadb.sys','PUBLIC','')") {
		user, host, _ := strings.Cut(line, " | ")
		name := quoteString(user) + "@" + quoteString(host)
		if host == "" {
			name = quoteString(user)
		} else {
			d.put("account "+name, d.lines("SHOW CREATE USER "+name))
		}
		d.put("grants "+name, d.lines("SHOW GRANTS FOR "+name))
	}
	tables := []string{"mysql.servers", "mysql.proxies_priv", "mysql.db", "mysql.tables_priv", "mysql.columns_priv", "mysql.procs_priv"}
	if d.mariadb {
		tables = append(tables, "mysql.roles_mapping", "mysql.global_priv")
	} else {
		tables = append(tables, "mysql.role_edges", "mysql.default_roles", "mysql.global_grants", "mysql.user",
			"information_schema.ST_SPATIAL_REFERENCE_SYSTEMS", "information_schema.COLUMN_STATISTICS")
	}
	for _, table := range tables {
		schema, name, _ := strings.Cut(table, ".")
		var columns []string
		for _, c := range d.lines("SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA='" + schema + "' AND TABLE_NAME='" + name + "' ORDER BY ORDINAL_POSITION") {
			if !strings.EqualFold(c, "Timestamp") && !strings.EqualFold(c, "Grantor") && !strings.EqualFold(c, "password_last_changed") {
				columns = append(columns, quoteIdentifier(c))
			}
		}
		where := ""
		if slices.ContainsFunc(columns, func(c string) bool { return strings.EqualFold(c, "`User`") }) {
			where = " WHERE User NOT IN ('root','mysql.sys','mysql.session','mysql.infoschema','mariadb.sys','')"
		}
		if name == "role_edges" || name == "servers" {
			where = ""
		}
		d.put(table, d.lines("SELECT "+strings.Join(columns, ",")+" FROM "+table+where))
	}
}

// difference lists what differs between two descriptions, shortened.
func difference(want, got map[string]string) string {
	var b strings.Builder
	for _, name := range sortedKeys(want, got) {
		if want[name] == got[name] {
			continue
		}
		fmt.Fprintf(&b, "== %s\n", name)
		w, g := strings.Split(want[name], "\n"), strings.Split(got[name], "\n")
		for _, line := range w {
			if !slices.Contains(g, line) {
				fmt.Fprintf(&b, "- %.600s\n", line)
			}
		}
		for _, line := range g {
			if !slices.Contains(w, line) {
				fmt.Fprintf(&b, "+ %.600s\n", line)
			}
		}
	}
	return b.String()
}

func sortedKeys(maps ...map[string]string) []string {
	var keys []string
	for _, m := range maps {
		for k := range m {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}
