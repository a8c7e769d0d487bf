package csi

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	volumesnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/record"
	"keepset/internal/snapshot"
)

func target(namespace, claim string) snapshot.Target {
	c := newClaim(claim)
	c.Namespace = namespace
	owner := testOwner
	owner.Set = record.SetID{Namespace: namespace, Name: "mysql"}
	return snapshot.Target{Owner: owner, Ordinal: 2, Run: "run-1", Claim: c}
}

func (f *fakeCluster) claim(t *testing.T, namespace, name string) *corev1.PersistentVolumeClaim {
	t.Helper()
	claim, err := f.kube.CoreV1().PersistentVolumeClaims(namespace).Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	return claim
}

func TestProvisionMakesTheClaim(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	r := f.cutOf(t, s)
	given := target("shop", "data-mysql-2")
	require.NoError(t, s.Provision(t.Context(), r, given))
	claim := f.claim(t, "shop", "data-mysql-2")
	group := "snapshot.storage.k8s.io"
	assert.Equal(t, &corev1.TypedLocalObjectReference{APIGroup: &group, Kind: "VolumeSnapshot", Name: r.Name}, claim.Spec.DataSource)
	assert.Equal(t, &corev1.TypedObjectReference{APIGroup: &group, Kind: "VolumeSnapshot", Name: r.Name}, claim.Spec.DataSourceRef)
	assert.Equal(t, "run-1", claim.Annotations[annotationRun])
	assert.Equal(t, r.ID, claim.Annotations[annotationSource])
	assert.Nil(t, given.Claim.Annotations, "what was given is left as it was")
	assert.Empty(t, given.Claim.Spec.DataSource)
}

// A claim that asks for less than the snapshot needs is made larger.
func TestProvisionEnlarges(t *testing.T) {
	f := newFakeCluster(t)
	var log bytes.Buffer
	s := f.snapshotter(func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	r := f.cutOf(t, s)
	small := target("shop", "data-mysql-2")
	small.Claim.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse("500Mi")
	require.NoError(t, s.Provision(t.Context(), r, small))
	claim := f.claim(t, "shop", "data-mysql-2")
	assert.Equal(t, "1Gi", claim.Spec.Resources.Requests.Storage().String())
	assert.Equal(t, "500Mi", claim.Annotations[annotationRaised])
	assert.Contains(t, log.String(), "larger than its template asks for")

	limited := target("shop", "data-mysql-3")
	limited.Claim.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse("500Mi")
	limited.Claim.Spec.Resources.Limits = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("600Mi")}
	for _, err := range []error{s.Prepare(t.Context(), r, limited), s.Provision(t.Context(), r, limited)} {
		require.ErrorIs(t, err, snapshot.ErrUnfit)
		require.ErrorContains(t, err, "its limit is 600Mi, and the snapshot needs 1Gi")
	}
}

func TestProvisionRefusesWhatDoesNotFit(t *testing.T) {
	f := newFakeCluster(t)
	f.addStorageClass(t, "others", "other.example.com", storagev1.VolumeBindingImmediate)
	s := f.snapshotter()
	r := f.cutOf(t, s)
	for name, test := range map[string]struct {
		change   func(*corev1.PersistentVolumeClaim)
		sentinel error
		says     string
	}{
		"another mode":     {func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeMode = new(corev1.PersistentVolumeBlock) }, snapshot.ErrUnfit, "it asks for Block"},
		"another driver":   {func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = new("others") }, snapshot.ErrUnfit, "other.example.com"},
		"a missing class":  {func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = new("nowhere") }, snapshot.ErrNotFound, "StorageClass nowhere"},
		"no class":         {func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = new("") }, snapshot.ErrUnfit, "no volume would be made"},
		"no default class": {func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = nil }, snapshot.ErrNotFound, "the cluster has no default"},
	} {
		given := target("shop", "data-mysql-2")
		test.change(given.Claim)
		for _, err := range []error{s.Prepare(t.Context(), r, given), s.Provision(t.Context(), r, given)} {
			require.ErrorIs(t, err, test.sentinel, name)
			require.ErrorContains(t, err, test.says, name)
			require.ErrorContains(t, err, "shop/data-mysql-2", name)
		}
	}
	require.Len(t, f.claims(t), 1)
}

