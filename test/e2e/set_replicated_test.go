package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/test/docs"
)

// The set of the document on MySQL with EBS volumes (testdata/ebs.yaml says in
// what it differs), a real MySQL 9.7, with the overlay mysql-replicated as it
// is shipped: 2 -> 3 -> 2 -> 3 -> 2 -> 3 through the restore template. The first
// time up the follower is seeded; the second time the claim is there that the
// scale-down left, which is refused and then kept; the third time it was
// deleted, and its volume retained, as the document does it.
func TestProof2ReplicatedMySQL(t *testing.T) {
	t.Parallel()
	s := newReplicatedMySQL(t, shopOptions{shipped: "mysql-replicated"})
	policies := s.reclaimPolicies()
	require.Len(t, policies, 2)
	s.jobOK("keepset-backup", "backup-1")

	// 2 -> 3. Rows written after the backup, and while it is loaded, arrive.
	first := s.guard(2)
	s.order("after the backup", 500)
	s.parameters(map[string]string{"KEEPSET_REPLICAS": "3"})
	s.jobFrom("keepset-restore", "grow")
	s.seeding(2)
	assert.NotContains(t, s.kubectl("get", "endpointslices", "-o", "yaml"), s.pod("mysql-2").Status.PodIP, "a seed serves reads")
	s.order("while it is seeded", 500)
	require.True(t, s.waitJob("grow", 5*time.Minute), s.logs("grow"))
	s.follows()
	first.never(t, 1, 2500)

	// 3 -> 2 leaves the claim. It is not touched without a word.
	s.shrink()
	s.order("while it is away", 500)
	left := s.claim("data-mysql-2")
	s.restoreRefused("refused", "claims exist: data-mysql-2", "--replace", "--keep")
	require.Equal(t, left, s.claim("data-mysql-2"))
	require.Equal(t, 2, s.replicas())
	s.parameters(map[string]string{"KEEPSET_REPLICAS": "3", "KEEPSET_KEEP": "true"})
	s.jobOK("keepset-restore", "kept")
	s.follows()
	require.Equal(t, left, s.claim("data-mysql-2"), "2 -> 3 on the claim that was left")
	first.never(t, 2, 2500)

	// 3 -> 2, the claim deleted and its volume retained: seeded anew.
	s.shrink()
	s.kubectl("patch", "pv", left.volume, "-p", `{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}`)
	t.Cleanup(func() { // also after a failure nothing stays
		_, _ = s.try("patch", "pv", left.volume, "-p", `{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}`)
	})
	s.kubectl("delete", "pvc", "data-mysql-2")
	s.order("once more", 500)
	rows := s.ordersOf(s.pod("mysql-0").Status.PodIP)
	third := s.guard(2)
	s.parameters(map[string]string{"KEEPSET_REPLICAS": "3"})
	s.jobOK("keepset-restore", "again")
	s.follows()
	third.never(t, 1, rows)
	require.NotEqual(t, left.volume, s.claim("data-mysql-2").volume)

	// What was retained is nobody's but the administrator's.
	kept, err := s.kube.CoreV1().PersistentVolumes().Get(t.Context(), left.volume, metav1.GetOptions{})
	require.NoError(t, err)
	assert.Equal(t, corev1.VolumeReleased, kept.Status.Phase)
	assert.Equal(t, corev1.PersistentVolumeReclaimRetain, kept.Spec.PersistentVolumeReclaimPolicy)
	s.kubectl("patch", "pv", left.volume, "-p", `{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}`)
	s.until(time.Minute, "the released volume goes", func() bool { return len(s.reclaimPolicies()) == 3 })
	policies[s.claim("data-mysql-2").volume] = corev1.PersistentVolumeReclaimDelete
	assert.Equal(t, policies, s.reclaimPolicies(), "the volumes' reclaim policies are what they were")
	s.nothingLeft()
}

