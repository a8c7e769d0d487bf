package postgres

import (
	"context"
	"io"
	"strings"
)

// ExecFunc runs a command in the container of a database. Nil means that it
// ended with status 0 and that all it wrote has arrived; a connection that is
// cut off is an error. A nil stdin is empty.
type ExecFunc func(ctx context.Context, command []string, stdin io.Reader, stdout, stderr io.Writer) error

// Container runs the programs in the server's own container, which has those
// that fit, and has them connect to the server from there.
type Container struct {
	Exec ExecFunc
}

// withPassword is a shell script that reads the password from its standard
// input, since a command line can be read by everybody and an exec has no other
// way to hand it over.
const withPassword = `IFS= read -r PGPASSWORD || exit 97; export PGPASSWORD; exec "$0" "$@" </dev/null`

// Run implements Programs.
func (c Container) Run(ctx context.Context, p Program) error {
	password := p.Server.Password
	if p.Server != (ProgramServer{}) {
		p.Server.Host = "127.0.0.1" // what the image's own access rules are written for
	}
	if password == "" {
		return c.Exec(ctx, p.command(), nil, p.Stdout, p.Stderr)
	}
	command := append([]string{"sh", "-c", withPassword}, p.command()...)
	return c.Exec(ctx, command, strings.NewReader(password+"\n"), p.Stdout, p.Stderr)
}
