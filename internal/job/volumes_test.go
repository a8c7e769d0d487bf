package job_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/snapshot"
	"keepset/internal/storage"
)

// fakeVolumes keeps volume snapshots in memory.
type fakeVolumes struct {
	snapshot.Snapshotter
	mu        sync.Mutex
	clock     *clock
	snapshots map[string]snapshot.Ref
	owners    map[string]snapshot.Owner
	// lost claims have no volume; broken snapshots are never ready.
	lost   map[string]bool
	broken error
	// apart: it cuts one volume after the other.
	apart bool
	// copying is asked when a copy has been begun, and elsewhere whether that in
	// another region is ready.
	copying   func(r snapshot.Ref, region string) error
	elsewhere error
	// zones of other regions.
	zones map[string]string
	// named snapshots are objects of the cluster, whose ID the lister sees as
	// another one than who has cut them.
	named bool
	// onCut is asked before each cut.
	onCut func(volumes []snapshot.Volume) error
	cuts  int
}

func (f *fakeVolumes) CutsTogether() {}

func (f *fakeVolumes) Locate(_ context.Context, volumes []snapshot.Volume) ([]snapshot.Volume, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := slices.Clone(volumes)
	for i := range out {
		if f.lost[out[i].Claim] {
			return nil, fmt.Errorf("claim %s: %w", out[i].Claim, snapshot.ErrNotFound)
		}
		out[i].Handle, out[i].Driver, out[i].Size = "vol-"+out[i].Claim, "fake", 1<<30
	}
	return out, nil
}

func (f *fakeVolumes) Cut(_ context.Context, name string, volumes []snapshot.Volume) ([]snapshot.Ref, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cuts++
	if f.onCut != nil {
		if err := f.onCut(volumes); err != nil {
			return nil, err
		}
	}
	var refs []snapshot.Ref
	for _, v := range volumes {
		r := snapshot.Ref{
			Provider: record.ProviderEBS, ID: fmt.Sprintf("snap-%s-%s", name, v.Claim), Cut: name, Driver: v.Driver, Region: homeRegion,
			Claim: v.Claim, Template: v.Template, Volume: v.Handle, Size: v.Size, CutAt: f.clock.Now(), Together: !f.apart,
		}
		if f.named {
			r.Provider, r.Region, r.Namespace, r.Name = record.ProviderCSI, homeRegion, "shop", "vs-"+r.ID
		}
		f.snapshots[r.ID], f.owners[r.ID] = r, v.Owner
		refs = append(refs, r)
	}
	return refs, nil
}

func (f *fakeVolumes) WaitReady(_ context.Context, r snapshot.Ref) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.snapshots[r.ID]; !ok {
		return fmt.Errorf("snapshot %s: %w", r.ID, snapshot.ErrNotFound)
	}
	if r.Region == otherRegion && f.elsewhere != nil {
		return f.elsewhere
	}
	return f.broken
}

func (f *fakeVolumes) Delete(_ context.Context, owner snapshot.Owner, r snapshot.Ref) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.owners[r.ID] != owner {
		return snapshot.ErrDenied
	}
	maps.DeleteFunc(f.snapshots, func(id string, _ snapshot.Ref) bool { return id == r.ID || strings.HasSuffix(id, " of "+r.ID) })
	return nil
}

func (f *fakeVolumes) List(ctx context.Context, owner snapshot.Owner) iter.Seq2[snapshot.Ref, error] {
	return f.ListIn(ctx, owner, homeRegion)
}

const homeRegion = "us-east-1"

func (f *fakeVolumes) Copy(_ context.Context, r snapshot.Ref, owner snapshot.Owner, region string) (snapshot.Ref, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.snapshots[r.ID]
	c.ID, c.Region, c.CutAt = region+" copy of "+r.ID, region, f.clock.Now()
	f.snapshots[c.ID], f.owners[c.ID] = c, owner
	if f.copying != nil {
		if err := f.copying(r, region); err != nil { // and it is not known what became of it
			return r, err
		}
	}
	r.Copies = append(slices.Clone(r.Copies), record.SnapshotCopy{Region: region, ID: c.ID})
	return r, nil
}

