package job_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/snapshot"
)

const otherRegion = "eu-west-1"

// toOtherRegion is a backup whose snapshots are copied there.
func (c *cutter) toOtherRegion() *job.Backup {
	b := c.backup()
	b.Volumes.Regions = []string{otherRegion}
	return b
}

// Copies are begun when the server runs again, recorded beside what they are
// copies of, and waited for before the member is committed.
func TestSnapshotsAreCopiedToAnotherRegion(t *testing.T) {
	c := newCutter(t, 2)
	c.volumes.copying = func(r snapshot.Ref, _ string) error {
		for _, s := range c.servers {
			if !s.mu.TryLock() {
				return fmt.Errorf("%s is copied while a server is held", r.ID)
			}
			s.mu.Unlock()
		}
		return nil
	}
	b := c.toOtherRegion()
	b.Parallel = 1
	report, err := b.Run(t.Context())
	require.NoError(t, err)
	infos, err := c.repo.Backups(t.Context(), volumesSet)
	require.NoError(t, err)
	for ordinal, m := range report.Members {
		reader, err := c.repo.OpenMember(t.Context(), infos[0], ordinal)
		require.NoError(t, err)
		require.Equal(t, m.VolumeSnapshots, reader.VolumeSnapshots())
		require.NoError(t, reader.Close())
		require.Len(t, m.VolumeSnapshots, 2)
		for _, r := range m.VolumeSnapshots {
			require.Equal(t, []record.SnapshotCopy{{Region: otherRegion, ID: otherRegion + " copy of " + r.ID}}, r.Copies)
		}
	}
	require.Len(t, c.volumes.snapshots, 8)
}

// A member whose copy fails is no backup, and nothing of it is left: not even a
// copy of which nobody knows whether it was begun.
func TestCopyThatFailsFailsItsMember(t *testing.T) {
	for name, tc := range map[string]struct {
		harm func(c *cutter)
		says string
	}{
		"when it is begun": {func(c *cutter) {
			c.volumes.copying = func(r snapshot.Ref, _ string) error {
				if r.Claim == "log-mysql-0" {
					return fmt.Errorf("copy snapshot %s: %w", r.ID, snapshot.ErrDenied)
				}
				return nil
			}
		}, "claim log-mysql-0: copy snapshot"},
		"while it is made": {func(c *cutter) {
			c.volumes.elsewhere = fmt.Errorf("%w: no rights on the key", snapshot.ErrFailed)
		}, "wait for the copy in region eu-west-1 of snapshot"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCutter(t, 1)
			tc.harm(c)
			report, err := c.toOtherRegion().Run(t.Context())
			require.ErrorIs(t, err, job.ErrFailed)
			require.Contains(t, report.Members[0].Error, tc.says)
			require.Empty(t, c.volumes.names())
			infos, err := c.repo.Backups(t.Context(), volumesSet)
			require.NoError(t, err)
			require.Empty(t, infos[0].Members)
		})
	}
}

// TestProviderWithoutRegions is asked before anything is cut.
func TestProviderWithoutRegions(t *testing.T) {
	c := newCutter(t, 1)
	b := c.toOtherRegion()
	b.Volumes.Snapshotter = struct{ snapshot.Snapshotter }{c.volumes}
	_, err := b.Run(t.Context())
	require.ErrorIs(t, err, job.ErrConfig)
	require.Zero(t, c.volumes.cuts)
}

// orphans compares.
func (c *cutter) orphans(t *testing.T) *job.OrphansReport {
	t.Helper()
	report, err := (&job.Orphans{
		Repository: c.repo, Set: volumesSet, Snapshotter: c.volumes, Provider: record.ProviderEBS, Cluster: "here", Clock: c.clock.Now,
	}).Run(t.Context())
	require.NoError(t, err)
	return report
}

