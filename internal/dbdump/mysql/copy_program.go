package mysql

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/mysql/xbstream"
)

// copier is a program that copies the files of a running server.
type copier struct {
	name    string
	dialect xbstream.Dialect
	// log is the file that InnoDB's log comes in.
	log string
	// version finds, in what --version says, the version of the server that the program is made of.
	version *regexp.Regexp
	// remedy is what to do where the program cannot be used, loss where it has left out tables.
	remedy, loss string
}

// Percona's XtraBackup 2.4 is for MySQL 5.7, 8.0 for 8.0, 8.4 for 8.4, and neither reads the other's files.
var (
	mariadbBackup = copier{
		name: backupProgram, dialect: xbstream.MariaDB, log: "ib_logfile0",
		version: regexp.MustCompile(`based on MariaDB server ([0-9]+\.[0-9]+\.[0-9]+)`),
		remedy:  "in the image of the database (MariaDB's own images have it), or on the server's machine (Debian: mariadb-backup), in PATH or in the folder that --mysql-programs names",
		loss:    lossRemedy,
	}
	xtrabackup = copier{
		name: xtrabackupProgram, dialect: xbstream.Percona, log: "xtrabackup_logfile",
		version: regexp.MustCompile(`based on MySQL server ([0-9]+\.[0-9]+\.[0-9]+)`),
		remedy: "in the database's container or in one beside it that mounts the same claim at the same path (--copy-container), or on the server's machine, in PATH or in the folder that --mysql-programs names " +
			"(Percona XtraBackup 2.4 is for MySQL 5.7, 8.0 for 8.0, 8.4 for 8.4)",
		loss: "tables that are made, renamed or dropped while xtrabackup is at work may be left out: try again",
	}
)

// Names of the programs.
const (
	backupProgram     = "mariadb-backup"
	xtrabackupProgram = "xtrabackup"
)

// copierOf is the one that a server's files are copied by.
func copierOf(flavor string) copier {
	if flavor == FlavorMariaDB {
		return mariadbBackup
	}
	return xtrabackup
}

// Program is one run of a program that copies files.
type Program struct {
	// Name of the program.
	Name string
	Args []string
	// Password of the account, which is never put on a command line.
	Password string
	// ByFile: the program takes no password from its environment, but from the file of options that its first argument
	// then names, and from no other file of options.
	ByFile         bool
	Stdout, Stderr io.Writer
}

// Programs runs them where the server's files are.
type Programs interface {
	// Run returns nil if the program ended with status 0. That what it wrote has arrived whole, it need not know.
	Run(ctx context.Context, p Program) error
}

// parseProgramVersion reads the version of the server that a program is made of out of what --version says.
func parseProgramVersion(c copier, text string) (string, error) {
	m := c.version.FindStringSubmatch(text)
	if m == nil {
		return "", fmt.Errorf("not a version of %s: %.200q", c.name, text)
	}
	return m[1], nil
}

// majorMinor is a version without its last number.
func majorMinor(version string) string {
	if i := strings.LastIndexByte(version, '.'); i >= 0 && strings.Count(version, ".") == 2 {
		return version[:i]
	}
	return version
}

// checkProgram asks the program for its version, which has to be the server's: files change their form between them.
func (e *Engine) checkProgram(ctx context.Context, c copier, server Server) error {
	out := &dbdump.LastWords{}
	remedy := fmt.Sprintf("it has to be where the server's files are, and of the server's version %s: %s", majorMinor(server.Version), c.remedy)
	err := e.opts.Programs.Run(ctx, Program{Name: c.name, Args: []string{"--version"}, Stdout: out, Stderr: out})
	if err != nil {
		return fmt.Errorf("run %s --version: %w%s; %s", c.name, err, said(out.String()), remedy)
	}
	found, err := parseProgramVersion(c, out.String())
	if err != nil {
		return fmt.Errorf("run %s --version: %w", c.name, err)
	}
	if majorMinor(found) != majorMinor(server.Version) || olderXtrabackup(c, found, server) {
		return fmt.Errorf("the server is %s %s and the %s that was found is of version %s: %s", server.family(), server.Version, c.name, found, remedy)
	}
	return nil
}

// lastChange8 is the version of MySQL 8.0 since which files change no more: an older xtrabackup must not meet a newer server.
const lastChange8 = 80034

// olderXtrabackup tells whether a program of the server's series is too old for it.
func olderXtrabackup(c copier, found string, server Server) bool {
	_, number, err := parseVersion(found)
	return err != nil || c.name == xtrabackupProgram && server.AtLeast(8, 0, 0) && !server.AtLeast(8, 1, 0) && number < lastChange8 && number < server.number
}

// said quotes a program's last words, where there are any.
func said(words string) string {
	if words == "" {
		return ""
	}
	return "; it said: " + words
}
