package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/statefulset"
)

// What stays suspended is not called resumed.
func TestResumeSaysWhatStaysSuspended(t *testing.T) {
	running, still := resumed([]string{"a", "b"}, []statefulset.CronJob{
		{Name: "a"}, {Name: "b", Suspended: true, SuspendedByRestore: "run-1"}, {Name: "c", Suspended: true},
	})
	require.Equal(t, []string{"a"}, running)
	var out bytes.Buffer
	require.NoError(t, printSwitched(&out, "resume", running, still, false))
	require.Contains(t, out.String(), "cronjob a resumed\n")
	require.Contains(t, out.String(), "cronjob b stays suspended, by restore run run-1")
	require.Contains(t, out.String(), "cronjob c stays suspended, not by Keepset")
	require.NotContains(t, out.String(), "cronjob b resumed")
}
