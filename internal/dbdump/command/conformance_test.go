package command_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/command"
	"keepset/internal/dbdump/dbdumptest"
	"keepset/internal/record"
)

// TestConformance runs the suite of all engines with a database whose client is
// a program, run here.
func TestConformance(t *testing.T) {
	dbdumptest.Run(t, dbdumptest.Harness{
		Opaque: true,
		Start:  func(t *testing.T) dbdumptest.Server { return &server{startDatabase(t)} },
		Unreachable: func(t *testing.T) dbdump.Engine {
			return &clientEngine{t: t, socket: "/nowhere"}
		},
		Refused: func(t *testing.T, s dbdumptest.Server) dbdump.Engine {
			filled, ok := s.(*server)
			require.True(t, ok)
			return &clientEngine{t: t, socket: filled.socket, account: "nobody"}
		},
	})
}

type server struct{ *database }

// Engine implements dbdumptest.Server.
func (s *server) Engine(t *testing.T) dbdump.Engine { return &clientEngine{t: t, socket: s.socket} }

// clientEngine is a command engine that has both commands.
type clientEngine struct {
	t               *testing.T
	socket, account string
}

func (c *clientEngine) engine(what string) *command.Engine {
	c.t.Helper()
	env := append(os.Environ(), "DATABASE_ACCOUNT="+c.account)
	e, err := command.New(command.Options{Exec: command.Local(env), Program: clientProgram(c.t, what, c.socket), Clock: time.Now})
	require.NoError(c.t, err)
	return e
}

// Dump implements dbdump.Engine.
func (c *clientEngine) Dump(ctx context.Context, w dbdump.Sink) (record.Report, error) {
	return c.engine("dump").Dump(ctx, w)
}

// Load implements dbdump.Engine.
func (c *clientEngine) Load(ctx context.Context, r dbdump.Source) (record.Report, error) {
	return c.engine("load").Load(ctx, r)
}
