package job_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/snapshot"
	"keepset/internal/statefulset"
)

// From the repository alone: the account with the snapshots is lost.
func TestRestoreFromTheCopyOfBlocks(t *testing.T) {
	w, volumes := cutUpWithCopies(t)
	original := map[string]blocks{}
	for _, r := range volumes.snapshots {
		original[r.Claim] = volumes.cut[r.ID]
	}
	clear(volumes.snapshots)
	c := newCluster(t, 2)
	p := newProvider(volumes.fakeVolumes)
	var made snapshot.Ref
	p.onPrepare = func(r snapshot.Ref) { made = r }
	report, err := c.restoreCopies(w, p, volumes, "pod-1").Execute(t.Context())
	require.NoError(t, err)
	require.Contains(t, report.Plan.Notes[0], "made of the copy of its blocks")
	require.Contains(t, made.ID, "restore.run-1.1")
	require.True(t, made.Encrypted, "as the volume was")
	require.Equal(t, original["data-db-1"], volumes.cut[made.ID])
	require.Empty(t, volumes.snapshots, "what was made for the restore alone is deleted")
	c.requireDone()

	damaged := newCluster(t, 2)
	for o, err := range w.store.List(t.Context(), "sets/_/shop/packs/") {
		require.NoError(t, err)
		require.NoError(t, w.store.Delete(t.Context(), o.Key))
	}
	_, err = damaged.restoreCopies(w, p, volumes, "pod-1").Execute(t.Context())
	require.ErrorIs(t, err, repository.ErrDamaged)
	require.ErrorContains(t, err, "nothing of ordinal 1 was touched")
}

// A process that dies after its last replica leaves the snapshot that it made.
// The Job's next one has nothing to restore any more, and deletes it.
func TestSnapshotOfADeadAttemptIsDeleted(t *testing.T) {
	w, volumes := cutUpWithCopies(t)
	clear(volumes.snapshots)
	c := newCluster(t, 2)
	p := newProvider(volumes.fakeVolumes)
	first := c.restoreCopies(w, p, volumes, "pod-1")
	open := first.Volumes.Open
	first.Volumes.Open = func(name string) (snapshot.Snapshotter, error) {
		if slices.Contains(c.steps, "shutdown") {
			return nil, errors.New("killed")
		}
		return open(name)
	}
	_, err := first.Execute(t.Context())
	require.NoError(t, err)
	require.Len(t, volumes.snapshots, 1)
	given := snapshot.Ref{ID: "snap-given-up", Cut: "restore.run-11.1"}
	strange := snapshot.Ref{ID: "snap-strange", Cut: "restore.run-12.1"}
	volumes.snapshots[given.ID], volumes.owners[given.ID] = given, snapshot.Owner{Set: record.SetID{Namespace: namespace, Name: "db"}}
	volumes.snapshots[strange.ID], volumes.owners[strange.ID] = strange, snapshot.Owner{Set: record.SetID{Namespace: namespace, Name: "other"}}

	report, err := c.restoreCopies(w, p, volumes, "pod-2").Execute(t.Context())
	require.NoError(t, err)
	require.Equal(t, job.ActionBefore, report.Members[0].Action)
	require.Equal(t, map[string]snapshot.Ref{strange.ID: strange}, volumes.snapshots, "that of another set stays")
}

// What a restore has made and will never come back for, abort deletes.
func TestAbortDeletesWhatWasMadeOfBlocks(t *testing.T) {
	w, volumes := cutUpWithCopies(t)
	clear(volumes.snapshots)
	c := newCluster(t, 2)
	p := newProvider(volumes.fakeVolumes)
	r := c.restoreCopies(w, p, volumes, "pod-1")
	given := snapshot.Ref{ID: "snap-given-up", Cut: "restore.run-11.1"}
	needed := snapshot.Ref{ID: "snap-needed", Cut: "20261120T131730Z-1a2b3c4d.1.deadbeef"}
	for _, ref := range []snapshot.Ref{given, needed} {
		volumes.snapshots[ref.ID], volumes.owners[ref.ID] = ref, snapshot.Owner{Set: record.SetID{Namespace: namespace, Name: "db"}}
	}
	abort := &job.Abort{
		Cluster: c.client(), Set: "db", Run: statefulset.Run{ID: "run-2", PodUID: "pod-2"}, Volumes: r.Volumes,
		Provider: record.ProviderEBS, Options: statefulset.AbortOptions{DryRun: true},
	}
	steps, err := abort.Execute(t.Context())
	require.NoError(t, err)
	require.Contains(t, strings.Join(steps, "\n"), "delete snapshot snap-given-up")
	require.Len(t, volumes.snapshots, 2)
	abort.Options.DryRun = false
	_, err = abort.Execute(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]snapshot.Ref{needed.ID: needed}, volumes.snapshots)
}

// A snapshot into which not all blocks were written is never completed, however
// the restore is stopped.
func TestStoppedRestoreCompletesNoSnapshot(t *testing.T) {
	w, volumes := cutUpWithCopies(t)
	clear(volumes.snapshots)
	ctx, stop := context.WithCancel(t.Context())
	volumes.onWrite = stop
	volumes.onComplete = func() { t.Error("completed") }
	c := newCluster(t, 2)
	_, err := c.restoreCopies(w, newProvider(volumes.fakeVolumes), volumes, "pod-1").Execute(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

// restoreCopies is a recovery with a provider that also writes blocks.
func (c *cluster) restoreCopies(w *world, p *provider, volumes *blockVolumes, pod string) *job.Restore {
	r := c.restoreVolumes(w, p, recovery, pod)
	r.Volumes.Open = func(string) (snapshot.Snapshotter, error) {
		return struct {
			*provider
			snapshot.BlockWriter
		}{p, volumes}, nil
	}
	return r
}

// cutUpWithCopies is cutUp with the blocks copied, of encrypted volumes.
func cutUpWithCopies(t *testing.T) (*world, *blockVolumes) {
	t.Helper()
	w, fake := cutUp(t)
	v := newBlockVolumes(fake)
	v.encrypted = true
	random := rand.NewChaCha8([32]byte{9})
	for i := range 2 {
		v.fill(fmt.Sprintf("data-db-%d", i), random, 0, 1, 2, 27)
	}
	b := cutUpJob(w, v)
	b.Volumes.Copy = true
	clear(fake.snapshots)
	_, err := b.Run(t.Context())
	require.NoError(t, err)
	return w, v
}
