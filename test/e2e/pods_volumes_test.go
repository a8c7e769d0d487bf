package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/cli"
)

// newVolumesSet is the set of testdata/volumes.yaml with a follower, and the
// volumes made by hand for three replicas.
func newVolumesSet(t *testing.T) *shopSet {
	t.Helper()
	s := bareShop(t)
	s.startS3()
	for ordinal := 5; ordinal < 8; ordinal++ {
		s.shareFor(fmt.Sprintf("archive-mysql-%d", ordinal))
	}
	s.install(shopOptions{yaml: "volumes.yaml", replicas: 2})
	s.ready5(2)
	s.exec(5, "CREATE USER "+replAccount+"@'%' IDENTIFIED BY 'repl-secret'; GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO "+replAccount+"@'%'",
		"CREATE USER "+backupAccount+"@'%' IDENTIFIED BY 'backup-secret'; GRANT SELECT, RELOAD, PROCESS, SHOW VIEW, EVENT, TRIGGER, BINLOG MONITOR, SLAVE MONITOR ON *.* TO "+backupAccount+"@'%'",
		shopTables, "INSERT INTO shop.orders (customer) VALUES ('first'), ('second')")
	s.exec(6, "CHANGE MASTER TO MASTER_HOST='mysql-5.mysql', MASTER_USER='"+replAccount+"', MASTER_PASSWORD='repl-secret', MASTER_USE_GTID=slave_pos",
		"RESET MASTER; SET GLOBAL gtid_slave_pos=''; START SLAVE")
	s.same5(6)
	s.keepset("backup", "init", "--repository", s.repository)
	return s
}

