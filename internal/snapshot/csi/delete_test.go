package csi

import (
	"context"
	"testing"

	volumesnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"keepset/internal/snapshot"
)

// retaining is a fake whose class keeps snapshots when their objects go.
func retaining(t *testing.T) *fakeCluster {
	f := newFakeCluster(t)
	f.dropClass(t)
	f.addClass(t, "keeps", driver, volumesnapshotv1.VolumeSnapshotContentRetain, true)
	return f
}

// cutOf makes the claim data-mysql-0 and cuts it.
func (f *fakeCluster) cutOf(t *testing.T, s *Snapshotter) snapshot.Ref {
	t.Helper()
	refs, err := s.Cut(t.Context(), cutName, f.locate(t, s, "data-mysql-0"))
	require.NoError(t, err)
	require.NoError(t, s.WaitReady(t.Context(), refs[0]))
	return refs[0]
}

// requireNoSnapshots: no object, and nothing at the driver.
func (f *fakeCluster) requireNoSnapshots(t *testing.T) {
	t.Helper()
	require.Empty(t, f.volumeSnapshots(t))
	require.Empty(t, f.contents(t))
	f.set(func() { require.Empty(t, f.cuts) })
}

func TestDeleteUnderRetain(t *testing.T) {
	f := retaining(t)
	s := f.snapshotter()
	r := f.cutOf(t, s)
	require.Equal(t, "Retain", f.snapshotObject(t, r).Annotations[annotationPolicy])
	require.NoError(t, s.Delete(t.Context(), testOwner, r))
	f.requireNoSnapshots(t)
}

// Without the right that it takes, nothing is deleted, rather than the object
// alone, whose snapshot nobody would find again.
func TestDeleteUnderRetainDenied(t *testing.T) {
	for name, refused := range map[string][]string{
		"may not change contents": {"patch volumesnapshotcontents"},
		"may not see contents":    {"get volumesnapshotcontents"},
	} {
		t.Run(name, func(t *testing.T) {
			f := retaining(t)
			s := f.snapshotter()
			r := f.cutOf(t, s)
			f.refuse(refused...)
			err := s.Delete(t.Context(), testOwner, r)
			require.ErrorIs(t, err, snapshot.ErrDenied)
			require.ErrorContains(t, err, "keepset-snapshot-restore")
			require.Len(t, f.volumeSnapshots(t), 1)
			require.Nil(t, f.volumeSnapshots(t)[0].DeletionTimestamp)
		})
	}
}

// Under Delete, rights in the namespace are enough.
func TestDeleteBlind(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	r := f.cutOf(t, s)
	f.blind()
	require.NoError(t, s.Delete(t.Context(), testOwner, r))
	f.requireNoSnapshots(t)
	require.NoError(t, s.Delete(t.Context(), testOwner, r))
}

// A snapshot that has outlived its namespace is found by the name that it was
// made under.
func TestDeleteOutlived(t *testing.T) {
	f := retaining(t)
	s := f.snapshotter()
	r := f.cutOf(t, s)
	vs := f.snapshotObject(t, r)
	require.NoError(t, s.deleteObject(t.Context(), vs))
	require.NoError(t, s.awaitGone(t.Context(), vs))
	require.Len(t, f.contents(t), 1)

	stranger := testOwner
	stranger.Cluster = "decade"
	require.NoError(t, s.Delete(t.Context(), stranger, r))
	other := r
	other.ID = "cut-0"
	require.NoError(t, s.Delete(t.Context(), testOwner, other))
	require.Len(t, f.contents(t), 1, "neither of another owner nor of another handle")
	require.NoError(t, s.Delete(t.Context(), testOwner, r))
	f.requireNoSnapshots(t)
}

// What has been cut anew under the same name is not what the Ref means.
func TestDeleteOfAnother(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	r := f.cutOf(t, s)
	old := r
	old.ID = "cut-0"
	require.NoError(t, s.Delete(t.Context(), testOwner, old), "absent")
	require.Len(t, f.volumeSnapshots(t), 1)
}

// A content that somebody has deleted leaves an object that can be deleted, and
// that is listed.
func TestDeleteWithoutContent(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	r := f.cutOf(t, s)
	require.NoError(t, f.snaps.Tracker().Delete(contentsResource, "", f.contents(t)[0].Name))
	seen := 0
	for _, err := range s.List(t.Context(), testOwner) {
		require.NoError(t, err)
		seen++
	}
	require.Equal(t, 1, seen)
	require.NoError(t, s.Delete(t.Context(), testOwner, r))
	require.Empty(t, f.volumeSnapshots(t))
}

