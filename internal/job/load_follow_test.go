package job

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
)

// refusedEngine is a server that the upstream would not take in.
type refusedEngine struct{ awayEngine }

var errRefused = errors.New("another follower has server_id 7")

func (refusedEngine) Admits(context.Context, dbdump.Upstream) error { return errRefused }

// A target that could not become a follower is not loaded first: there is no
// member here that could be.
func TestNotAdmittedNotLoaded(t *testing.T) {
	l := &Load{
		Target: "db-1:3306", Upstream: &dbdump.Upstream{Host: "db-0", Port: 3306}, Log: slog.New(slog.DiscardHandler),
		Open: func() (dbdump.Engine, error) { return refusedEngine{}, nil },
	}
	_, err := l.load(t.Context(), nil)
	require.ErrorIs(t, err, errRefused)
	require.ErrorContains(t, err, "before it is loaded")
}
