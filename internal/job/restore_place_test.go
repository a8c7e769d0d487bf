package job_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/job"
	"keepset/internal/record"
)

// answering are servers whose upstream gives one answer after the other, the
// last one for ever.
type answering struct {
	dbdump.Engine
	answers []error
	asked   int
}

func (a *answering) Check(context.Context, record.Coordinates, dbdump.Upstream) error {
	a.asked++
	return a.answers[min(a.asked, len(a.answers))-1]
}

func (a *answering) Admits(context.Context, dbdump.Upstream) error { return nil }

func (a *answering) Follow(context.Context, record.Coordinates, dbdump.Upstream) error { return nil }

func (a *answering) Shutdown(context.Context) error { return nil }

func (a *answering) Target(string, bool) (dbdump.Engine, error) { return a, nil }

func (a *answering) Ready(context.Context, string) error { return nil }

func (a *answering) Upstream(string) (dbdump.Upstream, error) {
	return dbdump.Upstream{Host: "db-0", Port: 3306}, nil
}

// places counts the seeds that took a claim away.
type places struct{ placed, anew int }

func (p *places) Place(context.Context) error     { p.placed++; return nil }
func (p *places) PlaceAnew(context.Context) error { p.anew++; return nil }

// A retry of a stored plan does not delete a claim before the upstream has
// been asked again: since the plan was made, it may have purged its logs.
func TestUpstreamAskedBeforeClaimGoes(t *testing.T) {
	w := newWorld(t, 2)
	b := w.backup()
	_, err := b.Run(t.Context())
	require.NoError(t, err)
	unreachable := fmt.Errorf("no route: %w", dbdump.ErrUnreachable)
	plan := &job.RestorePlan{From: testSet, Backup: b.ID}
	item := job.RestoreItem{Ordinal: 1, Follow: "db-0:3306", Replace: true}
	restore := func(answers ...error) (*job.Restore, *answering) {
		servers := &answering{answers: answers}
		return &job.Restore{Repository: w.repo, Servers: servers, Clock: w.clock.Now, Log: slog.New(slog.DiscardHandler)}, servers
	}
	var seed places

	r, _ := restore(dbdump.ErrCoordinates)
	require.ErrorIs(t, job.Place(r, t.Context(), &seed, plan, item, false), dbdump.ErrCoordinates)
	require.ErrorIs(t, job.Place(r, t.Context(), &seed, plan, item, true), dbdump.ErrCoordinates)
	r, _ = restore(unreachable)
	r.Clock = func() time.Time { w.clock.Add(time.Minute); return w.clock.Now() }
	require.ErrorIs(t, job.Place(r, t.Context(), &seed, plan, item, false), dbdump.ErrUnreachable)
	require.Zero(t, seed)

	r, servers := restore(unreachable, nil)
	require.NoError(t, job.Place(r, t.Context(), &seed, plan, item, false))
	require.Equal(t, 2, servers.asked, "its name was not known yet")
	require.NoError(t, job.Place(r, t.Context(), &seed, plan, item, true))
	item.Follow = ""
	require.NoError(t, job.Place(r, t.Context(), &seed, plan, item, false))
	require.Equal(t, places{placed: 2, anew: 1}, seed)
	require.Equal(t, 3, servers.asked, "who follows nobody asks nobody")
}
