package e2e

import (
	"database/sql/driver"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/cli"
)

// Five replicas over three pods make one complete backup. A member that cannot
// be reached leaves the backup incomplete, and the others committed. So do
// members that are scaled away in the middle of a run.
func TestProof7FanOut(t *testing.T) {
	t.Parallel()
	s := newShopSet(t, shopOptions{replicas: 5, policy: "Parallel", component: "fan-out", patches: []string{`
apiVersion: batch/v1
kind: CronJob
metadata: {name: keepset-backup}
spec: {jobTemplate: {spec: {backoffLimitPerIndex: 1}}}
`, `
apiVersion: v1
kind: ConfigMap
metadata: {name: keepset-backup}
data: {KEEPSET_LOCK_TIMEOUT: 5m}
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

	s.scaledInTheMiddle()
}

// scaledInTheMiddle scales the set, five to three to six, while a run waits for
// locks: the plan that it stored at its beginning counts, for all of its pods and
// their retries.
func (s *shopSet) scaledInTheMiddle() {
	s.t.Helper()
	unlock, gone := s.locked(0), s.locked(3, 4)
	s.jobFrom("keepset-backup", "shrunk")
	s.until(2*time.Minute, "the run has stored its plan", func() bool { return len(s.backups()) == 3 })
	s.kubectl("scale", "statefulset", "mysql", "--replicas=3")
	s.until(2*time.Minute, "the last two are gone", func() bool { return s.pod("mysql-3") == nil && s.pod("mysql-4") == nil })
	gone()
	// Pod i of three takes the members i and i+3: the one of 1 and 4, which holds no lock any more, ends with one of its two.
	s.until(4*time.Minute, "the pod of members 1 and 4 has given up", func() bool {
		return s.kubectl("get", "job", "shrunk", "-o", "jsonpath={.status.failedIndexes}") == "1"
	})
	s.kubectl("scale", "statefulset", "mysql", "--replicas=6")
	s.waitReady(5)
	s.until(time.Minute, "mysql-5 is there, although nobody has filled it", func() bool { return s.pod("mysql-5") != nil })
	unlock()
	assert.False(s.t, s.waitJob("shrunk", 6*time.Minute), s.logs("shrunk"))
	b := s.backups()[0]
	assert.Equal(s.t, s.backupID("shrunk"), b.Backup)
	assert.Equal(s.t, "incomplete", b.Status, "member 4 was away, although it is back by now: %v", b.Problems)
	assert.Equal(s.t, 5, b.Planned)
	// Member 3 was back when its turn came; who came later than the plan is not of this backup.
	assert.Equal(s.t, map[int]string{0: "complete", 1: "complete", 2: "complete", 3: "complete", 4: "missing"}, statuses(b))
	assert.Equal(s.t, "0,2 1", s.kubectl("get", "job", "shrunk", "-o", "jsonpath={.status.completedIndexes} {.status.failedIndexes}"))
	assert.Contains(s.t, s.logs("shrunk"), "mysql-4")
}

// locked keeps backups of these ordinals waiting, as another backup tool at
// work there does.
func (s *shopSet) locked(ordinals ...int) (unlock func()) {
	s.t.Helper()
	var unlocks []func()
	for _, ordinal := range ordinals {
		conn, err := s.db(ordinal).Conn(s.t.Context())
		require.NoError(s.t, err)
		_, err = conn.ExecContext(s.t.Context(), "BACKUP STAGE START")
		require.NoError(s.t, err, "ordinal %d", ordinal)
		// The lock goes with the session, and that with its server.
		unlocks = append(unlocks, func() { _ = conn.Raw(func(any) error { return driver.ErrBadConn }) })
	}
	return func() {
		for _, u := range unlocks {
			u()
		}
	}
}

// statuses are those of a backup's members, by ordinal.
func statuses(b cli.BackupSummary) map[int]string {
	found := map[int]string{}
	for _, m := range b.Members {
		found[m.Ordinal] = m.Status
	}
	return found
}
