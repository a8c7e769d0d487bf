package snapshottest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
)

var provisionTests = []namedTest{
	{"provision fills a claim", testProvision},
	{"provision again changes nothing", testProvisionAgain},
	{"provision into another namespace", testProvisionNamespace},
	{"provision of a larger claim", testProvisionLarger},
	{"provision of a smaller claim never makes the volume smaller", testProvisionSmaller},
	{"provision two claims of one snapshot", testProvisionTwice},
	{"provision refuses a claim that exists", testProvisionInUse},
	{"provision refuses the claim of another snapshot", testProvisionOtherSnapshot},
	{"provision refuses a claim of another mode", testProvisionUnfit},
	{"provision of a class that is missing", testProvisionNoClass},
	{"provision of a snapshot that is gone", testProvisionGone},
	{"cancelled provision makes nothing", testProvisionCancelled},
	{"what was provisioned outlives its snapshot", testProvisionOutlives},
}

func (s *suite) provision(t *testing.T, r snapshot.Ref, target snapshot.Target) {
	t.Helper()
	require.NoError(t, s.snap.Provision(t.Context(), r, target))
}

// requireBound checks the claim and returns its volume.
func (s *suite) requireBound(t *testing.T, target snapshot.Target) *corev1.PersistentVolume {
	t.Helper()
	claim := s.get(t, target.Claim.Namespace, target.Claim.Name)
	require.Equal(t, corev1.ClaimBound, claim.Status.Phase)
	for key, value := range target.Claim.Labels {
		require.Equal(t, value, claim.Labels[key], "label %s", key)
	}
	for key, value := range target.Claim.Annotations {
		require.Equal(t, value, claim.Annotations[key], "annotation %s", key)
	}
	require.Equal(t, target.Claim.Spec.AccessModes, claim.Spec.AccessModes)
	require.Equal(t, target.Claim.Spec.StorageClassName, claim.Spec.StorageClassName)
	volume, err := s.Kube.CoreV1().PersistentVolumes().Get(t.Context(), claim.Spec.VolumeName, metav1.GetOptions{})
	require.NoError(t, err)
	require.NotNil(t, volume.Spec.ClaimRef)
	require.Equal(t, claim.Namespace, volume.Spec.ClaimRef.Namespace)
	require.Equal(t, claim.Name, volume.Spec.ClaimRef.Name)
	require.Equal(t, s.Class, volume.Spec.StorageClassName)
	return volume
}

func testProvision(t *testing.T, s *suite) {
	ref := s.cut(t)
	target := s.target("data-mysql-2")
	s.provision(t, ref, target)
	require.Equal(t, "data-mysql-0", s.Read(t, s.Namespace, "data-mysql-2"))
	volume := s.requireBound(t, target)
	require.NotEqual(t, s.get(t, s.Namespace, "data-mysql-0").Spec.VolumeName, volume.Name)
	require.Equal(t, "data-mysql-0", s.Read(t, s.Namespace, "data-mysql-0"), "the volume that was cut is untouched")
}

func testProvisionAgain(t *testing.T, s *suite) {
	ref := s.cut(t)
	target := s.target("data-mysql-2")
	s.provision(t, ref, target)
	s.Read(t, s.Namespace, "data-mysql-2")
	before, claim := s.Inventory(t), s.get(t, s.Namespace, "data-mysql-2")
	s.provision(t, ref, target)
	require.ElementsMatch(t, before, s.Inventory(t))
	require.Equal(t, claim.Spec.VolumeName, s.get(t, s.Namespace, "data-mysql-2").Spec.VolumeName)
}

func testProvisionNamespace(t *testing.T, s *suite) {
	ref := s.cut(t)
	target := s.target("data-mysql-0")
	target.Claim.Namespace = s.OtherNamespace
	s.provision(t, ref, target)
	require.Equal(t, "data-mysql-0", s.Read(t, s.OtherNamespace, "data-mysql-0"))
	s.requireBound(t, target)
}

func (s *suite) request(target snapshot.Target, bytes int64) snapshot.Target {
	target.Claim.Spec.Resources.Requests[corev1.ResourceStorage] = *resource.NewQuantity(bytes, resource.BinarySI)
	return target
}

func testProvisionLarger(t *testing.T, s *suite) {
	ref := s.cut(t)
	target := s.request(s.target("data-mysql-2"), 3*s.Size)
	s.provision(t, ref, target)
	require.Equal(t, "data-mysql-0", s.Read(t, s.Namespace, "data-mysql-2"))
	capacity := s.requireBound(t, target).Spec.Capacity[corev1.ResourceStorage]
	require.GreaterOrEqual(t, capacity.Value(), 3*s.Size)
}