func TestDefaultStorageClassIsTheNewest(t *testing.T) {
	f := newFakeCluster(t)
	for name, age := range map[string]time.Duration{"older": 2 * time.Hour, "newer": time.Hour} {
		class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{
			Name: name, CreationTimestamp: metav1.NewTime(time.Now().Add(-age)), Annotations: map[string]string{annotationDefaultStorageClass: "true"},
		}}
		require.NoError(t, f.kube.Tracker().Add(class))
	}
	claim := newClaim("data-mysql-2")
	claim.Spec.StorageClassName = nil
	got, err := f.snapshotter().storageClass(t.Context(), claim)
	require.NoError(t, err)
	require.Equal(t, "newer", got.Name)
}

// Where the volume waits for its first consumer, Provision does not; the
// stand-in stays until it is bound.
func TestProvisionForAFirstConsumer(t *testing.T) {
	f := newFakeCluster(t)
	f.addStorageClass(t, "late", driver, storagev1.VolumeBindingWaitForFirstConsumer)
	s := f.snapshotter()
	r := f.cutOf(t, s)
	for _, namespace := range []string{"shop", "staging"} {
		given := target(namespace, "data-mysql-2")
		given.Claim.Spec.StorageClassName = new("late")
		before := len(f.contents(t))
		require.NoError(t, s.Provision(t.Context(), r, given))
		require.False(t, isBound(f.claim(t, namespace, "data-mysql-2")))
		require.NoError(t, s.Scrap(t.Context(), given), "it is needed yet, and stays")
		require.NoError(t, s.Provision(t.Context(), r, given), "again")

		require.Equal(t, "data-mysql-0", f.read(t, namespace, "data-mysql-2"), "a pod has come")
		if namespace == "staging" {
			require.Len(t, f.contents(t), before+1)
			require.NoError(t, s.Scrap(t.Context(), given))
		}
		require.Len(t, f.contents(t), before)
		require.Len(t, f.volumeSnapshots(t), 1)
		require.Equal(t, "data-mysql-0", f.read(t, namespace, "data-mysql-2"))
	}
}

// With rights in the namespace alone a snapshot of that namespace can be
// restored; its class cannot be looked at and may wait for a consumer.
func TestProvisionBlind(t *testing.T) {
	f := newFakeCluster(t)
	f.dropClass(t)
	f.addClass(t, "default", driver, volumesnapshotv1.VolumeSnapshotContentRetain, true)
	s := f.snapshotter()
	r := f.cutOf(t, s)
	f.blind()
	given := target("shop", "data-mysql-2")
	require.NoError(t, s.Prepare(t.Context(), r, given))
	require.NoError(t, s.Provision(t.Context(), r, given))
	require.NoError(t, s.Scrap(t.Context(), given))
	require.True(t, isBound(f.claim(t, "shop", "data-mysql-2")))

	blind := r
	blind.ID = contentPrefix + contentName(f.snapshotObject(t, r))
	require.NoError(t, s.Provision(t.Context(), blind, target("shop", "data-mysql-3")), "from what was cut blindly, too")
}

// The ID of a snapshot that was cut blindly leads to the handle by its content.
// The object of the namespace is gone, or is another one now, and the driver
// still has the snapshot.
// A driver that cannot list snapshots calls every handle ready: then it is the
// provisioner that says so, and the claim does not stay.
func TestProvisionFails(t *testing.T) {
	for name, sabotage := range map[string]func(*fakeCluster, snapshot.Ref) string{
		"for the provisioner": func(f *fakeCluster, _ snapshot.Ref) string {
			f.failVolumes = "rpc error: no room left"
			return "ProvisioningFailed: rpc error: no room left"
		},
		"for want of the snapshot": func(f *fakeCluster, r snapshot.Ref) string {
			f.unlisted = true
			delete(f.cuts, r.ID)
			return "the driver has no snapshot " + r.ID
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeCluster(t)
			s := f.snapshotter()
			r := f.cutOf(t, s)
			var says string
			f.set(func() { says = sabotage(f, r) })
			before := f.inventory(t)
			begin := f.clock.Now()
			err := s.Provision(t.Context(), r, target("staging", "data-mysql-0"))
			require.ErrorIs(t, err, snapshot.ErrFailed)
			require.ErrorContains(t, err, says)
			require.InDelta(t, 120, f.clock.Now().Sub(begin).Seconds(), 30, "the provisioner was given time to succeed")
			require.Equal(t, before, f.inventory(t), "nothing is left")
		})
	}
}

