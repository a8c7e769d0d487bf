package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	volumesnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"github.com/kubernetes-csi/external-snapshotter/client/v8/clientset/versioned"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
	"keepset/internal/snapshot/csi"
	"keepset/internal/snapshot/snapshottest"
)

// csiDriver is the test cluster's plain driver, and csiImmediate and csiLate
// are its storage classes: volumes are made at once, or for a first consumer.
const (
	csiDriver    = "csi.keepset.test"
	csiImmediate = "csi-immediate"
	csiLate      = "csi-standard"
)

// TestSnapshotConformanceCSI is the conformance suite of snapshotters on a real
// driver, beside the real snapshot-controller, csi-snapshotter and
// external-provisioner. In `make soak` it runs for volumes that wait for their
// first consumer, too.
func TestSnapshotConformanceCSI(t *testing.T) {
	t.Parallel()
	classes := []string{csiImmediate}
	if soak() {
		classes = append(classes, csiLate)
	}
	for _, class := range classes {
		t.Run(class, func(t *testing.T) {
			harness := func(t *testing.T) *snapshottest.Harness { return newCSIHarness(t, class) }
			snapshottest.Run(t, harness)
			snapshottest.RunPreparer(t, harness)
		})
	}
}

// csiHarness is a namespace, another one, and a VolumeSnapshotClass of a test's own.
type csiHarness struct {
	*cluster
	other     string
	snapshots versioned.Interface
	class     *volumesnapshotv1.VolumeSnapshotClass
}

func newCSIHarness(t *testing.T, storageClass string) *snapshottest.Harness {
	t.Helper()
	h := &csiHarness{cluster: newCluster(t)}
	_, err := h.kube.StorageV1().CSIDrivers().Get(t.Context(), csiDriver, metav1.GetOptions{})
	require.NoError(t, err, "the cluster of %s has no driver of volumes with snapshots: run make cluster-up", h.kubeconfig)
	h.other = h.newNamespace()
	h.snapshots, err = versioned.NewForConfig(h.config)
	require.NoError(t, err)
	h.class = &volumesnapshotv1.VolumeSnapshotClass{
		ObjectMeta: metav1.ObjectMeta{Name: h.ns}, Driver: csiDriver, DeletionPolicy: volumesnapshotv1.VolumeSnapshotContentDelete,
	}
	h.makeClass()
	t.Cleanup(func() {
		if err := h.dropClass(); err != nil {
			t.Errorf("delete VolumeSnapshotClass %s: %v", h.class.Name, err)
		}
	})
	snapshotter, err := csi.Connect(h.config, csi.Options{
		Class: h.class.Name, Grace: 3 * time.Second,
		Patience: snapshot.Patience{Call: 20 * time.Second, Poll: 200 * time.Millisecond},
	})
	require.NoError(t, err)
	return &snapshottest.Harness{
		Snapshotter: snapshotter, Kube: h.kube, Namespace: h.ns, OtherNamespace: h.other, Class: storageClass,
		Size: 32 << 20, Wait: time.Minute,
		Bind: h.bind, BindStrange: h.bindStrange, Write: h.write, Read: h.read, Lose: h.lose,
		FailSnapshots: func(t *testing.T, reason string) {
			t.Helper()
			require.NoError(t, h.dropClass())
			h.class.Parameters = map[string]string{"fail": reason}
			h.makeClass()
		},
		Inventory: h.inventory,
	}
}

func (h *csiHarness) makeClass() {
	h.t.Helper()
	_, err := h.snapshots.SnapshotV1().VolumeSnapshotClasses().Create(h.t.Context(), h.class, metav1.CreateOptions{})
	require.NoError(h.t, err)
}

func (h *csiHarness) dropClass() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return h.snapshots.SnapshotV1().VolumeSnapshotClasses().Delete(ctx, h.class.Name, metav1.DeleteOptions{})
}

// bind makes the claim and a pod that uses it.
func (h *csiHarness) bind(t *testing.T, claim *corev1.PersistentVolumeClaim) {
	t.Helper()
	_, err := h.kube.CoreV1().PersistentVolumeClaims(claim.Namespace).Create(t.Context(), claim, metav1.CreateOptions{})
	require.NoError(t, err)
	h.user(t, claim.Namespace, claim.Name)
}