func (f *fakeVolumes) Near(r snapshot.Ref, zone string) (snapshot.Ref, error) {
	if f.zones[zone] == "" {
		return r, nil
	}
	for _, one := range r.Whole() {
		if one.Region == f.zones[zone] {
			return one, nil
		}
	}
	return r, fmt.Errorf("no copy in %s: %w", zone, snapshot.ErrNotFound)
}

func (f *fakeVolumes) ListIn(_ context.Context, owner snapshot.Owner, region string) iter.Seq2[snapshot.Ref, error] {
	return func(yield func(snapshot.Ref, error) bool) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for id, r := range f.snapshots {
			if f.named {
				r.ID = "handle of " + r.ID
			}
			if f.owners[id] == owner && cmp.Or(r.Region, homeRegion) == region && !yield(r, nil) {
				return
			}
		}
	}
}

func (f *fakeVolumes) names() []string {
	return slices.SortedFunc(maps.Keys(f.snapshots), cmp.Compare[string])
}

// fakeQuiescer is a server that can be held.
type fakeQuiescer struct {
	mu    sync.Mutex
	held  int
	fail  error // before the cut
	after error // after it
}

func (q *fakeQuiescer) Quiesce(ctx context.Context, _ time.Duration, cut func(context.Context) error) (record.Report, error) {
	report := record.Report{
		Engine: "fake", Consistency: "held", LockSeconds: 0.25, CapturedAt: time.Date(2026, 11, 20, 13, 17, 31, 0, time.UTC),
		Coordinates: record.Coordinates{GTID: "0-1-7"}, Objects: []record.Object{{Kind: "table", Name: "t0", Rows: -1}},
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.fail != nil {
		return report, q.fail
	}
	q.held++
	err := cut(ctx)
	q.held--
	return report, errors.Join(err, q.after)
}

var volumesSet = record.SetID{Namespace: "shop", Name: "mysql"}

// cutter is a world whose members have claims.
type cutter struct {
	*world
	volumes *fakeVolumes
	servers []*fakeQuiescer
	members []job.Member
}

func newCutter(t *testing.T, members int) *cutter {
	t.Helper()
	c := &cutter{world: newWorld(t)}
	c.volumes = &fakeVolumes{clock: c.clock, snapshots: map[string]snapshot.Ref{}, owners: map[string]snapshot.Owner{}, lost: map[string]bool{}}
	for i := range members {
		m := job.Member{PlannedMember: record.PlannedMember{Ordinal: i, Name: fmt.Sprintf("mysql-%d", i)}, Address: fmt.Sprintf("10.0.0.%d:3306", i)}
		for _, template := range []string{"data", "log"} {
			m.Claims = append(m.Claims, record.Claim{Name: fmt.Sprintf("%s-mysql-%d", template, i), Template: template})
		}
		m.Claims = append(m.Claims, record.Claim{Name: "shared"})
		c.members = append(c.members, m)
		c.servers = append(c.servers, &fakeQuiescer{})
	}
	return c
}

func (c *cutter) backup() *job.Backup {
	b := c.world.backup()
	b.Set, b.Plan.Method = volumesSet, record.MethodSnapshot
	b.Discover = func(context.Context) (job.Inventory, error) {
		return job.Inventory{Replicas: len(c.members), Members: slices.Clone(c.members)}, nil
	}
	b.Volumes = &job.VolumeCuts{
		Snapshotter: c.volumes, Cluster: "here", Hold: time.Second,
		Quiesce: func(m job.Member) (dbdump.Quiescer, error) { return c.servers[m.Ordinal], nil },
	}
	return b
}

func TestVolumesAreCutWhileTheServerIsHeld(t *testing.T) {
	c := newCutter(t, 2)
	c.volumes.onCut = func(volumes []snapshot.Volume) error {
		if c.servers[volumes[0].Ordinal].held != 1 {
			return errors.New("cut while the server runs")
		}
		if len(volumes) != 2 {
			return fmt.Errorf("%d volumes in one cut", len(volumes))
		}
		return nil
	}
	b := c.backup()
	report, err := b.Run(t.Context())
	require.NoError(t, err)
	require.Equal(t, job.StatusComplete, report.Status)
	require.Equal(t, "held", report.Members[0].Consistency)
	require.InDelta(t, 0.25, report.Members[0].LockSeconds, 0)
	require.Len(t, report.Members[1].VolumeSnapshots, 2)

	infos, err := c.repo.Backups(t.Context(), volumesSet)
	require.NoError(t, err)
	reader, err := c.repo.OpenMember(t.Context(), infos[0], 1)
	require.NoError(t, err)
	require.Equal(t, report.Members[1].VolumeSnapshots, reader.VolumeSnapshots())
	require.Equal(t, "0-1-7", reader.Report().Coordinates.GTID)
	require.NoError(t, reader.Close())
	require.Len(t, c.volumes.snapshots, 4, "the shared claim is nobody's")
}

func TestMissingClaimFailsTheRunBeforeAnythingIsCut(t *testing.T) {
	c := newCutter(t, 2)
	c.volumes.lost["log-mysql-1"] = true
	_, err := c.backup().Run(t.Context())
	require.ErrorIs(t, err, snapshot.ErrNotFound)
	require.ErrorContains(t, err, "log-mysql-1")
	require.Zero(t, c.volumes.cuts)

	c.volumes.lost = nil
	c.members[0].Problem = errors.New("claim shop/data-mysql-0: was being filled by restore run 7")
	b := c.backup()
	b.Volumes.CrashConsistent = true
	_, err = b.Run(t.Context())
	require.ErrorContains(t, err, "was being filled")
	require.Zero(t, c.volumes.cuts)
}

func TestMemberThatCannotBeHeldIsNotCut(t *testing.T) {
	c := newCutter(t, 2)
	c.servers[0].fail = dbdump.ErrLockTimeout
	report, err := c.backup().Run(t.Context())
	require.ErrorIs(t, err, job.ErrIncomplete)
	require.Equal(t, job.StatusFailed, report.Members[0].Status)
	require.Equal(t, job.StatusComplete, report.Members[1].Status)
	require.Len(t, c.volumes.snapshots, 2)
}

func TestCutUnderALostLockIsDeleted(t *testing.T) {
	c := newCutter(t, 1)
	c.servers[0].after = dbdump.ErrLockTimeout
	_, err := c.backup().Run(t.Context())
	require.ErrorIs(t, err, job.ErrFailed)
	require.Empty(t, c.volumes.names())
}

func TestSnapshotThatNeverBecomesReadyIsNoBackup(t *testing.T) {
	c := newCutter(t, 1)
	c.volumes.broken = fmt.Errorf("%w: the disk is on fire", snapshot.ErrFailed)
	_, err := c.backup().Run(t.Context())
	require.ErrorContains(t, err, "the disk is on fire")
	require.Empty(t, c.volumes.names())
	infos, err := c.repo.Backups(t.Context(), volumesSet)
	require.NoError(t, err)
	require.Empty(t, infos[0].Members)
}

func TestCrashConsistency(t *testing.T) {
	for name, prepare := range map[string]func(c *cutter, b *job.Backup){
		"lock fails":   func(c *cutter, _ *job.Backup) { c.servers[0].fail = dbdump.ErrLockTimeout },
		"lock is lost": func(c *cutter, _ *job.Backup) { c.servers[0].after = dbdump.ErrLockTimeout },
		"pod is down": func(c *cutter, _ *job.Backup) {
			c.members[0].Unreachable = errors.New("pod shop/mysql-0: is missing")
		},
		"nothing holds": func(_ *cutter, b *job.Backup) { b.Volumes.Quiesce = nil },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCutter(t, 1)
			b := c.backup()
			b.Volumes.CrashConsistent = true
			prepare(c, b)
			report, err := b.Run(t.Context())
			require.NoError(t, err)
			m := report.Members[0]
			require.Equal(t, job.ConsistencyCrash, m.Consistency)
			require.Len(t, m.Warnings, 1)
			require.Equal(t, c.clock.Now(), m.CapturedAt)
			require.Len(t, c.volumes.snapshots, 2)
			for _, r := range m.VolumeSnapshots {
				require.Contains(t, c.volumes.snapshots, r.ID)
			}
		})
	}
}

