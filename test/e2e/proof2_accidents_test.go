package e2e

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/cli"
	"keepset/internal/statefulset"
)

const (
	manyOrders = 15000
	// slowly, in KiB a second, many orders are on their way for some seconds.
	slowly = "200"
	// shortLease is for tests that kill restores: the next run does not wait for
	// a minute.
	shortLease = `
apiVersion: v1
kind: ConfigMap
metadata: {name: keepset-restore}
data: {KEEPSET_LEASE_DURATION: 10s, KEEPSET_LEASE_WAIT: 2m}
`
	neverRetried = `
apiVersion: batch/v1
kind: CronJob
metadata: {name: keepset-restore}
spec: {jobTemplate: {spec: {backoffLimit: 0}}}
`
)

// Three accidents of a restore in the middle of its load: it is killed and
// aborted by a person with no other rights than its own Role has; its Job is
// deleted while somebody scales the set; its pod is evicted. No replica is Ready
// with less than what was written before.
func TestProof2Accidents(t *testing.T) {
	t.Parallel()
	s := newShopSet(t, shopOptions{replicas: 1, patches: []string{shortLease, neverRetried}})
	s.backUpInParts()
	s.order("since the backup", 500)
	written := s.ordersOf(s.pod("mysql-0").Status.PodIP)
	guard := s.guard(1)
	s.parameters(map[string]string{"KEEPSET_REPLICAS": "2", "KEEPSET_LIMIT_DOWNLOAD": slowly})

	s.jobFrom("keepset-restore", "killed")
	s.halfLoaded(1)
	s.killRestore("killed")
	require.False(t, s.waitJob("killed", time.Minute), s.logs("killed"))
	s.abortAsShipped()

	s.jobFrom("keepset-restore", "deleted")
	s.halfLoaded(1)
	seed := s.pod("mysql-1").UID
	s.kubectl("delete", "job", "deleted")
	s.kubectl("scale", "statefulset", "mysql", "--replicas=2")
	s.until(2*time.Minute, "the seed goes with its Job", func() bool { return s.pod("mysql-1").DeletionTimestamp != nil })
	s.seedEnded(1)
	require.Equal(t, seed, s.pod("mysql-1").UID, "its name stays taken: what is below it is half loaded")

	// The set asks for the ordinal by now, so that it is one to recover.
	recovery := map[string]string{"KEEPSET_ORDINAL": "1", "KEEPSET_REPLACE": "true", "KEEPSET_AS_FOLLOWER_OF": "mysql-0.mysql:3306", "KEEPSET_LIMIT_DOWNLOAD": slowly}
	s.parameters(recovery)
	s.jobFrom("keepset-restore", "evicted")
	s.until(2*time.Minute, "a new seed takes the place", func() bool { p := s.pod("mysql-1"); return p != nil && p.UID != seed })
	s.halfLoaded(1)
	delete(recovery, "KEEPSET_LIMIT_DOWNLOAD")
	s.parameters(recovery)
	evicted := s.restorePod("evicted")
	require.NoError(t, s.kube.CoreV1().Pods(s.ns).EvictV1(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: evicted.Name, Namespace: s.ns}}))
	require.True(t, s.waitJob("evicted", 5*time.Minute), "another pod takes over:\n%s", s.logs("evicted"))
	require.NotEqual(t, evicted.UID, s.jobPods("evicted")[0].UID)
	s.waitReady(2)
	guard.never(t, 1, written)
	s.caughtUp(1)
	s.nothingLeft()
}

