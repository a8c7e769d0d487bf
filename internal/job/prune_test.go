package job_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/retention"
	"keepset/internal/snapshot"
)

// taken is a set with a backup a day.
type taken struct {
	*cutter
	ids []record.BackupID
}

// newTaken takes n backups, each with a volume snapshot, and waits a day after each.
func newTaken(t *testing.T, n int) *taken {
	t.Helper()
	w := &taken{cutter: newCutter(t, 1)}
	for range n {
		w.take(t, repository.CommitStatus{})
		w.clock.Add(24 * time.Hour)
	}
	return w
}

func (w *taken) take(t *testing.T, status repository.CommitStatus, paths ...string) {
	t.Helper()
	plan := record.Plan{
		Paths: paths, ID: record.NewBackupID(w.clock.Now(), fmt.Sprintf("%08d", len(w.ids))), Set: volumesSet, Origin: "here", CreatedAt: w.clock.Now(),
		Method: record.MethodSnapshot, Replicas: 1, Members: []record.PlannedMember{{Name: "mysql-0"}},
	}
	w.ids = append(w.ids, plan.ID)
	b, err := w.repo.Begin(t.Context(), plan, "one")
	require.NoError(t, err)
	m, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	refs, err := w.volumes.Cut(t.Context(), string(plan.ID), []snapshot.Volume{
		{Owner: snapshot.Owner{Cluster: "here", Set: volumesSet}, Claim: "data-mysql-0", Handle: "vol", Size: 1},
	})
	require.NoError(t, err)
	require.NoError(t, m.AddVolumeSnapshots(refs))
	_, err = m.Commit(t.Context(), record.Report{Engine: "fake", Layout: "fake/1", CapturedAt: w.clock.Now()}, status)
	require.NoError(t, err)
	require.NoError(t, b.Close())
}

// partial are what makes a backup one of a part of its set.
func partial() map[string]func(*record.Plan) {
	return map[string]func(*record.Plan){
		"databases": func(p *record.Plan) { p.Databases = []string{"shop"} },
		"paths":     func(p *record.Plan) { p.Paths = []string{"/uploads"} },
		"ordinals":  func(p *record.Plan) { p.Ordinals = "0" },
	}
}

// takePart takes a backup that the change makes another one.
func (w *taken) takePart(t *testing.T, change func(*record.Plan)) {
	t.Helper()
	plan := record.Plan{
		ID: record.NewBackupID(w.clock.Now(), fmt.Sprintf("%08d", len(w.ids))), Set: volumesSet, Origin: "here", CreatedAt: w.clock.Now(),
		Method: record.MethodSnapshot, Replicas: 1, Members: []record.PlannedMember{{Name: "mysql-0"}},
	}
	change(&plan)
	w.ids = append(w.ids, plan.ID)
	b, err := w.repo.Begin(t.Context(), plan, "one")
	require.NoError(t, err)
	m, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	_, err = m.Commit(t.Context(), record.Report{Engine: "fake", Layout: "fake/1", CapturedAt: w.clock.Now()}, repository.CommitStatus{})
	require.NoError(t, err)
	require.NoError(t, b.Close())
}

func (w *taken) prune(change func(*job.Prune)) *job.Prune {
	p := &job.Prune{
		Repository: w.repo, Set: volumesSet, Snapshotter: w.volumes, Provider: record.ProviderEBS,
		Policy: retention.Policy{Last: 2, MinAge: 48 * time.Hour, Zone: time.UTC},
	}
	if change != nil {
		change(p)
	}
	return p
}

func (w *taken) left(t *testing.T) []record.BackupID {
	t.Helper()
	infos, err := w.repo.Backups(t.Context(), volumesSet)
	require.NoError(t, err)
	var ids []record.BackupID
	for _, info := range infos {
		ids = append(ids, info.ID)
	}
	return ids
}

// TestPruneByPolicy deletes backups and their volume snapshots, and no others'.
func TestPruneByPolicy(t *testing.T) {
	w := newTaken(t, 5)
	w.clock.Add(24 * time.Hour) // none stays by its age
	foreign, err := w.volumes.Cut(t.Context(), "foreign", []snapshot.Volume{{Owner: snapshot.Owner{Cluster: "there", Set: volumesSet}, Claim: "c", Handle: "v", Size: 1}})
	require.NoError(t, err)
	dry, err := w.prune(func(p *job.Prune) { p.DryRun = true }).Run(t.Context())
	require.NoError(t, err)
	require.Equal(t, w.ids[:1], dry.Condemned, "it takes the newest backup's time for now, so that more are young")
	require.Len(t, dry.Released, 1)
	require.Len(t, w.volumes.snapshots, 6)
	report, err := w.prune(nil).Run(t.Context())
	require.NoError(t, err)
	require.Equal(t, w.ids[:3], report.Condemned)
	require.Len(t, report.Deleted, 3)
	require.Equal(t, []record.BackupID{w.ids[4], w.ids[3]}, w.left(t))
	require.Len(t, w.volumes.snapshots, 3)
	require.Contains(t, w.volumes.snapshots, foreign[0].ID)
	again, err := w.prune(nil).Run(t.Context())
	require.NoError(t, err)
	require.Empty(t, again.Condemned)
	require.Empty(t, again.Deleted)
}