// newReplicatedMySQL is the document's set with its first follower, and with
// the accounts of docs/mysql.md.
func newReplicatedMySQL(t *testing.T, o shopOptions) *shopSet {
	t.Helper()
	s := bareShop(t)
	s.password = "" // MYSQL_ALLOW_EMPTY_PASSWORD, as in the document
	s.startS3()
	o.yaml, o.replicas = "ebs.yaml", 2
	s.install(o)
	s.waitReady(2)
	s.account("Backup account on MySQL 8 and 9", backupAccount, "backup-secret")
	s.account("Replication account", replAccount, "repl-secret")
	s.exec(0, shopTables)
	s.order("first", 2000)
	s.exec(1, "SET GLOBAL super_read_only=OFF; RESET BINARY LOGS AND GTIDS",
		"CHANGE REPLICATION SOURCE TO SOURCE_HOST='mysql-0.mysql', SOURCE_USER='"+replAccount+"', SOURCE_PASSWORD='repl-secret', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1",
		"START REPLICA; SET GLOBAL super_read_only=ON")
	s.caughtUp(1)
	s.keepset("backup", "init", "--repository", s.repository)
	return s
}

// account runs the statements that docs/mysql.md has under a heading for the
// account keepset_..., with a name and a password of the test's.
func (s *shopSet) account(heading, name, password string) {
	s.t.Helper()
	page, err := docs.Read("../../docs/mysql.md")
	require.NoError(s.t, err)
	statements := page.In("sql", heading)
	require.Contains(s.t, statements, "CREATE USER", heading)
	shown := regexp.MustCompile(`keepset_\w+`).ReplaceAllLiteralString(statements, name)
	s.exec(0, strings.ReplaceAll(shown, "'change-me'", "'"+password+"'"))
}

// follows waits until the set is complete and ordinal 2 has what the leader
// has, what is written from now on included; and makes sure that it runs as the
// document's followers do.
func (s *shopSet) follows() {
	s.t.Helper()
	const ordinal = 2
	s.waitReady(ordinal + 1)
	s.order("to all followers", 100)
	s.caughtUp(ordinal)
	assert.Equal(s.t, fmt.Sprint(100+ordinal), s.value(ordinal, "SELECT @@server_id"))
	assert.Equal(s.t, "1", s.value(ordinal, "SELECT @@super_read_only"))
	servers := map[string]bool{}
	for i := range ordinal + 1 {
		servers[s.value(i, "SELECT @@server_uuid")] = true
	}
	assert.Len(s.t, servers, ordinal+1, "every server is one of its own")
}

// shrink scales down by hand, 3 -> 2, as the document does it.
func (s *shopSet) shrink() {
	s.t.Helper()
	s.kubectl("scale", "statefulset", "mysql", "--replicas=2")
	s.until(2*time.Minute, "mysql-2 is gone", func() bool { return s.pod("mysql-2") == nil })
}

// claimed is which claim it is, and which volume it has.
type claimed struct{ uid, volume string }

func (s *shopSet) claim(name string) claimed {
	s.t.Helper()
	c, err := s.kube.CoreV1().PersistentVolumeClaims(s.ns).Get(s.t.Context(), name, metav1.GetOptions{})
	require.NoError(s.t, err)
	require.Nil(s.t, c.DeletionTimestamp, "claim %s is going", name)
	return claimed{string(c.UID), c.Spec.VolumeName}
}

// reclaimPolicies are those of the namespace's volumes, by name.
func (s *shopSet) reclaimPolicies() map[string]corev1.PersistentVolumeReclaimPolicy {
	s.t.Helper()
	volumes, err := s.kube.CoreV1().PersistentVolumes().List(s.t.Context(), metav1.ListOptions{})
	require.NoError(s.t, err)
	policies := map[string]corev1.PersistentVolumeReclaimPolicy{}
	for _, v := range volumes.Items {
		if ref := v.Spec.ClaimRef; ref != nil && ref.Namespace == s.ns {
			policies[v.Name] = v.Spec.PersistentVolumeReclaimPolicy
		}
	}
	return policies
}
