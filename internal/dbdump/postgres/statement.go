package postgres

import (
	"bytes"
	"slices"
	"strings"
)

// statement is what has to be known of a statement that pg_dump has written:
// what it is about. pg_dump qualifies every name, so the first qualified name
// is that of the object, or of the table that the object is on.
type statement struct {
	verb string // first word, lower case
	kind string // what it is about: table, index, function, ...; "" when nothing can be said
	// schema and name are the first qualified name; without one, name is the
	// first name after the kind.
	schema, name string
	// parent is the table that statistics or an index are of.
	parent string
}

// Kinds of statements that decide something.
const (
	stmtSession  = "session" // says how what follows is to be read
	stmtSchema   = "schema"
	stmtDatabase = "database"
	stmtIndex    = "index"
	stmtSequence = "sequence"
	stmtStats    = "statistics"
	stmtDefaults = "default"
)

// relational are the kinds that are about a relation, or something on one.
var relational = []string{
	"table", "view", stmtSequence, stmtIndex, "trigger", "policy", "rule", stmtStats, "column", "constraint",
}

// modifiers are words that may stand between the verb and the kind.
var modifiers = []string{
	"or", "replace", "unique", "unlogged", "materialized", "recursive", "trusted", "procedural",
}

// token is a word, a quoted name, or a sign.
type token struct {
	text   string
	quoted bool
	name   bool // a word or a quoted name
	// start and end are where it stands in the statement.
	start, end int
}

func (t token) is(word string) bool { return t.name && !t.quoted && t.text == word }

// understand reads a statement.
func understand(code []byte) statement {
	tokens := tokensOf(code, 400)
	if len(tokens) == 0 {
		return statement{}
	}
	st := statement{verb: tokens[0].text}
	rest := tokens[1:]
	switch st.verb {
	case "set", "reset":
		st.kind = stmtSession
		return st
	case "select":
		if len(rest) > 2 && rest[0].is("pg_catalog") && rest[2].is("set_config") {
			st.kind = stmtSession
		}
		return st
	case "comment", "security", "grant", "revoke":
		i := slices.IndexFunc(rest, func(t token) bool { return t.is("on") })
		if i < 0 {
			return st
		}
		rest = rest[i+1:]
	}
	for len(rest) > 0 && !rest[0].quoted && slices.Contains(modifiers, rest[0].text) {
		rest = rest[1:]
	}
	if len(rest) == 0 {
		return st
	}
	st.setKind(rest)
	st.setNames(rest[1:])
	return st
}

// setKind tells kinds of two words from those of one.
func (st *statement) setKind(rest []token) {
	st.kind = rest[0].text
	second := ""
	if len(rest) > 1 && rest[1].name {
		second = rest[1].text
	}
	switch {
	case st.kind == "foreign" && second == "table", st.kind == "constraint" && second == "trigger":
		st.kind = second
	case st.kind == "foreign", st.kind == "event", st.kind == "user", st.kind == "access", st.kind == "large":
		st.kind += " " + second // a wrapper, an event trigger, a user mapping, a method, an object: in no schema
	}
}

// setNames finds the first qualified name; for an index and statistics also the table.
func (st *statement) setNames(rest []token) {
	for i, t := range rest {
		if !t.name {
			continue
		}
		if st.name == "" && !skipped(t) {
			st.name = t.text
		}
		if i+2 < len(rest) && rest[i+1].text == "." && !rest[i+1].name {
			st.schema, st.name = t.text, rest[i+2].text
			rest = rest[i+3:]
			break
		}
	}
	switch {
	case st.kind == stmtIndex && st.verb == "create":
		// CREATE INDEX i ON s.t: the first qualified name is the table's.
		st.parent = st.name
	case st.kind == stmtStats && st.verb == "create":
		if i := slices.IndexFunc(rest, func(t token) bool { return t.is("from") }); i >= 0 && i+3 < len(rest) {
			st.parent = rest[i+3].text
		}
	}
}