// TestMassDeletionNeedsConsent, and nothing has been touched.
func TestMassDeletionNeedsConsent(t *testing.T) {
	w := newTaken(t, 7)
	w.clock.Add(48 * time.Hour)
	before := w.left(t)
	report, err := w.prune(nil).Run(t.Context())
	require.ErrorIs(t, err, job.ErrNeedsConsent)
	require.Len(t, report.Decisions, 7, "why is shown all the same")
	require.Equal(t, before, w.left(t))
	require.Len(t, w.volumes.snapshots, 7)
	_, err = w.prune(func(p *job.Prune) { p.Force = true }).Run(t.Context())
	require.NoError(t, err)
	require.Len(t, w.left(t), 2)
}

// TestSevenForgedBackups, written by whoever can write to the bucket but holds
// no key, evict nothing from a policy that keeps the last seven.
func TestSevenForgedBackups(t *testing.T) {
	set, err := repository.Keygen(nil)
	require.NoError(t, err)
	w := &taken{cutter: newCutter(t, 1)}
	keys := func(values []repository.Value) repository.Keys {
		k, err := repository.LoadKeys(func(name string) string {
			for _, v := range values {
				if v.Name == name {
					return v.Value
				}
			}
			return ""
		})
		require.NoError(t, err)
		return k
	}
	writer := keys(set.Writer)
	for _, key := range listed(t, w.world) {
		require.NoError(t, w.store.Delete(t.Context(), key))
	}
	_, err = repository.Init(t.Context(), w.store, repository.InitOptions{Keys: writer, Clock: w.clock.Now})
	require.NoError(t, err)
	w.repo, err = repository.Open(t.Context(), w.store, writer, repository.Options{Clock: w.clock.Now})
	require.NoError(t, err)
	for range 7 {
		w.take(t, repository.CommitStatus{})
		w.clock.Add(24 * time.Hour)
	}
	// The same records under other IDs, without signatures that fit.
	for _, key := range listed(t, w.world) {
		for n, id := range w.ids {
			if !strings.Contains(key, "/"+string(id)+"/") {
				continue
			}
			forged := record.NewBackupID(w.clock.Now().Add(time.Duration(n)*time.Second), fmt.Sprintf("f%07d", n))
			data := bytes.ReplaceAll(stored(t, w.world, key), []byte(id), []byte(forged))
			require.NoError(t, w.store.Put(t.Context(), strings.ReplaceAll(key, string(id), string(forged)), bytes.NewReader(data)))
		}
	}
	require.Len(t, w.left(t), 14)
	w.repo, err = repository.Open(t.Context(), w.store, repository.Keys{Trusted: keys(set.Restore).Trusted}, repository.Options{Clock: w.clock.Now})
	require.NoError(t, err)
	w.clock.Add(30 * 24 * time.Hour)
	report, err := w.prune(func(p *job.Prune) { p.Policy.Last = 7 }).Run(t.Context())
	require.NoError(t, err)
	require.Empty(t, report.Condemned)
	require.Len(t, w.left(t), 14)
	// By name they go.
	var forged []record.BackupID
	for _, id := range w.left(t) {
		if strings.Contains(string(id), "-f0") {
			forged = append(forged, id)
		}
	}
	require.Len(t, forged, 7)
	_, err = w.prune(func(p *job.Prune) { p.IDs = forged }).Run(t.Context())
	require.NoError(t, err)
	require.ElementsMatch(t, w.ids, w.left(t))
	require.Len(t, w.volumes.snapshots, 7)
}

// TestDeleteByName needs the user's word for the newest, and for what may be running.
func TestDeleteByName(t *testing.T) {
	w := newTaken(t, 2)
	named := func(force bool, id record.BackupID) error {
		_, err := w.prune(func(p *job.Prune) { p.IDs, p.Force = []record.BackupID{id}, force }).Run(t.Context())
		return err
	}
	require.ErrorIs(t, named(false, w.ids[1]), repository.ErrNewest)
	require.ErrorIs(t, named(false, "20200101T000000Z-00000000"), repository.ErrNoBackup)
	require.NoError(t, named(false, w.ids[0]))
	require.Equal(t, w.ids[1:], w.left(t))
	plan := record.Plan{
		ID: record.NewBackupID(w.clock.Now(), "running0"), Set: volumesSet, Origin: "here", CreatedAt: w.clock.Now(),
		Method: record.MethodSnapshot, Replicas: 1, Members: []record.PlannedMember{{Name: "mysql-0"}},
	}
	b, err := w.repo.Begin(t.Context(), plan, "one")
	require.NoError(t, err)
	require.NoError(t, b.Close())
	require.ErrorIs(t, named(false, plan.ID), job.ErrNeedsConsent)
	w.clock.Add(26 * time.Hour)
	w.take(t, repository.CommitStatus{})
	require.NoError(t, named(false, plan.ID))
	require.NoError(t, named(true, w.ids[2]))
	require.Equal(t, []record.BackupID{w.ids[1]}, w.left(t))
}

