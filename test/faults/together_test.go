package faults

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/retention"
)

// TestTogether has two backups, a prune and a reader at once at work on one repository, in rounds of which each goes on with
// what the ones before have left: prunes condemn what the backups build upon, and delete what earlier rounds have condemned.
func TestTogether(t *testing.T) {
	n, seed := rounds(t, 8, 100)
	w := newTown(t, seed)
	at := &together{town: w, stored: map[record.BackupID]time.Time{}}
	for round := range n {
		at.round(fmt.Sprintf("round %d", round))
	}
	w.requireTidy()
	t.Logf("%d rounds: %d backups complete, %d condemned, %d prunes stood back, %d restores", n, at.complete, at.condemned, at.busy, at.restored)
	require.Equal(t, 2*n, at.complete)
	require.Positive(t, at.condemned)
}

// together is a town in which everybody works at once.
type together struct {
	*town
	stored                              map[record.BackupID]time.Time
	complete, condemned, busy, restored int
}

// worker does its work in a round, and returns what its user would see. Drills join here.
type worker func(round string) error

func (w *together) round(what string) {
	w.t.Helper()
	w.trade()
	var work []worker
	for range 2 {
		id := w.newID()
		w.stored[id] = w.clock.Now()
		work = append(work, w.backs(id))
	}
	work = append(work, w.prunes, w.restores)
	var all sync.WaitGroup
	errs := make([]error, len(work))
	for i, do := range work {
		all.Go(func() { errs[i] = do(what) })
	}
	all.Wait()
	require.NoError(w.t, errors.Join(errs...), what)
	complete := w.requireWhole(w.home, what)
	require.NotEmpty(w.t, complete, what)
	for id, at := range w.stored {
		if w.clock.Now().Sub(at) < minAge {
			require.True(w.t, complete[id], "%s: %s is young, and lost", what, id)
		}
	}
	w.clock.Add(time.Duration(3+w.rng.IntN(12)) * time.Hour)
}

func (w *together) backs(id record.BackupID) worker {
	return func(string) error {
		report, err := w.backUp(w.t.Context(), id)
		if err == nil && report.Status == job.StatusComplete {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.complete++
		}
		return err
	}
}

func (w *together) prunes(string) error {
	r, err := w.open(w.home.way, w.keys.pruner())
	if err != nil {
		return err
	}
	p := &job.Prune{Repository: r, Set: townSet, Policy: retention.Policy{Last: 1, MinAge: minAge, Zone: time.UTC}, Force: true}
	report, err := p.Run(w.t.Context())
	w.mu.Lock()
	defer w.mu.Unlock()
	w.condemned += len(report.Condemned)
	if errors.Is(err, job.ErrBusy) {
		w.busy++
		return nil
	}
	return err
}

// restores brings the latest backup back, as a drill does. There is none in the first round, and a prune may take away
// the one that was the latest when it was chosen.
func (w *together) restores(string) error {
	r, err := w.open(w.home.way, w.keys.restore)
	if err != nil {
		return err
	}
	got, err := w.load(w.t.Context(), r, "", 0)
	if errors.Is(err, repository.ErrNoEligible) {
		return nil
	}
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var states []tables
	for _, members := range w.taken {
		states = append(states, members[0]...)
	}
	if !same(got, states) {
		return errors.New("what was restored was never backed up")
	}
	w.restored++
	return nil
}
