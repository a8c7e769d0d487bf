package job_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	core "k8s.io/client-go/testing"

	"keepset/internal/dbdump"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/snapshot"
	"keepset/internal/statefulset"
)

// Adopt makes the fake server one that came up on another's files.
func (s *database) Adopt(_ context.Context, c record.Coordinates) (record.Coordinates, error) {
	return c, s.d.did("adopt")
}

// CheckFiles is asked before that.
func (s *database) CheckFiles(context.Context, record.Report) error { return s.d.unfit }

// provider makes volumes in the simulated cluster.
type provider struct {
	*fakeVolumes
	c *cluster
	// unfit is what Prepare answers.
	unfit error
	// onPrepare hears what a volume is prepared of.
	onPrepare func(snapshot.Ref)
	prepared  map[string]string // claim: volume
}

var volumesResource = corev1.SchemeGroupVersion.WithResource("persistentvolumes")

func (p *provider) Prepare(_ context.Context, r snapshot.Ref, t snapshot.Target) error {
	if p.unfit != nil {
		return p.unfit
	}
	if p.prepared[t.Claim.Name] == "" {
		p.c.step("prepare %s of %s", t.Claim.Name, r.Template)
		if p.onPrepare != nil {
			p.onPrepare(r)
		}
		name := fmt.Sprintf("pv-%d-%s", len(p.c.steps), t.Claim.Name)
		p.prepared[t.Claim.Name] = name
		p.c.add(&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
		}})
	}
	return nil
}

func (p *provider) Scrap(_ context.Context, t snapshot.Target) error {
	name := p.prepared[t.Claim.Name]
	if name == "" {
		return nil
	}
	p.prepared[t.Claim.Name] = ""
	return p.c.tracker.Delete(volumesResource, "", name)
}

func (p *provider) Provision(ctx context.Context, r snapshot.Ref, t snapshot.Target) error {
	if err := p.Prepare(ctx, r, t); err != nil {
		return err
	}
	volume := p.prepared[t.Claim.Name]
	t.Claim.Spec.VolumeName = volume
	t.Claim.Status.Phase = corev1.ClaimBound
	made, err := p.c.kube.CoreV1().PersistentVolumeClaims(namespace).Create(ctx, t.Claim, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		// The controller was quicker: its claim is bound to the volume that bears its name.
		made, err = p.c.kube.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, t.Claim.Name, metav1.GetOptions{})
		if err == nil && made.Spec.VolumeName != "" {
			return snapshot.ErrInUse
		}
		if err == nil {
			made.Spec.VolumeName, made.Status.Phase = volume, corev1.ClaimBound
			err = p.c.tracker.Update(claimsResource, made, namespace)
		}
	}
	if err != nil {
		return err
	}
	p.prepared[t.Claim.Name] = ""
	p.c.bind(volume, made)
	return nil
}

// bind is the volume controller's.
func (c *cluster) bind(volume string, claim *corev1.PersistentVolumeClaim) {
	pv := c.volume(volume)
	require.NotNil(c.t, pv)
	pv.Spec.ClaimRef = &corev1.ObjectReference{Namespace: namespace, Name: claim.Name, UID: claim.UID}
	require.NoError(c.t, c.tracker.Update(volumesResource, pv, ""))
}

func (c *cluster) volume(name string) *corev1.PersistentVolume {
	o, err := c.tracker.Get(volumesResource, "", name)
	pv, ok := o.(*corev1.PersistentVolume)
	if err != nil || !ok {
		return nil
	}
	return pv
}

// allVolumes reads past the clientset, which calls us while it is locked.
func (c *cluster) allVolumes() []*corev1.PersistentVolume {
	o, err := c.tracker.List(volumesResource, corev1.SchemeGroupVersion.WithKind("PersistentVolume"), "")
	require.NoError(c.t, err)
	list, ok := o.(*corev1.PersistentVolumeList)
	require.True(c.t, ok)
	var all []*corev1.PersistentVolume
	for i := range list.Items {
		all = append(all, &list.Items[i])
	}
	return all
}

// reclaim is the volume controller's: what is released goes by its policy.
func (c *cluster) reclaim() {
	for _, pv := range c.allVolumes() {
		if pv.Spec.ClaimRef == nil || pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
			continue
		}
		o, err := c.tracker.Get(claimsResource, namespace, pv.Spec.ClaimRef.Name)
		claim, ok := o.(*corev1.PersistentVolumeClaim)
		if err != nil || !ok || claim.UID != pv.Spec.ClaimRef.UID {
			require.NoError(c.t, c.tracker.Delete(volumesResource, "", pv.Name))
		}
	}
}