// user is the pod through which a claim is read and written; it is made if
// there is none.
func (h *csiHarness) user(t *testing.T, namespace, claim string) *cluster {
	t.Helper()
	c := h.in(namespace)
	if c.pod(claim) == nil {
		c.apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %[1]s}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {runAsUser: 999, fsGroup: 999}
  volumes: [{name: data, persistentVolumeClaim: {claimName: %[1]s}}]
  containers: [{name: c, image: "keepset-test/mariadb:10.11", imagePullPolicy: Never, command: [sleep, infinity], volumeMounts: [{name: data, mountPath: /data}]}]
`, claim))
	}
	c.kubectl("wait", "--for", "condition=Ready", "pod/"+claim, "--timeout", "120s")
	return c
}

// write replaces the content in one step, and has it on the disk.
func (h *csiHarness) write(t *testing.T, namespace, claim, text string) {
	t.Helper()
	h.user(t, namespace, claim).kubectl("exec", claim, "--", "bash", "-c", `printf %s "$0" > /data/.new && mv /data/.new /data/content && sync -f /data`, text)
}

func (h *csiHarness) read(t *testing.T, namespace, claim string) string {
	t.Helper()
	return h.user(t, namespace, claim).kubectl("exec", claim, "--", "cat", "/data/content")
}

// bindStrange gives the claim a volume that no driver made.
func (h *csiHarness) bindStrange(t *testing.T, claim *corev1.PersistentVolumeClaim) {
	t.Helper()
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: claim.Namespace + "-" + claim.Name},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/var/empty"}},
			Capacity:               claim.Spec.Resources.Requests, AccessModes: claim.Spec.AccessModes,
			StorageClassName: *claim.Spec.StorageClassName, VolumeMode: claim.Spec.VolumeMode,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			ClaimRef:                      &corev1.ObjectReference{Namespace: claim.Namespace, Name: claim.Name},
		},
	}
	_, err := h.kube.CoreV1().PersistentVolumes().Create(t.Context(), volume, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := h.kube.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("delete volume %s: %v", volume.Name, err)
		}
	})
	claim = claim.DeepCopy()
	claim.Spec.VolumeName = volume.Name
	_, err = h.kube.CoreV1().PersistentVolumeClaims(claim.Namespace).Create(t.Context(), claim, metav1.CreateOptions{})
	require.NoError(t, err)
	h.in(claim.Namespace).kubectl("wait", "--for", "jsonpath={.status.phase}=Bound", "pvc/"+claim.Name, "--timeout", "60s")
}

// lose hides the driver's record of the volume, without which it does not
// know it. It comes back at the end, so that the volume can be deleted.
func (h *csiHarness) lose(t *testing.T, namespace, claim string) {
	t.Helper()
	c, err := h.kube.CoreV1().PersistentVolumeClaims(namespace).Get(t.Context(), claim, metav1.GetOptions{})
	require.NoError(t, err)
	volume, err := h.kube.CoreV1().PersistentVolumes().Get(t.Context(), c.Spec.VolumeName, metav1.GetOptions{})
	require.NoError(t, err)
	record := filepath.Join(cacheRoot(), "cluster", "csi-volumes", "volumes", volume.Spec.CSI.VolumeHandle+".json")
	require.NoError(t, os.Rename(record, record+".lost"))
	t.Cleanup(func() {
		if err := os.Rename(record+".lost", record); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("bring the volume back: %v", err)
		}
	})
}

// inventory names the claims and VolumeSnapshots of both namespaces, and what
// belongs to them in the cluster.
func (h *csiHarness) inventory(t *testing.T) []string {
	t.Helper()
	names := []string{}
	ours := func(namespace string) bool { return namespace == h.ns || namespace == h.other }
	for _, namespace := range []string{h.ns, h.other} {
		claims, err := h.kube.CoreV1().PersistentVolumeClaims(namespace).List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		for _, c := range claims.Items {
			names = append(names, "claim "+namespace+"/"+c.Name)
		}
		snapshots, err := h.snapshots.SnapshotV1().VolumeSnapshots(namespace).List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		for _, s := range snapshots.Items {
			names = append(names, "volumesnapshot "+namespace+"/"+s.Name)
		}
	}
	volumes, err := h.kube.CoreV1().PersistentVolumes().List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for _, v := range volumes.Items {
		if v.Spec.ClaimRef != nil && ours(v.Spec.ClaimRef.Namespace) {
			names = append(names, "volume "+v.Name)
		}
	}
	contents, err := h.snapshots.SnapshotV1().VolumeSnapshotContents().List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for _, c := range contents.Items {
		if ours(c.Spec.VolumeSnapshotRef.Namespace) {
			names = append(names, "content "+c.Name)
		}
	}
	slices.SortFunc(names, cmp.Compare)
	return names
}