func TestPodThatIsDownFailsItsMemberUnlessAsked(t *testing.T) {
	c := newCutter(t, 2)
	c.members[0].Unreachable = errors.New("pod shop/mysql-0: is missing")
	report, err := c.backup().Run(t.Context())
	require.ErrorIs(t, err, job.ErrIncomplete)
	require.Contains(t, report.Members[0].Error, "is missing")
	require.Len(t, c.volumes.snapshots, 2)
}

// A killed attempt leaves snapshots that nobody commits; the one that commits
// deletes them, and no others.
func TestCutsOfAKilledAttemptAreSwept(t *testing.T) {
	c := newCutter(t, 2)
	first := c.backup()
	_, err := first.Run(t.Context())
	require.NoError(t, err)
	kept := c.volumes.names()

	second := c.backup()
	var killed []snapshot.Ref
	for _, m := range c.members {
		volumes, err := c.volumes.Locate(t.Context(), []snapshot.Volume{{
			Owner: snapshot.Owner{Cluster: "here", Set: volumesSet}, Ordinal: m.Ordinal, Claim: m.Claims[0].Name,
		}})
		require.NoError(t, err)
		refs, err := c.volumes.Cut(t.Context(), fmt.Sprintf("%s.%d.deadbeef", second.ID, m.Ordinal), volumes)
		require.NoError(t, err)
		killed = append(killed, refs...)
	}
	report, err := second.Run(t.Context())
	require.NoError(t, err)
	for _, r := range killed {
		require.NotContains(t, c.volumes.snapshots, r.ID)
	}
	want := kept
	for _, m := range report.Members {
		for _, r := range m.VolumeSnapshots {
			want = append(want, r.ID)
		}
	}
	slices.Sort(want)
	require.Equal(t, want, c.volumes.names())
}

