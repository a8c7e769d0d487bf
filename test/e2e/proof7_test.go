package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/cli"
)

// Five replicas over three pods make one complete backup. A member that cannot
// be reached leaves the backup incomplete, and the others committed.
func TestProof7FanOut(t *testing.T) {
	t.Parallel()
	s := newShopSet(t, shopOptions{replicas: 5, policy: "Parallel", component: "fan-out", patches: []string{`
apiVersion: batch/v1
kind: CronJob
metadata: {name: keepset-backup}
spec: {jobTemplate: {spec: {backoffLimitPerIndex: 1}}}
`}})
	s.jobOK("keepset-backup", "all")
	all := s.backups()
	require.Len(t, all, 1, "one backup, not three")
	assert.Equal(t, "complete", all[0].Status)
	assert.Equal(t, 5, all[0].Committed)
	assert.Equal(t, "0-2", s.kubectl("get", "job", "all", "-o", "jsonpath={.status.completedIndexes}"))

	// Ordinal 3 goes, and its name does not come back while a finalizer holds it.
	s.kubectl("patch", "pod", "mysql-3", "--type=merge", "-p", `{"metadata":{"finalizers":["example.com/stuck"]}}`)
	s.kubectl("delete", "pod", "mysql-3", "--wait=false", "--grace-period=1")
	s.until(time.Minute, "mysql-3 is down", func() bool { return s.pod("mysql-3").DeletionTimestamp != nil && !podReady(s.pod("mysql-3")) })
	s.jobFrom("keepset-backup", "one-missing")
	assert.False(t, s.waitJob("one-missing", 5*time.Minute), s.logs("one-missing"))
	newest := s.backups()[0]
	assert.Equal(t, "incomplete", newest.Status)
	assert.Equal(t, 4, newest.Committed, "one member harms no other: %v", newest.Problems)
	assert.Contains(t, s.logs("one-missing"), "mysql-3")
	assert.Equal(t, "complete", s.backups()[1].Status, "earlier backups are untouched")
	show := s.host().run("restore", "plan", "--set", "mysql", "--backup", string(newest.Backup), "--replicas", "6", "--repository", s.repository, "--target-user", "root")
	assert.Equal(t, cli.ExitUsage, show.code, "an incomplete backup needs consent: %s", show.stderr)
	s.kubectl("patch", "pod", "mysql-3", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	s.waitReady(5)

	// The set is scaled in the middle of a run: the stored plan counts, so that
	// the pods agree on who takes whom, and what is listed is what is there.
	s.jobFrom("keepset-backup", "scaled")
	s.until(2*time.Minute, "the run has stored its plan", func() bool { return len(s.backups()) == 3 })
	s.kubectl("scale", "statefulset", "mysql", "--replicas=3")
	s.kubectl("scale", "statefulset", "mysql", "--replicas=6")
	succeeded := s.waitJob("scaled", 6*time.Minute)
	newest = s.backups()[0]
	assert.Equal(t, 5, newest.Planned, "the plan is that of the beginning")
	assert.Equal(t, succeeded, newest.Status == "complete", "%s with %d members: %s", newest.Status, newest.Committed, s.logs("scaled"))
	assert.Equal(t, newest.Status == "complete", newest.Committed == 5)
	for _, m := range newest.Members {
		assert.Less(t, m.Ordinal, 5)
	}
}