// abortAsShipped has a dead restore of ordinal 1 shown and cleared away with
// the restore's own rights.
func (s *shopSet) abortAsShipped() {
	s.t.Helper()
	shipped := s.host().with("KUBECONFIG=" + s.kubeconfigOf("keepset-restore"))
	id := s.kubectl("get", "job", "killed", "-o", "jsonpath={.metadata.uid}")
	before := shipped.ok("restore", "status", "--set", "mysql")
	var dry result
	s.until(time.Minute, "the Lease of the dead expires", func() bool {
		dry = shipped.run("restore", "abort", "--set", "mysql", "--dry-run")
		return dry.code != cli.ExitBusy
	})
	require.Zero(s.t, dry.code, dry.stderr)
	done := shipped.ok("restore", "abort", "--set", "mysql", "--lease-wait", "1m")
	s.t.Logf("status before:\n%s\nabort:\n%s", before, done)
	for _, want := range []string{
		"run " + id + ", job killed, finished: true", "seed pod mysql-1 (Running), ordinal 1, half loaded, run " + id,
		"claim data-mysql-1, ordinal 1", "being filled by run " + id, "cronjob keepset-backup, suspended by run " + id,
	} {
		assert.Contains(s.t, before, want)
	}
	for _, want := range []string{"did: delete half-loaded claim data-mysql-1", "did: remove seed pod mysql-1", "did: resume cronjob keepset-backup"} {
		assert.Contains(s.t, done, want)
	}
	assert.Equal(s.t, done, strings.ReplaceAll(dry.stdout, "would: ", "did: "))
	assert.Equal(s.t, s.ns+"/mysql: no restore is running and none has left anything\n", shipped.ok("restore", "status", "--set", "mysql"))
	assert.Equal(s.t, "nothing to clear away\n", shipped.ok("restore", "abort", "--set", "mysql"))

	// And so it is, whatever status says.
	assert.Nil(s.t, s.pod("mysql-1"))
	s.until(time.Minute, "the half-loaded claim goes", func() bool { _, err := s.try("get", "pvc", "data-mysql-1"); return err != nil })
	assert.Equal(s.t, "false", s.kubectl("get", "cronjob", "keepset-backup", "-o", "jsonpath={.spec.suspend}"))
	assert.Empty(s.t, s.kubectl("get", "lease", statefulset.LeaseName("mysql"), "-o", "jsonpath={.spec.holderIdentity}"))
	held := s.kubectl("get", "pods,pvc,cronjobs", "-o", "yaml")
	assert.NotContains(s.t, held, statefulset.Finalizer)
	assert.NotContains(s.t, held, statefulset.AnnotationSuspendedByRestore)
}

// backUpInParts writes many orders twice and takes a backup each time. The last
// backup then has its orders in two packs, of which a restore brings one after
// the other: with a limit there are some seconds in which a half is there.
func (s *shopSet) backUpInParts() {
	s.t.Helper()
	for _, name := range []string{"backup-0", "backup-1"} {
		s.order(name, manyOrders)
		s.jobOK("keepset-backup", name)
	}
}

// halfLoaded waits until the seed of an ordinal was sent a good part of what
// backUpInParts wrote, and makes sure that much is still to come. The server
// shows no row of a bulk load before its end, hence the bytes.
func (s *shopSet) halfLoaded(ordinal int) {
	s.t.Helper()
	s.seeding(ordinal)
	db := s.open(s.pod(fmt.Sprintf("mysql-%d", ordinal)).Status.PodIP)
	defer func() { _ = db.Close() }()
	const all = 2*manyOrders*len("12345\tbackup-0\t\n") + 2*manyOrders*128 // 128 digits of a hash
	var name string
	var received, rows int
	s.until(5*time.Minute, fmt.Sprintf("ordinal %d is being loaded", ordinal), func() bool {
		err := db.QueryRowContext(s.t.Context(), "SHOW GLOBAL STATUS LIKE 'Bytes_received'").Scan(&name, &received)
		return err == nil && received > all/4
	})
	require.NoError(s.t, db.QueryRowContext(s.t.Context(), "SELECT COUNT(*) FROM shop.orders").Scan(&rows))
	require.Less(s.t, received, all*3/4, "the load is to be caught in its middle")
	require.Less(s.t, rows, 2*manyOrders)
	s.t.Logf("measured: ordinal %d was sent %d of %d bytes", ordinal, received, all)
}

// seedEnded waits until the database of an ordinal's seed has ended.
func (s *shopSet) seedEnded(ordinal int) {
	s.t.Helper()
	s.seeding(ordinal)
	s.until(5*time.Minute, fmt.Sprintf("the seed of ordinal %d ends", ordinal), func() bool {
		pod := s.pod(fmt.Sprintf("mysql-%d", ordinal))
		return pod == nil || !slices.Contains(pod.Finalizers, statefulset.Finalizer) ||
			slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.State.Terminated != nil })
	})
}

// jobPods are the pods of a Job.
func (s *shopSet) jobPods(job string) []corev1.Pod {
	s.t.Helper()
	list, err := s.kube.CoreV1().Pods(s.ns).List(s.t.Context(), metav1.ListOptions{LabelSelector: "batch.kubernetes.io/job-name=" + job})
	require.NoError(s.t, err)
	return list.Items
}

// restorePod is the one pod of a Job that runs.
func (s *shopSet) restorePod(job string) corev1.Pod {
	s.t.Helper()
	pods := slices.DeleteFunc(s.jobPods(job), func(p corev1.Pod) bool { return p.Status.Phase != corev1.PodRunning })
	require.Len(s.t, pods, 1, "running pods of job %s", job)
	return pods[0]
}

// killRestore ends the restore of a Job by SIGKILL, and nothing else.
func (s *shopSet) killRestore(job string) {
	s.t.Helper()
	pod := s.restorePod(job)
	require.Equal(s.t, 1, killPod(string(pod.UID), "restore", syscall.SIGKILL), "the restore runs on this machine")
	s.until(time.Minute, "the restore is dead", func() bool { return s.exitCode(job) == 128+int(syscall.SIGKILL) })
}
