package cli

import (
	"context"
	"io"

	"keepset/internal/dbdump/postgres"
	"keepset/internal/job"
	"keepset/internal/statefulset"
)

// programsIn runs PostgreSQL's programs in the container of a member's
// database, where those that fit the server are.
func programsIn(client *statefulset.Client, m job.Member) postgres.Programs {
	return postgres.Container{Exec: func(ctx context.Context, command []string, stdin io.Reader, stdout, stderr io.Writer) error {
		return client.Exec(ctx, statefulset.Exec{Pod: m.Name, Container: m.Container, Command: command, Stdin: stdin, Stdout: stdout, Stderr: stderr})
	}}
}