// TestPartDoesNotDisplace a whole backup, however many somebody takes by hand.
func TestPartDoesNotDisplace(t *testing.T) {
	for name, change := range partial() {
		t.Run(name, func(t *testing.T) {
			w := newTaken(t, 2)
			for range 3 {
				w.takePart(t, change)
				w.clock.Add(24 * time.Hour)
			}
			w.clock.Add(30 * 24 * time.Hour)
			report, err := w.prune(nil).Run(t.Context())
			require.NoError(t, err)
			require.Equal(t, w.ids[2:3], report.Condemned)
			require.Subset(t, w.left(t), w.ids[:2])
		})
	}
}

// TestSuspectDoesNotDisplace what is complete.
func TestSuspectDoesNotDisplace(t *testing.T) {
	w := newTaken(t, 2)
	for range 5 {
		w.take(t, repository.CommitStatus{Suspect: true, Reasons: []string{"it has shrunk"}})
		w.clock.Add(24 * time.Hour)
	}
	w.clock.Add(30 * 24 * time.Hour)
	report, err := w.prune(nil).Run(t.Context())
	require.NoError(t, err)
	require.Empty(t, report.Condemned)
}

// TestPartsDoNotDisplaceWhatIsWhole: no restore takes backups of single paths for
// whole ones, and neither does retention. What is left out says nothing: it is of nearly
// every backup, and changes.
func TestPartsDoNotDisplaceWhatIsWhole(t *testing.T) {
	w := newTaken(t, 1)
	w.take(t, repository.CommitStatus{}, "!/cache")
	w.clock.Add(24 * time.Hour)
	for range 4 {
		w.take(t, repository.CommitStatus{}, "/uploads", "!*.tmp")
		w.clock.Add(24 * time.Hour)
	}
	w.clock.Add(30 * 24 * time.Hour)
	report, err := w.prune(func(p *job.Prune) { p.Policy.Last, p.Force = 1, true }).Run(t.Context())
	require.NoError(t, err)
	require.Equal(t, []record.BackupID{w.ids[0], w.ids[2], w.ids[3], w.ids[4]}, report.Condemned)
	require.Equal(t, []record.BackupID{w.ids[5], w.ids[1]}, w.left(t), "the newest of each kind")
}

// TestOverwrittenPlan: where writes are not conditional, whoever can write puts
// the same plan there once more. Its commits are then older than it, and look
// like none; the backup is in doubt, and stays.
func TestOverwrittenPlan(t *testing.T) {
	w := newTaken(t, 1)
	key := "sets/shop/mysql/backups/" + string(w.ids[0]) + "/plan"
	data := stored(t, w.world, key)
	w.clock.Add(-22 * time.Hour)
	require.NoError(t, w.store.Delete(t.Context(), key))
	require.NoError(t, w.store.Put(t.Context(), key, bytes.NewReader(data)))
	for range 4 {
		w.clock.Add(24 * time.Hour)
		w.take(t, repository.CommitStatus{})
	}
	w.clock.Add(30 * 24 * time.Hour)
	infos, err := w.repo.Backups(t.Context(), volumesSet)
	require.NoError(t, err)
	require.Equal(t, repository.StatusIncomplete, infos[4].Status)
	report, err := w.prune(nil).Run(t.Context())
	require.NoError(t, err)
	require.Equal(t, w.ids[1:3], report.Condemned)
	require.Equal(t, retention.Doubtful, report.Decisions[4].State)
	require.NotContains(t, report.Condemned, w.ids[0])
}

func listed(t *testing.T, w *world) []string {
	t.Helper()
	var keys []string
	for o, err := range w.store.List(t.Context(), "") {
		require.NoError(t, err)
		keys = append(keys, o.Key)
	}
	return keys
}

func stored(t *testing.T, w *world, key string) []byte {
	t.Helper()
	body, err := w.store.Get(t.Context(), key, 0, -1)
	require.NoError(t, err)
	var b bytes.Buffer
	_, err = b.ReadFrom(body)
	require.NoError(t, err)
	require.NoError(t, body.Close())
	return b.Bytes()
}
