package csi

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"keepset/internal/snapshot/snapshottest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	snapshottest.Run(t, harness)
}

func TestConformancePreparer(t *testing.T) {
	snapshottest.RunPreparer(t, harness)
}

// harness is the fake cluster as the suite wants to see it.
func harness(t *testing.T) *snapshottest.Harness {
	f := newFakeCluster(t)
	return &snapshottest.Harness{
		Snapshotter: f.snapshotter(), Kube: f.kube, Namespace: "shop", OtherNamespace: "staging", Class: className,
		Bind:        f.bound,
		BindStrange: f.boundToHostPath,
		Write:       f.write,
		Read:        f.read,
		Lose: func(t *testing.T, namespace, claim string) {
			disk := f.diskOf(t, namespace, claim)
			f.set(func() { delete(f.disks, disk) })
		},
		FailSnapshots: func(_ *testing.T, reason string) { f.set(func() { f.failCuts = reason }) },
		Inventory:     f.inventory,
	}
}

// bound creates the claim and gives it a disk.
func (f *fakeCluster) bound(t *testing.T, claim *corev1.PersistentVolumeClaim) {
	t.Helper()
	made, err := f.kube.CoreV1().PersistentVolumeClaims(claim.Namespace).Create(t.Context(), claim, metav1.CreateOptions{})
	require.NoError(t, err)
	f.set(func() {
		disk := f.next("disk")
		f.disks[disk] = ""
		require.NoError(t, f.bind(made, disk))
	})
}

// boundToHostPath creates the claim with a volume that no driver made.
func (f *fakeCluster) boundToHostPath(t *testing.T, claim *corev1.PersistentVolumeClaim) {
	t.Helper()
	claim = claim.DeepCopy()
	claim.UID = types.UID(claim.Name)
	claim.Spec.VolumeName = "host"
	claim.Status.Phase = corev1.ClaimBound
	require.NoError(t, f.kube.Tracker().Add(claim))
	require.NoError(t, f.kube.Tracker().Add(&corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "host"},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/srv"}},
			ClaimRef:               &corev1.ObjectReference{Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID},
		},
	}))
}

// diskOf is the handle of the disk behind a bound claim.
func (f *fakeCluster) diskOf(t *testing.T, namespace, name string) string {
	t.Helper()
	claim, err := f.kube.CoreV1().PersistentVolumeClaims(namespace).Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	volume, err := f.kube.CoreV1().PersistentVolumes().Get(t.Context(), claim.Spec.VolumeName, metav1.GetOptions{})
	require.NoError(t, err)
	return volume.Spec.CSI.VolumeHandle
}

func (f *fakeCluster) write(t *testing.T, namespace, claim, text string) {
	t.Helper()
	disk := f.diskOf(t, namespace, claim)
	f.set(func() { f.disks[disk] = text })
}

func (f *fakeCluster) read(t *testing.T, namespace, claim string) string {
	t.Helper()
	f.set(func() { f.consumers[namespace+"/"+claim] = true })
	disk := f.diskOf(t, namespace, claim)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.disks[disk]
}
