package cli

import (
	"context"
	"fmt"
	"io"

	"keepset/internal/dbdump/mysql"
	"keepset/internal/dbdump/postgres"
	"keepset/internal/job"
	"keepset/internal/statefulset"
)

// execFunc runs a command in a container.
type execFunc = func(ctx context.Context, command []string, stdin io.Reader, stdout, stderr io.Writer) error

// execIn runs commands in the container of a member's database, where the
// programs that fit the server are, or in the one beside it that is named.
func execIn(client *statefulset.Client, m job.Member, beside string) execFunc {
	return func(ctx context.Context, command []string, stdin io.Reader, stdout, stderr io.Writer) error {
		container := m.Container
		if beside != "" {
			if err := client.Beside(ctx, m.Name, container, beside); err != nil {
				return fmt.Errorf("--copy-container: %w", err)
			}
			container = beside
		}
		return client.Exec(ctx, statefulset.Exec{Pod: m.Name, Container: container, Command: command, Stdin: stdin, Stdout: stdout, Stderr: stderr})
	}
}

// runBy has an engine's programs run by exec, where no flag says otherwise.
func (o *EngineOptions) runBy(exec execFunc) {
	o.MySQL.Programs = mysql.Container{Exec: exec} // it reads the server's files
	if o.Postgres.Programs == nil {
		o.Postgres.Programs = postgres.Container{Exec: exec}
	}
}
