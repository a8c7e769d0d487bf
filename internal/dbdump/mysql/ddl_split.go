package mysql

import (
	"fmt"
	"slices"
	"strings"
)

// tableDDL is a CREATE TABLE statement taken apart, so that the rows can be loaded before the keys that are only
// needed afterwards.
type tableDDL struct {
	// create makes the table with what cannot wait.
	create string
	// keys are definitions that ALTER TABLE ... ADD adds once the rows are there.
	keys []string
	// foreign are the foreign keys, added once every table has its keys.
	foreign []string
}

// definition is one element of the list between the parentheses of CREATE TABLE.
type definition struct {
	tokens []token
	text   string // without the comma
}

// splitTable takes the result of SHOW CREATE TABLE apart. With deferKeys, secondary indexes wait for the rows; foreign
// keys always wait for all tables. What cannot wait stays: the primary key, the key that AUTO_INCREMENT needs, unique
// keys of a table without a primary key (one of them is the clustered index), and the kinds of index that InnoDB
// cannot add beside others or without rebuilding the table.
func splitTable(statement string, quote quoting, deferKeys bool) (tableDDL, error) {
	tokens, err := tokenize(statement, quote)
	if err != nil {
		return tableDDL{}, err
	}
	open, end, err := definitionList(statement, tokens)
	if err != nil {
		return tableDDL{}, err
	}
	definitions := splitDefinitions(statement, tokens[open+1:end], tokens[end].start)
	hasPrimary := slices.ContainsFunc(definitions, func(d definition) bool { return d.starts(statement, "PRIMARY", "KEY") || d.columnPrimary(statement) })
	auto := autoIncrementKey(statement, definitions)

	var ddl tableDDL
	var kept []string
	for i, d := range definitions {
		switch {
		case d.foreignKey(statement):
			ddl.foreign = append(ddl.foreign, d.text)
		case deferKeys && i != auto && d.deferrable(statement, hasPrimary):
			ddl.keys = append(ddl.keys, d.text)
		default:
			kept = append(kept, d.text)
		}
	}
	if len(kept) == 0 {
		return tableDDL{}, fmt.Errorf("no column found in %.80q", statement)
	}
	// No white space before the commas and the parenthesis: what two dashes mean depends on what follows them.
	ddl.create = statement[:tokens[open].end] + strings.Join(kept, ", ") + statement[tokens[end].start:]
	return ddl, nil
}

// definitionList returns the positions of the parentheses around the definitions.
func definitionList(statement string, tokens []token) (open, end int, err error) {
	if len(tokens) < 4 || !tokens[0].is(statement, "CREATE") {
		return 0, 0, fmt.Errorf("not a CREATE TABLE statement: %.80q", statement)
	}
	open, depth := -1, 0
	for i, tok := range tokens {
		switch {
		case tok.is(statement, "("):
			if open < 0 {
				open = i
			}
			depth++
		case tok.is(statement, ")"):
			depth--
			if open >= 0 && depth == 0 {
				return open, i, nil
			}
		}
	}
	return 0, 0, fmt.Errorf("no list of definitions in %.80q", statement)
}

// splitDefinitions cuts the list, which ends at the given byte, at the commas that no parentheses enclose.
func splitDefinitions(statement string, tokens []token, end int) []definition {
	var list []definition
	first, depth := 0, 0
	add := func(last, limit int) {
		if first < last {
			list = append(list, definition{
				tokens: tokens[first:last],
				text:   textWithMarks(statement, tokens[first].start, tokens[last-1].end, limit),
			})
		}
		first = last + 1
	}
	for i, tok := range tokens {
		switch {
		case tok.is(statement, "("):
			depth++
		case tok.is(statement, ")"):
			depth--
		case tok.is(statement, ",") && depth == 0:
			add(i, tok.start)
		}
	}
	add(len(tokens), end)
	return list
}

// textWithMarks returns statement[start:end] and, when an executable comment closes between its end and the limit,
// that mark as well: "KEY `k` (`a`) /*!80000 INVISIBLE */" goes on behind its last token.
func textWithMarks(statement string, start, end, limit int) string {
	if mark := strings.LastIndex(statement[end:limit], "*/"); mark >= 0 {
		end += mark + 2
	}
	return statement[start:end]
}

// starts reports whether the definition starts with the words.
func (d definition) starts(statement string, words ...string) bool {
	if len(d.tokens) < len(words) {
		return false
	}
	for i, word := range words {
		if !d.tokens[i].is(statement, word) {
			return false
		}
	}
	return true
}

// has reports whether the words follow each other somewhere in the definition.
func (d definition) has(statement string, words ...string) bool {
	for i := range d.tokens {
		rest := definition{tokens: d.tokens[i:]}
		if rest.starts(statement, words...) {
			return true
		}
	}
	return false
}

// column reports whether it defines a column: SHOW CREATE TABLE puts its name in quotes, and starts everything else
// with a keyword.
func (d definition) column() bool { return d.tokens[0].kind == tokenName }

// columnPrimary: the column carries the key itself. SHOW CREATE TABLE never writes it so, a person may.
func (d definition) columnPrimary(statement string) bool {
	return d.column() && d.has(statement, "PRIMARY", "KEY")
}

// foreignKey reports whether it is [CONSTRAINT name] FOREIGN KEY.
func (d definition) foreignKey(statement string) bool {
	if d.starts(statement, "FOREIGN", "KEY") {
		return true
	}
	return d.starts(statement, "CONSTRAINT") && len(d.tokens) > 3 &&
		d.tokens[2].is(statement, "FOREIGN") && d.tokens[3].is(statement, "KEY")
}

// deferrable reports whether the definition is an index that can be added to the filled table in place, together with
// others of its kind.
func (d definition) deferrable(statement string, hasPrimary bool) bool {
	unique := d.starts(statement, "UNIQUE", "KEY") || d.starts(statement, "UNIQUE", "INDEX")
	if !unique && !d.starts(statement, "KEY") && !d.starts(statement, "INDEX") {
		return false
	}
	if unique && !hasPrimary {
		return false
	}
	// USING HASH on InnoDB is MariaDB's unique key over long columns, built on a hidden column; an ARRAY is MySQL's
	// multi-valued index; WITHOUT OVERLAPS belongs to an application-time period.
	return !d.has(statement, "USING", "HASH") && !d.has(statement, "ARRAY") && !d.has(statement, "WITHOUT", "OVERLAPS")
}

// autoIncrementKey returns the position of the key that the AUTO_INCREMENT column needs, -1 when none has to be kept
// for it: there is no such column, or the primary key serves.
func autoIncrementKey(statement string, definitions []definition) int {
	column := ""
	for _, d := range definitions {
		if d.column() && d.has(statement, "AUTO_INCREMENT") {
			column, _ = d.tokens[0].name(statement)
			if d.columnPrimary(statement) {
				return -1
			}
		}
	}
	if column == "" {
		return -1
	}
	found := -1
	for i, d := range definitions {
		if d.column() || d.foreignKey(statement) || d.starts(statement, "CHECK") {
			continue
		}
		open := slices.IndexFunc(d.tokens, func(t token) bool { return t.is(statement, "(") })
		if open < 0 || open+1 >= len(d.tokens) {
			continue
		}
		first, ok := d.tokens[open+1].name(statement)
		if !ok || !strings.EqualFold(first, column) {
			continue
		}
		if d.starts(statement, "PRIMARY") {
			return -1
		}
		if found < 0 {
			found = i
		}
	}
	return found
}
