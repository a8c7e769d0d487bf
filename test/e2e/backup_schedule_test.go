package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A CronJob backs up three replicas every minute. A slow run is not joined by
// a second one; kubectl suspends and resumes; a Job by hand works beside it.
func TestProof1Schedule(t *testing.T) {
	t.Parallel()
	s := newShopSet(t, shopOptions{policy: "Parallel", patches: []string{`
apiVersion: batch/v1
kind: CronJob
metadata: {name: keepset-backup}
spec: {schedule: "* * * * *", successfulJobsHistoryLimit: 20}
`, `
apiVersion: v1
kind: ConfigMap
metadata: {name: keepset-backup}
data: {KEEPSET_LOCK_TIMEOUT: 5m}
`}})
	complete := func() int {
		n := 0
		for _, b := range s.backups() {
			if b.Status == "complete" && b.Committed == 3 {
				n++
			}
		}
		return n
	}
	s.until(4*time.Minute, "the first scheduled backup completes", func() bool { return complete() >= 1 })

	// Another backup tool at work on the primary makes the next run slow.
	conn, err := s.db(0).Conn(t.Context())
	require.NoError(t, err)
	_, err = conn.ExecContext(t.Context(), "BACKUP STAGE START")
	require.NoError(t, err)
	locked := time.Now()
	var slow []string
	s.until(3*time.Minute, "a run is held up by the lock", func() bool {
		slow = s.unfinished()
		return len(slow) == 1 && s.jobCreated(slow[0]).After(locked) && time.Since(s.jobCreated(slow[0])) > 10*time.Second
	})
	started := s.jobCreated(slow[0])
	s.until(90*time.Second, "the next tick passes", func() bool {
		require.Equal(t, slow, s.unfinished(), "the slow run ended, or was joined by a second one")
		return time.Now().After(started.Truncate(time.Minute).Add(65 * time.Second))
	})
	_, err = conn.ExecContext(t.Context(), "BACKUP STAGE END")
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	require.True(t, s.waitJob(slow[0], time.Minute), s.logs(slow[0]))

	s.kubectl("patch", "cronjob", "keepset-backup", "-p", `{"spec":{"suspend":true}}`)
	s.until(time.Minute, "what was running ends", func() bool { return len(s.unfinished()) == 0 })
	s.order("by hand", manyOrders)
	for i := range 3 {
		s.caughtUp(i)
	}
	s.jobOK("keepset-backup", "by-hand")
	s.storedOnce("by-hand")
	jobs := s.kubectl("get", "jobs", "-o", "name")
	next := time.Now().Truncate(time.Minute).Add(63 * time.Second)
	s.until(90*time.Second, "a tick passes while suspended", func() bool { return time.Now().After(next) })
	require.Equal(t, jobs, s.kubectl("get", "jobs", "-o", "name"), "a suspended CronJob fired")
	before := complete()
	s.kubectl("patch", "cronjob", "keepset-backup", "-p", `{"spec":{"suspend":false}}`)
	s.until(90*time.Second, "resuming fires at once or at the next tick", func() bool { return complete() > before })

	all := s.backups()
	for _, b := range all {
		assert.Equal(t, "complete", b.Status, "%s: %v", b.Backup, b.Problems)
	}
	first := all[len(all)-1]
	t.Logf("scheduled and by hand: %d backups; the first:\n%s", len(all), s.bytesOf(string(first.Backup)))
}

// storedOnce: of what the replicas have in common, which is nearly everything,
// a Job's backup stored one copy.
func (s *shopSet) storedOnce(job string) {
	s.t.Helper()
	b := s.backups()[0]
	require.Equal(s.t, s.backupID(job), b.Backup)
	require.Len(s.t, b.Members, 3)
	var total int64
	for _, m := range b.Members {
		s.t.Logf("measured: ordinal %d: %d bytes of dump, %d stored", m.Ordinal, m.Bytes, m.Stored)
		assert.Greater(s.t, m.Bytes, int64(manyOrders)*128, "every replica is read in full")
		total += m.Stored
	}
	// They are dumped beside each other, so that two may share the work of one
	// copy. A row's hashes do not compress below 64 bytes.
	const copied = int64(manyOrders) * 64
	assert.Greater(s.t, total, copied, "one copy")
	assert.Less(s.t, total, copied*3/2, "and almost nothing beside it")
}
