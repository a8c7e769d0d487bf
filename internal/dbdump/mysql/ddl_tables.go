package mysql

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"

	"keepset/internal/dbdump"
)

// showCreateTable is the table's definition, with what SHOW CREATE TABLE
// leaves out or damages put right.
func (d *dump) showCreateTable(ctx context.Context, s *session, t *table) (string, error) {
	var name, ddl string
	if err := s.queryRow(ctx, "SHOW CREATE TABLE "+t.String(), &name, &ddl); err != nil {
		return "", err
	}
	for _, c := range t.columns {
		var err error
		if d.server.MariaDB() && c.srid != "" {
			ddl, err = withReferenceSystem(ddl, t, c)
		} else if strings.Contains(c.columnType, "?") && (c.dataType == "enum" || c.dataType == "set") {
			ddl, err = d.withMembers(ctx, ddl, t, c)
		}
		if err != nil {
			return "", err
		}
		if d.server.MariaDB() && c.charset != "" {
			if ddl, err = d.withDefault(ctx, s, ddl, t, c); err != nil {
				return "", err
			}
		}
	}
	return ddl, nil
}

// columnLine is the beginning of a column's line in SHOW CREATE TABLE.
func columnLine(c column) string { return "\n  " + quoteIdentifier(c.name) + " " + c.columnType }

// withReferenceSystem writes REF_SYSTEM_ID behind a geometry's type.
func withReferenceSystem(ddl string, t *table, c column) (string, error) {
	line := columnLine(c)
	if !strings.Contains(ddl, line) {
		return "", fmt.Errorf("table %s: column %s is not found in its own definition", t, c.name)
	}
	return strings.Replace(ddl, line, line+" REF_SYSTEM_ID="+c.srid, 1), nil
}

// withMembers writes the members of an ENUM or SET again where the server
// shows a question mark, which it also does for characters outside of the
// basic plane: their names are then asked for by number.
func (d *dump) withMembers(ctx context.Context, ddl string, t *table, c column) (string, error) {
	line := columnLine(c)
	if !strings.Contains(ddl, line) {
		return "", fmt.Errorf("table %s: column %s is not found in its own definition", t, c.name)
	}
	members, err := d.members(ctx, t, c)
	if err != nil {
		d.warn(fmt.Sprintf("column %s of table %s: its members may hold characters that the server shows as question marks, and could not be read otherwise: %s", c.name, t, rootError(err)))
		return ddl, nil
	}
	quoted := make([]string, len(members))
	for i, m := range members {
		quoted[i] = quoteString(m)
	}
	fixed := "\n  " + quoteIdentifier(c.name) + " " + c.dataType + "(" + strings.Join(quoted, ",") + ")"
	return strings.Replace(ddl, line, fixed, 1), nil
}

// members asks for the members of an ENUM or SET one by one: a variable, or a
// column of a temporary table, of the same type takes their numbers. It uses a
// session of its own, outside of the consistent read.
func (d *dump) members(ctx context.Context, t *table, c column) ([]string, error) {
	s, err := d.sessions.get(ctx)
	if err != nil {
		return nil, err
	}
	defer d.sessions.put(s)
	n := strings.Count(c.columnType, "','") + 1
	read := func(i int) (string, error) {
		v := fmt.Sprint(i + 1)
		if c.dataType == "set" {
			v = new(big.Int).Lsh(big.NewInt(1), uint(i)).String() //nolint:gosec // at most 64
		}
		var out string
		if d.server.MariaDB() {
			err := s.queryRow(ctx, fmt.Sprintf("BEGIN NOT ATOMIC DECLARE v TYPE OF %s.%s; SET v = %s; SELECT HEX(CONVERT(v USING utf8mb4)); END",
				t, quoteIdentifier(c.name), v), &out)
			return out, err
		}
		if err := s.exec(ctx, "UPDATE "+memberTable(t)+" SET v = "+v); err != nil {
			return "", err
		}
		err := s.queryRow(ctx, "SELECT HEX(CONVERT(v USING utf8mb4)) FROM "+memberTable(t), &out)
		return out, err
	}
	if !d.server.MariaDB() {
		create := fmt.Sprintf("CREATE TEMPORARY TABLE %s AS SELECT %s AS v FROM %s LIMIT 0", memberTable(t), quoteIdentifier(c.name), t)
		if err := s.exec(ctx, create); err != nil {
			return nil, err
		}
		if err := s.exec(ctx, "INSERT INTO "+memberTable(t)+" SET v = 1"); err != nil {
			return nil, err
		}
	}
	members := make([]string, n)
	for i := range members {
		out, err := read(i)
		if err != nil {
			return nil, err
		}
		raw, err := hex.DecodeString(out)
		if err != nil {
			return nil, err
		}
		members[i] = string(raw)
	}
	return members, nil
}

func memberTable(t *table) string { return quoteQualified(t.schema.name, "keepset_members") }

