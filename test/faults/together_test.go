package faults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/dbdumptest"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/retention"
)

// TestTogether has two backups, a prune, a drill and a reader at once at work on one repository, in rounds of which each goes
// on with what the ones before have left: prunes condemn what the backups build upon and what is being drilled, and delete
// what earlier rounds have condemned.
func TestTogether(t *testing.T) {
	n, seed := rounds(t, 8, 100)
	w := newTown(t, seed)
	at := &together{town: w, stored: map[record.BackupID]time.Time{}}
	for round := range n {
		at.round(fmt.Sprintf("round %d", round))
	}
	w.requireTidy()
	t.Logf("measured: %d rounds: %d backups complete, %d condemned, %d prunes stood back, %d restores, %d drills, %d of them of what went meanwhile, and %d that came too late",
		n, at.complete, at.condemned, at.busy, at.restored, at.drilled, at.inVain, at.tooLate)
	require.Equal(t, 2*n, at.complete)
	require.Positive(t, at.condemned)
	require.Positive(t, at.drilled)
}

// together is a town in which everybody works at once.
type together struct {
	*town
	stored                              map[record.BackupID]time.Time
	complete, condemned, busy, restored int
	// drilled counts the drills that passed, inVain those of them whose backups went meanwhile; tooLate are the others.
	drilled, inVain, tooLate int
}

// worker does its work in a round, and returns what its user would see.
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
	proven := w.newestDrilled(w.sure(w.home))
	work = append(work, w.prunes, w.restores, w.drills(w.rng.IntN(4)))
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
	now := w.newestDrilled(w.sure(w.home))
	require.False(w.t, now.CapturedAt().Before(proven.CapturedAt()), "%s: %s was the newest drilled, and is gone", what, proven.ID)
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

// drills drills the oldest backups, which are the next to go, or the latest one. A prune may take one away before the drill has
// opened it: then the drill says so, and nothing of the backup. Every other drill passes.
func (w *together) drills(which int) worker {
	return func(string) error {
		r, err := w.open(w.home.way, w.keys.restore)
		if err != nil {
			return err
		}
		infos, err := r.Backups(w.t.Context(), townSet)
		if err != nil {
			return err
		}
		infos = slices.DeleteFunc(infos, func(info repository.BackupInfo) bool {
			return info.Status != repository.StatusComplete || info.Condemned
		})
		if len(infos) == 0 {
			return nil // in the first round
		}
		id := infos[len(infos)-1-min(which/2, len(infos)-1)].ID
		if which == 3 {
			id = infos[0].ID
		}
		target := dbdumptest.NewMemoryServer(w.podClock)
		report, err := (&job.Drill{
			Repository: r, Set: townSet, Choice: job.Choice{Selector: repository.Selector{ID: id}, Whole: true}, Ordinal: which % 2,
			Engine: "memory", Place: job.GivenServer{Address: "new:3306"}, Open: func(string) (dbdump.Engine, error) { return target, nil },
			Ready: func(context.Context, string) error { return nil }, Clock: w.podClock, Log: slog.New(slog.DiscardHandler),
		}).Run(w.t.Context())
		if err != nil {
			return w.mayFail(id, err)
		}
		return w.holds(report, target)
	}
}

// gone says whether a prune has taken a backup away.
func (w *together) gone(id record.BackupID) (bool, error) {
	info, err := w.sure(w.home).Backup(w.t.Context(), townSet, id)
	if errors.Is(err, repository.ErrNoBackup) {
		return true, nil
	}
	return info.Condemned || info.Status == repository.StatusInvalid, err
}

// mayFail lets a drill fail without a finding where its backup has gone.
func (w *together) mayFail(id record.BackupID, failed error) error {
	failed = fmt.Errorf("drill %s: %w", id, failed)
	gone, err := w.gone(id)
	if err != nil || !gone || errors.Is(failed, job.ErrDrill) {
		return errors.Join(failed, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tooLate++
	return nil
}

// holds takes a drill's word for nothing.
func (w *together) holds(report *job.DrillReport, target *dbdumptest.MemoryServer) error {
	if !report.Passed || !report.Proven {
		return fmt.Errorf("the drill of %s ended well, and says %+v", report.Backup, report.Checks)
	}
	gone, err := w.gone(report.Backup)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !same(target.Tables(), w.taken[report.Backup][report.Ordinal]) {
		return fmt.Errorf("the drill of %s passed with what was never backed up", report.Backup)
	}
	w.drilled++
	if gone {
		w.inVain++
	}
	return nil
}