// The controller does not delete what a claim is being made from.
func TestDeleteOfWhatIsInUse(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	r := f.cutOf(t, s)
	claim := newClaim("waits")
	claim.Spec.StorageClassName = new("missing")
	claim.Spec.DataSource = &corev1.TypedLocalObjectReference{Name: r.Name}
	require.NoError(t, f.kube.Tracker().Add(claim))
	err := s.Delete(t.Context(), testOwner, r)
	require.ErrorIs(t, err, snapshot.ErrUnreachable)
	require.ErrorContains(t, err, "a claim is being made from it")
}

func TestDeleteKilledAnywhere(t *testing.T) {
	for name, fake := range map[string]func(*testing.T) *fakeCluster{"Delete": newFakeCluster, "Retain": retaining} {
		for _, how := range []death{diesBefore, diesAfter} {
			for n := 1; ; n++ {
				f := fake(t)
				r := f.cutOf(t, f.snapshotter())
				ctx, stop := context.WithCancel(t.Context())
				killed := f.killAt(n, how, stop)
				err := f.snapshotter().Delete(ctx, testOwner, r)
				stop()
				if !killed() {
					require.NoError(t, err, name)
					require.Greater(t, n, 4, name)
					break
				}
				require.NoError(t, f.snapshotter().Delete(t.Context(), testOwner, r), "%s, killed at %d", name, n)
				// What is being deleted goes at the controllers' leisure.
				for range 5 {
					f.set(func() { require.NoError(t, f.step()) })
				}
				f.requireNoSnapshots(t)
			}
		}
	}
}

func TestListPages(t *testing.T) {
	f := newFakeCluster(t)
	f.refuse("list volumesnapshots")
	for _, err := range f.snapshotter().List(t.Context(), testOwner) {
		require.ErrorIs(t, err, snapshot.ErrDenied)
		require.ErrorContains(t, err, "namespace shop")
	}
}

// What a cut has not come to its end with is listed, with as much as is known.
func TestListUnfinished(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	volumes := f.locate(t, s, "data-mysql-0")
	vs, err := New(Options{}).newSnapshot(cutName, volumes[0], snapshotClass{})
	require.NoError(t, err)
	vs.Annotations[annotationRecord] = "{broken"
	f.set(func() { f.still = true })
	require.NoError(t, f.snaps.Tracker().Add(vs))
	for r, err := range s.List(t.Context(), testOwner) {
		require.NoError(t, err)
		require.Equal(t, snapshot.Ref{Provider: "csi", Cut: cutName, Namespace: "shop", Name: vs.Name, Claim: "data-mysql-0"}, r)
		f.set(func() { f.still = false })
		require.NoError(t, s.Delete(t.Context(), testOwner, r))
	}
	f.requireNoSnapshots(t)
}

// One whose driver has failed is bound to a content, and was never cut: it goes, and
// is gone when Delete returns.
func TestDeleteNeverCut(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	f.cutOf(t, s)
	vs := f.volumeSnapshots(t)[0].DeepCopy()
	bound := *vs.Status.BoundVolumeSnapshotContentName
	why := "the array is on fire"
	vs.Status = &volumesnapshotv1.VolumeSnapshotStatus{BoundVolumeSnapshotContentName: &bound, Error: &volumesnapshotv1.VolumeSnapshotError{Message: &why}}
	content := f.contents(t)[0].DeepCopy()
	content.Status = nil
	f.set(func() { f.still = true })
	require.NoError(t, f.snaps.Tracker().Update(snapshotsResource, vs, vs.Namespace))
	require.NoError(t, f.snaps.Tracker().Update(contentsResource, content, ""))
	seen := 0
	for r, err := range s.List(t.Context(), testOwner) {
		require.NoError(t, err)
		require.True(t, r.CutAt.IsZero())
		require.NotEmpty(t, r.ID)
		seen++
		f.set(func() { f.still = false })
		require.NoError(t, s.Delete(t.Context(), testOwner, r))
	}
	require.Equal(t, 1, seen)
	require.Empty(t, f.volumeSnapshots(t))
}