// volumesOf are the volumes that exist, each with the claim that it is bound to.
func (c *cluster) volumesOf() []string {
	var all []string
	for _, pv := range c.allVolumes() {
		text := "nobody"
		if pv.Spec.ClaimRef != nil {
			text = pv.Spec.ClaimRef.Name
		}
		all = append(all, fmt.Sprintf("%s %s", text, pv.Spec.PersistentVolumeReclaimPolicy))
	}
	slices.Sort(all)
	return all
}

// cutUp is a world with one backup of volume snapshots: ordinal 0 leads,
// ordinal 1 follows.
func cutUp(t *testing.T) (*world, *fakeVolumes) {
	t.Helper()
	w := newWorld(t)
	volumes := &fakeVolumes{clock: w.clock, snapshots: map[string]snapshot.Ref{}, owners: map[string]snapshot.Owner{}, lost: map[string]bool{}}
	_, err := cutUpJob(w, volumes).Run(t.Context())
	require.NoError(t, err)
	return w, volumes
}

// cutUpJob is a backup of a set of two whose first ordinal leads.
func cutUpJob(w *world, volumes snapshot.Snapshotter) *job.Backup {
	b := w.backup()
	b.Plan.Method = record.MethodSnapshot
	b.Discover = func(context.Context) (job.Inventory, error) {
		inv := job.Inventory{Replicas: 2}
		for i := range 2 {
			inv.Members = append(inv.Members, job.Member{PlannedMember: record.PlannedMember{
				Ordinal: i, Name: fmt.Sprintf("db-%d", i), Claims: []record.Claim{{Name: fmt.Sprintf("data-db-%d", i), Template: "data"}},
			}})
		}
		return inv, nil
	}
	b.Volumes = &job.VolumeCuts{Snapshotter: volumes, Hold: time.Second, Quiesce: func(m job.Member) (dbdump.Quiescer, error) {
		return heldMember(m.Ordinal), nil
	}}
	return b
}

// heldMember is a server of a set whose first ordinal leads.
type heldMember int

func (h heldMember) Quiesce(ctx context.Context, _ time.Duration, cut func(context.Context) error) (record.Report, error) {
	report := record.Report{Engine: "fake", CapturedAt: time.Date(2026, 11, 20, 13, 17, 31, 0, time.UTC), Objects: []record.Object{{Kind: "table", Name: "t0", Rows: -1}}}
	if h > 0 {
		report.Coordinates.Upstream = &record.UpstreamCoordinates{Host: "db-0.db", Port: 3306, Running: true}
	}
	return report, cut(ctx)
}

// restoreVolumes is restore of volume snapshots.
func (c *cluster) restoreVolumes(w *world, p *provider, q job.Request, pod string) *job.Restore {
	r := c.restore(w, &databases{}, q, "run-1", pod)
	p.c = c
	r.Volumes = &job.VolumeRestore{Open: func(string) (snapshot.Snapshotter, error) { return p, nil }}
	return r
}

func newProvider(volumes *fakeVolumes) *provider {
	return &provider{fakeVolumes: volumes, prepared: map[string]string{}}
}

// withVolumes gives the claims of a set of two volumes that go by Delete.
func (c *cluster) withVolumes() {
	for i := range 2 {
		claim, err := c.kube.CoreV1().PersistentVolumeClaims(namespace).Get(c.t.Context(), fmt.Sprintf("data-db-%d", i), metav1.GetOptions{})
		require.NoError(c.t, err)
		claim.Spec.VolumeName = fmt.Sprintf("pv-of-users-%d", i)
		require.NoError(c.t, c.tracker.Update(claimsResource, claim, namespace))
		c.add(&corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: claim.Spec.VolumeName},
			Spec:       corev1.PersistentVolumeSpec{PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete},
		})
		c.bind(claim.Spec.VolumeName, claim)
	}
}

