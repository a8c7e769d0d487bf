package mysql

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ExecFunc runs a command in a container. Nil means that it ended with status 0. A nil stdin is empty.
type ExecFunc func(ctx context.Context, command []string, stdin io.Reader, stdout, stderr io.Writer) error

// Container runs the programs in the server's own container, or in one beside it that has the program that fits.
type Container struct {
	Exec ExecFunc
}

// A command line can be read by everybody, so that the password comes by standard input. The programs read files of
// options more than once, so that none can be made of the input. MariaDB's takes the password from its environment;
// xtrabackup is built as a server is, which knows no such variable, and its file has to be a true one: it is nobody else's,
// in memory where that can be, and is there for as long as the program is.
const (
	withPassword = `IFS= read -r MYSQL_PWD || exit 97; export MYSQL_PWD; exec "$0" "$@" </dev/null`
	withFile     = `umask 077; set -C; file=; trap 'rm -f "$file"' EXIT; trap 'exit 98' HUP INT TERM
for n in 0 1 2 3 4 5 6 7 8 9; do for directory in /dev/shm "${TMPDIR:-/tmp}"; do
	if ( : >"$directory/keepset-$$-$n" ) 2>/dev/null; then file=$directory/keepset-$$-$n; break 2; fi
done; done
[ -n "$file" ] || { echo "keepset: no place for a file with the password: neither /dev/shm nor ${TMPDIR:-/tmp} can be written to" >&2; exit 97; }
cat >>"$file"; [ -s "$file" ] || exit 97
"$0" --defaults-file="$file" "$@" </dev/null`
)

// Run implements Programs.
func (c Container) Run(ctx context.Context, p Program) error {
	script, input := withPassword, p.Password+"\n"
	if p.ByFile {
		script, input = withFile, optionFile(p.Password)
	}
	command := append([]string{"sh", "-c", script, p.Name}, p.Args...)
	return c.Exec(ctx, command, strings.NewReader(input), p.Stdout, p.Stderr)
}

// optionFile is a file of options that holds a password.
func optionFile(password string) string {
	escaped := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(password)
	return "[xtrabackup]\npassword=\"" + escaped + "\"\n"
}

// Local runs the programs of this machine.
type Local struct {
	// Dir is where they are. Empty: the first in PATH.
	Dir string
}

// Run implements Programs.
func (l Local) Run(ctx context.Context, p Program) (err error) {
	path := filepath.Join(l.Dir, p.Name)
	if l.Dir == "" {
		if path, err = exec.LookPath(p.Name); err != nil {
			return fmt.Errorf("find %s: %w", p.Name, err)
		}
	}
	// What is set for mysql here must not lead to another server.
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MYSQL_") || strings.HasPrefix(v, "MARIADB_") })
	env, args := append(env, "LC_ALL=C"), p.Args
	if p.ByFile {
		dir, failed := os.MkdirTemp("", "keepset-copy-")
		if failed != nil {
			return fmt.Errorf("make a file with the password: %w", failed)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		file := filepath.Join(dir, "options.cnf")
		if err := os.WriteFile(file, []byte(optionFile(p.Password)), 0o600); err != nil {
			return fmt.Errorf("make a file with the password: %w", err)
		}
		args = append([]string{"--defaults-file=" + file}, args...)
	} else {
		env = append(env, "MYSQL_PWD="+p.Password)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, p.Stdout, p.Stderr
	cmd.WaitDelay = 5 * time.Second // then its output is cut off, which is an error
	if err := cmd.Run(); err != nil {
		return errors.Join(context.Cause(ctx), fmt.Errorf("%s: %w", path, err))
	}
	return nil
}
