package altibase

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Has says whether a program is one of the server's.
func Has(name string) bool {
	return slices.Contains([]string{"server", "isql", "is", "aexport", "iloader", "aku"}, name)
}

// Run runs one of them and returns its exit status.
func Run(name string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := &program{home: home(os.Getenv("ALTIBASE_HOME")), args: args, stdin: stdin, stdout: stdout, stderr: stderr}
	p.lie = cmp.Or(os.Getenv("LIE"), p.home.read("conf/lie"))
	switch name {
	case "server":
		return p.server()
	case "aexport":
		return p.aexport()
	case "iloader":
		return p.iloader()
	case "aku":
		return p.aku()
	default:
		return p.isql()
	}
}

type program struct {
	home           home
	args           []string
	lie            string
	stdin          io.Reader
	stdout, stderr io.Writer
}

func (p *program) say(format string, args ...any) { _, _ = fmt.Fprintf(p.stdout, format+"\n", args...) }

func (p *program) option(name string) string {
	if i := slices.Index(p.args, name); i >= 0 && i+1 < len(p.args) {
		return p.args[i+1]
	}
	return ""
}

// account is right for the one user that there is.
func (p *program) account() bool {
	return strings.EqualFold(p.option("-u"), "sys") && strings.EqualFold(p.option("-p"), "manager")
}

// server always ends with status 0.
func (p *program) server() int {
	switch order := strings.Join(p.args, " "); {
	case strings.HasPrefix(order, "create") && p.home.has("dbs"):
		p.say("[ERR-11068 : The database already exists.]")
	case strings.HasPrefix(order, "create"):
		p.create()
		p.say("DB Writing Completed. All Done.\n\nCreate success.")
	case order == "start" && !p.home.has("dbs"):
		p.say("[ERR-1101F : The database files are not there.]")
	case order == "start":
		p.home.remove("aku_started")
		if failure := p.startup("service"); failure != "" {
			p.say("[ERR-%s]", failure)
		}
	case order == "stop":
		p.home.remove("running", "phase")
	}
	return 0
}

// create makes a database in noarchivelog mode.
func (p *program) create() {
	p.home.put("dbs/.created", "")
	p.home.put("dbs/system001.dbf", "system\n")
	p.home.put(undo, "undo 0\n")
	p.home.put("dbs/temp001.dbf", "temporary\n")
	p.home.images(0)
	p.home.newLog(0)
	p.home.anchorAt(anchor{})
	if !p.home.has("conf/altibase.properties") {
		p.home.put("conf/altibase.properties", "# of the stand-in\nLOG_DIR = ?/logs\nARCHIVE_DIR = ?/arch_logs\n")
	}
}

// home is ALTIBASE_HOME of a pod, which ends with the pod's name.
type home string

func (h home) path(name string) string { return filepath.Join(string(h), name) }

func (h home) read(name string) string {
	text, _ := os.ReadFile(h.path(name)) // what is not there is empty
	return strings.TrimSuffix(string(text), "\n")
}

func (h home) raw(name string) string {
	text, _ := h.find(name)
	return text
}

func (h home) find(name string) (text string, found bool) {
	content, err := os.ReadFile(h.path(name))
	return string(content), err == nil
}

// write changes a file, and the log when it is one of the database.
func (h home) write(name, text string) {
	h.put(name, text)
	h.log(name, text)
}

// put panics when the volume cannot be written: a stand-in has no other use for that.
func (h home) put(name, text string) {
	if err := h.tryPut(name, text); err != nil {
		panic(err)
	}
}

func (h home) tryPut(name, text string) error {
	path := h.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func (h home) has(name string) bool {
	_, err := os.Stat(h.path(name))
	return err == nil
}

func (h home) remove(names ...string) {
	for _, name := range names {
		_ = os.RemoveAll(h.path(name)) // it may not be there
		h.log(name, gone)
	}
}

// pod is the number of the pod, and the name of its home without it.
func (h home) pod() (number, rest string) {
	i := strings.LastIndexByte(string(h), '-') + 1
	return string(h)[i:], string(h)[:i]
}

// of is the home of another pod, by its number.
func (h home) of(number string) home {
	_, rest := h.pod()
	return home(rest + number)
}

// peers are the other pods of the at most four, by number.
func (h home) peers() []string {
	own, _ := h.pod()
	return slices.DeleteFunc([]string{"0", "1", "2", "3"}, func(n string) bool { return n == own })
}

// replicates says that aku has started there.
func (h home) replicates() bool { return h.has("running") && h.has("aku_started") }

// tables are the names of those that there are.
func (h home) tables() []string {
	found, _ := filepath.Glob(h.path("dbs/*.rows")) // the only error is a bad pattern
	for i := range found {
		found[i] = strings.TrimSuffix(filepath.Base(found[i]), ".rows")
	}
	slices.Sort(found)
	return found
}

func rowsOf(table string) string { return "dbs/" + strings.ToUpper(table) + ".rows" }
