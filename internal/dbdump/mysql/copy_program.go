package mysql

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"keepset/internal/dbdump"
)

// backupProgram copies the files of a running MariaDB.
const backupProgram = "mariadb-backup"

// Program is one run of mariadb-backup.
type Program struct {
	Args []string
	// Password of the account, which is never put on a command line.
	Password       string
	Stdout, Stderr io.Writer
}

// Programs runs mariadb-backup where the server's files are.
type Programs interface {
	// Run returns nil if the program ended with status 0. That what it wrote has arrived whole, it need not know.
	Run(ctx context.Context, p Program) error
}

// ExecFunc runs a command in the container of a database. Nil means that it ended with status 0. A nil stdin is empty.
type ExecFunc func(ctx context.Context, command []string, stdin io.Reader, stdout, stderr io.Writer) error

// Container runs the program in the server's own container, which has the one that fits.
type Container struct {
	Exec ExecFunc
}

// withPassword is a shell script that reads the password from its standard input, since a command line can be read by
// everybody. The program reads files of options more than once, so that none can be made of the input.
const withPassword = `IFS= read -r MYSQL_PWD || exit 97; export MYSQL_PWD; exec "$0" "$@" </dev/null`

// Run implements Programs.
func (c Container) Run(ctx context.Context, p Program) error {
	command := append([]string{"sh", "-c", withPassword, backupProgram}, p.Args...)
	return c.Exec(ctx, command, strings.NewReader(p.Password+"\n"), p.Stdout, p.Stderr)
}

// Local runs the program of this machine.
type Local struct {
	// Dir is where it is. Empty: the first in PATH.
	Dir string
}

// Run implements Programs.
func (l Local) Run(ctx context.Context, p Program) error {
	path := filepath.Join(l.Dir, backupProgram)
	if l.Dir == "" {
		var err error
		if path, err = exec.LookPath(backupProgram); err != nil {
			return fmt.Errorf("find %s: %w", backupProgram, err)
		}
	}
	cmd := exec.CommandContext(ctx, path, p.Args...)
	// What is set for mysql here must not lead to another server.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MYSQL_") || strings.HasPrefix(v, "MARIADB_") })
	cmd.Env = append(cmd.Env, "LC_ALL=C", "MYSQL_PWD="+p.Password)
	cmd.Stdout, cmd.Stderr = p.Stdout, p.Stderr
	cmd.WaitDelay = 5 * time.Second // then its output is cut off, which is an error
	if err := cmd.Run(); err != nil {
		return errors.Join(context.Cause(ctx), fmt.Errorf("%s: %w", path, err))
	}
	return nil
}

// programRemedy is what to do where the program cannot be used.
func programRemedy(server Server) string {
	return fmt.Sprintf("it has to be where the server's files are, and of the server's version %s: in the image of the database (MariaDB's own images have it), or on the server's machine (Debian: mariadb-backup), in PATH or in the folder that --mysql-programs names",
		majorMinor(server.Version))
}

var programVersion = regexp.MustCompile(`based on MariaDB server ([0-9]+\.[0-9]+\.[0-9]+)`)

// parseProgramVersion reads the version out of what --version says.
func parseProgramVersion(text string) (string, error) {
	m := programVersion.FindStringSubmatch(text)
	if m == nil {
		return "", fmt.Errorf("not a version of mariadb-backup: %.200q", text)
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
func (e *Engine) checkProgram(ctx context.Context, server Server) error {
	out := &dbdump.LastWords{}
	err := e.opts.Programs.Run(ctx, Program{Args: []string{"--version"}, Stdout: out, Stderr: out})
	if err != nil {
		return fmt.Errorf("run %s --version: %w%s; %s", backupProgram, err, said(out.String()), programRemedy(server))
	}
	found, err := parseProgramVersion(out.String())
	if err != nil {
		return fmt.Errorf("run %s --version: %w", backupProgram, err)
	}
	if majorMinor(found) != majorMinor(server.Version) {
		return fmt.Errorf("the server is MariaDB %s and the %s that was found is of version %s: %s", server.Version, backupProgram, found, programRemedy(server))
	}
	return nil
}

// said quotes a program's last words, where there are any.
func said(words string) string {
	if words == "" {
		return ""
	}
	return "; it said: " + words
}
