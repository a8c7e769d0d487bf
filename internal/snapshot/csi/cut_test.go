package csi

import (
	"context"
	"strings"
	"testing"

	volumesnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/record"
	"keepset/internal/snapshot"
)

const cutName = "20261120T131730Z-1a2b3c4d-0"

func (f *fakeCluster) snapshotObject(t *testing.T, r snapshot.Ref) *volumesnapshotv1.VolumeSnapshot {
	t.Helper()
	vs, err := f.snaps.SnapshotV1().VolumeSnapshots(r.Namespace).Get(t.Context(), r.Name, metav1.GetOptions{})
	require.NoError(t, err)
	return vs
}

func TestCutMarksItsObject(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	volumes := f.locate(t, s, "data-mysql-0")
	refs, err := s.Cut(t.Context(), cutName, volumes)
	require.NoError(t, err)
	r := refs[0]
	vs := f.snapshotObject(t, r)
	assert.Equal(t, map[string]string{
		labelManagedBy: "keepset", labelOwner: ownerHash(testOwner), labelPurpose: "backup", labelSet: "mysql", labelOrdinal: "0",
	}, vs.Labels)
	assert.Equal(t, "c0ffee", vs.Annotations[annotationCluster])
	assert.Equal(t, "shop/mysql", vs.Annotations[annotationOwnerSet])
	assert.Equal(t, "data-mysql-0", vs.Annotations[annotationClaim])
	assert.Equal(t, cutName, vs.Annotations[annotationBackup])
	assert.Equal(t, "Delete", vs.Annotations[annotationPolicy])
	assert.Equal(t, "snapshots", *vs.Spec.VolumeSnapshotClassName)
	written, whole := decodeRecord(vs)
	assert.True(t, whole)
	assert.Equal(t, r, written)
	assert.Equal(t, snapshot.Ref{
		Provider: record.ProviderCSI, ID: r.ID, Cut: cutName, Name: vs.Name, Namespace: "shop", Driver: driver, Claim: "data-mysql-0", Template: "data",
		Volume: volumes[0].Handle, Zone: "zone-a", Size: 1 << 30, FSType: "ext4", CutAt: r.CutAt,
	}, r)
	f.set(func() {
		assert.Contains(t, f.cuts, r.ID, "the ID is the driver's own handle")
		assert.True(t, f.cuts[r.ID].at.Equal(r.CutAt))
	})
}

// With rights in the namespace alone the class is the cluster's default, and
// the ID says which object knows the handle.
func TestCutBlind(t *testing.T) {
	f := newFakeCluster(t)
	f.dropClass(t)
	f.addClass(t, "default", driver, volumesnapshotv1.VolumeSnapshotContentRetain, true)
	f.blind()
	s := f.snapshotter()
	volumes := f.locate2(t, s, "data-mysql-0")
	refs, err := s.Cut(t.Context(), cutName, volumes)
	require.NoError(t, err)
	vs := f.snapshotObject(t, refs[0])
	require.Nil(t, vs.Spec.VolumeSnapshotClassName)
	require.NotContains(t, vs.Annotations, annotationPolicy)
	require.Equal(t, contentPrefix+contentName(vs), refs[0].ID)
	require.Equal(t, volumes[0].PersistentVolume, refs[0].Volume, "a record needs a volume")
	require.Equal(t, vs.Status.CreationTime.Unix(), refs[0].CutAt.Unix())
	require.NoError(t, s.WaitReady(t.Context(), refs[0]))
	again, err := s.Cut(t.Context(), cutName, volumes)
	require.NoError(t, err)
	require.Equal(t, refs, again)
}

// locate2 is locate for who may not look at what a test writes to.
func (f *fakeCluster) locate2(t *testing.T, s *Snapshotter, claims ...string) []snapshot.Volume {
	t.Helper()
	var volumes []snapshot.Volume
	for _, c := range claims {
		f.bound(t, newClaim(c))
		volumes = append(volumes, volumeOf(c))
	}
	located, err := s.Locate(t.Context(), volumes)
	require.NoError(t, err)
	return located
}

func TestCutRefusesWhatItCannotTell(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	volumes := f.locate(t, s, "data-mysql-0")
	for name, test := range map[string]struct {
		cut     string
		volumes []snapshot.Volume
		says    string
	}{
		"no name":     {"", volumes, "a name"},
		"no volume":   {cutName, nil, "one volume"},
		"not located": {cutName, []snapshot.Volume{volumeOf("data-mysql-0")}, "located"},
		"twice":       {cutName, append(volumes, volumes[0]), "shop/data-mysql-0: it is named twice"},
	} {
		_, err := s.Cut(t.Context(), test.cut, test.volumes)
		require.ErrorContains(t, err, test.says, name)
	}
	require.Empty(t, f.volumeSnapshots(t))
}

// A VolumeSnapshot of the cut's name that is not the cut's own is left alone.
func TestCutLeavesAStrangerAlone(t *testing.T) {
	for name, change := range map[string]func(*volumesnapshotv1.VolumeSnapshot){
		"another claim": func(vs *volumesnapshotv1.VolumeSnapshot) {
			vs.Spec.Source.PersistentVolumeClaimName = new("log-mysql-0")
		},
		"pre-provisioned": func(vs *volumesnapshotv1.VolumeSnapshot) {
			vs.Spec.Source = volumesnapshotv1.VolumeSnapshotSource{VolumeSnapshotContentName: new("theirs")}
		},
		"another set":    func(vs *volumesnapshotv1.VolumeSnapshot) { vs.Annotations[annotationOwnerSet] = "shop/other" },
		"another backup": func(vs *volumesnapshotv1.VolumeSnapshot) { vs.Annotations[annotationBackup] = "other" },
		"no labels":      func(vs *volumesnapshotv1.VolumeSnapshot) { vs.Labels = nil },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeCluster(t)
			s := f.snapshotter()
			volumes := f.locate(t, s, "data-mysql-0")
			vs, err := New(Options{}).newSnapshot(cutName, volumes[0], snapshotClass{})
			require.NoError(t, err)
			change(vs)
			require.NoError(t, f.snaps.Tracker().Add(vs))
			_, err = s.Cut(t.Context(), cutName, volumes)
			require.ErrorIs(t, err, snapshot.ErrInUse)
			require.ErrorContains(t, err, "shop/"+vs.Name)
			require.Len(t, f.volumeSnapshots(t), 1)
		})
	}
}

