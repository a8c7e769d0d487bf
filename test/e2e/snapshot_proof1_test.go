package e2e

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

// The document's story, by volume snapshots: a leader and its follower on the
// class mysql-gp2, a backup by the CronJob while writes go on, 2 -> 3 with
// replica 2 on a volume made of a snapshot; back to 2, which leaves the claim;
// the claim deleted as the document does it; and up again. MySQL 9.7, with the
// overlay mysql-ebs as it is shipped.
func TestSnapshotProof1Story(t *testing.T) {
	t.Parallel()
	s := newReplicatedMySQL(t, onEBS(shopOptions{}))
	s.forgetCluster()
	s.forgetSnapshots("mysql")
	policies := s.reclaimPolicies()
	require.Len(t, policies, 2)

	// The CronJob's own tick, while a client writes row after row.
	stop := s.writing()
	s.kubectl("patch", "cronjob", "keepset-backup", "-p", `{"spec":{"schedule":"* * * * *"}}`)
	var jobs []string
	s.until(2*time.Minute, "the CronJob fires", func() bool { jobs = s.unfinished(); return len(jobs) > 0 })
	s.kubectl("patch", "cronjob", "keepset-backup", "-p", `{"spec":{"schedule":"0 2 * * *"}}`)
	require.True(t, s.waitJob(jobs[0], 5*time.Minute), s.logs(jobs[0]))
	written, slowest := stop()
	lock := s.longestLock(jobs[0])
	t.Logf("measured: the longest lock of the story: %v; %d rows were written meanwhile, the slowest took %v", lock, written, slowest)
	assert.Less(t, lock, 10*time.Second)
	backup := s.backups()[0]
	require.Equal(t, "complete", backup.Status, "%v", backup.Problems)
	require.Equal(t, "snapshot", backup.Method)
	cuts := s.cutsOf(backup.Backup)
	require.Len(t, cuts, 2)
	for claim, cut := range cuts {
		assert.Equal(t, "completed", cut.State, claim)
		assert.True(t, cut.Encrypted, "%s: as the class has it", claim)
	}

	// 2 -> 3. Rows written after the backup, and while it is restored, arrive.
	first := s.guard(2)
	s.order("after the backup", 500)
	s.parameters(map[string]string{"KEEPSET_REPLICAS": "3"})
	s.jobFrom("keepset-restore", "grow")
	s.seeding(2)
	assert.NotContains(t, s.kubectl("get", "endpointslices", "-o", "yaml"), s.pod("mysql-2").Status.PodIP, "a seed serves reads")
	s.order("while it is seeded", 500)
	require.True(t, s.waitJob("grow", 5*time.Minute), s.logs("grow"))
	s.follows()
	first.never(t, 1, 2000)
	grown := s.claim("data-mysql-2")
	s.madeOf(grown.volume, cuts["data-mysql-1"].ID)
	s.nothingLost()

	// 3 -> 2 leaves the claim. Deleted as the document does it, its volume
	// retained first, it is the administrator's.
	s.shrink()
	require.Equal(t, grown, s.claim("data-mysql-2"), "the claim stays")
	s.restoreRefused("refused", "claims exist: data-mysql-2", "--replace", "--keep")
	s.kubectl("patch", "pv", grown.volume, "-p", `{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}`)
	t.Cleanup(func() { // also after a failure nothing stays
		_, _ = s.try("patch", "pv", grown.volume, "-p", `{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}`)
	})
	s.kubectl("delete", "pvc", "data-mysql-2")
	s.order("while it is away", 500)

	rows := s.ordersOf(s.pod("mysql-0").Status.PodIP)
	second := s.guard(2)
	s.jobOK("keepset-backup", "fresh")
	s.jobOK("keepset-restore", "again")
	s.follows()
	second.never(t, 1, rows)
	again := s.claim("data-mysql-2")
	require.NotEqual(t, grown.volume, again.volume)
	s.madeOf(again.volume, s.cutsOf(s.backupID("fresh"))["data-mysql-1"].ID)
	assert.Equal(t, corev1.PersistentVolumeReclaimRetain, s.reclaimPolicies()[grown.volume], "what was retained is nobody's but the administrator's")
	s.kubectl("patch", "pv", grown.volume, "-p", `{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}`)
	s.until(time.Minute, "the released volume goes", func() bool { return len(s.reclaimPolicies()) == 3 })

	policies[again.volume] = corev1.PersistentVolumeReclaimDelete
	assert.Equal(t, policies, s.reclaimPolicies(), "the volumes' reclaim policies are what they were")
	s.nothingLost()
	s.noOrphans("ebs")
	s.nothingLeft()
}

// writing inserts rows one after the other until it is stopped, and says then
// how many there were, and how long the slowest took.
func (s *shopSet) writing() (stop func() (rows int, slowest time.Duration)) {
	s.t.Helper()
	db := s.open(s.pod("mysql-0").Status.PodIP)
	ctx, cancel := context.WithCancel(s.t.Context())
	var done sync.WaitGroup
	rows, slowest := 0, time.Duration(0)
	done.Go(func() {
		defer func() { _ = db.Close() }()
		for ctx.Err() == nil {
			began := time.Now()
			if _, err := db.ExecContext(ctx, "INSERT INTO shop.orders (customer, note) VALUES ('busy', SHA2(RAND(), 512))"); err != nil {
				if ctx.Err() == nil {
					assert.NoError(s.t, err, "a client's write fails")
				}
				return
			}
			rows, slowest = rows+1, max(slowest, time.Since(began))
		}
	})
	return func() (int, time.Duration) {
		cancel()
		done.Wait()
		return rows, slowest
	}
}

// madeOf: the PersistentVolume is as the driver would have made it for the
// class mysql-gp2, on a volume that EC2 made of the snapshot.
func (s *shopSet) madeOf(name, snapshot string) {
	s.t.Helper()
	require.NotEmpty(s.t, snapshot)
	pv := s.persistentVolume(name)
	volume := s.volumesOf()[pv.Spec.CSI.VolumeHandle]
	assert.Equal(s.t, snapshot, volume.Snapshot)
	assert.Equal(s.t, "gp2", volume.Type)
	assert.True(s.t, volume.Encrypted)
	like := s.persistentVolume(s.claim("data-mysql-0").volume)
	assert.Equal(s.t, like.Spec.NodeAffinity, pv.Spec.NodeAffinity)
	assert.Equal(s.t, like.Spec.MountOptions, pv.Spec.MountOptions)
	assert.Equal(s.t, like.Spec.CSI.FSType, pv.Spec.CSI.FSType)
	assert.Equal(s.t, like.Spec.PersistentVolumeReclaimPolicy, pv.Spec.PersistentVolumeReclaimPolicy)
	assert.Equal(s.t, like.Spec.Capacity, pv.Spec.Capacity)
	assert.Equal(s.t, like.Annotations["pv.kubernetes.io/provisioned-by"], pv.Annotations["pv.kubernetes.io/provisioned-by"])
}
