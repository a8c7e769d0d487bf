package timesten

import (
	"bytes"
	"cmp"
	"os"
	"path/filepath"
	"strings"
)

const (
	dsn = "sample"
	// end is what shows that a stream is whole.
	end = "end\n"
	// head begins a database. It has bytes that no text has.
	head = "\x00TimesTen stand-in\xff\n"
	// ballast makes it larger than what fits into one write.
	ballast = 200 << 10
)

// database is a folder of files: data is the checkpoint file, the others are
// what is known of it.
type database string

func (d database) read(name string) string {
	text, _ := os.ReadFile(filepath.Join(string(d), name)) // what is not there is empty
	return strings.TrimSuffix(string(text), "\n")
}

func (d database) write(name, text string) error {
	if err := os.MkdirAll(string(d), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(string(d), name), []byte(text), 0o644)
}

func (d database) has(name string) bool {
	_, err := os.Stat(filepath.Join(string(d), name))
	return err == nil
}

func (d database) remove(names ...string) {
	for _, name := range names {
		_ = os.Remove(filepath.Join(string(d), name)) // it may not be there
	}
}

// create makes an empty database.
func (d database) create() error {
	if err := d.write("data", head+strings.Repeat("#", ballast)+"\n"+end); err != nil {
		return err
	}
	d.remove("scheme", "agent", "closed", "policy", "backups")
	return d.write("state", "IDLE\n")
}

func (d database) destroy() {
	d.remove("data", "scheme", "agent", "loaded", "closed", "policy", "state", "backups")
}

// loaded: by hand, or, with the policy inUse, by whoever connects.
func (d database) loaded() bool { return d.has("data") && d.has("loaded") }

func (d database) state() string { return cmp.Or(d.read("state"), "IDLE") }

// whole says that data can be a database.
func (d database) whole() bool {
	data, err := os.ReadFile(filepath.Join(string(d), "data"))
	return err == nil && bytes.HasSuffix(data, []byte(end))
}

// rows are those of scott.emp, as "1,name".
func (d database) rows() []string {
	var rows []string
	for line := range strings.Lines(d.read("data") + "\n") {
		if row, ok := strings.CutPrefix(line, "emp "); ok {
			rows = append(rows, strings.TrimSpace(row))
		}
	}
	return rows
}

func (d database) insert(row string) error {
	data := d.read("data") + "\n"
	return d.write("data", strings.TrimSuffix(data, end)+"emp "+row+"\n"+end)
}

func (d database) deleteRows() error {
	var kept strings.Builder
	for line := range strings.Lines(d.read("data") + "\n") {
		if !strings.HasPrefix(line, "emp ") {
			kept.WriteString(line)
		}
	}
	return d.write("data", kept.String())
}
