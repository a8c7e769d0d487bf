package statefulset

import (
	"testing"

	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// A template that loads into a running server does not take "recover ordinal 1,
// and replace what is there" for "replace the databases".
func TestJobFromTemplateOfAnotherCommand(t *testing.T) {
	from := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "keepset-restore", Namespace: "todo"}}
	from.Spec.JobTemplate.Spec.Template.Spec.Containers = []corev1.Container{{Name: "keepset", Command: []string{"restore"}, Args: []string{"load"}}}
	kube := fake.NewClientset(from)
	c := New(kube, "todo", nil)
	env := map[string]string{"KEEPSET_ORDINAL": "1", "KEEPSET_REPLACE": "true"}
	_, err := c.CreateJobFrom(t.Context(), "keepset-restore", "r1", env, "run")
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorContains(t, err, `its pods run ["restore" "load"]`)
	jobs, err := kube.BatchV1().Jobs("todo").List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	require.Empty(t, jobs.Items)

	ref, err := c.CreateJobFrom(t.Context(), "keepset-restore", "r1", env, "load")
	require.NoError(t, err)
	require.Equal(t, "r1", ref.Name)
}
