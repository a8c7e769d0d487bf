package statefulset

import (
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/kubernetes/fake"
)

// A restore that waits for running backups lets them commit; once it begins it
// does not, whatever has become of it since. None begins meanwhile.
func TestARestoreThatWaitsLetsBackupsCommit(t *testing.T) {
	c := New(fake.NewClientset(), "mysql", nil)
	before, err := c.CheckFree(t.Context(), "db")
	require.NoError(t, err)
	hold, err := c.Acquire(t.Context(), "db", Run{ID: "run-1", PodUID: "pod-1"}, LeaseOptions{Waiting: true})
	require.NoError(t, err)
	require.NoError(t, c.CheckUnchanged(t.Context(), "db", before))
	_, err = c.CheckFree(t.Context(), "db")
	require.ErrorIs(t, err, ErrBusy)
	require.NoError(t, hold.Begin(t.Context()))
	require.ErrorIs(t, c.CheckUnchanged(t.Context(), "db", before), ErrBusy)
	require.NoError(t, hold.Release(t.Context()))
	require.ErrorIs(t, c.CheckUnchanged(t.Context(), "db", before), ErrBusy)

	// The next one waits, too; the first has changed the set.
	hold, err = c.Acquire(t.Context(), "db", Run{ID: "run-2", PodUID: "pod-2"}, LeaseOptions{Waiting: true})
	require.NoError(t, err)
	require.ErrorIs(t, c.CheckUnchanged(t.Context(), "db", before), ErrBusy)
	require.NoError(t, hold.Release(t.Context()))

	// One that gave up while it waited has changed nothing.
	before, err = c.CheckFree(t.Context(), "db")
	require.NoError(t, err)
	hold, err = c.Acquire(t.Context(), "db", Run{ID: "run-3", PodUID: "pod-3"}, LeaseOptions{Waiting: true})
	require.NoError(t, err)
	require.NoError(t, hold.Release(t.Context()))
	require.NoError(t, c.CheckUnchanged(t.Context(), "db", before))

	// What does not say that it waits does not.
	hold, err = c.Acquire(t.Context(), "db", Run{ID: "run-4", PodUID: "pod-4"}, LeaseOptions{})
	require.NoError(t, err)
	require.ErrorIs(t, c.CheckUnchanged(t.Context(), "db", before), ErrBusy)
	require.NoError(t, hold.Begin(t.Context()))
	require.NoError(t, hold.Release(t.Context()))
	require.ErrorIs(t, hold.Begin(t.Context()), ErrLeaseLost)
}
