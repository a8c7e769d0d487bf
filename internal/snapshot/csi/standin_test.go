package csi

import (
	"context"
	"testing"
	"time"

	volumesnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
)

func TestProvisionElsewhereNeedsARight(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	r := f.cutOf(t, s)
	f.refuse("create volumesnapshotcontents")
	given := target("staging", "data-mysql-0")
	for _, err := range []error{s.Prepare(t.Context(), r, given), s.Provision(t.Context(), r, given)} {
		require.ErrorIs(t, err, snapshot.ErrDenied)
		require.ErrorContains(t, err, "ClusterRole keepset-snapshot-restore")
	}
	blind := r
	blind.ID = contentPrefix + "snapcontent-x"
	err := s.Provision(t.Context(), blind, given)
	require.ErrorIs(t, err, snapshot.ErrNotFound)
	f.refuse("get volumesnapshotcontents")
	err = s.Provision(t.Context(), blind, given)
	require.ErrorIs(t, err, snapshot.ErrDenied)
	require.Len(t, f.contents(t), 1)
	require.Len(t, f.volumeSnapshots(t), 1)
	require.Len(t, f.claims(t), 1)
}

func TestProvisionElsewhereByContent(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	r := f.cutOf(t, s)
	r.ID = contentPrefix + contentName(f.snapshotObject(t, r))
	require.NoError(t, s.Provision(t.Context(), r, target("staging", "data-mysql-0")))
	require.Equal(t, "data-mysql-0", f.read(t, "staging", "data-mysql-0"))
}

func TestProvisionOfAnOutlivedSnapshot(t *testing.T) {
	for name, lose := range map[string]func(*testing.T, *fakeCluster, *Snapshotter, snapshot.Ref){
		"gone": func(t *testing.T, f *fakeCluster, s *Snapshotter, r snapshot.Ref) {
			vs := f.snapshotObject(t, r)
			require.NoError(t, s.deleteObject(t.Context(), vs))
			require.NoError(t, s.awaitGone(t.Context(), vs))
		},
		"replaced": func(t *testing.T, f *fakeCluster, _ *Snapshotter, r snapshot.Ref) {
			vs := f.snapshotObject(t, r)
			later := metav1.NewTime(r.CutAt.Add(time.Hour))
			vs.Status.CreationTime = &later
			require.NoError(t, f.snaps.Tracker().Update(snapshotsResource, vs, vs.Namespace))
		},
		"without its content": func(t *testing.T, f *fakeCluster, _ *Snapshotter, r snapshot.Ref) {
			require.NoError(t, f.snaps.Tracker().Delete(contentsResource, "", contentName(f.snapshotObject(t, r))))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := retaining(t)
			s := f.snapshotter(func(o *Options) { o.Class = "keeps" })
			r := f.cutOf(t, s)
			lose(t, f, s, r)
			if name != "without its content" {
				require.NoError(t, s.WaitReady(t.Context(), r), "its content is there")
			}
			given := target("shop", "data-mysql-2")
			require.NoError(t, s.Prepare(t.Context(), r, given))
			content := f.content(standInName("shop", "data-mysql-2"))
			require.Equal(t, volumesnapshotv1.VolumeSnapshotContentRetain, content.Spec.DeletionPolicy)
			require.Equal(t, r.ID, *content.Spec.Source.SnapshotHandle)
			require.Equal(t, "keeps", *content.Spec.VolumeSnapshotClassName)
			require.True(t, bears(content, testOwner, purposeRestore))
			require.NoError(t, s.Provision(t.Context(), r, given))
			require.Equal(t, "data-mysql-0", f.read(t, "shop", "data-mysql-2"))
			require.Nil(t, f.content(standInName("shop", "data-mysql-2")), "what stood in is gone again")
			f.set(func() { require.Contains(t, f.cuts, r.ID, "and the snapshot is not") })
		})
	}
}

