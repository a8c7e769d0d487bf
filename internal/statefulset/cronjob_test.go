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

// What suspending and resuming would do is what they do, whoever has suspended
// the CronJob before.
func TestPlannedSwitchesAreTheRealOnes(t *testing.T) {
	yes, no := true, false
	restore, user := map[string]string{AnnotationSuspendedByRestore: "run-a"}, map[string]string{AnnotationSuspendedByUser: SuspendUser}
	both := map[string]string{AnnotationSuspendedByRestore: "run-a", AnnotationSuspendedByUser: SuspendUser}
	objects := map[string]struct {
		suspend     *bool
		annotations map[string]string
	}{
		"on": {nil, nil}, "by-kubectl": {&yes, nil}, "by-us": {&yes, user}, "by-restore": {&yes, restore}, "by-both": {&yes, both},
		"past-us": {&no, user}, "past-restore": {&no, restore},
	}
	ask := func(c *Client, plan bool, suspend bool) ([]string, []CronJob) {
		t.Helper()
		var names []string
		var after []CronJob
		var err error
		switch {
		case plan && suspend:
			names, after, err = c.PlanSuspend(t.Context(), "mysql", SuspendUser)
		case plan:
			names, after, err = c.PlanResume(t.Context(), "mysql", SuspendUser)
		case suspend:
			names, err = c.SuspendBackups(t.Context(), "mysql", SuspendUser)
		default:
			names, err = c.ResumeBackups(t.Context(), "mysql", SuspendUser)
		}
		require.NoError(t, err)
		if !plan {
			after, err = c.BackupCronJobs(t.Context(), "mysql")
			require.NoError(t, err)
		}
		return names, after
	}
	for _, suspend := range []bool{true, false} {
		kube := fake.NewClientset()
		for name, o := range objects {
			_, err := kube.BatchV1().CronJobs("mysql").Create(t.Context(), &batchv1.CronJob{
				ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "mysql", Labels: map[string]string{LabelSet: "mysql"}, Annotations: o.annotations},
				Spec:       batchv1.CronJobSpec{Suspend: o.suspend},
			}, metav1.CreateOptions{})
			require.NoError(t, err)
		}
		c := New(kube, "mysql", nil)
		before, err := c.BackupCronJobs(t.Context(), "mysql")
		require.NoError(t, err)
		planned, then := ask(c, true, suspend)
		untouched, err := c.BackupCronJobs(t.Context(), "mysql")
		require.NoError(t, err)
		require.Equal(t, before, untouched)
		names, after := ask(c, false, suspend)
		require.ElementsMatch(t, names, planned)
		require.ElementsMatch(t, after, then)
		if !suspend {
			require.ElementsMatch(t, []string{"by-us", "by-both", "past-us"}, names)
		}
	}
}