// Copies are compared like what they are copies of: one that a backup needs is
// no orphan and must be there, one that none needs is one.
func TestOrphansInBothRegions(t *testing.T) {
	c := newCutter(t, 1)
	first, err := c.toOtherRegion().Run(t.Context())
	require.NoError(t, err)
	owner := snapshot.Owner{Cluster: "here", Set: volumesSet}
	refs, err := c.volumes.Cut(t.Context(), "nobody's", []snapshot.Volume{{Owner: owner, Claim: "data-mysql-0", Handle: "vol", Size: 1}})
	require.NoError(t, err)
	old, err := c.volumes.Copy(t.Context(), refs[0], owner, otherRegion)
	require.NoError(t, err)
	c.clock.Add(48 * time.Hour)
	_, err = c.volumes.Copy(t.Context(), refs[0], owner, otherRegion)
	require.NoError(t, err)

	found := c.orphans(t)
	require.Equal(t, 4, found.Needed)
	require.Empty(t, found.Missing)
	require.Len(t, found.Orphans, 1)
	require.Equal(t, old.ID, found.Orphans[0].ID)
	require.Len(t, found.Young, 1, "its copy was made just now")
	require.Equal(t, old.Copies[0].ID, found.Young[0].ID)

	c.clock.Add(48 * time.Hour)
	lost := first.Members[0].VolumeSnapshots[1].Copies[0]
	delete(c.volumes.snapshots, lost.ID)
	found = c.orphans(t)
	require.Len(t, found.Orphans, 2)
	require.Equal(t, otherRegion, found.Orphans[1].Region)
	require.Len(t, found.Missing, 1)
	require.Equal(t, lost.ID, found.Missing[0].Snapshot.ID)
	require.Equal(t, otherRegion, found.Missing[0].Snapshot.Region)
}

// TestPruneDeletesCopies of what it forgets, and of nothing else.
func TestPruneDeletesCopies(t *testing.T) {
	w := newTaken(t, 0)
	for range 4 {
		w.takeCopied(t, "")
		w.clock.Add(24 * time.Hour)
	}
	w.clock.Add(24 * time.Hour) // none stays by its age
	forgets := w.prune(func(p *job.Prune) { p.Policy.Last, p.Force = 2, true })
	report, err := forgets.Run(t.Context())
	require.NoError(t, err)
	require.Equal(t, w.ids[:2], report.Condemned)
	require.Len(t, report.Released, 4)
	require.Len(t, report.Deleted, 4)
	require.Len(t, w.volumes.snapshots, 4)
	for _, id := range w.volumes.names() {
		require.NotContains(t, id, string(w.ids[0]))
		require.NotContains(t, id, string(w.ids[1]))
	}
	found := w.orphans(t)
	require.Equal(t, 4, found.Needed)
	require.Empty(t, found.Missing)
	require.Empty(t, found.Orphans)
}

// A record that names a copy which another backup needs does not take it along.
func TestPruneKeepsACopyThatAnotherBackupNeeds(t *testing.T) {
	w := newTaken(t, 0)
	w.takeCopied(t, "")
	w.clock.Add(24 * time.Hour)
	var needed string
	for _, id := range w.volumes.names() {
		if strings.HasPrefix(id, otherRegion) {
			needed = id
		}
	}
	w.takeCopied(t, needed)
	w.clock.Add(30 * 24 * time.Hour)
	report, err := w.prune(func(p *job.Prune) { p.IDs, p.Force = w.ids[1:], true }).Run(t.Context())
	require.NoError(t, err)
	require.Len(t, report.Deleted, 1)
	require.Contains(t, w.volumes.snapshots, needed)
	require.Empty(t, w.orphans(t).Missing)
}

// takeCopied is take with a copy in the other region, or the one that is named.
func (w *taken) takeCopied(t *testing.T, named string) {
	t.Helper()
	plan := record.Plan{
		ID: record.NewBackupID(w.clock.Now(), fmt.Sprintf("%08d", len(w.ids))), Set: volumesSet, Origin: "here", CreatedAt: w.clock.Now(),
		Method: record.MethodSnapshot, Replicas: 1, Members: []record.PlannedMember{{Name: "mysql-0"}},
	}
	w.ids = append(w.ids, plan.ID)
	b, err := w.repo.Begin(t.Context(), plan, "one")
	require.NoError(t, err)
	m, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	owner := snapshot.Owner{Cluster: "here", Set: volumesSet}
	refs, err := w.volumes.Cut(t.Context(), string(plan.ID), []snapshot.Volume{{Owner: owner, Claim: "data-mysql-0", Handle: "vol", Size: 1}})
	require.NoError(t, err)
	if refs[0].Copies = []record.SnapshotCopy{{Region: otherRegion, ID: named}}; named == "" {
		refs[0].Copies = nil
		refs[0], err = w.volumes.Copy(t.Context(), refs[0], owner, otherRegion)
		require.NoError(t, err)
	}
	require.NoError(t, m.AddVolumeSnapshots(refs))
	_, err = m.Commit(t.Context(), record.Report{Engine: "fake", Layout: "fake/1", CapturedAt: w.clock.Now()}, repository.CommitStatus{})
	require.NoError(t, err)
	require.NoError(t, b.Close())
}

