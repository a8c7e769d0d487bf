package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/statefulset"
)

// 3 -> 4 while everything goes wrong that may: the restore is killed in the
// middle of its load, its parameters are edited, a newer backup is taken, the set
// is scaled early, a user changes and an event fires every second. Then 4 -> 3 -> 4
// over the claim that the scale-down leaves. In a namespace that enforces the
// restricted pod security standard, with the Roles that are shipped.
func TestProof2Growth(t *testing.T) {
	t.Parallel()
	s := newShopSet(t, shopOptions{patches: []string{shortLease}})
	s.kubectl("label", "namespace", s.ns, "--overwrite", "pod-security.kubernetes.io/enforce=restricted")
	s.exec(0, "CREATE USER app@'%' IDENTIFIED BY 'old'; GRANT ALL ON shop.* TO app@'%'",
		"CREATE TABLE shop.ticks (id INT PRIMARY KEY AUTO_INCREMENT, server INT, at TIMESTAMP)",
		"CREATE EVENT shop.tick ON SCHEDULE EVERY 1 SECOND DO INSERT INTO shop.ticks (server) VALUES (@@server_id)",
		"SET GLOBAL event_scheduler=ON")
	s.backUpInParts()
	first := s.backups()[0].Backup
	// What followers of the old state would stumble over.
	s.exec(0, "ALTER USER app@'%' IDENTIFIED BY 'new'", "CREATE TABLE shop.later (id INT PRIMARY KEY); INSERT INTO shop.later VALUES (7)")
	s.order("second", 1000)

	written := s.ordersOf(s.pod("mysql-0").Status.PodIP)
	guard := s.guard(3)
	s.parameters(map[string]string{"KEEPSET_REPLICAS": "4", "KEEPSET_LIMIT_DOWNLOAD": slowly})
	s.jobFrom("keepset-restore", "grow")
	s.halfLoaded(3)
	s.killRestore("grow")
	// The Job rests until all is there that could lead its retry astray.
	s.kubectl("patch", "job", "grow", "-p", `{"spec":{"suspend":true}}`)
	s.jobOK("keepset-backup", "newer")
	require.Equal(t, s.backupID("newer"), s.backups()[0].Backup, "it is the latest now")
	s.kubectl("scale", "statefulset", "mysql", "--replicas=4")
	s.parameters(map[string]string{"KEEPSET_REPLICAS": "9", "KEEPSET_BACKUP": "20990101T000000Z-00000000"})
	s.kubectl("patch", "job", "grow", "-p", `{"spec":{"suspend":false}}`)
	require.True(t, s.waitJob("grow", 5*time.Minute), "the retry continues the stored plan:\n%s", s.logs("grow"))
	s.waitReady(4)
	guard.never(t, 1, written)
	require.Equal(t, string(first), s.kubectl("get", "pvc", "data-mysql-3", "-o", "jsonpath={.metadata.annotations."+statefulset.AnnotationSeeded+"}"),
		"filled from the backup of the plan, not from the newer one")
	s.exec(0, "SET GLOBAL event_scheduler=OFF")
	s.caughtUp(3)
	require.Equal(t, 4, s.replicas(), "the plan said four, not nine")

	// It runs as the others do: its own number, its users, no events of its own.
	numbers := map[string]bool{}
	for i := range 4 {
		numbers[s.value(i, "SELECT @@server_id")] = true
	}
	assert.Len(t, numbers, 4, "server IDs are unique")
	assert.Equal(t, "7", s.value(3, "SELECT id FROM shop.later"))
	assert.Equal(t, s.value(0, "SELECT authentication_string FROM mysql.user WHERE user='app'"), s.value(3, "SELECT authentication_string FROM mysql.user WHERE user='app'"))
	assert.Equal(t, "0", s.value(3, fmt.Sprintf("SELECT COUNT(*) FROM shop.ticks WHERE server <> %s", s.value(0, "SELECT @@server_id"))), "the event ran on a follower")
	s.until(time.Minute, "the ticks agree", func() bool {
		return s.value(0, "SELECT COUNT(*) FROM shop.ticks") == s.value(3, "SELECT COUNT(*) FROM shop.ticks")
	})
	assert.Equal(t, "false", s.kubectl("get", "cronjob", "keepset-backup", "-o", "jsonpath={.spec.suspend}"), "backups were resumed")

	s.jobOK("keepset-backup", "backup-2")
	s.kubectl("scale", "statefulset", "mysql", "--replicas=3")
	s.until(2*time.Minute, "mysql-3 is gone", func() bool { return s.pod("mysql-3") == nil })
	s.order("third", 500)
	s.parameters(map[string]string{"KEEPSET_REPLICAS": "4"})
	s.restoreRefused("refused", "claim exists already", "--replace", "--keep")
	require.Nil(t, s.pod("mysql-3"))
	s.parameters(map[string]string{"KEEPSET_REPLICAS": "4", "KEEPSET_REPLACE": "true"})
	written = s.ordersOf(s.pod("mysql-0").Status.PodIP)
	again := s.guard(3)
	s.jobFrom("keepset-restore", "again")
	// Once the seed has ended nothing is replicated to mysql-3 any more: what its
	// pod has when it is Ready, the seed had.
	s.seedEnded(3)
	s.exec(0, "SET sql_log_bin=0; ALTER USER "+replAccount+"@'%' ACCOUNT LOCK; SET sql_log_bin=1")
	require.True(t, s.waitJob("again", 5*time.Minute), s.logs("again"))
	s.waitReady(4)
	again.never(t, 1, written)
	s.exec(0, "SET sql_log_bin=0; ALTER USER "+replAccount+"@'%' ACCOUNT UNLOCK; SET sql_log_bin=1")
	s.exec(3, "STOP SLAVE", "START SLAVE")
	s.caughtUp(3)
	s.nothingLeft()
}
