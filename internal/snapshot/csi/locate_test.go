package csi

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
)

// newClaim is a claim of the set's first ordinal.
func newClaim(name string) *corev1.PersistentVolumeClaim {
	class, mode := className, corev1.PersistentVolumeFilesystem
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class, VolumeMode: &mode,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
}

func volumeOf(claim string) snapshot.Volume {
	return snapshot.Volume{Owner: testOwner, Namespace: "shop", Claim: claim}
}

// locate makes the claims and locates them.
func (f *fakeCluster) locate(t *testing.T, s *Snapshotter, claims ...string) []snapshot.Volume {
	t.Helper()
	var volumes []snapshot.Volume
	for _, c := range claims {
		f.bound(t, newClaim(c))
		f.write(t, "shop", c, c)
		volumes = append(volumes, volumeOf(c))
	}
	located, err := s.Locate(t.Context(), volumes)
	require.NoError(t, err)
	return located
}

func TestLocateReadsTheVolume(t *testing.T) {
	f := newFakeCluster(t)
	got := f.locate(t, f.snapshotter(), "data-mysql-0")[0]
	assert.Equal(t, snapshot.Volume{
		Owner: testOwner, Namespace: "shop", Claim: "data-mysql-0", Template: "data",
		PersistentVolume: got.PersistentVolume, Driver: driver, Handle: f.diskOf(t, "shop", "data-mysql-0"), Zone: "zone-a", Size: 1 << 30, FSType: "ext4",
	}, got)
	assert.NotEmpty(t, got.PersistentVolume)
}

// With rights in the namespace alone, the claim says enough to be cut.
func TestLocateBlind(t *testing.T) {
	f := newFakeCluster(t)
	f.bound(t, newClaim("data-mysql-0"))
	f.blind()
	got, err := f.snapshotter().Locate(t.Context(), []snapshot.Volume{volumeOf("data-mysql-0")})
	require.NoError(t, err)
	assert.Equal(t, driver, got[0].Driver)
	assert.Equal(t, int64(1<<30), got[0].Size)
	assert.NotEmpty(t, got[0].PersistentVolume)
	assert.Empty(t, got[0].Handle+got[0].Zone+got[0].FSType)
}

func TestLocateBlindFindsTheDriver(t *testing.T) {
	annotate := func(key, value string) func(*corev1.PersistentVolumeClaim) {
		return func(c *corev1.PersistentVolumeClaim) {
			delete(c.Annotations, "volume.kubernetes.io/storage-provisioner")
			if key != "" {
				c.Annotations[key] = value
			}
		}
	}
	for name, test := range map[string]struct {
		change   func(*corev1.PersistentVolumeClaim)
		classes  bool
		sentinel error
		says     string
	}{
		"by the old annotation":      {annotate("volume.beta.kubernetes.io/storage-provisioner", driver), false, nil, ""},
		"by the class":               {annotate("", ""), true, nil, ""},
		"not at all":                 {annotate("", ""), false, snapshot.ErrDenied, "keepset-snapshot-look"},
		"which is none of CSI":       {annotate("volume.kubernetes.io/storage-provisioner", "kubernetes.io/aws-ebs"), false, snapshot.ErrUnsupported, "kubernetes.io/aws-ebs"},
		"of a volume of another age": {annotate("volume.kubernetes.io/storage-provisioner", "kubernetes.io/no-provisioner"), false, snapshot.ErrUnsupported, "shop/data-mysql-0"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeCluster(t)
			f.bound(t, newClaim("data-mysql-0"))
			f.changeClaim(t, "data-mysql-0", test.change)
			f.refuse("get persistentvolumes")
			if !test.classes {
				f.refuse("get storageclasses")
			}
			got, err := f.snapshotter().Locate(t.Context(), []snapshot.Volume{volumeOf("data-mysql-0")})
			if test.sentinel != nil {
				require.ErrorIs(t, err, test.sentinel)
				require.ErrorContains(t, err, test.says)
				return
			}
			require.NoError(t, err)
			require.Equal(t, driver, got[0].Driver)
		})
	}
}

// changeClaim changes a claim behind everybody's back.
func (f *fakeCluster) changeClaim(t *testing.T, name string, change func(*corev1.PersistentVolumeClaim)) {
	t.Helper()
	claim, err := f.kube.CoreV1().PersistentVolumeClaims("shop").Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	change(claim)
	require.NoError(t, f.kube.Tracker().Update(claimsResource, claim, "shop"))
}

