package faults

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/retention"
)

// same says whether a database holds one of the states.
func same(got tables, states []tables) bool {
	for _, want := range states {
		if maps.EqualFunc(got, want, bytes.Equal) {
			return true
		}
	}
	return false
}

// requireWhole: every backup that a store calls complete can be restored, byte for byte, and verify says the same. It returns
// the complete ones.
func (w *town) requireWhole(p *place, what string) map[record.BackupID]bool {
	w.t.Helper()
	r := w.sure(p)
	infos, err := r.Backups(w.t.Context(), townSet)
	require.NoError(w.t, err, what)
	complete := map[record.BackupID]bool{}
	for _, info := range infos {
		if info.Status != repository.StatusComplete {
			continue
		}
		complete[info.ID] = true
		if info.Condemned {
			continue // nobody restores it any more
		}
		for ordinal := range w.databases {
			got, err := w.load(w.t.Context(), r, info.ID, ordinal)
			require.NoError(w.t, err, "%s: backup %s is called complete", what, info.ID)
			require.True(w.t, same(got, w.taken[info.ID][ordinal]), "%s: ordinal %d of backup %s is not what was backed up", what, ordinal, info.ID)
		}
	}
	report, err := r.Verify(w.t.Context(), repository.VerifyOptions{Set: townSet, ReadData: 100})
	require.NoError(w.t, err, what)
	w.requireUnharmed(report, complete, what+": verify does not agree with the restores")
	return complete
}

// requireUnharmed: verify finds fault with no complete backup. What came too late, or has lost its plan, it names.
func (w *town) requireUnharmed(report repository.VerifyReport, complete map[record.BackupID]bool, what string) {
	w.t.Helper()
	for _, d := range report.Damages {
		require.Regexp(w.t, "/(backups|commits)/", d.Key, "%s: %s", what, d.What)
		for _, h := range d.Harmed {
			require.False(w.t, complete[h.Backup], "%s: %s: %s", what, d.Key, d.What)
		}
	}
}

// newestDrilled is the newest backup with a proof that counts, and that stays; the zero value where there is none. No proof
// is about something else than what is stored.
func (w *town) newestDrilled(r *repository.Repository) repository.BackupInfo {
	w.t.Helper()
	infos, err := r.Backups(w.t.Context(), townSet)
	require.NoError(w.t, err)
	require.NoError(w.t, r.ReadDrills(w.t.Context(), townSet, infos))
	var newest repository.BackupInfo
	for _, info := range infos {
		for _, d := range info.Drills {
			require.True(w.t, d.Passed, "a drill of %s is said to have failed: %+v", info.ID, d.Checks)
		}
		if info.Drilled() && !info.Condemned && (newest.ID == "" || info.CapturedAt().After(newest.CapturedAt())) {
			newest = info
		}
	}
	return newest
}

// everything is what no rule keeps: the newest one only.
func everything() retention.Policy {
	return retention.Policy{Last: 1, MinAge: 26 * time.Hour, Zone: time.UTC}
}

// deleteDoubtful deletes by their names, as docs/prune.md says, what no rule touches: plans that were stored more than a day
// after their backups' IDs, by a pod that came back to a backup which a prune had taken away meanwhile, and backups that
// a server whose clock is hours ahead says to have held at a time after they were stored.
func (w *town) deleteDoubtful(r *repository.Repository) {
	w.t.Helper()
	report, err := (&job.Prune{Repository: r, Set: townSet, Policy: everything(), Force: true, DryRun: true}).Run(w.t.Context())
	require.NoError(w.t, err)
	for _, d := range report.Decisions {
		if d.State != retention.Doubtful || slices.Contains(d.Reasons, "pinned") {
			continue
		}
		_, err := (&job.Prune{Repository: r, Set: townSet, IDs: []record.BackupID{d.Backup}, Force: true}).Run(w.t.Context())
		require.NoError(w.t, err)
	}
}

// requireTidy: after a calm backup and two prunes nothing is in the store that its backups do not need.
func (w *town) requireTidy() {
	w.t.Helper()
	w.skew = 0
	w.home.weather.turn(calm)
	w.clock.Add(12 * time.Hour) // what was captured by a clock ahead of its time is no newer
	id := w.newID()
	_, err := w.backUp(w.t.Context(), id)
	require.NoError(w.t, err)
	r, err := w.open(w.home.disk, w.keys.pruner())
	require.NoError(w.t, err)
	w.deleteDoubtful(r)
	var report *job.PruneReport
	for range 4 { // the first goes without what is younger than two days, the others delete
		w.clock.Add(50 * time.Hour)
		p := &job.Prune{Repository: r, Set: townSet, Policy: everything(), Force: true}
		report, err = p.Run(w.t.Context())
		require.NoError(w.t, err)
	}
	infos, err := r.Backups(w.t.Context(), townSet)
	require.NoError(w.t, err)
	drilled := w.newestDrilled(r)
	left := map[string]bool{}
	for _, info := range infos {
		require.True(w.t, info.ID == id || info.Pinned || info.ID == drilled.ID, "backup %s is left: %s, captured %s, %v; %+v", info.ID, info.Status, info.CapturedAt(), info.Problems, report.Decisions)
		left[string(info.ID)] = true
	}
	require.True(w.t, left[string(id)])
	objects, bytes := 0, int64(0)
	for o, err := range w.home.disk.List(w.t.Context(), "sets/"+townSet.String()+"/") {
		require.NoError(w.t, err)
		folder, name, _ := strings.Cut(strings.TrimPrefix(o.Key, "sets/"+townSet.String()+"/"), "/")
		switch folder {
		case "packs", "parts", "maps", "refs":
			objects++
			bytes += o.Size
		case "backups", "commits", "reports", "proofs":
			owner, _, _ := strings.Cut(name, "/")
			owner, _, _ = strings.Cut(owner, ".")
			require.True(w.t, left[owner], "%s is left", o.Key)
		case "prune":
			w.t.Errorf("%s is left", o.Key)
		}
	}
	require.Equal(w.t, report.Needed, repository.Amount{Objects: objects, Bytes: bytes}, "something is left that nobody needs")
	w.requireWhole(w.home, "in the end")
}
