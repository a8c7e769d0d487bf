package statefulset

import (
	"testing"

	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
)

// A CronJob that was resumed with kubectl keeps our note of who had suspended
// it. Neither must a restore leave it suspended on the strength of that note,
// nor `backup suspend` take it for suspended.
func TestResumedPastUs(t *testing.T) {
	no := false
	kube := fake.NewClientset(&batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Name: "keepset-backup", Namespace: "mysql", Labels: map[string]string{LabelSet: "mysql"}},
		Spec:       batchv1.CronJobSpec{Suspend: &no},
	})
	c := New(kube, "mysql", nil)
	suspended := func() bool {
		o, err := kube.BatchV1().CronJobs("mysql").Get(t.Context(), "keepset-backup", metav1.GetOptions{})
		require.NoError(t, err)
		return deref(o.Spec.Suspend)
	}
	change := func(f func() ([]string, error)) {
		names, err := f()
		require.NoError(t, err)
		require.Equal(t, []string{"keepset-backup"}, names)
	}
	suspend := func(by string) {
		change(func() ([]string, error) { return c.SuspendBackups(t.Context(), "mysql", by) })
	}
	resume := func(by string) { change(func() ([]string, error) { return c.ResumeBackups(t.Context(), "mysql", by) }) }
	kubectl := func(value string) {
		_, err := kube.BatchV1().CronJobs("mysql").Patch(t.Context(), "keepset-backup", types.MergePatchType,
			[]byte(`{"spec":{"suspend":`+value+`}}`), metav1.PatchOptions{})
		require.NoError(t, err)
	}

	suspend(SuspendUser)
	kubectl("false")
	suspend("run-a")
	require.True(t, suspended())
	resume("run-a")
	require.False(t, suspended(), "backups are on again after the restore")

	suspend(SuspendUser)
	kubectl("false")
	suspend(SuspendUser)
	require.True(t, suspended(), "what is reported as suspended is suspended")

	suspend("run-b")
	resume("run-b")
	require.True(t, suspended(), "the user's suspension outlives a restore")
	resume(SuspendUser)
	require.False(t, suspended())
}
