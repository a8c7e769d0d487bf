package mysql

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// splitScript cuts the text of an .sql stream into its statements, the way the mysql client does: it knows quotes,
// comments and DELIMITER lines, and follows the sql_mode that the script itself sets, since that decides what a
// backslash and a double quote mean. A text that ends before its last statement was terminated is an error: it has
// been cut off.
//
// With a delimiter of the script's own choosing quotes do not count: it is chosen so that it does not occur in the
// statement, whose quoting may follow rules (a multi-byte character set) that only the server knows.
func splitScript(text string) ([]string, error) {
	s := scriptSplitter{text: text, delimiter: ";"}
	if err := s.all(); err != nil {
		return nil, fmt.Errorf("split script after statement %d: %w", len(s.statements), err)
	}
	return s.statements, nil
}

// eachStatement reads a script that sets no delimiter of its own and calls fn for each statement as soon as it is
// there: the rows that a dump keeps as statements are more than should be in memory at once.
func eachStatement(r io.Reader, fn func(statement string, quote quoting) error) error {
	lines := bufio.NewReaderSize(r, insertReadBuffer)
	var pending []byte
	var quote quoting
	next := 0 // length at which to look again, doubled each time, since every look starts at the front
	for {
		part, err := lines.ReadSlice('\n')
		pending = append(pending, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && !errors.Is(err, io.EOF):
			return err
		}
		if (len(pending) >= next || err != nil) && bytes.HasSuffix(bytes.TrimSpace(pending), []byte{';'}) {
			next = 2 * len(pending)
			s := scriptSplitter{text: string(pending), delimiter: ";", quote: quote}
			if s.all() == nil { // else the line ends within quotes, and the next ones belong to it
				for _, statement := range s.statements {
					if err := fn(statement, quote); err != nil {
						return err
					}
					quote = quote.after(statement)
				}
				pending, next = pending[:0], 0
			}
		}
		if err != nil {
			if len(bytes.TrimSpace(pending)) > 0 {
				return fmt.Errorf("text ends within a statement: %.40q", pending)
			}
			return nil
		}
	}
}

// all takes the whole text apart.
func (s *scriptSplitter) all() error {
	for {
		if more, err := s.step(); !more || err != nil {
			return err
		}
	}
}

// scriptSplitter is the state of splitScript.
type scriptSplitter struct {
	text       string // what is left
	delimiter  string
	quote      quoting
	statements []string
}

// step takes one statement or DELIMITER line off the text; more is false when nothing is left.
func (s *scriptSplitter) step() (more bool, err error) {
	s.text = strings.TrimLeft(s.text, " \t\r\n\v\f")
	if s.text == "" {
		return false, nil
	}
	if s.delimiterLine() {
		return true, nil
	}
	if n := plainComment(s.text); n > 0 {
		s.text = s.text[n:]
		return true, nil
	}
	end, err := s.statementEnd()
	if err != nil {
		return false, err
	}
	statement := strings.TrimRight(s.text[:end], " \t\r\n\v\f")
	s.text = s.text[end+len(s.delimiter):]
	if statement != "" {
		s.statements = append(s.statements, statement)
		s.quote = s.quote.after(statement)
	}
	return true, nil
}

// plainComment returns the length of the comment that the text starts with, 0 when there is none that ends. An
// executable comment is no comment.
func plainComment(text string) int {
	switch {
	case text[0] == '#' || isDashComment(text):
		return lineLength(text)
	case strings.HasPrefix(text, "/*") && !strings.HasPrefix(text, "/*!") && !strings.HasPrefix(text, "/*M!"):
		if end := strings.Index(text[2:], "*/"); end >= 0 {
			return 2 + end + 2
		}
	}
	return 0
}

// delimiterLine takes a DELIMITER line off the text.
func (s *scriptSplitter) delimiterLine() bool {
	const command = "delimiter"
	if len(s.text) <= len(command) || !strings.EqualFold(s.text[:len(command)], command) || !isSpace(s.text[len(command)]) {
		return false
	}
	n := lineLength(s.text)
	delimiter := strings.TrimSpace(s.text[len(command):n])
	if delimiter == "" {
		return false
	}
	s.delimiter, s.text = delimiter, s.text[n:]
	return true
}

// statementEnd returns where the delimiter of the first statement is.
func (s *scriptSplitter) statementEnd() (int, error) {
	if s.delimiter != ";" {
		end := strings.Index(s.text, s.delimiter)
		if end < 0 {
			return 0, fmt.Errorf("text ends within a statement: delimiter %q is missing", s.delimiter)
		}
		return end, nil
	}
	l := lexer{text: s.text, quote: s.quote}
	for {
		tok, ok, err := l.next()
		if err != nil {
			return 0, err
		}
		if !ok {
			return 0, fmt.Errorf("text ends within a statement: %.40q", s.text)
		}
		if tok.is(s.text, ";") {
			return tok.start, nil
		}
	}
}

// modesWithANSI are the modes that imply ANSI_QUOTES where the server does not spell them out.
var modesWithANSI = []string{"ANSI", "ANSI_QUOTES", "DB2", "MAXDB", "MSSQL", "ORACLE", "POSTGRESQL"}

// after returns the quoting rules once the statement has run: those of the sql_mode that it sets, if it does so with
// a literal.
func (q quoting) after(statement string) quoting {
	tokens, err := tokenize(statement, q)
	if err != nil || len(tokens) == 0 || !tokens[0].is(statement, "SET") {
		return q
	}
	for i := 1; i+2 < len(tokens); i++ {
		name, ok := tokens[i].name(statement)
		if !ok || !strings.EqualFold(name, "sql_mode") {
			continue
		}
		value := i + 2 // sql_mode = '...'
		if tokens[i+1].is(statement, ":") {
			value++ // sql_mode := '...'
		}
		if value >= len(tokens) || tokens[value].kind == tokenPunct {
			continue
		}
		text := statement[tokens[value].start:tokens[value].end]
		if tokens[value].kind != tokenWord {
			text = text[1 : len(text)-1]
		}
		q = quotingOf(text)
	}
	return q
}

// quotingOf returns the quoting rules of an sql_mode.
func quotingOf(sqlMode string) quoting {
	var q quoting
	for mode := range strings.SplitSeq(strings.ToUpper(sqlMode), ",") {
		mode = strings.TrimSpace(mode)
		q.noBackslash = q.noBackslash || mode == "NO_BACKSLASH_ESCAPES"
		q.ansi = q.ansi || slices.Contains(modesWithANSI, mode)
	}
	return q
}
