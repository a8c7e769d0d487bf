package mysql

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// A document is taken apart into the values that it has, with their own text,
// and what is built of it is one expression, whatever types the server says
// its values have.
func FuzzDocument(f *testing.F) {
	f.Add([]byte(`{"a": [1, 2.50, "x'\\"], "b": {"c": null}, "d": "base64:type15:QUI="}`), []byte{3, 0, 1, 2, 7})
	f.Add([]byte(`"2026-11-20"`), []byte{1})
	f.Add([]byte(`["1')--", {}, []]`), []byte{0, 1, 2, 4})
	f.Add([]byte(`["1') --"]`), []byte{0, 1})
	f.Add([]byte(`{"a": 1} 2`), []byte{})
	f.Add([]byte(`{"a" 1}`), []byte{})
	kinds := []string{"OBJECT", "DATE", "DATETIME", "TIME", "DECIMAL", "BLOB", "BIT", "OPAQUE", "STRING"}
	f.Fuzz(func(t *testing.T, text, picks []byte) {
		if len(text) > 1<<10 || len(picks) == 0 {
			return
		}
		doc, err := parseDocument(text)
		if err != nil {
			require.ErrorContains(t, err, "read a JSON document")
			return
		}
		if !json.Valid(text) { // a scalar is not looked into; the server never sends another
			require.Nil(t, doc.children)
			return
		}
		require.True(t, sameValue(t, doc), "%q", text)
		members, elements := doc.descendants()
		kind := func(i int) string { return kinds[int(picks[i%len(picks)])%len(kinds)] }
		list := func(values []*document) string {
			var out []string
			for i, v := range values {
				out = append(out, `["`+kind(i+1)+`", `+string(v.text)+`]`)
			}
			return "[" + strings.Join(out, ", ") + "]"
		}
		types := `["` + kind(0) + `", ` + list(members) + ", " + list(elements) + "]"
		expression, err := typedDocument(text, []byte(types), func(string) {})
		if err == nil {
			requireExpression(t, expression)
		}
	})
}

// sameValue compares a document with what the standard library reads in it.
func sameValue(t *testing.T, doc *document) bool {
	t.Helper()
	switch {
	case len(doc.text) == 0 || doc.text[0] != '{' && doc.text[0] != '[':
		return doc.children == nil
	case doc.object:
		var want map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(doc.text, &want))
		for name, value := range want { // of names that come twice, the last one counts
			i := len(doc.names) - 1
			for i >= 0 && doc.names[i] != name {
				i--
			}
			if i < 0 || string(doc.children[i].text) != string(value) {
				return false
			}
		}
	default:
		var want []json.RawMessage
		require.NoError(t, json.Unmarshal(doc.text, &want))
		if len(want) != len(doc.children) {
			return false
		}
		for i := range want {
			if string(want[i]) != string(doc.children[i].text) {
				return false
			}
		}
	}
	return !slices.ContainsFunc(doc.children, func(c *document) bool { return !sameValue(t, c) })
}

// requireExpression makes sure that SQL text builds a document and does
// nothing else.
func requireExpression(t *testing.T, text string) {
	t.Helper()
	tokens, err := tokenize(text, quoting{})
	require.NoError(t, err, "%q", text)
	depth := 0
	for i, tok := range tokens {
		word := text[tok.start:tok.end]
		switch word {
		case "(":
			depth++
		case ")":
			depth--
		case ",", "CAST", "AS", "JSON", "JSON_OBJECT", "JSON_ARRAY", "DECIMAL", "DATE", "TIME", "DATETIME", "x":
		default:
			require.True(t, tok.kind == tokenString || strings.Trim(word, "0123456789") == "", "%q in %q", word, text)
		}
		require.True(t, depth > 0 || i == 0 || i == len(tokens)-1, "%q", text)
	}
	require.Zero(t, depth, "%q", text)
}