// One error names everything that is wrong, each under its sentinel.
func TestLocateNamesAllProblems(t *testing.T) {
	f := newFakeCluster(t)
	f.bound(t, newClaim("going"))
	f.changeClaim(t, "going", func(c *corev1.PersistentVolumeClaim) { c.DeletionTimestamp = new(metav1.Now()) })
	f.bound(t, newClaim("lost"))
	f.changeClaim(t, "lost", func(c *corev1.PersistentVolumeClaim) { c.Status.Phase = corev1.ClaimLost })
	f.bound(t, newClaim("stolen"))
	f.changeClaim(t, "stolen", func(c *corev1.PersistentVolumeClaim) { c.UID = "another" })
	f.bound(t, newClaim("without"))
	f.changeClaim(t, "without", func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "nowhere" })
	f.boundToHostPath(t, newClaim("host"))
	f.bound(t, newClaim("good"))
	var volumes []snapshot.Volume
	for _, c := range []string{"going", "lost", "stolen", "without", "host", "good", "absent"} {
		volumes = append(volumes, volumeOf(c))
	}
	_, err := f.snapshotter().Locate(t.Context(), volumes)
	require.ErrorIs(t, err, snapshot.ErrNotFound)
	require.ErrorIs(t, err, snapshot.ErrUnsupported)
	for _, text := range []string{
		"claim shop/going is being deleted", "claim shop/lost has lost its volume", "claim shop/stolen is not what volume", "claim shop/without has lost its volume nowhere",
		"claim shop/absent is missing", "claim shop/host is on a volume of the kind hostPath",
	} {
		assert.ErrorContains(t, err, text)
	}
	assert.NotContains(t, err.Error(), "shop/good")
}

// What keeps a cut from being made is found before anything is held still.
func TestLocateWantsAClass(t *testing.T) {
	f := newFakeCluster(t)
	f.bound(t, newClaim("data-mysql-0"))
	f.dropClass(t)
	_, err := f.snapshotter().Locate(t.Context(), []snapshot.Volume{volumeOf("data-mysql-0")})
	require.ErrorIs(t, err, snapshot.ErrNotFound)
	require.ErrorContains(t, err, "VolumeSnapshotClass for driver "+driver)
	f.refuse("crds")
	_, err = f.snapshotter().Locate(t.Context(), []snapshot.Volume{volumeOf("data-mysql-0")})
	require.ErrorIs(t, err, snapshot.ErrUnsupported)
	require.ErrorContains(t, err, "kubernetes-csi/external-snapshotter")
}

func TestZoneOf(t *testing.T) {
	volume := func(labels map[string]string, affinity *corev1.VolumeNodeAffinity) *corev1.PersistentVolume {
		return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PersistentVolumeSpec{NodeAffinity: affinity}}
	}
	for name, test := range map[string]struct {
		volume *corev1.PersistentVolume
		want   string
	}{
		"none":              {volume(nil, nil), ""},
		"empty affinity":    {volume(nil, &corev1.VolumeNodeAffinity{}), ""},
		"the usual key":     {volume(nil, inZones("topology.kubernetes.io/zone", "a")), "a"},
		"a driver's key":    {volume(nil, inZones("topology.ebs.csi.aws.com/zone", "a")), "a"},
		"the old key":       {volume(nil, inZones("failure-domain.beta.kubernetes.io/zone", "a")), "a"},
		"two zones":         {volume(nil, inZones("topology.kubernetes.io/zone", "a", "b")), ""},
		"a node":            {volume(nil, inZones("kubernetes.io/hostname", "a")), ""},
		"a label":           {volume(map[string]string{"topology.kubernetes.io/zone": "a"}, nil), "a"},
		"a label of two":    {volume(map[string]string{"failure-domain.beta.kubernetes.io/zone": "a__b"}, nil), ""},
		"affinity is truth": {volume(map[string]string{"topology.kubernetes.io/zone": "b"}, inZones("topology.kubernetes.io/zone", "a")), "a"},
	} {
		assert.Equal(t, test.want, zoneOf(test.volume), name)
	}
}

func TestBlockClaim(t *testing.T) {
	f := newFakeCluster(t)
	claim := newClaim("data-mysql-0")
	claim.Spec.VolumeMode = new(corev1.PersistentVolumeBlock)
	f.bound(t, claim)
	got, err := f.snapshotter().Locate(t.Context(), []snapshot.Volume{volumeOf("data-mysql-0")})
	require.NoError(t, err)
	require.True(t, got[0].Block)
	require.Empty(t, got[0].FSType)
	require.False(t, waits(&storagev1.StorageClass{}), "a class that says nothing binds at once")
}
