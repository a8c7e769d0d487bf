package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// token takes what begins with c, which is no space and no comment.
func (s *scanner) token(c byte) error {
	switch {
	case c == '\'':
		return s.literal(s.backslashes)
	case c == '"':
		return s.quoted('"', false)
	case c == '$':
		return s.dollar()
	case c == '(':
		s.parens++
	case c == ')':
		s.parens = max(0, s.parens-1)
	case c >= '0' && c <= '9':
		return s.run(wordByte)
	case wordStart(c):
		return s.word()
	}
	return nil
}

// word takes an unquoted word, which may turn out to be the prefix of a literal,
// and keeps count of the bodies of functions in SQL.
func (s *scanner) word() error {
	start := len(s.text) - 1
	if err := s.run(wordByte); err != nil {
		return err
	}
	word := s.text[start:]
	if (len(word) == 1) && s.peek() == '\'' {
		escapes := word[0] == 'e' || word[0] == 'E' || s.backslashes && (word[0] == 'n' || word[0] == 'N')
		if _, err := s.read(); err != nil {
			return err
		}
		return s.literal(escapes)
	}
	w := strings.ToLower(string(word))
	if len(s.words) < 4 {
		s.words = append(s.words, w)
	}
	if s.parens == 0 && s.routine() {
		switch {
		case w == "begin", w == "case" && s.begins > 0:
			s.begins++
		case w == "end" && s.begins > 0:
			s.begins--
		}
	}
	return nil
}

// routine tells whether the statement creates a function or procedure, the only
// statements with a body that semicolons may stand in.
func (s *scanner) routine() bool {
	words := s.words
	if len(words) > 2 && words[0] == "create" && words[1] == "or" && words[2] == "replace" {
		words = append([]string{"create"}, words[3:]...)
	}
	return len(words) > 1 && words[0] == "create" && (words[1] == "function" || words[1] == "procedure")
}

func wordStart(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}

func wordByte(c byte) bool { return wordStart(c) || c >= '0' && c <= '9' || c == '$' }

// literal takes the rest of a string.
func (s *scanner) literal(escapes bool) error { return s.quoted('\'', escapes) }

// quoted takes the rest of what is quoted; a doubled quote is two quotes one
// after the other, which comes to the same.
func (s *scanner) quoted(quote byte, escapes bool) error {
	for {
		c, err := s.read()
		if err != nil {
			return err
		}
		if c == '\\' && escapes {
			if _, err := s.read(); err != nil {
				return err
			}
			continue
		}
		if c == quote {
			return nil
		}
	}
}

// dollar takes the rest of what begins with a dollar: a literal, or a parameter.
func (s *scanner) dollar() error {
	start := len(s.text) - 1
	if c := s.peek(); c != '$' && !wordStart(c) {
		return nil
	}
	if err := s.run(func(c byte) bool { return wordStart(c) || c >= '0' && c <= '9' }); err != nil {
		return err
	}
	if s.peek() != '$' {
		return nil
	}
	if _, err := s.read(); err != nil {
		return err
	}
	tag := bytes.Clone(s.text[start:])
	body := len(s.text)
	for {
		c, err := s.read()
		if err != nil {
			return err
		}
		if c == '$' && len(s.text)-body >= len(tag) && bytes.HasSuffix(s.text, tag) {
			return nil
		}
	}
}

// comment takes the rest of a comment between /* and */, which may hold others.
func (s *scanner) comment() error {
	depth := 1
	if _, err := s.read(); err != nil { // the *
		return err
	}
	for depth > 0 {
		c, err := s.read()
		if err != nil {
			if errors.Is(err, io.EOF) && s.code < 0 {
				s.code = 0 // such an end is no end
			}
			return err
		}
		switch next := s.peek(); {
		case c == '*' && next == '/':
			depth--
		case c == '/' && next == '*':
			depth++
		default:
			continue
		}
		if _, err := s.read(); err != nil {
			return err
		}
	}
	return nil
}

// until takes everything up to and with the byte, or up to the end.
func (s *scanner) until(end byte) error {
	for {
		c, err := s.read()
		if err != nil || c == end {
			return err
		}
	}
}

// run takes the bytes that fit.
func (s *scanner) run(fits func(byte) bool) error {
	for {
		next, err := s.r.Peek(1)
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil // whoever reads on finds it
			}
			return err
		}
		if !fits(next[0]) {
			return nil
		}
		if _, err := s.read(); err != nil {
			return err
		}
	}
}

func (s *scanner) read() (byte, error) {
	c, err := s.r.ReadByte()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		return 0, fmt.Errorf("read %s: %w", s.name, err)
	}
	if len(s.text) >= maxStatement {
		return 0, fmt.Errorf("read %s: a statement is longer than %d bytes: %s", s.name, maxStatement, shortened(string(s.text[:512])))
	}
	s.text = append(s.text, c)
	return c, nil
}

// peek is the next byte, 0 at the end or when it cannot be read, which whoever reads on finds.
func (s *scanner) peek() byte {
	next, err := s.r.Peek(1)
	if err != nil {
		return 0
	}
	return next[0]
}
