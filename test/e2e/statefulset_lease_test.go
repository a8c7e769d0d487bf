package e2e

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/statefulset"
)

// leases is a namespace with the Roles and no set at all.
func leases(t *testing.T) *simulation {
	t.Helper()
	s := &simulation{cluster: newCluster(t)}
	s.applyRoles("db")
	s.client = s.clientOf(s.as("keepset-restore"))
	return s
}

func TestLeaseHasOneWinner(t *testing.T) {
	t.Parallel()
	s := leases(t)
	backup := s.clientOf(s.as("keepset-backup"))
	before, err := backup.CheckFree(t.Context(), "db")
	require.NoError(t, err)

	const contenders = 8
	holds := make([]*statefulset.Hold, contenders)
	errs := make([]error, contenders)
	var group sync.WaitGroup
	for i := range contenders {
		group.Go(func() {
			holds[i], errs[i] = s.client.Acquire(t.Context(), "db", runOf("run-"+string(rune('a'+i))), statefulset.LeaseOptions{})
		})
	}
	group.Wait()
	var winner *statefulset.Hold
	for i := range contenders {
		if errs[i] == nil {
			require.Nil(t, winner, "two winners")
			winner = holds[i]
			continue
		}
		require.ErrorIs(t, errs[i], statefulset.ErrBusy)
	}
	require.NotNil(t, winner)
	require.NoError(t, winner.Check(t.Context()))

	_, err = backup.CheckFree(t.Context(), "db")
	require.ErrorIs(t, err, statefulset.ErrBusy, "a backup does not start while a restore runs")
	require.NoError(t, winner.Release(t.Context()))
	_, err = backup.CheckFree(t.Context(), "db")
	require.NoError(t, err)
	require.ErrorIs(t, backup.CheckUnchanged(t.Context(), "db", before), statefulset.ErrBusy, "a backup that a restore ran through is not committed")
}

// A killed holder keeps the set busy for no longer than the Lease's duration,
// and what is left of it can no longer change anything.
func TestLeaseOfKilledHolderExpires(t *testing.T) {
	t.Parallel()
	s := leases(t)
	const duration = 3 * time.Second
	client, left := s.killedAfter(1, false)
	dead, err := client.Acquire(t.Context(), "db", runOf("run-a"), statefulset.LeaseOptions{Duration: duration})
	require.NoError(t, err)
	left.Store(-1)
	_, err = s.client.Acquire(t.Context(), "db", runOf("run-b"), statefulset.LeaseOptions{Duration: duration})
	require.ErrorIs(t, err, statefulset.ErrBusy, "it may still be alive")
	select {
	case <-dead.Lost():
	case <-time.After(duration):
		t.Fatal("a holder that cannot renew must notice before others may take the lease")
	}
	require.ErrorIs(t, dead.Check(t.Context()), statefulset.ErrLeaseLost)
	heir, err := s.client.Acquire(t.Context(), "db", runOf("run-b"), statefulset.LeaseOptions{Duration: duration, Wait: time.Minute})
	require.NoError(t, err)
	require.Equal(t, dead.Token()+1, heir.Token())
	require.NoError(t, heir.Check(t.Context()))
	time.Sleep(2 * duration)
	require.NoError(t, heir.Check(t.Context()), "a living holder renews")
	require.NoError(t, heir.Release(t.Context()))
}

// A retried pod of the same Job waits for what its predecessor left.
func TestLeaseIsInheritedWithinARun(t *testing.T) {
	t.Parallel()
	s := leases(t)
	client, left := s.killedAfter(100, false)
	_, err := client.Acquire(t.Context(), "db", runOf("run-a"), statefulset.LeaseOptions{Duration: 2 * time.Second})
	require.NoError(t, err)
	left.Store(-1)
	next := runOf("run-a")
	next.PodUID = "the retried pod"
	hold, err := s.client.Acquire(t.Context(), "db", next, statefulset.LeaseOptions{Duration: 2 * time.Second})
	require.NoError(t, err)
	require.NoError(t, hold.Release(t.Context()))
}

func TestPlanIsFrozen(t *testing.T) {
	t.Parallel()
	s := leases(t)
	stored, existed, err := s.client.FreezePlan(t.Context(), "db", runOf("run-a"), []byte(`{"backup":"1"}`))
	require.NoError(t, err)
	require.False(t, existed)
	require.JSONEq(t, `{"backup":"1"}`, string(stored))
	stored, existed, err = s.client.FreezePlan(t.Context(), "db", runOf("run-a"), []byte(`{"backup":"2"}`))
	require.NoError(t, err)
	require.True(t, existed)
	require.JSONEq(t, `{"backup":"1"}`, string(stored), "whatever has changed since")
	_, existed, err = s.client.FrozenPlan(t.Context(), runOf("run-b"))
	require.NoError(t, err)
	require.False(t, existed)
	big, _ := json.Marshal(make([]int, 200<<10))
	_, _, err = s.client.FreezePlan(t.Context(), "db", runOf("run-c"), big)
	require.ErrorContains(t, err, "restore fewer ordinals at a time")
}

const cronJob = `
apiVersion: batch/v1
kind: CronJob
metadata:
  name: %NAME%
  labels: {keepset/set: %SET%, app.kubernetes.io/component: %COMPONENT%}
spec:
  schedule: "0 0 31 2 *"
  suspend: %SUSPEND%
  jobTemplate:
    metadata: {labels: {keepset/set: %SET%, app.kubernetes.io/component: %COMPONENT%}}
    spec:
      template:
        spec:
          restartPolicy: Never
          terminationGracePeriodSeconds: 0
          containers: [{name: keepset, image: "keepset-test/mariadb:10.11", imagePullPolicy: Never, command: [sleep, "8"]}]
`