// shareFor makes a volume that several nodes may mount, kept for a claim.
func (s *shopSet) shareFor(claim string) {
	s.t.Helper()
	dir := filepath.Join(s.t.TempDir(), "share")
	require.NoError(s.t, os.Mkdir(dir, 0o755))
	require.NoError(s.t, os.Chmod(dir, 0o777)) //nolint:gosec // the database of the pod is another user
	name := s.ns + "-" + claim
	s.apply(fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolume
metadata: {name: %s}
spec:
  accessModes: [ReadWriteMany]
  capacity: {storage: 1Gi}
  persistentVolumeReclaimPolicy: Retain
  storageClassName: ""
  claimRef: {namespace: %s, name: %s}
  hostPath: {path: %s}
`, name, s.ns, claim, dir))
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		assert.NoError(s.t, s.kube.CoreV1().PersistentVolumes().Delete(ctx, name, metav1.DeleteOptions{}))
	})
}

// ready5 is waitReady for a set whose ordinals begin at 5.
func (s *shopSet) ready5(replicas int) {
	s.t.Helper()
	for ordinal := 5; ordinal < 5+replicas; ordinal++ {
		name := fmt.Sprintf("mysql-%d", ordinal)
		s.until(5*time.Minute, name+" is Ready", func() bool { return ready(s.pod(name)) })
	}
}

// same5 writes on the first ordinal, 5, and waits until it has arrived.
func (s *shopSet) same5(ordinal int) {
	s.t.Helper()
	s.exec(5, fmt.Sprintf("INSERT INTO shop.orders (customer) VALUES ('for %d')", ordinal))
	want := s.sum(5)
	s.until(time.Minute, fmt.Sprintf("ordinal %d has what ordinal 5 has", ordinal), func() bool {
		var sum sql.NullString
		return s.db(ordinal).QueryRowContext(s.t.Context(), sumQuery).Scan(&sum) == nil && sum.String == want
	})
}

// A set whose ordinals begin at 5, with claims that wait for their first
// consumer and claims that many may mount: backed up, grown by a seeded replica,
// kept, and recovered with one of its two claims left alone. From the Job and,
// with --local, from here.
func TestUnusualVolumes(t *testing.T) {
	t.Parallel()
	s := newVolumesSet(t)
	s.jobOK("keepset-backup", "backup-1")
	taken := s.backups()[0]
	require.Equal(t, "complete", taken.Status, "%v", taken.Problems)
	require.Len(t, taken.Members, 2)
	assert.Equal(t, 6, taken.Members[1].Ordinal)
	assert.Equal(t, []string{"data-mysql-6", "archive-mysql-6"}, taken.Members[1].Claims)

	restore := s.host().with("KEEPSET_TARGET_USER=root", "KEEPSET_REPOSITORY="+s.repository, "KEEPSET_REPLICATION_USER="+replAccount)
	restore.ok("restore", "run", "--set", "mysql", "--replicas", "3")
	s.ready5(3)
	s.same5(7)
	assert.Equal(t, "107", s.value(7, "SELECT @@server_id"))
	assert.NotEmpty(t, s.kubectl("get", "pvc", "data-mysql-7", "-o", `jsonpath={.metadata.annotations.volume\.kubernetes\.io/selected-node}`), "the volume waited for its node")
	assert.Equal(t, "ReadWriteMany", s.kubectl("get", "pvc", "archive-mysql-7", "-o", "jsonpath={.status.accessModes[0]}"))
	s.nothingLeft()

	s.claimTemplate(restore)
	s.keepLocally(restore)
	assert.Empty(t, s.localPlans(), "what ran here leaves no plan behind")
}

// local is a restore from here: the accounts come from files, and the upstream's
// name, which only the cluster knows, is replaced by its address.
func (s *shopSet) local(args ...string) []string {
	s.t.Helper()
	patch := secretFile(s.t, "spec: {containers: [{name: mysql, args: [--skip-slave-start, --innodb-buffer-pool-size=64M]}]}")
	all := []string{
		"restore", "run", "--local", "--set", "mysql", "--seed-patch-file", patch,
		"--target-password-file", secretFile(s.t, rootPassword), "--replication-password-file", secretFile(s.t, "repl-secret"),
	}
	return append(all, args...)
}

// claimTemplate recovers ordinal 7 and leaves its archive alone.
func (s *shopSet) claimTemplate(restore *plain) {
	s.t.Helper()
	s.kubectl("exec", "mysql-7", "-c", "mysql", "--", "bash", "-c", "echo written before > /archive/note")
	data, archive, pod := s.claim("data-mysql-7"), s.claim("archive-mysql-7"), s.pod("mysql-7").UID
	args := s.local("--ordinal", "7", "--replace", "--claim-template", "data")
	reachable := append(args, "--as-follower-of", s.pod("mysql-5").Status.PodIP+":3306")
	line := restore.fails(cli.ExitUsage, append(reachable, "--claim-template", "attic")...)
	assert.Contains(s.t, line, `claim template "attic": not found`)
	assert.Contains(s.t, line, "the set has data, archive")
	line = restore.fails(cli.ExitFailed, args...)
	assert.Contains(s.t, line, "mysql-5.mysql", "names of the cluster are not known here")
	require.Equal(s.t, pod, s.pod("mysql-7").UID, "refused before anything was touched")
	require.Empty(s.t, s.localPlans())

	restore.ok(reachable...)
	s.ready5(3)
	s.same5(7)
	assert.Equal(s.t, "written before", s.kubectl("exec", "mysql-7", "-c", "mysql", "--", "cat", "/archive/note"))
	assert.Equal(s.t, archive, s.claim("archive-mysql-7"))
	assert.NotEqual(s.t, data.uid, s.claim("data-mysql-7").uid)
	s.nothingLeft()
}

// keepLocally scales down and up again on the claims that are left.
func (s *shopSet) keepLocally(restore *plain) {
	s.t.Helper()
	s.kubectl("scale", "statefulset", "mysql", "--replicas=2")
	s.until(2*time.Minute, "mysql-7 is gone", func() bool { return s.pod("mysql-7") == nil })
	data := s.claim("data-mysql-7")
	args := s.local("--replicas", "3")
	line := restore.fails(cli.ExitUsage, append(args, "--as-follower-of", s.pod("mysql-5").Status.PodIP+":3306")...)
	assert.Contains(s.t, line, "claims exist: archive-mysql-7, data-mysql-7")
	assert.Contains(s.t, line, "--keep lets the pod come up on it")
	line = restore.fails(cli.ExitUsage, append(args, "--keep", "--replace")...)
	assert.Contains(s.t, line, "--replace and --keep exclude each other")
	out := restore.ok(append(args, "--keep")...)
	assert.Contains(s.t, out, "ordinal 7: kept")
	s.ready5(3)
	s.same5(7)
	assert.Equal(s.t, data, s.claim("data-mysql-7"))
	s.nothingLeft()
}

// localPlans are the stored plans that no Job owns.
func (s *shopSet) localPlans() []string {
	s.t.Helper()
	leases, err := s.kube.CoordinationV1().Leases(s.ns).List(s.t.Context(), metav1.ListOptions{})
	require.NoError(s.t, err)
	var names []string
	for _, l := range leases.Items {
		if l.Annotations["keepset/plan"] != "" && len(l.OwnerReferences) == 0 {
			names = append(names, l.Name)
		}
	}
	return names
}
