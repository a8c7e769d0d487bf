package cli

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/job"
	"keepset/internal/statefulset"
)

// TestLineWriter: a line comes whole, whoever writes beside it.
func TestLineWriter(t *testing.T) {
	var out bytes.Buffer
	w := &lineWriter{to: &out}
	for _, part := range []string{"one\ntw", "o\nthr", "ee"} {
		n, err := w.Write([]byte(part))
		require.NoError(t, err)
		require.Equal(t, len(part), n)
		require.True(t, out.Len() == 0 || out.Bytes()[out.Len()-1] == '\n')
	}
	require.Equal(t, "one\ntwo\n", out.String())
}

// TestWorkerFlags: who is root is no other user besides.
func TestWorkerFlags(t *testing.T) {
	f := WorkerFlags{UID: 33, GID: 34}
	spec, err := f.spec("data")
	require.NoError(t, err)
	require.Equal(t, statefulset.WorkerSpec{Template: "data", UID: 33, GID: 34}, spec)
	f = WorkerFlags{FromSnapshot: true, Class: "fast"}
	spec, err = f.spec("data")
	require.NoError(t, err)
	require.Equal(t, statefulset.WorkerSpec{Template: "data", Temporary: true, Class: "fast"}, spec)
	for _, wrong := range []WorkerFlags{{UID: -1}, {GID: -1}, {Root: true, UID: 33}, {Root: true, GID: 33}, {Class: "fast"}} {
		_, err := wrong.spec("")
		require.Error(t, err)
	}
}

// TestWorkerIsToldOfASnapshot: a worker knows of which moment its files are, to the
// nanosecond, and does not guess.
func TestWorkerIsToldOfASnapshot(t *testing.T) {
	told := job.FromSnapshot{Name: "keepset-1", CutAt: time.Date(2026, 11, 28, 9, 0, 0, 123456789, time.UTC)}
	env := workerEnv("20261128T090000Z-0000", 3, &told)
	require.Equal(t, "3", env[envWorker])
	a := &App{Environ: func() (list []string) {
		for k, v := range env {
			list = append(list, k+"="+v)
		}
		return list
	}}
	got, err := toldSnapshot(a)
	require.NoError(t, err)
	require.Equal(t, &told, got)
	env[envWorkerCutAt] = "yesterday"
	_, err = toldSnapshot(a)
	require.ErrorContains(t, err, "KEEPSET_WORKER_CUT_AT")
	env = workerEnv("20261128T090000Z-0000", 3, nil)
	got, err = toldSnapshot(a)
	require.NoError(t, err)
	require.Nil(t, got)
}
