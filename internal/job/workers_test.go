package job_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/filetree/filetreetest"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/statefulset"
)

// TestWorkerOfAPlan: workers of one stored plan, each with its own member, make one
// backup; and a worker whose plan is gone makes none.
func TestWorkerOfAPlan(t *testing.T) {
	w := newWorld(t)
	roots := []string{plant(t, 11, 50), plant(t, 12, 70)}
	whole := w.files(roots...)
	worker := func(ordinal int, dir string) *job.Backup {
		b := w.files()
		b.ID = whole.ID
		b.WorkFor(ordinal, dir)
		return b
	}
	_, err := worker(1, roots[1]).Run(t.Context())
	require.ErrorIs(t, err, repository.ErrNoBackup)
	require.Empty(t, w.list(), "a plan of one member would look like a whole backup")

	// The run stores the plan of both, and is killed.
	ctx, cancel := context.WithCancel(t.Context())
	discover := whole.Discover
	whole.Discover = func(ctx context.Context) (job.Inventory, error) {
		inv, err := discover(ctx)
		for i := range inv.Members {
			inv.Members[i].Problem = context.Canceled
		}
		return inv, err
	}
	_, err = whole.Run(ctx)
	cancel()
	require.ErrorIs(t, err, job.ErrFailed)
	_, err = worker(7, roots[0]).Run(t.Context())
	require.ErrorIs(t, err, job.ErrConfig)

	report, err := worker(1, roots[1]).Run(t.Context())
	require.NoError(t, err)
	require.True(t, report.Partial())
	require.Equal(t, 1, report.Members[0].Ordinal)
	require.Equal(t, repository.StatusIncomplete, w.list()[0].Status)
	_, err = worker(0, roots[0]).Run(t.Context())
	require.NoError(t, err)
	info := w.list()[0]
	require.Equal(t, repository.StatusComplete, info.Status)
	require.Equal(t, record.MethodFiles, info.Plan.Method)
	filetreetest.RequireSame(t, filetreetest.Lines(t, roots[0]), w.restoreFiles(t))
}

// TestWorkerError: what has not been committed is a failure however the worker
// ended, and what another try would not mend is not tried again.
func TestWorkerError(t *testing.T) {
	require.ErrorContains(t, job.WorkerError(statefulset.JobResult{Succeeded: true, Message: "all is well\n"}), "did not commit the member: all is well")
	require.ErrorContains(t, job.WorkerError(statefulset.JobResult{ExitCode: 137, Reason: "BackoffLimitExceeded"}), "exit code 137: its pod left no message (BackoffLimitExceeded)")
	require.ErrorIs(t, job.WorkerError(statefulset.JobResult{ExitCode: 5, Message: "held"}), job.ErrBusy)
	require.ErrorIs(t, job.WorkerError(statefulset.JobResult{ExitCode: 64}), job.ErrConfig)
}
