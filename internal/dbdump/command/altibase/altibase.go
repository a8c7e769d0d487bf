// Package altibase is the preset of the engine command for Altibase, as the aku
// guide runs it in a StatefulSet: a logical backup by aexport and iloader.
//
// Its two functions, [Export] and [Import], assemble scripts for the container. Altibase's
// tools end with status 0 after errors, which they print: aexport does when the
// export failed, and scripts do that call iloader. So the script keeps what they
// print to itself and reads it; nothing but the archive is on standard output. It
// counts the tables of the export against the files with rows.
//
// What is in the archive are aexport's scripts (ALL_*.sql, run_*.sh), which hold
// passwords in the clear, and iloader's files. The tools write into a directory
// of the container, which has to hold the whole database once; there is no other
// way with them. It is removed when the script ends, and also when the
// connection is cut.
//
// Facts are those of the manuals of 7.3 (Utilities: aexport, iloader). Exit
// statuses are read from the open source of 7.1. Nothing was run against the
// product; what is assumed is marked so, here and in the tests' stand-ins.
package altibase

import (
	_ "embed"
	"fmt"
	"regexp"
	"strconv"
)

// Options say where the database is, as its container sees it.
type Options struct {
	// Environment is a file of shell variables that is read first, ALTIBASE_HOME
	// among them; empty: they are in the container's environment.
	Environment string
	// Directory is where there is room for the export.
	Directory string
	// PasswordVariable names the variable, of the container or of Environment,
	// with the password of SYS. The tools take it as an argument, so that the
	// container's other processes see it for as long as they run.
	PasswordVariable string
	Port             int
}

// Defaults of the aku guide.
const (
	DefaultEnvironment = "/CONFIGMAP/set_altibase.env"
	DefaultDirectory   = "/ALTIBASE"
	DefaultPort        = 20300
)

//go:embed export.sh
var exportScript string

//go:embed import.sh
var importScript string

var variableForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Export is what prints the backup, a tar archive.
func Export(o Options) ([]string, error) { return o.program(exportScript, "altibase-export") }

// Import is what reads it.
func Import(o Options) ([]string, error) { return o.program(importScript, "altibase-import") }

func (o Options) program(script, name string) ([]string, error) {
	switch {
	case !variableForm.MatchString(o.PasswordVariable):
		return nil, fmt.Errorf("%q is no name of a variable for the password of SYS", o.PasswordVariable)
	case o.Directory == "" || o.Directory[0] != '/':
		return nil, fmt.Errorf("directory %q for the export is not an absolute path", o.Directory)
	case o.Port < 1 || o.Port > 65535:
		return nil, fmt.Errorf("port %d of the database is none", o.Port)
	}
	return []string{"sh", "-c", script, name, o.Environment, o.Directory, strconv.Itoa(o.Port), o.PasswordVariable}, nil
}
