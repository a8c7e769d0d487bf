package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A primary and its follower on MariaDB, whose files are copied by the
// mariadb-backup of their own containers while a client writes: a third replica
// is seeded from them, prepared in its seed pod, and has what was written after
// the backup and while it was seeded. A lost follower comes back the same way,
// and so does the whole set, elsewhere.
func TestShopPhysical(t *testing.T) {
	t.Parallel()
	store := []string{`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: keepset-seed}
spec:
  egress:
    - ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}, {port: 3306, protocol: TCP}, {port: 7070, protocol: TCP}]
`}
	s := newShopSet(t, shopOptions{replicas: 2, component: "physical", patches: store})
	s.order("first", 2000)
	s.caughtUp(1)
	stop := s.writing()
	s.jobOK("keepset-backup", "backup-1")
	written, _ := stop()
	t.Logf("%d rows were written during the backup", written)
	backup := s.backups()[0]
	require.Equal(t, "complete", backup.Status, "%v", backup.Problems)
	require.Equal(t, "physical", backup.Method)

	s.order("after the backup", 500)
	s.parameters(map[string]string{"KEEPSET_REPLICAS": "3"})
	s.jobFrom("keepset-restore", "grow")
	s.seeding(2)
	assert.NotContains(t, s.kubectl("get", "endpointslices", "-o", "yaml"), s.pod("mysql-2").Status.PodIP, "a seed serves reads")
	s.order("while it is seeded", 500)
	require.True(t, s.waitJob("grow", 10*time.Minute), s.logs("grow"))
	s.replica(2)

	lost := s.claim("data-mysql-1")
	s.parameters(map[string]string{"KEEPSET_ORDINAL": "1", "KEEPSET_REPLACE": "true"})
	s.jobOK("keepset-restore", "again")
	require.NotEqual(t, lost.uid, s.claim("data-mysql-1").uid)
	s.replica(1)
	s.nothingLeft()

	sum := s.sum(0)
	s.jobOK("keepset-backup", "backup-2")
	other := s.beside("pod-security.kubernetes.io/enforce=restricted")
	other.install(shopOptions{empty: true, component: "physical", patches: store})
	other.parameters(map[string]string{"KEEPSET_ALL": "true", "KEEPSET_FROM_SET": s.ns + "/mysql"})
	other.jobOK("keepset-restore", "whole-set")
	other.waitReady(3)
	assert.Equal(t, sum, other.sum(0))
	for i := 1; i < 3; i++ {
		other.replica(i)
	}
	other.nothingLeft()
}

// mysqlParameters are what a restore of MySQL and its backup have to know beside shopParameters.
const mysqlParameters = `
apiVersion: v1
kind: ConfigMap
metadata: {name: keepset-restore}
data:
  KEEPSET_SEED_PATCH: |
    spec:
      containers:
        - name: mysql
          args: [--read-only=0, --innodb-buffer-pool-size=64M]
`

// A primary and its follower on MySQL, laid out as Kubernetes' own example has it, with xtrabackup in a container beside
// the database's: here a stand-in for it, which has the server clone its files, so that all but the program is real. A
// third replica is seeded from them, prepared in the image of that container, and a lost follower comes back the same way.
func TestShopPhysicalMySQL(t *testing.T) {
	t.Parallel()
	s := bareShop(t)
	s.startS3()
	s.install(shopOptions{mysql: true, replicas: 2, component: "physical", patches: []string{mysqlParameters, `
apiVersion: v1
kind: ConfigMap
metadata: {name: keepset}
data:
  KEEPSET_COPY_CONTAINER: xtrabackup
`, `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: keepset-seed}
spec:
  egress:
    - ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}, {port: 3306, protocol: TCP}, {port: 7070, protocol: TCP}]
`}})
	s.waitReady(2)
	s.exec(0,
		"CREATE USER "+replAccount+"@'%' IDENTIFIED BY 'repl-secret'; GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO "+replAccount+"@'%'",
		"CREATE USER "+backupAccount+"@'%' IDENTIFIED BY 'backup-secret'; GRANT RELOAD, PROCESS, SHOW VIEW, LOCK TABLES, REPLICATION CLIENT, BACKUP_ADMIN ON *.* TO "+backupAccount+"@'%'",
		"GRANT SELECT ON performance_schema.log_status TO "+backupAccount+"@'%'",
		shopTables,
	)
	s.exec(1, "CHANGE REPLICATION SOURCE TO SOURCE_HOST='mysql-0.mysql', SOURCE_USER='"+replAccount+"', SOURCE_PASSWORD='repl-secret', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1; START REPLICA")
	s.keepset("backup", "init", "--repository", s.repository)
	s.order("first", 2000)
	s.caughtUp(1)
	stop := s.writing()
	s.jobOK("keepset-backup", "backup-1")
	written, _ := stop()
	t.Logf("%d rows were written during the backup", written)
	backup := s.backups()[0]
	require.Equal(t, "complete", backup.Status, "%v", backup.Problems)
	require.Equal(t, "physical", backup.Method)

	s.order("after the backup", 500)
	s.parameters(map[string]string{"KEEPSET_REPLICAS": "3"})
	s.jobFrom("keepset-restore", "grow")
	s.seeding(2)
	s.order("while it is seeded", 500)
	require.True(t, s.waitJob("grow", 10*time.Minute), s.logs("grow"))
	s.replica(2)
	require.NotEqual(t, s.value(0, "SELECT @@server_uuid"), s.value(2, "SELECT @@server_uuid"))

	lost := s.claim("data-mysql-1")
	s.parameters(map[string]string{"KEEPSET_ORDINAL": "1", "KEEPSET_REPLACE": "true"})
	s.jobOK("keepset-restore", "again")
	require.NotEqual(t, lost.uid, s.claim("data-mysql-1").uid)
	s.replica(1)
	s.nothingLeft()
}

// replica: the ordinal has what the primary has, what is written from now on
// included, under a number of its own, and nothing of the copy is left.
func (s *shopSet) replica(ordinal int) {
	s.t.Helper()
	s.waitReady(ordinal + 1)
	s.order("to all followers", 100)
	s.caughtUp(ordinal)
	assert.Equal(s.t, "1", s.value(ordinal, "SELECT @@read_only"))
	assert.Equal(s.t, fmt.Sprint(100+ordinal), s.value(ordinal, "SELECT @@server_id"))
	pod := fmt.Sprintf("mysql-%d", ordinal)
	files := s.kubectl("exec", pod, "-c", "mysql", "--", "ls", "-a", "/var/lib/mysql")
	assert.NotContains(s.t, files, "xtrabackup_")
	assert.NotContains(s.t, files, "#keepset")
}
