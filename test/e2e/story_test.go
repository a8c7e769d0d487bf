package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestStory is what a user does first: a backup from the CronJob, one more
// replica seeded from it by a Job, and a replica recovered whose volume is lost,
// by a command that makes the Job.
func TestStory(t *testing.T) {
	t.Parallel()
	s := newShopSet(t, shopOptions{})
	s.jobOK("keepset-backup", "backup-1")
	all := s.backups()
	require.Len(t, all, 1)
	assert.Equal(t, "complete", all[0].Status)
	assert.Equal(t, 3, all[0].Committed)

	// 3 -> 4: rows written after the backup arrive on the seeded follower.
	s.order("second", 500)
	s.parameters(map[string]string{"KEEPSET_REPLICAS": "4"})
	s.jobOK("keepset-restore", "scale-up")
	s.waitReady(4)
	s.caughtUp(3)
	assert.Equal(t, s.sum(0), s.sum(3))
	assert.Equal(t, "103", s.value(3, "SELECT @@server_id"))

	// A pod deleted with its claim.
	s.order("third", 500)
	s.kubectl("delete", "pvc", "data-mysql-2", "--wait=false")
	s.kubectl("delete", "pod", "mysql-2", "--grace-period=0", "--force")
	// What the ConfigMap still asks for does not join in.
	out := s.keepset("restore", "run", "--set", "mysql", "--ordinal", "2", "--replace")
	assert.Contains(t, out, "ordinal 2: seeded")
	s.waitReady(4)
	s.caughtUp(2)
	s.order("fourth", 100)
	for i := 1; i < 4; i++ {
		s.caughtUp(i)
	}
	s.until(time.Minute, "nothing is left over", func() bool {
		return s.keepset("restore", "status", "--set", "mysql") == s.ns+"/mysql: no restore is running and none has left anything\n"
	})
}