func testProvisionSmaller(t *testing.T, s *suite) {
	ref := s.cut(t)
	before := s.Inventory(t)
	target := s.request(s.target("data-mysql-2"), s.Size/2)
	if err := s.snap.Provision(t.Context(), ref, target); err != nil {
		require.ErrorIs(t, err, snapshot.ErrUnfit)
		s.requireInventory(t, before)
		return
	}
	require.Equal(t, "data-mysql-0", s.Read(t, s.Namespace, "data-mysql-2"))
	capacity := s.requireBound(t, target).Spec.Capacity[corev1.ResourceStorage]
	require.GreaterOrEqual(t, capacity.Value(), s.Size)
}

func testProvisionTwice(t *testing.T, s *suite) {
	ref := s.cut(t)
	first, second := s.target("data-mysql-2"), s.target("data-mysql-3")
	second.Ordinal = 3
	s.provision(t, ref, first)
	s.provision(t, ref, second)
	s.Read(t, s.Namespace, "data-mysql-2")
	s.Write(t, s.Namespace, "data-mysql-2", "its own")
	require.Equal(t, "data-mysql-0", s.Read(t, s.Namespace, "data-mysql-3"))
	require.NotEqual(t, s.requireBound(t, first).Name, s.requireBound(t, second).Name)
}

func testProvisionInUse(t *testing.T, s *suite) {
	ref := s.cut(t)
	s.Bind(t, s.claim(s.Namespace, "data-mysql-2"))
	s.Write(t, s.Namespace, "data-mysql-2", "precious")
	before := s.Inventory(t)
	err := s.snap.Provision(t.Context(), ref, s.target("data-mysql-2"))
	require.ErrorIs(t, err, snapshot.ErrInUse)
	require.ErrorContains(t, err, "data-mysql-2")
	s.requireInventory(t, before)
	require.Equal(t, "precious", s.Read(t, s.Namespace, "data-mysql-2"))
}

func testProvisionOtherSnapshot(t *testing.T, s *suite) {
	volumes := s.located(t, "data-mysql-0")
	first := s.cutFor(t, s.owner, cutName, volumes)
	second := s.cutFor(t, s.owner, "20261121T131730Z-1a2b3c4d-0", volumes)
	for _, r := range []snapshot.Ref{first, second} {
		require.NoError(t, s.snap.WaitReady(t.Context(), r))
	}
	s.provision(t, first, s.target("data-mysql-2"))
	s.Read(t, s.Namespace, "data-mysql-2")
	before := s.Inventory(t)
	require.ErrorIs(t, s.snap.Provision(t.Context(), second, s.target("data-mysql-2")), snapshot.ErrInUse)
	s.requireInventory(t, before)
}

func testProvisionUnfit(t *testing.T, s *suite) {
	ref := s.cut(t)
	before := s.Inventory(t)
	target := s.target("data-mysql-2")
	block := corev1.PersistentVolumeBlock
	target.Claim.Spec.VolumeMode = &block
	err := s.snap.Provision(t.Context(), ref, target)
	require.ErrorIs(t, err, snapshot.ErrUnfit)
	require.ErrorContains(t, err, "data-mysql-2")
	s.requireInventory(t, before)
}

func testProvisionNoClass(t *testing.T, s *suite) {
	ref := s.cut(t)
	before := s.Inventory(t)
	target, class := s.target("data-mysql-2"), "no-such-class"
	target.Claim.Spec.StorageClassName = &class
	err := s.snap.Provision(t.Context(), ref, target)
	require.ErrorIs(t, err, snapshot.ErrNotFound)
	require.ErrorContains(t, err, class)
	s.requireInventory(t, before)
}

func testProvisionGone(t *testing.T, s *suite) {
	ref := s.cut(t)
	require.NoError(t, s.snap.Delete(t.Context(), s.owner, ref))
	before := s.claims(t)
	require.ErrorIs(t, s.snap.Provision(t.Context(), ref, s.target("data-mysql-2")), snapshot.ErrNotFound)
	require.Equal(t, before, s.claims(t), "no empty claim stands in its place")
}

func testProvisionCancelled(t *testing.T, s *suite) {
	ref := s.cut(t)
	before := s.Inventory(t)
	require.ErrorIs(t, s.snap.Provision(cancelled(t), ref, s.target("data-mysql-2")), context.Canceled)
	require.ElementsMatch(t, before, s.Inventory(t))
}

func testProvisionOutlives(t *testing.T, s *suite) {
	ref := s.cut(t)
	s.provision(t, ref, s.target("data-mysql-2"))
	require.Equal(t, "data-mysql-0", s.Read(t, s.Namespace, "data-mysql-2"))
	require.NoError(t, s.snap.Delete(t.Context(), s.owner, ref))
	require.Equal(t, "data-mysql-0", s.Read(t, s.Namespace, "data-mysql-2"))
}