// So it is when the attempt that committed was killed before it could: the next
// one finds the commit, and has nothing else to do.
func TestCutsOfAKilledAttemptAreSweptByALaterOne(t *testing.T) {
	c := newCutter(t, 1)
	b := c.backup()
	_, err := b.Run(t.Context())
	require.NoError(t, err)
	want := c.volumes.names()
	volumes, err := c.volumes.Locate(t.Context(), []snapshot.Volume{{
		Owner: snapshot.Owner{Cluster: "here", Set: volumesSet}, Ordinal: 0, Claim: c.members[0].Claims[0].Name,
	}})
	require.NoError(t, err)
	_, err = c.volumes.Cut(t.Context(), fmt.Sprintf("%s.0.deadbeef", b.ID), volumes)
	require.NoError(t, err)

	again := c.backup()
	again.ID, again.Attempt = b.ID, "0badcafe"
	report, err := again.Run(t.Context())
	require.NoError(t, err)
	require.True(t, report.Members[0].Resumed)
	require.Equal(t, want, c.volumes.names())
}

// deafStore stores a commit, and then something fails: the reply is lost, or the pod
// is being stopped before it has looked whether the commit counts.
type deafStore struct {
	storage.Store
	put, stat func() error
}

func (s deafStore) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	if err := s.Store.Put(ctx, key, body); err != nil || !strings.Contains(key, "/commits/") || s.put == nil {
		return err
	}
	return s.put()
}

func (s deafStore) Stat(ctx context.Context, key string) (storage.Object, error) {
	if strings.Contains(key, "/commits/") && s.stat != nil {
		return storage.Object{}, s.stat()
	}
	return s.Store.Stat(ctx, key)
}

// A commit may stand whose reply was lost. What it says is needed is not deleted: the
// next attempt finds the commit, and says that the backup is complete.
func TestCutsOfACommitThatMayStandAreNotDeleted(t *testing.T) {
	lost := errors.New("connection reset")
	for name, deaf := range map[string]deafStore{
		"the reply is lost":      {put: func() error { return lost }},
		"it cannot be looked at": {stat: func() error { return lost }},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCutter(t, 1)
			deaf.Store = c.store
			repo, err := repository.Open(t.Context(), deaf, repository.Keys{}, repository.Options{Clock: c.clock.Now})
			require.NoError(t, err)
			b := c.backup()
			b.Repository = repo
			report, err := b.Run(t.Context())
			require.Error(t, err)
			require.Equal(t, job.StatusFailed, report.Members[0].Status)

			again := c.backup()
			again.ID, again.Attempt = b.ID, "0badcafe"
			report, err = again.Run(t.Context())
			require.NoError(t, err)
			require.True(t, report.Members[0].Resumed)
			infos, err := c.repo.Backups(t.Context(), volumesSet)
			require.NoError(t, err)
			require.Equal(t, repository.StatusComplete, infos[0].Status)
			reader, err := c.repo.OpenMember(t.Context(), infos[0], 0)
			require.NoError(t, err)
			require.Len(t, reader.VolumeSnapshots(), 2)
			for _, ref := range reader.VolumeSnapshots() {
				require.Contains(t, c.volumes.snapshots, ref.ID, "a backup that is complete has its snapshots")
			}
			require.NoError(t, reader.Close())
		})
	}
}

