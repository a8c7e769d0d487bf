// Package docs holds the README and the pages of docs/ to what is true. Its
// tests read every command that a page shows: what can run without a cluster
// is run, in the page's order, as it is printed; what needs one is run by the
// end-to-end tests, which use the same [Page]. Names that a reader replaces by
// their own, such as the set mysql/mysql, are replaced by the tests' own.
package docs

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// Block is a fenced block of a page.
type Block struct {
	// Language is the word after the fence, for example "sh"; Note is what
	// follows it.
	Language, Note string
	// Heading is the nearest heading above, without its marks.
	Heading string
	Code    string
	// Line is the number of the fence's line, from 1.
	Line int
}

// Page is a page's blocks, in order.
type Page struct {
	Path   string
	Blocks []Block
}

// Read reads a page. A fence that is not closed is an error.
func Read(path string) (Page, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Page{}, fmt.Errorf("read page: %w", err)
	}
	p := Page{Path: path}
	heading, inside, number := "", false, 0
	for line := range strings.Lines(string(text)) {
		number++
		switch {
		case strings.HasPrefix(line, "```") && !inside:
			language, note, _ := strings.Cut(strings.TrimSpace(strings.TrimLeft(line, "`")), " ")
			p.Blocks = append(p.Blocks, Block{Language: language, Note: note, Heading: heading, Line: number})
			inside = true
		case strings.HasPrefix(line, "```"):
			inside = false
		case inside:
			p.Blocks[len(p.Blocks)-1].Code += line
		case strings.HasPrefix(line, "#"):
			heading = strings.TrimSpace(strings.TrimLeft(line, "#"))
		}
	}
	if inside {
		return p, fmt.Errorf("page %s: the block that begins at line %d does not end", path, p.Blocks[len(p.Blocks)-1].Line)
	}
	return p, nil
}

// In is the code of all blocks of a language, in order. With headings, only of
// the blocks below these.
func (p Page) In(language string, headings ...string) string {
	var b strings.Builder
	for _, k := range p.Blocks {
		if k.Language != language || len(headings) > 0 && !slices.Contains(headings, k.Heading) {
			continue
		}
		b.WriteString(k.Code)
	}
	return b.String()
}