// Nobody says anything, for as long as a claim may take.
func TestProvisionThatNobodyTakesUp(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	r := f.cutOf(t, s)
	f.set(func() { f.still = true })
	begin := f.clock.Now()
	err := s.Provision(t.Context(), r, target("shop", "data-mysql-2"))
	require.ErrorIs(t, err, snapshot.ErrUnreachable)
	require.ErrorContains(t, err, "claim shop/data-mysql-2")
	require.InDelta(t, 30, f.clock.Now().Sub(begin).Minutes(), 1)
	require.Len(t, f.claims(t), 1)
}

// A volume that is made at once in a zone where the replica cannot run is of
// no use.
func TestProvisionInAnotherZone(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	r := f.cutOf(t, s)
	given := target("shop", "data-mysql-2")
	given.Zone = "zone-b"
	err := s.Provision(t.Context(), r, given)
	require.ErrorIs(t, err, snapshot.ErrUnfit)
	require.ErrorContains(t, err, "zone zone-a, and the replica will run in zone-b; take a StorageClass with volumeBindingMode WaitForFirstConsumer")
	require.Len(t, f.claims(t), 1)
	given.Zone = "zone-a"
	require.NoError(t, s.Provision(t.Context(), r, given))
}

func TestProvisionRefusesOthersClaims(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	r := f.cutOf(t, s)
	require.NoError(t, s.Provision(t.Context(), r, target("shop", "data-mysql-2")))
	for name, change := range map[string]func(*snapshot.Target){
		"another run":     func(g *snapshot.Target) { g.Run = "run-2" },
		"another set":     func(g *snapshot.Target) { g.Owner.Set.Name = "other" },
		"another cluster": func(g *snapshot.Target) { g.Owner.Cluster = "decade" },
	} {
		given := target("shop", "data-mysql-2")
		change(&given)
		err := s.Provision(t.Context(), r, given)
		require.ErrorIs(t, err, snapshot.ErrInUse, name)
		require.ErrorContains(t, err, "claim shop/data-mysql-2", name)
		require.ErrorContains(t, err, "run-1", name)
	}
	f.changeClaim(t, "data-mysql-2", func(c *corev1.PersistentVolumeClaim) { c.DeletionTimestamp = new(metav1.Now()) })
	err := s.Provision(t.Context(), r, target("shop", "data-mysql-2"))
	require.ErrorIs(t, err, snapshot.ErrInUse)
	require.ErrorContains(t, err, "being deleted")
}

// The set's controller makes an empty claim of the same name in the moment
// before ours.
func TestProvisionLosesTheRace(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	r := f.cutOf(t, s)
	f.set(func() {
		f.before = func(request string) error {
			if request == "create persistentvolumeclaims" {
				empty := newClaim("data-mysql-0")
				empty.Namespace = "staging"
				return f.kube.Tracker().Add(empty)
			}
			return nil
		}
	})
	err := s.Provision(t.Context(), r, target("staging", "data-mysql-0"))
	require.ErrorIs(t, err, snapshot.ErrInUse)
	require.Nil(t, f.claim(t, "staging", "data-mysql-0").Spec.DataSource)
	require.Nil(t, f.content(standInName("staging", "data-mysql-0")), "what stood in is gone again")
}

// What has the stand-in's name and is not ours is neither used nor removed.
// Somebody has changed the stand-in's policy: deleting it would delete the backup.
// What another run has left of another snapshot is replaced, not adopted.
// Whatever request a restore into another namespace is killed at, its rerun
// fills the claim and leaves nothing that stood in; and if there is no rerun,
// Scrap leaves nothing.
// kubeDelete deletes a claim, as the abort of a restore does, with its volume.
