package filetree

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// Patterns choose what of a tree is meant. The zero Patterns are all of it.
//
// A pattern is a path with globs: * and ? stand for characters of one name,
// [a-z] for one of several, ** for any number of directories. With a slash in
// it, it counts from the root; without, it is for names in whatever directory.
// What matches a directory is for all that is in it.
type Patterns struct {
	include, exclude []pattern
}

// pattern is its elements.
type pattern []string

// ParsePatterns reads patterns. With some to include, nothing else is meant;
// those to exclude win.
func ParsePatterns(include, exclude []string) (p Patterns, err error) {
	if p.include, err = parsePatterns(include); err != nil {
		return p, err
	}
	p.exclude, err = parsePatterns(exclude)
	return p, err
}

func parsePatterns(texts []string) ([]pattern, error) {
	list := make([]pattern, 0, len(texts))
	for _, text := range texts {
		p, err := parsePattern(text)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

var errPattern = errors.New("want a path such as var/cache, *.tmp or **/lost+found, without . and .. in it")

func parsePattern(text string) (pattern, error) {
	elements := pattern(strings.Split(strings.Trim(text, "/"), "/"))
	for _, element := range elements {
		if _, err := path.Match(element, ""); err != nil || element == "" || element == "." || element == ".." {
			return nil, fmt.Errorf("pattern %q: %w", text, errPattern)
		}
	}
	if len(elements) == 1 && !strings.Contains(text, "/") {
		return pattern{"**", elements[0]}, nil
	}
	return elements, nil
}

// empty says that all is meant.
func (p *Patterns) empty() bool { return len(p.include) == 0 && len(p.exclude) == 0 }

// excludes says that a name, and all below it, is left out. It is asked for
// every directory before it is asked for what is in it.
func (p *Patterns) excludes(name string) bool { return matchesAny(p.exclude, strings.Split(name, "/")) }

// includes says that a name is meant, by its own or by a directory's above it.
func (p *Patterns) includes(name string) bool {
	if len(p.include) == 0 {
		return true
	}
	elements := strings.Split(name, "/")
	for n := range elements {
		if matchesAny(p.include, elements[:n+1]) {
			return true
		}
	}
	return false
}

// mark notes which patterns to include a name is meant by.
func (p *Patterns) mark(name string, met []bool) {
	elements := strings.Split(name, "/")
	for i := range p.include {
		for n := 0; n < len(elements) && !met[i]; n++ {
			met[i] = p.include[i].matches(elements[:n+1])
		}
	}
}

// String is the pattern as it may have been given.
func (p pattern) String() string {
	if len(p) == 2 && p[0] == "**" {
		return p[1]
	}
	return "/" + strings.Join(p, "/")
}

// chooses says both for a name of which the directories were not asked for.
func (p *Patterns) chooses(name string) bool {
	if name == "." {
		return len(p.include) == 0
	}
	elements := strings.Split(name, "/")
	for n := range elements {
		if matchesAny(p.exclude, elements[:n+1]) {
			return false
		}
	}
	return p.includes(name)
}

func matchesAny(list []pattern, name []string) bool {
	for _, p := range list {
		if p.matches(name) {
			return true
		}
	}
	return false
}

// matches compares element by element. What ** stands for is found by keeping
// all lengths of the pattern that fit so far, so that no pattern takes long.
func (p pattern) matches(name []string) bool {
	fits := make([]bool, len(p)+1)
	fits[0] = true
	p.pass(fits)
	for _, element := range name {
		for i := len(p); i >= 0; i-- {
			stays := i < len(p) && p[i] == "**" && fits[i]
			fits[i] = stays || i > 0 && p[i-1] != "**" && fits[i-1] && glob(p[i-1], element)
		}
		p.pass(fits)
	}
	return fits[len(p)]
}

// pass lets ** stand for no directory.
func (p pattern) pass(fits []bool) {
	for i, element := range p {
		if element == "**" && fits[i] {
			fits[i+1] = true
		}
	}
}

func glob(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}
