package e2e

import (
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The set of the document on MySQL with GlusterFS volumes (testdata/glusterfs.yaml
// says in what it differs), a real MySQL 9.7, with the overlay mysql-standalone as
// it is shipped: one server, backed up by the CronJob, whose claim and volume are
// lost and which the restore template brings back, below data/ in its volume.
func TestStandaloneMySQL(t *testing.T) {
	t.Parallel()
	s := newStandaloneMySQL(t)
	s.exec(0, "CREATE USER app@'%' IDENTIFIED BY 'app-secret'; GRANT ALL ON shop.* TO app@'%'",
		"CREATE DATABASE hello", // all that the document has in it: nothing
		"CREATE VIEW shop.big AS SELECT id, UPPER(customer) AS who FROM shop.orders WHERE id > 1000")
	s.jobOK("keepset-backup", "backup-1")
	before := s.contents()
	executed := s.value(0, "SELECT @@gtid_executed")

	lost := s.claim("pvc-mysql-0")
	s.kubectl("delete", "pvc", "pvc-mysql-0", "--wait=false")
	s.kubectl("delete", "pv", lost.volume, "--wait=false")
	s.kubectl("delete", "pod", "mysql-0", "--grace-period=0", "--force")
	// By now the controller starts an empty server in its place.
	s.parameters(map[string]string{"KEEPSET_ORDINAL": "0", "KEEPSET_REPLACE": "true"})
	s.jobFrom("keepset-restore", "recover")
	s.seeding(0)
	guard := s.guard(0)
	require.True(t, s.waitJob("recover", 5*time.Minute), s.logs("recover"))
	s.answers()
	guard.never(t, 1, 2000)

	assert.Equal(t, before, s.contents())
	assert.Equal(t, "1", s.value(0, "SELECT GTID_SUBSET('"+strings.ReplaceAll(executed, "\n", "")+"', @@gtid_executed)"), "it continues the history of the lost server")
	require.NotEqual(t, lost, s.claim("pvc-mysql-0"))
	for account, password := range map[string]string{"app": "app-secret", backupAccount: "backup-secret"} {
		db, err := sql.Open("mysql", account+":"+password+"@tcp("+s.pod("mysql-0").Status.PodIP+":3306)/shop")
		require.NoError(t, err)
		var n int
		require.NoError(t, db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM big").Scan(&n), "as %s", account)
		assert.Equal(t, 1000, n)
		require.NoError(t, db.Close())
	}
	files := s.volume("pvc-mysql-0")
	assert.Equal(t, "data", files("ls -A /volume"), "beside data/ there is nothing")
	assert.Equal(t, "auto.cnf\nhello\nibdata1\nmysql\nmysql.ibd\nshop\norders.ibd",
		files("cd /volume/data; ls -d auto.cnf hello ibdata1 mysql mysql.ibd shop; ls shop"))
	s.nothingLeft()
}

// newStandaloneMySQL is the document's set, with the account of docs/mysql.md.
func newStandaloneMySQL(t *testing.T) *shopSet {
	t.Helper()
	s := bareShop(t)
	s.password = "qwerty"
	s.startS3()
	s.install(shopOptions{yaml: "glusterfs.yaml", shipped: "mysql-standalone", replicas: 1})
	s.answers()
	s.account("Backup account on MySQL 8 and 9", backupAccount, "backup-secret")
	s.exec(0, shopTables)
	s.order("first", 2000)
	s.keepset("backup", "init", "--repository", s.repository)
	return s
}

// answers waits until the server does, which is later than its pod is Ready.
func (s *shopSet) answers() {
	s.t.Helper()
	s.waitReady(1)
	s.until(5*time.Minute, "the server answers", func() bool { return s.db(0).PingContext(s.t.Context()) == nil })
}

// contents are what is in the server: its databases, the rows, and what its
// accounts may do.
func (s *shopSet) contents() []string {
	s.t.Helper()
	return []string{
		s.value(0, "SELECT GROUP_CONCAT(schema_name ORDER BY schema_name) FROM information_schema.schemata"),
		s.sum(0),
		s.value(0, "SELECT CONCAT(COUNT(*), ' ', SUM(id), ' ', MAX(who)) FROM shop.big"),
		s.value(0, "SHOW CREATE USER app@'%'"),
		s.value(0, "SHOW GRANTS FOR app@'%'"),
		s.value(0, "SHOW GRANTS FOR "+backupAccount+"@'%'"),
	}
}

// volume runs commands beside a claim's pod, with the whole of the claim's
// volume at /volume.
func (s *shopSet) volume(claim string) func(script string) string {
	s.t.Helper()
	s.apply(`
apiVersion: v1
kind: Pod
metadata: {name: look}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: look
      image: keepset-test/mysql:9.7
      imagePullPolicy: Never
      command: [sleep, infinity]
      volumeMounts: [{name: volume, mountPath: /volume}]
  volumes: [{name: volume, persistentVolumeClaim: {claimName: ` + claim + `, readOnly: true}}]
`)
	s.until(time.Minute, "the pod that looks runs", func() bool { p := s.pod("look"); return p != nil && podReady(p) })
	return func(script string) string {
		s.t.Helper()
		return s.kubectl("exec", "look", "--", "bash", "-c", script)
	}
}
