package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/cli"
)

// toTheSecond is a template whose pods prefer the second node, and are given up
// soon after their node has gone silent (five minutes, where nobody says so).
const toTheSecond = `{"spec":{"template":{"spec":{
	"tolerations":[{"key":"keepset.test/second","operator":"Exists"},
		{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":20},
		{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":20}],
	"affinity":{"nodeAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":100,"preference":
		{"matchExpressions":[{"key":"topology.kubernetes.io/zone","operator":"In","values":["` + secondZone + `"]}]}}]}}}}}}`

// onePod takes a Job's further tries away: they would last a minute and say the same.
const onePod = `
apiVersion: batch/v1
kind: CronJob
metadata: {name: keepset-backup}
spec: {jobTemplate: {spec: {backoffLimit: 0}}}
`

// The story of the document on MySQL with GlusterFS volumes: its node is lost,
// the pod is Unknown, the node is deleted, and the pod moves to another one with
// its volume, which is on no node. Backups fail meanwhile and say why, and are
// complete again afterwards. Beside it a follower whose volume died with the node
// comes back on another one.
func TestNodeLost(t *testing.T) {
	t.Parallel()
	withSecondNode(t)
	alone := newWanderingMySQL(t)
	before := alone.contents()
	alone.jobOK("keepset-backup", "before")

	pair := newShopSet(t, shopOptions{replicas: 2, class: csiLate, patches: []string{shortLease, onePod}})
	pair.jobOK("keepset-backup", "before")
	pair.kubectl("patch", "statefulset", "mysql", "-p", `{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":null}}}`)
	pair.kubectl("patch", "statefulset", "mysql", "-p", toTheSecond)
	pair.parameters(map[string]string{"KEEPSET_ORDINAL": "1", "KEEPSET_REPLACE": "true"})
	pair.jobOK("keepset-restore", "moved")
	pair.waitReady(2)
	require.Equal(t, secondNode, pair.pod("mysql-1").Spec.NodeName)
	pair.order("before the loss", 500)
	pair.caughtUp(1)

	out, err := exec.CommandContext(t.Context(), filepath.Join(cacheRoot(), "bin", "cluster"), "lose-node").CombinedOutput()
	require.NoError(t, err, "%s", out)
	// Before the cluster has noticed.
	alone.fails(cli.ExitFailed, "at-once", "mysql-0")
	alone.until(3*time.Minute, "the pods are given up", func() bool {
		return alone.pod("mysql-0").DeletionTimestamp != nil && pair.pod("mysql-1").DeletionTimestamp != nil
	})
	alone.fails(cli.ExitFailed, "meanwhile", "mysql-0", secondNode+", which does not answer")
	pair.fails(cli.ExitIncomplete, "meanwhile", "mysql-1", secondNode+", which does not answer")
	assert.Equal(t, map[int]string{0: "complete", 1: "missing"}, statuses(pair.backups()[0]))

	alone.kubectl("delete", "node", secondNode)
	alone.until(5*time.Minute, "the pod has moved", func() bool {
		p := alone.pod("mysql-0")
		return p != nil && p.Spec.NodeName != secondNode && ready(p)
	})
	alone.answers()
	require.Equal(t, before, alone.contents())
	alone.jobOK("keepset-backup", "afterwards")
	assert.Equal(t, "complete", alone.backups()[0].Status)

	lost := pair.claim("data-mysql-1")
	written := pair.ordersOf(pair.pod("mysql-0").Status.PodIP)
	guard := pair.guard(1)
	pair.jobOK("keepset-restore", "recovered")
	pair.waitReady(2)
	guard.never(t, 1, written)
	pair.caughtUp(1)
	assert.NotEqual(t, secondNode, pair.pod("mysql-1").Spec.NodeName)
	assert.NotEqual(t, lost.volume, pair.claim("data-mysql-1").volume)
	pair.jobOK("keepset-backup", "afterwards")
	pair.nothingLeft()
	// The volume is a directory, which goes after who writes to it.
	alone.kubectl("delete", "statefulset", "mysql", "--wait=true")
	alone.until(2*time.Minute, "the pod is gone", func() bool { return alone.pod("mysql-0") == nil })
}

// fails runs a backup that fails, or is incomplete, and says of whom and why.
func (s *shopSet) fails(want int, job string, words ...string) {
	s.t.Helper()
	s.jobFrom("keepset-backup", job)
	require.False(s.t, s.waitJob(job, 5*time.Minute), s.logs(job))
	code, message, _ := s.ended(job)
	assert.EqualValues(s.t, want, code, message)
	for _, w := range words {
		assert.Contains(s.t, message, w, job)
	}
	s.t.Logf("%s: %s", job, strings.ReplaceAll(message, "\n", "; "))
}

// newWanderingMySQL is the document's set on the second node, with a volume that
// is as near to every node as any, as GlusterFS is: a directory of this machine,
// which both nodes are.
func newWanderingMySQL(t *testing.T) *shopSet {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o777))
	s := bareShop(t)
	s.password = "qwerty"
	s.startS3()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		assert.NoError(t, s.kube.CoreV1().PersistentVolumes().Delete(ctx, s.ns, metav1.DeleteOptions{}))
	})
	s.apply(`
apiVersion: v1
kind: PersistentVolume
metadata: {name: ` + s.ns + `}
spec:
  capacity: {storage: 2Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: gluster
  persistentVolumeReclaimPolicy: Retain
  hostPath: {path: ` + dir + `, type: Directory}
  claimRef: {namespace: ` + s.ns + `, name: pvc-mysql-0}
`)
	s.install(shopOptions{yaml: "glusterfs.yaml", shipped: "mysql-standalone", replicas: 1, class: "gluster", patches: []string{onePod}})
	s.kubectl("patch", "statefulset", "mysql", "-p", toTheSecond)
	s.until(5*time.Minute, "the pod is on the second node", func() bool {
		p := s.pod("mysql-0")
		return p != nil && p.Spec.NodeName == secondNode && p.Status.Phase == corev1.PodRunning
	})
	s.answers()
	s.account("Backup account on MySQL 8 and 9", backupAccount, "backup-secret")
	s.exec(0, shopTables, "CREATE USER app@'%' IDENTIFIED BY 'app-secret'; GRANT ALL ON shop.* TO app@'%'",
		"CREATE VIEW shop.big AS SELECT id, UPPER(customer) AS who FROM shop.orders WHERE id > 1000")
	s.order("first", 2000)
	s.keepset("backup", "init", "--repository", s.repository)
	return s
}