// TestSnapshotsAreKnownByTheirNames: a backup that may not read
// VolumeSnapshotContents records another ID than an administrator sees, who must
// not be told that its snapshots are gone and nobody's.
func TestSnapshotsAreKnownByTheirNames(t *testing.T) {
	w := newTaken(t, 0)
	w.volumes.named = true
	for range 3 {
		w.take(t, repository.CommitStatus{})
		w.clock.Add(24 * time.Hour)
	}
	orphans := &job.Orphans{Repository: w.repo, Set: volumesSet, Snapshotter: w.volumes, Provider: record.ProviderCSI, Cluster: "here", Clock: w.clock.Now}
	found, err := orphans.Run(t.Context())
	require.NoError(t, err)
	require.Equal(t, 3, found.Needed)
	require.Empty(t, found.Missing)
	require.Empty(t, found.Orphans)
	require.Empty(t, found.Young)

	report, err := w.prune(func(p *job.Prune) { p.Provider, p.IDs = record.ProviderCSI, w.ids[:1] }).Run(t.Context())
	require.NoError(t, err)
	require.Len(t, report.Deleted, 1)
	require.Len(t, w.volumes.snapshots, 2)
	clear(w.volumes.snapshots)
	found, err = orphans.Run(t.Context())
	require.NoError(t, err)
	require.Len(t, found.Missing, 2)
}

// TestPlanTakesTheCopyOfTheZonesRegion, also when the region that was backed up
// is lost.
func TestPlanTakesTheCopyOfTheZonesRegion(t *testing.T) {
	w := newWorld(t)
	volumes := &fakeVolumes{clock: w.clock, snapshots: map[string]snapshot.Ref{}, owners: map[string]snapshot.Owner{}, zones: map[string]string{"eu-west-1a": otherRegion, "ap-south-1a": "ap-south-1"}}
	b := cutUpJob(w, volumes)
	b.Volumes.Regions = []string{otherRegion}
	_, err := b.Run(t.Context())
	require.NoError(t, err)
	plan := func(zone string) (*job.RestorePlan, error) {
		c := newCluster(t, 2)
		r := c.restoreVolumes(w, newProvider(volumes), recovery, "pod-1")
		r.Volumes.Zone = zone
		return r.Resolve(t.Context())
	}
	for id, r := range volumes.snapshots {
		if r.Region == homeRegion {
			delete(volumes.snapshots, id)
		}
	}
	_, err = plan("us-east-1a")
	require.ErrorIs(t, err, snapshot.ErrNotFound)
	_, err = plan("ap-south-1a")
	require.ErrorContains(t, err, "no copy in ap-south-1a")
	p, err := plan("eu-west-1a")
	require.NoError(t, err)
	require.Contains(t, strings.Join(p.Notes, "\n"), "the copy in region eu-west-1 of snapshot "+p.Items[0].Snapshots[0].ID)
	require.False(t, p.Items[0].FromCopy)
}

// A member that a command held still says so, and that nobody has looked inside
// is no reason to doubt it.
func TestMemberHeldByACommand(t *testing.T) {
	c := newCutter(t, 1)
	b := c.backup()
	b.Volumes.Quiesce = func(job.Member) (dbdump.Quiescer, error) { return byCommand{}, nil }
	report, err := b.Run(t.Context())
	require.NoError(t, err)
	require.Equal(t, job.StatusComplete, report.Status)
	require.Equal(t, dbdump.ConsistencyCommand, report.Members[0].Consistency)

	b = c.backup()
	b.Volumes.Quiesce = func(job.Member) (dbdump.Quiescer, error) { return byCommand{errors.New("the command was killed")}, nil }
	kept := c.volumes.names()
	report, err = b.Run(t.Context())
	require.ErrorIs(t, err, job.ErrFailed)
	require.Contains(t, report.Members[0].Error, "the command was killed")
	require.Equal(t, kept, c.volumes.names())
}
