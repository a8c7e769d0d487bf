package statefulset

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// The plan of a run outside of a Job goes with the run; that of a Job stays
// for its retries, and goes with the Job.
func TestForgetPlan(t *testing.T) {
	kube := fake.NewClientset()
	c := New(kube, "mysql", nil)
	stored := func(run Run) bool {
		_, err := kube.CoordinationV1().Leases("mysql").Get(t.Context(), planName(run.ID), metav1.GetOptions{})
		require.True(t, err == nil || apierrors.IsNotFound(err), err)
		return err == nil
	}
	local, job := Run{ID: "local", Local: true}, Run{ID: "uid", JobName: "restore-1", JobUID: "uid"}
	for _, run := range []Run{local, job} {
		_, _, err := c.FreezePlan(t.Context(), "mysql", run, []byte("{}"))
		require.NoError(t, err)
		require.NoError(t, c.ForgetPlan(t.Context(), run))
	}
	require.False(t, stored(local))
	require.True(t, stored(job))
	require.NoError(t, c.ForgetPlan(t.Context(), local), "it may be gone already")
}

// A run outside of a Job that was killed before it had touched anything but the
// Lease is known by the Lease alone, which Abort takes over.
func TestAbortFindsThePlanOfTheLeasesLastHolder(t *testing.T) {
	kube := fake.NewClientset(&appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "mysql", Namespace: "mysql"}})
	c := New(kube, "mysql", nil)
	c.poll = time.Millisecond
	ctx, kill := context.WithCancel(t.Context())
	dead := Run{ID: "dead", PodUID: "p", Local: true}
	hold, err := c.Acquire(ctx, "mysql", dead, LeaseOptions{Duration: time.Second})
	require.NoError(t, err)
	_, _, err = c.FreezePlan(t.Context(), "mysql", dead, []byte("{}"))
	require.NoError(t, err)
	kill()
	hold.stop()
	hold.done.Wait()

	run := Run{ID: "abort", PodUID: "q", Local: true}
	var dry []string
	require.Eventually(t, func() bool {
		dry, err = c.Abort(t.Context(), "mysql", run, AbortOptions{DryRun: true})
		return err == nil
	}, 10*time.Second, 50*time.Millisecond, "the Lease expires")
	require.Equal(t, []string{"delete the stored plan of run dead"}, dry)
	steps, err := c.Abort(t.Context(), "mysql", run, AbortOptions{Wait: time.Minute})
	require.NoError(t, err)
	require.Equal(t, dry, steps, "it does what it said")
	_, err = kube.CoordinationV1().Leases("mysql").Get(t.Context(), planName("dead"), metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err), err)
}