// Of a table's definition the option is read, not a text that looks like it.
func FuzzNextAutoIncrement(f *testing.F) {
	f.Add("id", "a comment", uint32(17))
	f.Add("a` AUTO_INCREMENT=1", "old:\n) ENGINE=x AUTO_INCREMENT=9", uint32(2))
	f.Add("id", "copied with AUTO_INCREMENT=99", uint32(0))
	f.Fuzz(func(t *testing.T, column, comment string, next uint32) {
		if column == "" || strings.Contains(column+comment, "\x00") || !utf8.ValidString(column+comment) {
			return
		}
		option, want := "", ""
		if next > 0 {
			want = strconv.FormatUint(uint64(next), 10)
			option = " AUTO_INCREMENT=" + want
		}
		ddl := "CREATE TABLE `t` (\n  " + quoteIdentifier(column) + " int NOT NULL AUTO_INCREMENT COMMENT " + serverQuote(comment) +
			",\n  PRIMARY KEY (" + quoteIdentifier(column) + ")\n) ENGINE=InnoDB" + option + " DEFAULT CHARSET=utf8mb4 COMMENT=" + serverQuote(comment)
		require.Equal(t, want, nextAutoIncrement(ddl))
	})
}

// A literal ends where it ends, and the lexer agrees.
func FuzzLiteral(f *testing.F) {
	f.Add("it's \\ a\nlot\x00", " COMMENT 'x'")
	f.Add("\\", "")
	f.Add("'", "'")
	f.Fuzz(func(t *testing.T, value, rest string) {
		for _, literal := range []string{quoteString(value), serverQuote(value)} {
			tokens, err := tokenize(literal, quoting{})
			require.NoError(t, err)
			require.Len(t, tokens, 1)
			require.Equal(t, token{kind: tokenString, end: len(literal)}, tokens[0])
			if !strings.HasPrefix(rest, "'") {
				require.Equal(t, len(literal), literalEnd(literal+rest))
			}
		}
		name, ok := token{kind: tokenName, end: len(quoteIdentifier(value))}.name(quoteIdentifier(value))
		require.True(t, ok)
		require.Equal(t, value, name)
	})
}

// The tables that a view names are found, and its definer taken out leaves the
// rest as it was.
func FuzzView(f *testing.F) {
	f.Add("app", "orders", "o", "root", "%")
	f.Add("a`.`b", "c", "a", "x` SQL SECURITY", "h")
	f.Add("DEFINER", "=", "@", " VIEW ", "`")
	f.Fuzz(func(t *testing.T, schema, name, alias, user, host string) {
		head, tail := "CREATE ALGORITHM=UNDEFINED ", " SQL SECURITY DEFINER VIEW `v` AS select 1 AS `DEFINER` from "+quoteQualified(schema, name)+" "+quoteIdentifier(alias)
		definer := "DEFINER=" + quoteIdentifier(user) + "@" + quoteIdentifier(host)
		refs, err := viewReferences([]string{"SET NAMES utf8mb4", head + definer + tail})
		require.NoError(t, err)
		require.Contains(t, refs.pairs, [2]string{schema, name})
		require.Equal(t, schema+"\x00"+name, refs.aliases[alias])
		without, err := withOwnDefiner(head+definer+tail, quoting{})
		require.NoError(t, err)
		require.Equal(t, head+tail, without)
		// In the whole text a name that begins with a dot or a quote could be mistaken for the end of the one before.
		m := qualified.FindStringSubmatch(quoteQualified(schema, name))
		if schema != "" && name != "" {
			require.Equal(t, []string{schema, name}, []string{strings.ReplaceAll(m[1], "``", "`"), strings.ReplaceAll(m[2], "``", "`")})
		}
	})
}

// A database is renamed where it stands before a dot, and nothing else is
// touched.
func FuzzRename(f *testing.F) {
	f.Add("CREATE VIEW `v` AS select `app`.`t`.`a` from `app`.`t`", "app", "copy")
	f.Add("INSERT INTO app.t VALUES ('app.t')", "app", "c`d")
	f.Fuzz(func(t *testing.T, statement, from, to string) {
		l := &loader{opts: LoadOptions{Rename: map[string]string{from: to}}}
		got, err := l.renameIn(statement, quoting{}, loadObject{})
		before, tokenErr := tokenize(statement, quoting{})
		require.Equal(t, tokenErr == nil, err == nil)
		if err != nil {
			return
		}
		after, err := tokenize(got, quoting{})
		require.NoError(t, err)
		require.Len(t, after, len(before))
		for i := range before {
			old, now := statement[before[i].start:before[i].end], got[after[i].start:after[i].end]
			if old != now {
				name, ok := before[i].name(statement)
				require.True(t, ok)
				require.Equal(t, from, name)
				require.Equal(t, quoteIdentifier(to), now)
			}
		}
	})
}
