package xtrabackup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Name of the program.
const Name = "xtrabackup"

// series of the server that it is made for.
const series = "9.7.0"

// known are the options that it takes, with and without a value.
var known = []string{
	"backup", "prepare", "version", "stream", "user", "password", "host", "port", "socket", "target-dir", "tmpdir", "datadir", "parallel",
	"slave-info", "no-version-check", "lock-ddl",
}

// program is one run.
type program struct {
	options        map[string]string
	stdout, stderr io.Writer
	lie            string
}

// Run is the program. It returns its exit status.
func Run(args []string, stdout, stderr io.Writer) int {
	p := &program{options: map[string]string{}, stdout: stdout, stderr: stderr, lie: os.Getenv("LIE")}
	err := p.run(args)
	if err != nil {
		p.say("xtrabackup: Error: %v", err)
		return 1
	}
	return 0
}

func (p *program) say(format string, args ...any) { _, _ = fmt.Fprintf(p.stderr, format+"\n", args...) }

func (p *program) run(args []string) error {
	if err := p.parse(args); err != nil {
		return err
	}
	switch {
	case p.has("version"):
		version := series
		if p.lie == "version" {
			version = "8.0.35"
		}
		p.say("xtrabackup version %s-1 based on MySQL server %s Linux (x86_64) (revision id: a stand-in of the tests)", version, version)
		return nil
	case p.has("backup") == p.has("prepare"):
		return errors.New("either --backup or --prepare")
	case p.has("prepare"):
		return p.prepare()
	default:
		return p.backup()
	}
}

func (p *program) has(option string) bool { _, has := p.options[option]; return has }

// parse takes the options, of which --defaults-file has to be the first.
func (p *program) parse(args []string) error {
	if len(args) > 0 {
		if file, ok := strings.CutPrefix(args[0], "--defaults-file="); ok {
			if err := p.defaults(file); err != nil {
				return err
			}
			args = args[1:]
		}
	}
	for _, arg := range args {
		name, value, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		if !strings.HasPrefix(arg, "--") || !slices.Contains(known, name) {
			return fmt.Errorf("unknown argument: %s", arg)
		}
		p.options[name] = value
	}
	return nil
}

// defaults reads a file of options. It must be a real file, nobody else's.
func (p *program) defaults(file string) error {
	info, err := os.Lstat(file)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s is %s", file, info.Mode())
	}
	text, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return err
	}
	group := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "["); ok {
			group = strings.TrimSuffix(name, "]")
		}
		if name, value, ok := strings.Cut(line, "="); ok && group == Name {
			p.options[name] = unquote(value)
		}
	}
	return nil
}

// unquote is what a server's programs make of a value in a file of options.
func unquote(value string) string {
	if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
		value = value[1 : len(value)-1]
	}
	return strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\n`, "\n", `\r`, "\r", `\t`, "\t", `\s`, " ").Replace(value)
}
