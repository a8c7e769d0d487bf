package mysql

import (
	"fmt"
	"strings"
)

// renameIn replaces the names of databases in a statement of the dump by those on the target.
//
// A name is replaced where it stands before a dot, or names the database itself (CREATE DATABASE, USE). The text of a
// routine, trigger or event is the user's: a name in it may be anything (an alias, a column, part of a string that is
// executed), so that only quoted or plain names before a dot are replaced, and the user is told to look.
func (l *loader) renameIn(statement string, quote quoting, o loadObject) (string, error) {
	tokens, err := tokenize(statement, quote)
	if err != nil {
		return "", err
	}
	if o.Kind == KindView {
		if err := l.checkAliases(statement, tokens); err != nil {
			return "", err
		}
	}
	var b strings.Builder
	done := 0
	inBody := false
	for i, tok := range tokens {
		inBody = inBody || bodyStarts(statement, tok, o)
		name, ok := tok.name(statement)
		if !ok {
			continue
		}
		replacement, renamed := l.renamed(name, o)
		if !renamed || !databasePosition(statement, tokens, i, o) {
			continue
		}
		b.WriteString(statement[done:tok.start])
		b.WriteString(quoteIdentifier(replacement))
		done = tok.end
		if inBody {
			l.warn("%s names database %s in its text, which was changed to %s: check that it is meant", o, name, replacement)
		}
	}
	return b.String() + statement[done:], nil
}

// renamed returns what a database becomes. A grant names it by a pattern, in which a backslash takes the meaning from
// an underscore or a percent sign.
func (l *loader) renamed(name string, o loadObject) (string, bool) {
	replacement, ok := l.opts.Rename[name]
	if ok || o.Kind != KindUser {
		return replacement, ok
	}
	plain := strings.NewReplacer(`\_`, "_", `\%`, "%").Replace(name)
	if replacement, ok = l.opts.Rename[plain]; ok {
		replacement = strings.NewReplacer("_", `\_`, "%", `\%`).Replace(replacement)
	}
	return replacement, ok
}

// databasePosition reports whether the name at position i names a database.
func databasePosition(statement string, tokens []token, i int, o loadObject) bool {
	before := func(word string) bool { return i > 0 && tokens[i-1].is(statement, word) }
	if before(".") || before("@") {
		return false // a column or table of that name, or the host of an account
	}
	if i+1 < len(tokens) && tokens[i+1].is(statement, ".") {
		return true
	}
	return before("USE") && i == 1 || before("DATABASE") || before("SCHEMA") ||
		before("EXISTS") && o.Kind == KindSchema
}

// bodyStarts reports whether the text that follows is the user's own.
func bodyStarts(statement string, tok token, o loadObject) bool {
	switch o.Kind {
	case KindRoutine, KindEvent:
		return tok.is(statement, "BEGIN") || tok.is(statement, "DO") || tok.is(statement, "RETURN") || tok.is(statement, "AS")
	case KindTrigger:
		return tok.is(statement, "ROW")
	}
	return false
}

// checkAliases refuses a view in which a table's alias is the name of a database that is renamed: which of the two a
// name before a dot is cannot be told.
func (l *loader) checkAliases(statement string, tokens []token) error {
	refs := references{aliases: make(map[string]string)}
	refs.read(statement, tokens)
	for old := range l.opts.Rename {
		if _, ok := refs.aliases[old]; ok {
			return fmt.Errorf("a table has the alias %s there, the name of a database that is to be renamed: create the view by hand", quoteIdentifier(old))
		}
	}
	return nil
}