func (c *cluster) cronJob(name, set, component, suspend string) {
	c.t.Helper()
	text := cronJob
	for k, v := range map[string]string{"%NAME%": name, "%SET%": set, "%COMPONENT%": component, "%SUSPEND%": suspend} {
		text = replaceAll(text, k, v)
	}
	c.apply(text)
}

// A restore suspends the set's own CronJobs and resumes exactly those, even if
// another run has to do it; backups made by hand are waited for as well.
func TestCronJobsAreSuspendedAndResumed(t *testing.T) {
	t.Parallel()
	s := leases(t)
	s.cronJob("keepset-backup", "db", "backup", "false")
	s.cronJob("by-the-user", "db", "backup", "true")
	s.cronJob("other", "other-set", "backup", "false")
	s.cronJob("keepset-restore", "db", "restore", "false")
	suspended := func() string {
		return s.kubectl("get", "cronjobs", "-o", `jsonpath={range .items[?(@.spec.suspend==true)]}{.metadata.name} {end}`)
	}
	s.kubectl("create", "job", "by-hand", "--from=cronjob/keepset-backup")
	names, err := s.client.SuspendBackups(t.Context(), "db", "run-a")
	require.NoError(t, err)
	require.Equal(t, []string{"keepset-backup"}, names)
	require.Equal(t, "by-the-user keepset-backup", suspended())
	managers := s.kubectl("get", "cronjob", "keepset-backup", "--show-managed-fields", "-o", "jsonpath={.metadata.managedFields[*].manager}")
	require.Contains(t, managers, "keepset", "the change is attributed to us")

	s.until(time.Minute, "the job has a pod", func() bool { return s.kubectl("get", "job", "by-hand", "-o", "jsonpath={.status.active}") == "1" })
	require.ErrorIs(t, s.client.WaitBackups(t.Context(), "db", time.Millisecond), statefulset.ErrTimeout)
	require.NoError(t, s.client.WaitBackups(t.Context(), "db", time.Minute), "the job by hand ends")

	// The run dies; another one takes over what it has suspended.
	names, err = s.client.SuspendBackups(t.Context(), "db", "run-b")
	require.NoError(t, err)
	require.Equal(t, []string{"keepset-backup"}, names)
	names, err = s.client.ResumeBackups(t.Context(), "db", "run-a")
	require.NoError(t, err)
	require.Empty(t, names, "it belongs to run-b now")
	names, err = s.client.ResumeBackups(t.Context(), "db", "run-b")
	require.NoError(t, err)
	require.Equal(t, []string{"keepset-backup"}, names)
	require.Equal(t, "by-the-user", suspended())

	// `backup suspend` during a restore outlives the restore.
	user := s.clientOf(s.config)
	_, err = s.client.SuspendBackups(t.Context(), "db", "run-c")
	require.NoError(t, err)
	_, err = user.SuspendBackups(t.Context(), "db", statefulset.SuspendUser)
	require.NoError(t, err)
	_, err = s.client.ResumeBackups(t.Context(), "db", "run-c")
	require.NoError(t, err)
	require.Equal(t, "by-the-user keepset-backup", suspended())
	_, err = user.ResumeBackups(t.Context(), "db", statefulset.SuspendUser)
	require.NoError(t, err)
	require.Equal(t, "by-the-user", suspended())
}

// Each denial names the rule, who lacks it, and the file to look into.
func TestDenialsNameTheRule(t *testing.T) {
	t.Parallel()
	s := newSimulation(t, 1, "OrderedReady")
	backup := s.clientOf(s.as("keepset-backup"))
	set, err := backup.Discover(t.Context(), "db", statefulset.DiscoverOptions{DefaultPort: 3306})
	require.NoError(t, err, "the backup's Role is enough to discover")
	require.Empty(t, set.Problems)
	require.NoError(t, backup.Event(t.Context(), set, false, "BackupComplete", "a test was here"))
	require.Contains(t, s.kubectl("describe", "statefulset", "db"), "a test was here")

	for what, call := range map[string]func(context.Context) error{
		"patch statefulsets.apps": func(ctx context.Context) error { return backup.ScaleTo(ctx, "db", 2) },
		"list cronjobs.batch": func(ctx context.Context) error {
			_, err := backup.SuspendBackups(ctx, "db", "run")
			return err
		},
		"create leases.coordination.k8s.io": func(ctx context.Context) error {
			_, err := backup.Acquire(ctx, "db", runOf("run"), statefulset.LeaseOptions{})
			return err
		},
	} {
		err := call(t.Context())
		require.ErrorIs(t, err, statefulset.ErrForbidden, what)
		require.ErrorContains(t, err, "service account "+s.ns+"/keepset-backup may not")
		require.ErrorContains(t, err, "deploy/cronjob/base/rbac-backup.yaml")
	}
	_, err = s.client.Discover(t.Context(), "bd", statefulset.DiscoverOptions{})
	require.ErrorIs(t, err, statefulset.ErrNotFound)
	require.ErrorContains(t, err, "has db")
	_, err = s.kube.AppsV1().StatefulSets(s.ns).List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
}
