// Package altibase is the presets of the engine command for Altibase, as the aku
// guide runs it in a StatefulSet: a logical backup by aexport and iloader, and a
// physical one by ALTER DATABASE BACKUP.
//
// Its functions assemble scripts for the container: [Export] and [Import], and
// [Backup] and [Restore]. Altibase's tools end with status 0 after errors, which
// they print: aexport does when the export failed, isql after EXIT, scripts that call
// iloader, server and aku. So the scripts keep what the tools print to themselves and
// read it; nothing but the archive is on standard output. What can be counted is
// counted: the tables of an export against the files with rows, the files that the
// server has against those that it wrote.
//
// What is in the logical archive are aexport's scripts (ALL_*.sql, run_*.sh), which
// hold passwords in the clear, and iloader's files. In the physical one are the
// server's files, the logs that make them consistent, and the list keepset-altibase,
// which says where each belongs. Both are written into a directory of the
// container first, which has to hold the whole database once: neither tool writes
// anywhere else. It is removed when the script ends, and also when the
// connection is cut.
//
// A restore of either kind is of pod 0; aku fills the others. Its order is aku's
// end, the database, aku's clean, aku's start, and an XSN that is not -1 stops it.
//
// Facts are those of the manuals of 7.3 (Administrator's: chapter 10, Utilities:
// aexport, iloader, aku). Exit statuses, and what the manuals leave open of the
// order inside of a backup, are read from the open source of 7.1. Nothing was run
// against the product; what is assumed is marked so, here and in the tests' stand-ins.
package altibase

import (
	_ "embed"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Options say where the database is, as its container sees it.
type Options struct {
	// Environment is a file of shell variables that is read first, ALTIBASE_HOME
	// among them; empty: they are in the container's environment.
	Environment string
	// Directory is where there is room for the archive's files.
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

// The scripts are put together of parts: what all share comes first.
var (
	//go:embed common.sh
	commonPart string
	//go:embed sysdba.sh
	sysdbaPart string
	//go:embed aku.sh
	akuPart string
	//go:embed export.sh
	exportPart string
	//go:embed import.sh
	importPart string
	//go:embed physical-backup.sh
	backupPart string
	//go:embed physical-restore.sh
	restorePart string
)

var (
	variableForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	// commentLine is a line of a script that is for people. The script travels in
	// the URL of an exec, which proxies and audit logs bound.
	commentLine = regexp.MustCompile(`(?m)^\s*#.*\n`)
)

// Export is what prints the logical backup, a tar archive.
func Export(o Options) ([]string, error) { return o.program("altibase-export", exportPart) }

// Import is what reads it.
func Import(o Options) ([]string, error) { return o.program("altibase-import", akuPart, importPart) }

// Backup is what prints the physical backup, a tar archive.
func Backup(o Options) ([]string, error) {
	return o.program("altibase-backup", sysdbaPart, backupPart)
}

// Restore is what reads it.
func Restore(o Options) ([]string, error) {
	return o.program("altibase-restore", sysdbaPart, akuPart, restorePart)
}

func (o Options) program(name string, parts ...string) ([]string, error) {
	switch {
	case !variableForm.MatchString(o.PasswordVariable):
		return nil, fmt.Errorf("%q is no name of a variable for the password of SYS", o.PasswordVariable)
	case o.Directory == "" || o.Directory[0] != '/':
		return nil, fmt.Errorf("directory %q for the archive is not an absolute path", o.Directory)
	case o.Port < 1 || o.Port > 65535:
		return nil, fmt.Errorf("port %d of the database is none", o.Port)
	}
	script := commentLine.ReplaceAllString(commonPart+strings.Join(parts, ""), "")
	return []string{"sh", "-c", script, name, o.Environment, o.Directory, strconv.Itoa(o.Port), o.PasswordVariable}, nil
}