// withDefault writes a column's default again where MariaDB shows a question mark.
func (d *dump) withDefault(ctx context.Context, s *session, ddl string, t *table, c column) (string, error) {
	start := strings.Index(ddl, "\n  "+quoteIdentifier(c.name)+" ")
	if start < 0 {
		return ddl, nil
	}
	end := strings.IndexByte(ddl[start+1:], '\n')
	if end < 0 {
		return ddl, nil
	}
	line := ddl[start : start+1+end]
	at := strings.Index(line, " DEFAULT '")
	if at < 0 || !strings.Contains(line[at:], "?") {
		return ddl, nil
	}
	var raw *string
	query := fmt.Sprintf("SELECT HEX(CONVERT(DEFAULT(%s) USING utf8mb4)) FROM (SELECT 1) one LEFT JOIN %s ON FALSE", quoteIdentifier(c.name), t)
	err := s.queryRow(ctx, query, &raw)
	switch {
	case err != nil && errorNumber(err) == 0:
		return "", err
	case err != nil || raw == nil:
		d.warn(fmt.Sprintf("column %s of table %s: its default may hold characters that the server shows as question marks, and could not be read otherwise", c.name, t))
		return ddl, nil //nolint:nilerr // the server cannot evaluate the default: the warning says so
	}
	value, err := hex.DecodeString(*raw)
	if err != nil {
		return "", err
	}
	rest := literalEnd(line[at+len(" DEFAULT "):])
	fixed := line[:at] + " DEFAULT " + quoteString(string(value)) + line[at+len(" DEFAULT ")+rest:]
	return ddl[:start] + fixed + ddl[start+len(line):], nil
}

// literalEnd is the length of the quoted literal that text begins with.
func literalEnd(text string) int {
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '\\':
			i++
		case text[i] == '\'' && i+1 < len(text) && text[i+1] == '\'':
			i++
		case text[i] == '\'':
			return i + 1
		}
	}
	return len(text)
}

// nextAutoIncrement is the table option of that name, "" without one. It is looked for behind the list of definitions,
// and not in comments, which may say anything.
func nextAutoIncrement(ddl string) string {
	tokens, err := tokenize(ddl, quoting{})
	if err != nil {
		return ""
	}
	_, end, err := definitionList(ddl, tokens)
	if err != nil {
		return ""
	}
	for i := end; i+2 < len(tokens); i++ {
		if tokens[i].is(ddl, "AUTO_INCREMENT") && tokens[i+1].is(ddl, "=") {
			return ddl[tokens[i+2].start:tokens[i+2].end]
		}
	}
	return ""
}

// readSequences reads, under the lock, where MariaDB's sequences stand.
func (d *dump) readSequences(ctx context.Context, s *session) error {
	for t := range d.catalog.tables() {
		if !t.sequence() {
			continue
		}
		var next, low, high, increment, round string
		err := s.queryRow(ctx, "SELECT next_not_cached_value, minimum_value, maximum_value, increment, cycle_count FROM "+t.String(),
			&next, &low, &high, &increment, &round)
		if err != nil {
			return err
		}
		// A value outside of the range means that the sequence is used up,
		// which cannot be said but by using the last value.
		used := 0
		if n, ok := new(big.Int).SetString(next, 10); ok {
			if m, ok := new(big.Int).SetString(high, 10); ok && n.Cmp(m) > 0 {
				next, used = high, 1
			}
			if m, ok := new(big.Int).SetString(low, 10); ok && n.Cmp(m) < 0 {
				next, used = low, 1
			}
		}
		t.position = fmt.Sprintf("DO SETVAL(%s, %s, %d, %s)", quoteIdentifier(t.name), next, used, round)
	}
	return nil
}

// writeSequence writes definition and position of a sequence.
func (d *dump) writeSequence(ctx context.Context, s *session, t *table) error {
	var name, ddl string
	if err := s.queryRow(ctx, "SHOW CREATE SEQUENCE "+t.String(), &name, &ddl); err != nil {
		return err
	}
	script := newScript()
	script.add(ddl)
	script.add(t.position)
	return d.out.script(ctx, objectStream(t.schema.name, "sequences", t.name), dbdump.StreamOptions{}, script)
}

// writeSchema writes CREATE DATABASE.
func (d *dump) writeSchema(ctx context.Context, s *session, sc *schema) error {
	var name, ddl string
	if err := s.queryRow(ctx, "SHOW CREATE DATABASE "+quoteIdentifier(sc.name), &name, &ddl); err != nil {
		return err
	}
	if strings.Contains(ddl, "READ ONLY=1") {
		d.omit("option READ ONLY of schema " + quoteIdentifier(sc.name) + ": a schema with it could not be loaded")
	}
	script := newScript()
	script.add(ddl)
	return d.out.script(ctx, schemaStream(sc.name), dbdump.StreamOptions{}, script)
}
