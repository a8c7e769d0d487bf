package mysql

import (
	"errors"
	"fmt"
	"strings"
)

// tokenKind is what a piece of SQL text is.
type tokenKind int

const (
	tokenWord   tokenKind = iota // keyword, number, or name without quotes
	tokenName                    // name in backticks (or in double quotes under ANSI_QUOTES)
	tokenString                  // string literal
	tokenPunct                   // one byte of anything else
)

// token is one token of an SQL text: text[start:end].
type token struct {
	kind       tokenKind
	start, end int
}

// quoting says how the server that reads a text understands its quotes; both follow from sql_mode.
type quoting struct {
	noBackslash bool // NO_BACKSLASH_ESCAPES: a backslash is an ordinary character
	ansi        bool // ANSI_QUOTES: double quotes enclose names
}

// errUnterminated: the text ends within a quoted part or a comment.
var errUnterminated = errors.New("text ends within quotes or a comment")

// lexer cuts SQL text into tokens, skipping white space and comments. The content of an executable comment
// (/*!50100 ... */, /*M! ... */) is text like any other: only its opening and closing marks are skipped.
type lexer struct {
	text  string
	pos   int
	quote quoting
}

// next returns the next token. At the end of the text ok is false.
func (l *lexer) next() (tok token, ok bool, err error) {
	if err := l.skip(); err != nil {
		return token{}, false, err
	}
	if l.pos >= len(l.text) {
		return token{}, false, nil
	}
	start := l.pos
	kind := tokenPunct
	switch c := l.text[start]; {
	case c == '`':
		kind = tokenName
		err = l.quoted('`', false)
	case c == '"':
		kind = tokenString
		if l.quote.ansi {
			kind = tokenName
		}
		err = l.quoted('"', !l.quote.ansi && !l.quote.noBackslash)
	case c == '\'':
		kind = tokenString
		err = l.quoted('\'', !l.quote.noBackslash)
	case isWordByte(c):
		kind = tokenWord
		for l.pos < len(l.text) && isWordByte(l.text[l.pos]) {
			l.pos++
		}
	default:
		l.pos++
	}
	if err != nil {
		return token{}, false, err
	}
	return token{kind: kind, start: start, end: l.pos}, true, nil
}

// quoted moves behind the closing quote. A doubled quote stands for itself.
func (l *lexer) quoted(quote byte, backslash bool) error {
	start := l.pos
	for l.pos++; l.pos < len(l.text); l.pos++ {
		switch c := l.text[l.pos]; {
		case c == '\\' && backslash:
			l.pos++
		case c == quote:
			if l.pos+1 < len(l.text) && l.text[l.pos+1] == quote {
				l.pos++
				continue
			}
			l.pos++
			return nil
		}
	}
	return fmt.Errorf("%w: %.40q", errUnterminated, l.text[start:])
}

// skip moves over white space, comments, and the marks of executable comments.
func (l *lexer) skip() error {
	for l.pos < len(l.text) {
		rest := l.text[l.pos:]
		switch {
		case isSpace(rest[0]):
			l.pos++
		case rest[0] == '#' || isDashComment(rest):
			l.pos += lineLength(rest)
		case strings.HasPrefix(rest, "/*!"), strings.HasPrefix(rest, "/*M!"):
			l.pos += strings.IndexByte(rest, '!') + 1
			for l.pos < len(l.text) && l.text[l.pos] >= '0' && l.text[l.pos] <= '9' {
				l.pos++
			}
		case strings.HasPrefix(rest, "*/"):
			l.pos += 2
		case strings.HasPrefix(rest, "/*"):
			end := strings.Index(rest[2:], "*/")
			if end < 0 {
				return fmt.Errorf("%w: %.40q", errUnterminated, rest)
			}
			l.pos += 2 + end + 2
		default:
			return nil
		}
	}
	return nil
}

// isDashComment reports whether the text starts a comment with two dashes, which white space must follow.
func isDashComment(text string) bool {
	return strings.HasPrefix(text, "--") && (len(text) == 2 || isSpace(text[2]) || text[2] < ' ')
}

// lineLength returns the length of the text's first line without its end.
func lineLength(text string) int {
	if i := strings.IndexByte(text, '\n'); i >= 0 {
		return i
	}
	return len(text)
}

func isSpace(c byte) bool {
	return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f'
}

// isWordByte: letters, digits, _, $, and every byte of a character outside ASCII.
func isWordByte(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 ||
		(c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
}

// tokenize returns all tokens of the text.
func tokenize(text string, quote quoting) ([]token, error) {
	l := lexer{text: text, quote: quote}
	var tokens []token
	for {
		tok, ok, err := l.next()
		if err != nil {
			return nil, err
		}
		if !ok {
			return tokens, nil
		}
		tokens = append(tokens, tok)
	}
}

// is reports whether the token is the given keyword or punctuation.
func (t token) is(text, word string) bool {
	return (t.kind == tokenWord || t.kind == tokenPunct) && strings.EqualFold(text[t.start:t.end], word)
}

// name returns the name that the token stands for; ok is false when it cannot be one.
func (t token) name(text string) (name string, ok bool) {
	raw := text[t.start:t.end]
	switch t.kind {
	case tokenName:
		quote := raw[:1]
		return strings.ReplaceAll(raw[1:len(raw)-1], quote+quote, quote), true
	case tokenWord:
		return raw, true
	default:
		return "", false
	}
}