// What a killed attempt has begun may have been cut when nobody held the
// database any more: it does not count, not even beside one that was finished.
func TestCutBeginsAnew(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	volumes := f.locate(t, s, "data-mysql-0", "log-mysql-0")
	first, err := s.Cut(t.Context(), cutName, volumes)
	require.NoError(t, err)
	vs := f.snapshotObject(t, first[1])
	r, _ := decodeRecord(vs)
	r.ID = ""
	vs.Annotations[annotationRecord], err = encodeRecord(r)
	require.NoError(t, err)
	require.NoError(t, f.snaps.Tracker().Update(snapshotsResource, vs, vs.Namespace))

	second, err := s.Cut(t.Context(), cutName, volumes)
	require.NoError(t, err)
	for i := range first {
		require.NotEqual(t, first[i].ID, second[i].ID)
		require.Equal(t, first[i].Name, second[i].Name)
	}
	f.set(func() { require.Len(t, f.cuts, 2, "what was begun is gone") })
}

// A controller may take an error back; one that stays is the driver's word.
// Who is missing when nothing happens.
// The caller's context ends with the hold on the database: then nothing counts.
func TestCutNeedsItsRights(t *testing.T) {
	for _, request := range []string{"create volumesnapshots", "get volumesnapshots", "patch volumesnapshots"} {
		f := newFakeCluster(t)
		s := f.snapshotter()
		volumes := f.locate(t, s, "data-mysql-0")
		f.refuse(request)
		_, err := s.Cut(t.Context(), cutName, volumes)
		require.ErrorIs(t, err, snapshot.ErrDenied, request)
		verb, _, _ := strings.Cut(request, " ")
		require.ErrorContains(t, err, "service account shop/keepset-backup may not "+verb+" volumesnapshots.snapshot.storage.k8s.io", request)
	}
}

// What cannot be deleted again is said, and found by List.
func TestCutThatLeavesSomething(t *testing.T) {
	f := newFakeCluster(t)
	s := f.snapshotter()
	volumes := f.locate(t, s, "data-mysql-0")
	f.refuse("delete volumesnapshots")
	f.set(func() { delete(f.disks, volumes[0].Handle) })
	_, err := s.Cut(t.Context(), cutName, volumes)
	require.ErrorIs(t, err, snapshot.ErrFailed)
	require.ErrorIs(t, err, snapshot.ErrDenied)
	require.ErrorContains(t, err, "stays behind")
	seen := 0
	for r, err := range s.List(t.Context(), testOwner) {
		require.NoError(t, err)
		require.Equal(t, "data-mysql-0", r.Claim)
		seen++
	}
	require.Equal(t, 1, seen)
}

// A status may be written by anybody of the namespace; the content says whose
// it is.
// Another VolumeSnapshot may have taken the name since.
// A cluster that does not answer for a while is asked again.
// Whatever request a cut is killed at, its rerun has exactly one snapshot of
// each claim, both of one moment.
func TestCutKilledAnywhere(t *testing.T) {
	for _, how := range []death{diesBefore, diesAfter} {
		for n := 1; ; n++ {
			f := newFakeCluster(t)
			volumes := f.locate(t, f.snapshotter(), "data-mysql-0", "log-mysql-0")
			f.write(t, "shop", "data-mysql-0", "before")
			f.write(t, "shop", "log-mysql-0", "before")
			ctx, stop := context.WithCancel(t.Context())
			killed := f.killAt(n, how, stop)
			_, err := f.snapshotter().Cut(ctx, cutName, volumes)
			stop()
			if !killed() {
				require.NoError(t, err)
				require.Greater(t, n, 8)
				break
			}
			require.Error(t, err, "killed at %d", n)
			f.write(t, "shop", "data-mysql-0", "after")
			f.write(t, "shop", "log-mysql-0", "after")
			refs, err := f.snapshotter().Cut(t.Context(), cutName, volumes)
			require.NoError(t, err, "killed at %d", n)
			f.set(func() {
				require.Len(t, f.cuts, 2, "killed at %d", n)
				require.Equal(t, f.cuts[refs[0].ID].content, f.cuts[refs[1].ID].content, "killed at %d", n)
			})
			require.Len(t, f.volumeSnapshots(t), 2)
			require.Len(t, f.contents(t), 2)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(`{"provider":"csi","id":"snap-1","name":"x","namespace":"y","claim":"z","size":1,"cutAt":"2026-11-20T13:17:30Z"}`)
	f.Add(`{"size":-1}`)
	f.Add(``)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, text string) {
		claim := "data-mysql-0"
		vs := &volumesnapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "name", Annotations: map[string]string{annotationRecord: text}}}
		vs.Spec.Source.PersistentVolumeClaimName = &claim
		r, whole := decodeRecord(vs)
		if r.Namespace != "shop" || r.Name != "name" || r.Claim != claim || r.Provider != record.ProviderCSI || r.Size < 0 {
			t.Fatalf("%+v", r)
		}
		if whole && (r.ID == "" || r.CutAt.IsZero()) {
			t.Fatalf("whole: %+v", r)
		}
	})
}
