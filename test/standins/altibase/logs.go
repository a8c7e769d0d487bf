package altibase

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// anchor is what the loganchors hold, of which there are three copies.
type anchor struct {
	Archive bool
	// Oldest is the log that a recovery begins with, Current the one that is written.
	Oldest, Current int
	// Stable is the number of the good image of the memory files, 0 or 1.
	Stable int
}

const (
	logs     = "logs"
	archived = "arch_logs"
)

func logFile(dir string, n int) string { return fmt.Sprintf("%s/logfile%d", dir, n) }

func (h home) anchor() (a anchor, found bool) {
	text := h.read(logs + "/loganchor0")
	if text == "" {
		return anchor{}, false
	}
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		panic(err)
	}
	return a, true
}

func (h home) anchorAt(a anchor) {
	text, err := json.Marshal(a)
	if err != nil {
		panic(err)
	}
	for n := range 3 {
		h.put(fmt.Sprintf("%s/loganchor%d", logs, n), string(text)+"\n")
	}
}

// log notes a change of a file of the database, as redo: what is in it now. Tests
// that have made a home by hand have no logs.
func (h home) log(name, text string) {
	a, found := h.anchor()
	if !found || !strings.HasPrefix(name, "dbs/") {
		return
	}
	current := logFile(logs, a.Current)
	h.put(current, h.raw(current)+strconv.Quote(name)+" "+strconv.Quote(text)+"\n")
}

// replay does what a log says.
func (h home) replay(text string) {
	for line := range strings.Lines(text) {
		first, err := strconv.QuotedPrefix(line)
		if err != nil {
			continue
		}
		name, nameErr := strconv.Unquote(first)
		content, err := strconv.Unquote(strings.TrimSpace(line[len(first):]))
		if nameErr != nil || err != nil {
			continue
		}
		if content == gone {
			_ = os.RemoveAll(h.path(name)) // it may not be there
		} else {
			h.put(name, content)
		}
	}
}

// gone is logged of a file that is removed.
const gone = "\x00"

// newLog begins a log, which is never an empty file: logs have one size.
func (h home) newLog(n int) { h.put(logFile(logs, n), "log\n") }

// switchLog closes the log that is written. In archivelog mode it is archived.
func (h home) switchLog() {
	a, _ := h.anchor()
	if a.Archive {
		h.put(logFile(archived, a.Current), h.raw(logFile(logs, a.Current)))
	}
	a.Current++
	h.newLog(a.Current)
	h.anchorAt(a)
}

// checkpoint writes the other image of the memory files, from which the database
// could be recovered with the logs from now on; older ones are deleted.
func (h home) checkpoint() {
	a, _ := h.anchor()
	a.Stable = 1 - a.Stable
	h.images(a.Stable)
	for n := a.Oldest; n < a.Current; n++ {
		_ = os.Remove(h.path(logFile(logs, n))) // it may not be there
	}
	a.Oldest = a.Current
	h.anchorAt(a)
}

// images writes the files of the memory tablespaces: the second of the two has all
// that there is.
func (h home) images(stable int) {
	var all strings.Builder
	for _, name := range h.contents() {
		all.WriteString(strconv.Quote(name) + " " + strconv.Quote(h.raw(name)) + "\n")
	}
	h.put(fmt.Sprintf("dbs/SYS_TBS_MEM_DIC-%d-0", stable), "dictionary\n")
	h.put(fmt.Sprintf("dbs/SYS_TBS_MEM_DATA-%d-0", stable), "data\n"+all.String())
}

// contents are the files that stand for what the memory tablespaces hold.
func (h home) contents() []string {
	var names []string
	for _, pattern := range []string{"dbs/*.rows", "dbs/*.columns", "dbs/repl/*", "dbs/.created"} {
		found, _ := filepath.Glob(h.path(pattern)) // the only error is a bad pattern
		for _, path := range found {
			names = append(names, strings.TrimPrefix(path, string(h)+"/"))
		}
	}
	slices.Sort(names)
	return names
}