func TestStandInOfAStranger(t *testing.T) {
	name := standInName("staging", "data-mysql-0")
	for what, put := range map[string]func(*testing.T, *fakeCluster){
		"content": func(t *testing.T, f *fakeCluster) {
			theirs := &volumesnapshotv1.VolumeSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: name}}
			theirs.Spec.Source.SnapshotHandle = new("theirs")
			require.NoError(t, f.snaps.Tracker().Add(theirs))
		},
		"snapshot": func(t *testing.T, f *fakeCluster) {
			theirs := &volumesnapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: "staging", Name: name}}
			theirs.Spec.Source.VolumeSnapshotContentName = new("theirs")
			require.NoError(t, f.snaps.Tracker().Add(theirs))
		},
	} {
		t.Run(what, func(t *testing.T) {
			f := newFakeCluster(t)
			s := f.snapshotter()
			r := f.cutOf(t, s)
			put(t, f)
			before := f.inventory(t)
			err := s.Provision(t.Context(), r, target("staging", "data-mysql-0"))
			require.ErrorIs(t, err, snapshot.ErrInUse)
			require.ErrorContains(t, err, name)
			require.NoError(t, s.Scrap(t.Context(), target("staging", "data-mysql-0")))
			require.Equal(t, before, f.inventory(t))
		})
	}
}

func TestScrapDoesNotDeleteTheSnapshot(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	r := f.cutOf(t, s)
	given := target("staging", "data-mysql-0")
	require.NoError(t, s.Prepare(t.Context(), r, given))
	content := f.content(standInName("staging", "data-mysql-0")).DeepCopy()
	content.Spec.DeletionPolicy = volumesnapshotv1.VolumeSnapshotContentDelete
	require.NoError(t, f.snaps.Tracker().Update(contentsResource, content, ""))
	err := s.Scrap(t.Context(), given)
	require.ErrorIs(t, err, snapshot.ErrInUse)
	require.ErrorContains(t, err, "set it to Retain")
	require.Len(t, f.volumeSnapshots(t), 2)
	f.set(func() { require.Contains(t, f.cuts, r.ID) })
}

func TestStandInOfAnotherRun(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	old := f.cutOf(t, s)
	for _, run := range []string{"run-1", "run-3"} {
		given := target("staging", "data-mysql-0")
		given.Run = run
		require.NoError(t, s.Prepare(t.Context(), old, given))
		require.Equal(t, run, f.content(standInName("staging", "data-mysql-0")).Annotations[annotationRun])
	}
	f.write(t, "shop", "data-mysql-0", "newer")
	located, err := s.Locate(t.Context(), []snapshot.Volume{volumeOf("data-mysql-0")})
	require.NoError(t, err)
	refs, err := s.Cut(t.Context(), "20261121T131730Z-1a2b3c4d-0", located)
	require.NoError(t, err)
	given := target("staging", "data-mysql-0")
	given.Run = "run-2"
	require.NoError(t, s.Provision(t.Context(), refs[0], given))
	require.Equal(t, "newer", f.read(t, "staging", "data-mysql-0"))
	require.Len(t, f.contents(t), 2)
}

func TestProvisionKilledAnywhere(t *testing.T) {
	for _, how := range []death{diesBefore, diesAfter} {
		for _, again := range []bool{true, false} {
			for n := 1; ; n++ {
				f := newFakeCluster(t)
				r := f.cutOf(t, f.snapshotter())
				before := f.inventory(t)
				ctx, stop := context.WithCancel(t.Context())
				killed := f.killAt(n, how, stop)
				err := f.snapshotter().Provision(ctx, r, target("staging", "data-mysql-0"))
				stop()
				if !killed() {
					require.NoError(t, err)
					require.Greater(t, n, 12)
					break
				}
				given := target("staging", "data-mysql-0")
				if !again {
					given.Run = "run-2"
					require.NoError(t, f.kubeDelete(t, "staging", "data-mysql-0"))
					require.NoError(t, f.snapshotter().Scrap(t.Context(), given), "killed at %d", n)
					require.Equal(t, before, f.inventory(t), "killed at %d", n)
					continue
				}
				require.NoError(t, f.snapshotter().Provision(t.Context(), r, given), "killed at %d", n)
				require.Equal(t, "data-mysql-0", f.read(t, "staging", "data-mysql-0"), "killed at %d", n)
				require.Len(t, f.contents(t), 1, "killed at %d", n)
				require.Len(t, f.volumeSnapshots(t), 1, "killed at %d", n)
				require.Len(t, f.volumes(t), 2, "killed at %d", n)
			}
		}
	}
}

func (f *fakeCluster) kubeDelete(t *testing.T, namespace, name string) error {
	t.Helper()
	claim, err := f.kube.CoreV1().PersistentVolumeClaims(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	require.NoError(t, err)
	if isBound(claim) {
		disk := f.diskOf(t, namespace, name)
		f.set(func() { delete(f.disks, disk) })
		if err := f.kube.Tracker().Delete(volumesResource, "", claim.Spec.VolumeName); err != nil {
			return err
		}
	}
	return f.kube.Tracker().Delete(claimsResource, namespace, name)
}
