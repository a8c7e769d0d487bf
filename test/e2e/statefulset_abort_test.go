package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/statefulset"
)

func replaceAll(s, old, by string) string { return strings.ReplaceAll(s, old, by) }

// Whatever a dead restore has left is shown and cleaned up, and no ordinal
// that the set asks for is let go half loaded.
func TestAbortCleansUp(t *testing.T) {
	t.Parallel()
	s := newSimulation(t, 2, "Parallel")
	s.cronJob("keepset-backup", "db", "backup", "false")
	left, err := s.client.Leftovers(t.Context(), "db")
	require.NoError(t, err)
	require.True(t, left.Empty())

	// A restore dies with everything in the air: ordinal 1 being recovered,
	// ordinal 2 loaded but not released, ordinal 3 half loaded.
	const duration = 3 * time.Second
	client, alive := s.killedAfter(1000, false)
	_, err = client.Acquire(t.Context(), "db", runOf("run-a"), statefulset.LeaseOptions{Duration: duration})
	require.NoError(t, err)
	_, err = client.SuspendBackups(t.Context(), "db", "run-a")
	require.NoError(t, err)
	_, _, err = client.FreezePlan(t.Context(), "db", runOf("run-a"), []byte("{}"))
	require.NoError(t, err)
	require.NoError(t, s.seed(client, 1, "run-a", fillWhenOld, true).Place(t.Context()))
	loaded := s.seed(client, 2, "run-a", fillAtOnce, false)
	require.NoError(t, loaded.Place(t.Context()))
	require.NoError(t, loaded.WaitExit(t.Context()))
	require.NoError(t, loaded.MarkLoaded(t.Context(), "backup-1"))
	require.NoError(t, s.seed(client, 3, "run-a", fillWhenOld, false).Place(t.Context()))

	_, err = s.client.Abort(t.Context(), "db", runOf("abort"), statefulset.AbortOptions{})
	require.ErrorIs(t, err, statefulset.ErrBusy, "a restore that is alive is not aborted")
	alive.Store(-1)

	left, err = s.client.Leftovers(t.Context(), "db")
	require.NoError(t, err)
	require.Len(t, left.Seeds, 3)
	require.Equal(t, "backup-1", left.Seeds[1].LoadedBackup)
	require.Len(t, left.Claims, 2, "those of 1 and 3 are half loaded")
	require.Equal(t, "run-a", left.CronJobs[0].SuspendedByRestore)
	require.Equal(t, "run-a", left.Runs[0].ID)

	// The restore's own Role cannot delete a stored plan; a person can.
	person := s.clientOf(s.config)
	guard := s.watch("db-1")
	steps, err := person.Abort(t.Context(), "db", runOf("abort"), statefulset.AbortOptions{Wait: time.Minute, Timeout: time.Minute})
	require.ErrorIs(t, err, statefulset.ErrHeld)
	require.ErrorContains(t, err, "ordinal 1 of statefulset")
	t.Log(strings.Join(steps, "\n"))
	require.Contains(t, steps, "release seed pod db-2, which is loaded with backup backup-1")
	require.Contains(t, steps, "delete half-loaded claim data-db-3")
	require.Contains(t, steps, "resume cronjob keepset-backup")
	require.Empty(t, guard.seen())
	left, err = s.client.Leftovers(t.Context(), "db")
	require.NoError(t, err)
	require.Len(t, left.Seeds, 1)
	require.Equal(t, 1, left.Seeds[0].Ordinal)
	require.Empty(t, left.CronJobs)

	// Restoring it again is the way out; consenting to an empty replica another.
	dry, err := person.Abort(t.Context(), "db", runOf("abort"), statefulset.AbortOptions{ReleaseEmpty: true, DryRun: true})
	require.NoError(t, err)
	require.Contains(t, dry, "delete half-loaded claim data-db-1")
	require.NotNil(t, s.pod("db-1"))
	_, err = person.Abort(t.Context(), "db", runOf("abort"), statefulset.AbortOptions{ReleaseEmpty: true, Timeout: time.Minute})
	require.NoError(t, err)
	s.until(time.Minute, "db-1 comes up empty, as consented", func() bool { return ready(s.pod("db-1")) })
	require.Equal(t, "born-empty", s.kubectl("exec", "db-1", "--", "ls", "/data"))
	left, err = s.client.Leftovers(t.Context(), "db")
	require.NoError(t, err)
	require.True(t, left.Empty(), "%+v", left)

	s.kubectl("scale", "statefulset", "db", "--replicas=3")
	s.requireFilled(2)
}
