package statefulset

import (
	"testing"

	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// TestTemporaryClaim: it is like the member's own, for one node, at least as large,
// and belongs to the run's Job; the worker reads that and nothing of the set.
func TestTemporaryClaim(t *testing.T) {
	w, kube, m := testWorkers(t, WorkerSpec{Temporary: true})
	own, err := kube.CoreV1().PersistentVolumeClaims("shop").Get(t.Context(), "data-www-1", metav1.GetOptions{})
	require.NoError(t, err)
	fast := "fast"
	own.Spec = corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}, StorageClassName: &fast, VolumeName: "pv-1",
		Selector:  &metav1.LabelSelector{},
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
	}
	own.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("2Gi")}
	_, err = kube.CoreV1().PersistentVolumeClaims("shop").Update(t.Context(), own, metav1.UpdateOptions{})
	require.NoError(t, err)

	claim, err := w.TemporaryClaim(t.Context(), m)
	require.NoError(t, err)
	require.Equal(t, w.name(1), claim.Name)
	require.Equal(t, w.run.owner(), claim.OwnerReferences)
	require.Equal(t, w.labels(1), claim.Labels)
	require.Equal(t, corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &fast,
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("2Gi")}},
	}, claim.Spec)
	pod := w.job(m, "", nil).Spec.Template.Spec
	require.Equal(t, claim.Name, pod.Volumes[len(pod.Volumes)-1].PersistentVolumeClaim.ClaimName)
	require.Nil(t, pod.Affinity, "any node will do")

	w.spec.Class = "slow"
	claim, err = w.TemporaryClaim(t.Context(), m)
	require.NoError(t, err)
	require.Equal(t, "slow", *claim.Spec.StorageClassName)
	require.NoError(t, kube.CoreV1().PersistentVolumeClaims("shop").Delete(t.Context(), "data-www-1", metav1.DeleteOptions{}))
	_, err = w.TemporaryClaim(t.Context(), m)
	require.ErrorIs(t, err, ErrNotFound)
}

func claimNames(t *testing.T, kube *fake.Clientset) (names []string) {
	t.Helper()
	list, err := kube.CoreV1().PersistentVolumeClaims("shop").List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for _, c := range list.Items {
		names = append(names, c.Name)
	}
	return names
}

// TestRemoveClaim: what has the name of a temporary claim and is another's stays.
func TestRemoveClaim(t *testing.T) {
	w, kube, m := testWorkers(t, WorkerSpec{Temporary: true})
	require.NoError(t, w.RemoveClaim(t.Context(), 1), "there is none")
	claim, err := w.TemporaryClaim(t.Context(), m)
	require.NoError(t, err)
	claim.Labels = nil
	_, err = kube.CoreV1().PersistentVolumeClaims("shop").Create(t.Context(), claim, metav1.CreateOptions{})
	require.NoError(t, err)
	require.ErrorIs(t, w.RemoveClaim(t.Context(), 1), ErrClaimInUse)
	claim.Labels = w.labels(1)
	_, err = kube.CoreV1().PersistentVolumeClaims("shop").Update(t.Context(), claim, metav1.UpdateOptions{})
	require.NoError(t, err)
	require.NoError(t, w.RemoveClaim(t.Context(), 1))
	require.Equal(t, []string{"data-www-0", "data-www-1"}, claimNames(t, kube))
}

// TestRemoveLeft: of other runs of the set, what those have left goes whose Jobs have
// ended, are gone or are others now, with the workers that read it. A run that is
// under way, another set's, the set's own claims and this run's are left alone.
func TestRemoveLeft(t *testing.T) {
	w, kube, m := testWorkers(t, WorkerSpec{Temporary: true})
	leave := func(id, job string, change func(*corev1.PersistentVolumeClaim)) string {
		t.Helper()
		other := *w
		other.run = Run{ID: id, JobUID: id, JobName: job}
		claim, err := other.TemporaryClaim(t.Context(), m)
		require.NoError(t, err)
		claim.UID = "uid-of-" + claim.UID
		if change != nil {
			change(claim)
		}
		_, err = kube.CoreV1().PersistentVolumeClaims("shop").Create(t.Context(), claim, metav1.CreateOptions{})
		require.NoError(t, err)
		reader := other.job(m, "", nil)
		_, err = kube.BatchV1().Jobs("shop").Create(t.Context(), reader, metav1.CreateOptions{})
		require.NoError(t, err)
		return claim.Name
	}
	for _, job := range []*batchv1.Job{
		{ObjectMeta: metav1.ObjectMeta{Name: "failed", UID: "uid-failed"}, Status: batchv1.JobStatus{Conditions: []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue}}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "running", UID: "uid-running"}},
	} {
		_, err := kube.BatchV1().Jobs("shop").Create(t.Context(), job, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	gone := []string{leave("uid-failed", "failed", nil), leave("uid-deleted", "deleted", nil), leave("uid-replaced", "running", nil)}
	stay := []string{
		"data-www-0", "data-www-1", leave("uid-running", "running", nil), leave("uid-of-nightly", "nightly", nil),
		leave("uid-of-api", "deleted", func(c *corev1.PersistentVolumeClaim) { c.Labels[LabelSet] = "api" }),
		leave("uid-of-nobody", "deleted", func(c *corev1.PersistentVolumeClaim) { c.OwnerReferences = nil }),
	}
	removed, err := w.RemoveLeft(t.Context())
	require.NoError(t, err)
	require.ElementsMatch(t, gone, removed)
	require.ElementsMatch(t, stay, claimNames(t, kube))
	jobs, err := kube.BatchV1().Jobs("shop").List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for _, job := range jobs.Items {
		require.NotContains(t, gone, job.Name)
	}
	require.Len(t, jobs.Items, 3+4, "the runs' own, and the workers of what stays")
}
