package csi

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	volumesnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
	"keepset/internal/snapshot/snapshottest"
)

var nightly = metav1.OwnerReference{APIVersion: "batch/v1", Kind: "Job", Name: "nightly", UID: "uid-of-nightly"}

// temporary is a snapshotter for one run.
func (f *fakeCluster) temporary(change ...func(*Options)) *Snapshotter {
	return f.snapshotter(append(change, func(o *Options) { o.Temporary = &Temporary{Owners: []metav1.OwnerReference{nightly}} })...)
}

func names(t *testing.T, s *Snapshotter) (list []string) {
	t.Helper()
	for r, err := range s.List(t.Context(), testOwner) {
		require.NoError(t, err)
		list = append(list, r.Cut)
	}
	return list
}

// What one run needs and what a backup consists of are never taken for each other,
// and only the former goes with the run's Job.
func TestTemporaryIsNoBackup(t *testing.T) {
	f := newFakeCluster(t)
	var log bytes.Buffer
	s, backups := f.temporary(func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) }), f.snapshotter()
	kept := f.cutOf(t, backups)
	located, err := s.Locate(t.Context(), []snapshot.Volume{volumeOf("data-mysql-0")})
	require.NoError(t, err)
	refs, err := s.Cut(t.Context(), "files.0.uid.nightly", located)
	require.NoError(t, err)
	require.NotContains(t, log.String(), "Retain", "such a snapshot is to go")
	again, err := s.Cut(t.Context(), "files.0.uid.nightly", located)
	require.NoError(t, err)
	require.Equal(t, refs, again, "the next attempt finds it")

	require.Equal(t, []string{"files.0.uid.nightly"}, names(t, s))
	require.Equal(t, []string{kept.Cut}, names(t, backups), "verify --orphans does not see it")
	for _, vs := range f.volumeSnapshots(t) {
		require.Equal(t, vs.Name == refs[0].Name, len(vs.OwnerReferences) == 1, vs.Name)
	}
	require.ErrorIs(t, s.Delete(t.Context(), testOwner, kept), snapshot.ErrInUse)
	require.ErrorIs(t, backups.Delete(t.Context(), testOwner, refs[0]), snapshot.ErrInUse)
	require.NoError(t, s.Delete(t.Context(), testOwner, refs[0]))
	require.Empty(t, names(t, s))
	require.Len(t, names(t, backups), 1)
}

// What would stay in the storage when it is deleted is refused before it is made.
func TestTemporaryDoesNotStay(t *testing.T) {
	f := newFakeCluster(t)
	f.addClass(t, "kept", driver, volumesnapshotv1.VolumeSnapshotContentRetain, true)
	f.bound(t, newClaim("data-mysql-0"))
	_, err := f.temporary().Locate(t.Context(), []snapshot.Volume{volumeOf("data-mysql-0")})
	require.ErrorIs(t, err, snapshot.ErrUnsupported)
	require.ErrorContains(t, err, "VolumeSnapshotClass kept")
	require.ErrorContains(t, err, "give --volume-snapshot-class one with Delete")

	s := f.temporary(func(o *Options) { o.Class = "snapshots" })
	located, err := s.Locate(t.Context(), []snapshot.Volume{volumeOf("data-mysql-0")})
	require.NoError(t, err)
	to := target("shop", "reader")
	require.NoError(t, s.CheckFit(t.Context(), located[0], to))
	retain := corev1.PersistentVolumeReclaimRetain
	require.NoError(t, f.kube.Tracker().Add(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "retained"}, Provisioner: driver, ReclaimPolicy: &retain}))
	retained := "retained"
	to.Claim.Spec.StorageClassName = &retained
	err = s.CheckFit(t.Context(), located[0], to)
	require.ErrorIs(t, err, snapshot.ErrUnfit)
	require.ErrorContains(t, err, "claim shop/reader")
	require.ErrorContains(t, err, "give --worker-storage-class one of driver "+driver+" with Delete")
	require.NoError(t, f.snapshotter(func(o *Options) { o.Class = "snapshots" }).CheckFit(t.Context(), located[0], to), "a restore may")
	require.Empty(t, f.volumeSnapshots(t))
}

// A claim whose volume is not made says why, in the provisioner's words.
func TestTemporaryIsNotBound(t *testing.T) {
	f := newFakeCluster(t)
	late := "late"
	f.addStorageClass(t, late, driver, storagev1.VolumeBindingWaitForFirstConsumer)
	s := f.temporary()
	f.bound(t, newClaim("data-mysql-0"))
	located, err := s.Locate(t.Context(), []snapshot.Volume{volumeOf("data-mysql-0")})
	require.NoError(t, err)
	refs, err := s.Cut(t.Context(), "files.0.uid.nightly", located)
	require.NoError(t, err)
	to := target("shop", "reader")
	to.Claim.Spec.StorageClassName = &late
	require.NoError(t, s.Provision(t.Context(), refs[0], to))
	require.ErrorContains(t, s.CheckBound(t.Context(), to), "claim shop/reader: provider failed: no volume was made for it: `kubectl describe pvc` says why")
	f.set(func() { f.failVolumes, f.consumers = "the array is full", map[string]bool{"shop/reader": true} })
	f.claim(t, "shop", "reader") // lets the provisioner look
	require.ErrorContains(t, s.CheckBound(t.Context(), to), "the array is full")
	f.set(func() { f.failVolumes = "" })
	f.claim(t, "shop", "reader")
	require.NoError(t, s.CheckBound(t.Context(), to))
}

// The shipped Roles are enough, with the look at the cluster's objects and without.
func TestShippedRolesOfFilesFromSnapshots(t *testing.T) {
	for _, look := range []bool{true, false} {
		f := newFakeCluster(t)
		f.dropClass(t)
		f.addClass(t, "default", driver, volumesnapshotv1.VolumeSnapshotContentDelete, true)
		f.bound(t, newClaim("data-mysql-0"))
		rights := snapshottest.Granted(t, "keepset-backup", "files", "files-snapshots")
		if !look {
			for right := range rights {
				if _, resource, _ := strings.Cut(right, " "); resource == "persistentvolumes" || resource == "storageclasses" || resource == "volumesnapshotclasses" {
					delete(rights, right)
				}
			}
		}
		f.allow(rights)
		s := f.temporary()
		located, err := s.Locate(t.Context(), []snapshot.Volume{volumeOf("data-mysql-0")})
		require.NoError(t, err)
		to := target("shop", "reader")
		require.NoError(t, s.CheckFit(t.Context(), located[0], to))
		refs, err := s.Cut(t.Context(), "files.0.uid.nightly", located)
		require.NoError(t, err)
		require.NoError(t, s.Provision(t.Context(), refs[0], to))
		require.NoError(t, s.CheckBound(t.Context(), to))
		require.Len(t, names(t, s), 1)
		require.NoError(t, s.Delete(t.Context(), testOwner, refs[0]))
		for _, foreign := range []string{"create volumesnapshotcontents", "patch volumesnapshotcontents", "patch persistentvolumeclaims", "get secrets"} {
			require.False(t, rights[foreign], foreign)
		}
	}
}