// skipped are words that stand before a name.
func skipped(t token) bool {
	return !t.quoted && slices.Contains([]string{"if", "not", "exists", "only", "on", "concurrently", "for", "role", "in", "schema", "privileges"}, t.text)
}

// indexName is the name of the index that CREATE INDEX makes: the name before ON.
func indexName(code []byte) string {
	tokens := tokensOf(code, 8)
	for i, t := range tokens {
		if i > 0 && t.is("on") {
			return tokens[i-1].text
		}
	}
	return ""
}

// constraintName is the name that ALTER TABLE ... ADD CONSTRAINT gives, which is
// also that of its index; "" for other statements.
func constraintName(code []byte) string {
	tokens := tokensOf(code, 16)
	for i := 1; i+1 < len(tokens); i++ {
		if tokens[i-1].is("add") && tokens[i].is("constraint") {
			return tokens[i+1].text
		}
	}
	return ""
}

// attached is the qualified name behind ATTACH PARTITION, which makes a table or
// an index a part of another one; false for other statements.
func attached(code []byte) (name [2]string, ok bool) {
	tokens := tokensOf(code, 16)
	for i := 1; i+3 < len(tokens); i++ {
		if tokens[i-1].is("attach") && tokens[i].is("partition") {
			return [2]string{tokens[i+1].text, tokens[i+3].text}, true
		}
	}
	return name, false
}

// renameDatabase gives a statement about a database another name for it.
func renameDatabase(code []byte, old, name string) []byte {
	tokens := tokensOf(code, 400)
	for i := 0; i+1 < len(tokens); i++ {
		if at := tokens[i+1]; tokens[i].is("database") && at.name && at.text == old {
			return slices.Concat(code[:at.start], []byte(quoteIdentifier(name)), code[at.end:])
		}
	}
	return code
}

// describe names what a statement does without repeating it: it may hold a password.
func (st statement) describe() string {
	name := st.name
	if st.schema != "" {
		name = st.schema + "." + name
	}
	return strings.TrimSpace(strings.Join([]string{st.verb, st.kind, name}, " "))
}

// tokensOf are the first tokens of a statement that are in no parentheses.
// Literals and comments are none.
func tokensOf(code []byte, most int) []token {
	var tokens []token
	depth := 0
	for i := 0; i < len(code) && len(tokens) < most; {
		c := code[i]
		end := i + 1
		switch {
		case c == '"':
			end = quotedEnd(code, i)
			if depth == 0 {
				inner := bytes.TrimSuffix(code[i+1:end], []byte{'"'})
				tokens = append(tokens, token{text: strings.ReplaceAll(string(inner), `""`, `"`), quoted: true, name: true, start: i, end: end})
			}
		case c == '\'':
			end = quotedEnd(code, i)
		case c == '-' && end < len(code) && code[end] == '-':
			if end = len(code); bytes.IndexByte(code[i:], '\n') > 0 {
				end = i + bytes.IndexByte(code[i:], '\n')
			}
		case wordStart(c):
			for end < len(code) && wordByte(code[end]) {
				end++
			}
			if depth == 0 {
				tokens = append(tokens, token{text: strings.ToLower(string(code[i:end])), name: true, start: i, end: end})
			}
		case c == '(':
			depth++
		case c == ')':
			depth = max(0, depth-1)
		case c == ' ', c == '\n', c == '\t', c == '\r':
		default:
			if depth == 0 {
				tokens = append(tokens, token{text: string(c), start: i, end: end})
			}
		}
		i = end
	}
	return tokens
}

// quotedEnd is behind the quote that ends what begins at i. A doubled quote is a
// quote. Backslashes are taken for what they are to a name: it does not matter
// here, since names come before literals.
func quotedEnd(code []byte, i int) int {
	quote := code[i]
	for j := i + 1; j < len(code); j++ {
		if code[j] != quote {
			continue
		}
		if j+1 < len(code) && code[j+1] == quote {
			j++
			continue
		}
		return j + 1
	}
	return len(code)
}
