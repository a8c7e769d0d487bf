package postgres

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxStatement bounds one statement of a script: the longest function or view fits well.
const maxStatement = 64 << 20

// piece is a part of a script: a statement with its semicolon and the white
// space and comments before it, the rest of a line that is a command to psql, or the white
// space and comments at the end. The pieces of a script, one after the other,
// are the script.
type piece struct {
	kind pieceKind
	text []byte
	// code is the statement, or the line, without what is before it; the end of text.
	code []byte
}

type pieceKind int

const (
	pieceStatement pieceKind = iota
	pieceMeta
	pieceEnd
)

// scanner cuts a script of pg_dump or pg_dumpall into pieces, as psql would: at
// the semicolons that are in no literal, quoted name, comment, parentheses or
// body of a function in SQL.
type scanner struct {
	r    *bufio.Reader
	name string
	// backslashes tells that they escape in plain literals: the script has set
	// standard_conforming_strings to off.
	backslashes bool

	text   []byte
	code   int // where the statement begins in text, -1 before that
	words  []string
	parens int
	begins int
}

func newScanner(r io.Reader, name string) *scanner {
	return &scanner{r: bufio.NewReaderSize(r, 64<<10), name: name}
}

var (
	errUnended = errors.New("the script ends in the middle of a statement")
	// errBackslash: no SQL has one outside of literals and names, and psql takes it as a command.
	errBackslash = errors.New("there is a backslash in the middle of a statement")
)

// next returns the next piece; after the last one, which is a pieceEnd, io.EOF.
// A piece is valid until the following call.
func (s *scanner) next() (piece, error) {
	if s.text != nil && s.code == endCode {
		return piece{}, io.EOF
	}
	s.text, s.code, s.words, s.parens, s.begins = s.text[:0], -1, s.words[:0], 0, 0
	for {
		c, err := s.read()
		if err != nil {
			return s.finish(err)
		}
		switch {
		case c == '\\' && s.code < 0:
			return s.meta()
		case c == '\\':
			return piece{}, fmt.Errorf("%s: %w: %s", s.name, errBackslash, shortened(string(s.text[s.code:])))
		case c == ' ', c == '\t', c == '\n', c == '\r', c == '\f', c == '\v':
			continue
		case c == '-' && s.peek() == '-':
			err = s.until('\n')
		case c == '/' && s.peek() == '*':
			err = s.comment()
		default:
			if s.code < 0 {
				s.code = len(s.text) - 1
			}
			if c == ';' && s.parens == 0 && s.begins == 0 {
				return s.statement(), nil
			}
			err = s.token(c)
		}
		if err != nil {
			return s.finish(err)
		}
	}
}

// endCode marks, in code, that the end has been returned.
const endCode = -2

func (s *scanner) statement() piece {
	p := piece{kind: pieceStatement, text: s.text, code: s.text[s.code:]}
	switch strings.ToLower(string(p.code)) {
	case "set standard_conforming_strings = off;":
		s.backslashes = true
	case "set standard_conforming_strings = on;":
		s.backslashes = false
	}
	return p
}

// finish is the end of the script, or why there is none.
func (s *scanner) finish(err error) (piece, error) {
	if !errors.Is(err, io.EOF) {
		return piece{}, err
	}
	if s.code >= 0 {
		return piece{}, fmt.Errorf("%s: %w: %s", s.name, errUnended, shortened(string(s.text[s.code:])))
	}
	s.code = endCode
	if s.text == nil {
		s.text = []byte{}
	}
	return piece{kind: pieceEnd, text: s.text}, nil
}

// meta is the rest of a line that begins with a backslash.
func (s *scanner) meta() (piece, error) {
	start := len(s.text) - 1
	if err := s.until('\n'); err != nil && !errors.Is(err, io.EOF) {
		return piece{}, err
	}
	s.code = -1
	return piece{kind: pieceMeta, text: s.text, code: s.text[start:]}, nil
}
