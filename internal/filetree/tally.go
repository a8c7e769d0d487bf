package filetree

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"keepset/internal/record"
)

// Counts are what a Save or a Restore has gone through.
type Counts struct {
	// Entries of each kind.
	Files, Directories, Symlinks, HardLinks, Devices, FIFOs int64
	// Bytes of the files, holes included.
	Bytes int64
	// Unchanged of the files were taken over without being opened.
	Unchanged int64
}

// Entries is how many there are of all kinds.
func (c *Counts) Entries() int64 {
	return c.Files + c.Directories + c.Symlinks + c.HardLinks + c.Devices + c.FIFOs
}

// add counts an entry.
func (c *Counts) add(k Kind) {
	switch k {
	case File:
		c.Files++
	case HardLink:
		c.HardLinks++
	case Symlink:
		c.Symlinks++
	case Character, Block:
		c.Devices++
	case Directory:
		c.Directories++
	case FIFO:
		c.FIFOs++
	}
}

// The names of the counts in the report.
func (c *Counts) named() map[string]*int64 {
	return map[string]*int64{
		"files": &c.Files, "directories": &c.Directories, "symlinks": &c.Symlinks, "hardLinks": &c.HardLinks,
		"devices": &c.Devices, "fifos": &c.FIFOs, "bytes": &c.Bytes, "unchanged": &c.Unchanged,
	}
}

// KindTree is the kind of the one object in the report of a tree.
const KindTree = "tree"

// object is the tree as the report has it.
func (c *Counts) object(name string) record.Object {
	o := record.Object{Kind: KindTree, Name: name, Rows: c.Entries(), Attributes: map[string]string{}}
	for name, n := range c.named() {
		o.Attributes[name] = strconv.FormatInt(*n, 10)
	}
	return o
}

// CountsOf reads the counts of a report of a tree.
func CountsOf(r record.Report) (Counts, error) {
	if r.Layout != Layout || len(r.Objects) != 1 {
		return Counts{}, fmt.Errorf("%w: its layout is %q, not %s", ErrArchive, r.Layout, Layout)
	}
	return CountsOfTree(r.Objects[0])
}

// CountsOfTree reads the counts of the object that a tree is in a report.
func CountsOfTree(o record.Object) (Counts, error) {
	var c Counts
	if o.Kind != KindTree {
		return c, fmt.Errorf("%w: %q is no tree", ErrArchive, o.Kind)
	}
	for name, n := range c.named() {
		var err error
		if *n, err = parseDecimal(o.Attributes[name]); err != nil {
			return c, fmt.Errorf("count of %s: %w", name, err)
		}
	}
	return c, nil
}

// incident is one class of what may go wrong with single entries.
type incident int

const (
	unreadable incident = iota
	changed
	vanished
	socket
	foreign
	unmade
	incidents
)

// named is how many names of each class a report has.
const named = 10

// tally counts, for several goroutines.
type tally struct {
	mu     sync.Mutex
	counts Counts
	times  [incidents]int64
	names  [incidents][]string
}

func (t *tally) add(k Kind, bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.add(k)
	t.counts.Bytes += bytes
}

func (t *tally) unchanged(bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.Files++
	t.counts.Unchanged++
	t.counts.Bytes += bytes
}

// note takes an incident, and why.
func (t *tally) note(i incident, name string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.times[i]++
	if len(t.names[i]) >= named {
		return
	}
	text := strconv.QuoteToASCII(name)
	if err != nil {
		text += fmt.Sprintf(" (%v)", err)
	}
	t.names[i] = append(t.names[i], text)
}

// sentences says what happened of a class, in at most one sentence.
func (t *tally) sentences(i incident, what string) []string {
	n := t.times[i]
	if n == 0 {
		return nil
	}
	text := fmt.Sprintf("%d %s: %s", n, what, strings.Join(t.names[i], ", "))
	if n > int64(len(t.names[i])) {
		text += fmt.Sprintf(", and %d more", n-int64(len(t.names[i])))
	}
	return []string{text}
}