func TestRestoreOfVolumesSteps(t *testing.T) {
	w, volumes := cutUp(t)
	c := newCluster(t, 2)
	c.withVolumes()
	_, err := c.restoreVolumes(w, newProvider(volumes), recovery, "pod-1").Execute(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{
		"create leases keepset-db", "create leases keepset-restore-run-1", "patch cronjobs nightly",
		"prepare data-db-1 of data",
		"patch persistentvolumeclaims data-db-1", "delete persistentvolumeclaims data-db-1", "delete pods db-1", "create pods db-1",
		"patch persistentvolumes pv-of-users-1", "patch persistentvolumeclaims data-db-1", "create persistentvolumeclaims data-db-1",
		"patch statefulsets db", "patch persistentvolumeclaims data-db-1", "patch pods db-1",
		"adopt", "follow", "shutdown", "patch persistentvolumeclaims data-db-1",
		"patch pods db-1", "delete pods db-1", "patch pods db-1", "patch statefulsets db",
		"patch persistentvolumes pv-of-users-1", "patch cronjobs nightly", "update leases keepset-db",
	}, c.steps)
	c.requireDone()
	require.Equal(t, []string{"data-db-0 Delete", "data-db-1 Retain"}, c.volumesOf(), "the old volume has gone, when the new one was ready")
}

// Whichever request is refused: the next pod finishes, nothing is left over,
// and no replica was started without its data.
func TestRestoreOfVolumesSurvivesEveryRefusal(t *testing.T) {
	w, volumes := cutUp(t)
	for mode, q := range map[string]job.Request{"recovery": recovery, "scale-up": {Replicas: 3}} {
		whole := newCluster(t, 2)
		whole.withVolumes()
		_, err := whole.restoreVolumes(w, newProvider(volumes), q, "pod-1").Execute(t.Context())
		require.NoError(t, err)
		for n := 1; n <= whole.n; n++ {
			synctest.Test(t, func(t *testing.T) {
				c, p := newCluster(t, 2), newProvider(volumes)
				c.withVolumes()
				action := ""
				c.fail = func(i int, a core.Action) error {
					if i != n {
						return nil
					}
					action = a.GetVerb() + " " + a.GetResource().Resource + " " + nameOf(a)
					return refusals["timeout"](a)
				}
				_, err := c.restoreVolumes(w, p, q, "pod-1").Execute(t.Context())
				what := fmt.Sprintf("%s, request %d, %s", mode, n, action)
				if err == nil { // it did not matter to the replica: a volume stays kept
					require.Contains(t, action, "patch persistentvolumes", what)
					return
				}
				require.Empty(t, c.wrong, what)
				_, err = c.restoreVolumes(w, p, q, "pod-2").Execute(t.Context())
				require.NoError(t, err, what)
				c.requireDone()
				for _, v := range c.volumesOf() {
					require.False(t, strings.HasPrefix(v, "nobody"), "%s: %v", what, c.volumesOf())
				}
			})
		}
		t.Logf("%s: %d requests refused in turn", mode, whole.n)
	}
}

// A restore dies and is given up, so that the ordinal comes up empty beside the
// volume that it had before. Another restore that shall keep what is there has filled
// nothing, and so does not let that volume go.
func TestKeepingWhatIsThereDoesNotLetTheVolumeBeforeGo(t *testing.T) {
	w, volumes := cutUp(t)
	c, p := newCluster(t, 2), newProvider(volumes)
	c.withVolumes()
	killed := errors.New("killed")
	c.fail = func(_ int, a core.Action) error {
		if a.Matches("patch", "pods") { // to ungate the seed, once its claim is made
			return killed
		}
		return nil
	}
	_, err := c.restoreVolumes(w, p, recovery, "pod-1").Execute(t.Context())
	require.ErrorIs(t, err, killed)
	c.fail = nil
	_, err = c.client().Abort(t.Context(), "db", statefulset.Run{ID: "abort", PodUID: "x"}, statefulset.AbortOptions{ReleaseEmpty: true})
	require.NoError(t, err)
	before := func() []statefulset.KeptVolume {
		kept, err := c.client().KeptVolumes(t.Context(), "db")
		require.NoError(t, err)
		return kept
	}
	want := []statefulset.KeptVolume{{Name: "pv-of-users-1", Ordinal: 1, Claim: "data-db-1", Policy: "Delete"}}
	require.Equal(t, want, before())

	again := c.restoreVolumes(w, p, job.Request{Ordinals: []int{1}, Keep: true, Base: -1}, "pod-2")
	again.Run.ID, again.Run.JobUID = "run-2", "run-2"
	report, err := again.Execute(t.Context())
	require.NoError(t, err)
	require.Equal(t, job.ActionKept, report.Members[0].Action)
	require.Equal(t, want, before())

	again = c.restoreVolumes(w, p, recovery, "pod-3")
	again.Run.ID, again.Run.JobUID = "run-3", "run-3"
	_, err = again.Execute(t.Context())
	require.NoError(t, err)
	require.Empty(t, before(), "the ordinal is ready without it")
}