// oneByOne is a provider that cuts one volume after the other.
type oneByOne struct{ snapshot.Snapshotter }

// What can be known before anybody is held still is said then.
func TestSeveralVolumesOneByOneAreRefusedBeforeTheHold(t *testing.T) {
	c := newCutter(t, 1)
	b := c.backup()
	b.Volumes.Snapshotter = oneByOne{c.volumes}
	_, err := b.Run(t.Context())
	require.ErrorIs(t, err, job.ErrConfig)
	require.ErrorContains(t, err, "--apart")
	require.Zero(t, c.servers[0].held)
	require.Zero(t, c.volumes.cuts)

	b = c.backup()
	b.Volumes.Snapshotter, b.Volumes.Apart = oneByOne{c.volumes}, true
	_, err = b.Run(t.Context())
	require.NoError(t, err)
}

// refusing is a provider that would not let us cut.
type refusing struct{ *fakeVolumes }

func (refusing) CheckRights(_ context.Context, volumes []snapshot.Volume) error {
	return fmt.Errorf("%w: CreateSnapshot of %s", snapshot.ErrDenied, volumes[0].Handle)
}

func TestADryRunAsksForTheRights(t *testing.T) {
	c := newCutter(t, 1)
	b := c.backup()
	b.Volumes.Snapshotter = refusing{c.volumes}
	_, _, err := b.DryRun(t.Context())
	require.ErrorIs(t, err, snapshot.ErrDenied)
	require.ErrorContains(t, err, "mysql-0")
	require.ErrorContains(t, err, "vol-data-mysql-0")
}

func TestVolumeBackupThatHoldsNoTableIsSuspect(t *testing.T) {
	c := newCutter(t, 1)
	b := c.backup()
	b.Volumes.Quiesce = func(job.Member) (dbdump.Quiescer, error) { return emptyQuiescer{}, nil }
	report, err := b.Run(t.Context())
	require.ErrorIs(t, err, job.ErrSuspect)
	require.Equal(t, "it holds no table", strings.Join(report.Members[0].Reasons, ""))
}

type emptyQuiescer struct{}

func (emptyQuiescer) Quiesce(ctx context.Context, _ time.Duration, cut func(context.Context) error) (record.Report, error) {
	return record.Report{Engine: "fake", CapturedAt: time.Now()}, cut(ctx)
}

// What was cut at different moments is no backup without consent.
func TestVolumesThatAreCutApart(t *testing.T) {
	c := newCutter(t, 1)
	c.volumes.apart = true
	_, err := c.backup().Run(t.Context())
	require.ErrorContains(t, err, "--apart")
	require.Empty(t, c.volumes.names())
	b := c.backup()
	b.Volumes.Quiesce = nil
	_, err = b.Run(t.Context())
	require.ErrorContains(t, err, "--apart")
	require.Empty(t, c.volumes.names())
	b = c.backup()
	b.Volumes.Apart = true
	_, err = b.Run(t.Context())
	require.NoError(t, err)
}

// byCommand holds, and knows nothing of what it holds.
type byCommand struct{ after error }

func (q byCommand) Quiesce(ctx context.Context, _ time.Duration, cut func(context.Context) error) (record.Report, error) {
	report := record.Report{Engine: "command", Layout: "volumes/1", Consistency: dbdump.ConsistencyCommand, CapturedAt: time.Now(), LockSeconds: 1}
	return report, errors.Join(cut(ctx), q.after)
}
