package job_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/retention"
)

// prove stores what a drill of the backup found.
func (w *taken) prove(t *testing.T, id record.BackupID, state string) {
	t.Helper()
	info, err := w.repo.Backup(t.Context(), volumesSet, id)
	require.NoError(t, err)
	_, err = w.repo.Prove(t.Context(), info, record.Proof{
		Passed: state != record.ProofFailed, Checks: []record.ProofCheck{{Check: job.DrillLoad, State: state}}, RestoreSeconds: 5, Seconds: 6,
	})
	require.NoError(t, err)
}

// A set that was not drilled, or not for long, or whose last drill has failed, is a finding where somebody asks for it.
func TestStatusOfDrills(t *testing.T) {
	w := newTaken(t, 2)
	within := func(s *job.Status) { s.DrillWithin = 8 * 24 * time.Hour; s.Schedule = nil }
	check := func(want string, says ...string) {
		t.Helper()
		r, err := w.look(t, func(s *job.Status) { s.Schedule = nil })
		if want == job.CheckAlert {
			require.ErrorIs(t, err, job.ErrFindings)
		} else {
			require.NoError(t, err)
		}
		state, text := found(t, r, job.CheckDrill)
		require.Equal(t, want, state, text)
		for _, s := range says {
			require.Contains(t, text, s)
		}
	}
	check(job.CheckUnchecked, "was ever proven")
	r, err := w.look(t, within)
	requireAlert(t, r, err, job.CheckDrill, "no restore was ever proven")

	w.prove(t, w.ids[0], record.ProofOK)
	check(job.CheckOK, string(w.ids[0]), "in 5.0 s")
	r, err = w.look(t, within)
	require.NoError(t, err)
	require.Equal(t, w.ids[0], r.LastDrilled)
	require.Equal(t, w.clock.Now(), r.DrilledAt)

	w.clock.Add(9 * 24 * time.Hour)
	check(job.CheckOK)
	r, err = w.look(t, within)
	requireAlert(t, r, err, job.CheckDrill, "proven 216h0m0s ago")

	w.prove(t, w.ids[1], record.ProofFailed)
	check(job.CheckAlert, "has failed", string(w.ids[1]))
	w.clock.Add(time.Minute)
	w.prove(t, w.ids[1], record.ProofSkipped)
	check(job.CheckOK, string(w.ids[1]))
}

// The newest drilled backup stays, whatever the rules say of it.
func TestPruneKeepsTheNewestDrilled(t *testing.T) {
	w := newTaken(t, 6)
	w.clock.Add(10 * 24 * time.Hour)
	w.prove(t, w.ids[1], record.ProofOK)
	w.prove(t, w.ids[2], record.ProofFailed)
	p := &job.Prune{Repository: w.repo, Set: volumesSet, Policy: retention.Policy{Last: 1, MinAge: 48 * time.Hour, Zone: time.UTC}, Force: true, DryRun: true}
	report, err := p.Run(t.Context())
	require.NoError(t, err)
	kept := map[record.BackupID][]string{}
	for _, d := range report.Decisions {
		if d.Keep {
			kept[d.Backup] = d.Reasons
		}
	}
	require.Contains(t, kept, w.ids[1])
	require.Contains(t, kept[w.ids[1]], "newest drilled")
	require.NotContains(t, kept, w.ids[0])
	require.NotContains(t, kept, w.ids[2], "a drill that failed proves nothing")
}