func TestVolumesThatDoNotFitAreRefusedBeforeAnythingIsTouched(t *testing.T) {
	w, volumes := cutUp(t)
	c, p := newCluster(t, 2), newProvider(volumes)
	p.unfit = fmt.Errorf("%w: 900Mi for 1Gi", snapshot.ErrUnfit)
	_, err := c.restoreVolumes(w, p, recovery, "pod-1").Execute(t.Context())
	require.ErrorIs(t, err, snapshot.ErrUnfit)
	require.ErrorContains(t, err, "nothing of ordinal 1 was touched")
	for _, s := range c.steps {
		require.NotContains(t, s, "data-db-1")
		require.NotContains(t, s, "pods")
	}
}

// A restore that gives up takes what it has prepared with it, since nobody may
// come back; one that is stopped leaves it to its next attempt.
func TestPreparedVolumesAreScrapped(t *testing.T) {
	w, volumes := cutUp(t)
	for _, stopped := range []bool{false, true} {
		c := newCluster(t, 2)
		c.withVolumes()
		ctx, stop := context.WithCancel(t.Context())
		c.fail = func(_ int, a core.Action) error {
			if a.GetVerb() != "create" || a.GetResource().Resource != "pods" {
				return nil
			}
			if stopped {
				stop()
			}
			return refusals["forbidden"](a)
		}
		_, err := c.restoreVolumes(w, newProvider(volumes), recovery, "pod-1").Execute(ctx)
		stop()
		require.Error(t, err)
		require.Equal(t, stopped, slices.Contains(c.volumesOf(), "nobody Retain"), "%v", c.volumesOf())
	}
}

func TestPlanOfVolumes(t *testing.T) {
	w, volumes := cutUp(t)
	plan := func(q job.Request, change func(*job.Restore)) (*job.RestorePlan, error) {
		c := newCluster(t, 2)
		r := c.restoreVolumes(w, newProvider(volumes), q, "pod-1")
		if change != nil {
			change(r)
		}
		return r.Resolve(t.Context())
	}
	p, err := plan(recovery, func(r *job.Restore) { r.Volumes.Zone = "eu-central-1b" })
	require.NoError(t, err)
	require.Equal(t, record.MethodSnapshot, p.Method)
	require.Equal(t, "eu-central-1b", p.Items[0].Zone)
	require.Equal(t, "data-db-1", p.Items[0].Snapshots[0].Claim)
	require.Contains(t, strings.Join(p.Items[0].Steps, "\n"), "made of the backup's volume snapshot")

	_, err = plan(recovery, func(r *job.Restore) { r.Volumes = nil })
	require.ErrorIs(t, err, job.ErrConfig)

	lost := p.Items[0].Snapshots[0].ID
	kept := volumes.snapshots[lost]
	delete(volumes.snapshots, lost)
	_, err = plan(recovery, nil)
	require.ErrorIs(t, err, snapshot.ErrNotFound)
	require.ErrorContains(t, err, lost)
	volumes.snapshots[lost] = kept

	_, err = (&job.Load{Repository: w.repo, Set: testSet, Choice: job.Choice{}, Target: "db:3306", Clock: w.clock.Now}).Run(t.Context())
	require.ErrorContains(t, err, "restore run makes volumes of them")
}

// A restore that dies after its volumes were prepared: abort removes them.
func TestAbortRemovesPreparedVolumes(t *testing.T) {
	w, volumes := cutUp(t)
	c, p := newCluster(t, 2), newProvider(volumes)
	killed := errors.New("killed")
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	c.fail = func(_ int, a core.Action) error {
		if a.Matches("patch", "persistentvolumeclaims") {
			kill()
			return killed
		}
		return nil
	}
	r := c.restoreVolumes(w, p, recovery, "pod-1")
	_, err := r.Execute(ctx)
	require.ErrorIs(t, err, killed)
	require.Equal(t, []string{"nobody Retain"}, c.volumesOf())
	c.fail = nil

	abort := &job.Abort{Cluster: c.client(), Set: "db", Run: statefulset.Run{ID: "run-2", PodUID: "pod-2"}, Volumes: r.Volumes, Provider: record.ProviderEBS, Options: statefulset.AbortOptions{DryRun: true}}
	steps, err := abort.Execute(t.Context())
	require.NoError(t, err)
	require.Contains(t, strings.Join(steps, "\n"), "for claim data-db-1")
	require.Len(t, c.volumesOf(), 1)
	abort.Options.DryRun = false
	_, err = abort.Execute(t.Context())
	require.NoError(t, err)
	require.Empty(t, c.volumesOf())
	c.requireDone()
}
