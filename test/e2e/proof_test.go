package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"keepset/internal/cli"
	"keepset/internal/record"
	"keepset/internal/statefulset"
)

// unfinished are the names of the backup CronJob's Jobs that have not ended.
func (s *shopSet) unfinished() []string {
	s.t.Helper()
	jobs, err := s.kube.BatchV1().Jobs(s.ns).List(s.t.Context(), metav1.ListOptions{})
	require.NoError(s.t, err)
	var names []string
	for _, j := range jobs.Items {
		owner := metav1.GetControllerOf(&j)
		if owner != nil && owner.Name == "keepset-backup" && !jobEnded(&j) {
			names = append(names, j.Name)
		}
	}
	return names
}

func jobEnded(j *batchv1.Job) bool {
	return slices.ContainsFunc(j.Status.Conditions, func(c batchv1.JobCondition) bool {
		return (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue
	})
}

// exitCode is that of the last container of a Job that ended.
func (s *shopSet) exitCode(job string) int {
	s.t.Helper()
	pods, err := s.kube.CoreV1().Pods(s.ns).List(s.t.Context(), metav1.ListOptions{LabelSelector: "batch.kubernetes.io/job-name=" + job})
	require.NoError(s.t, err)
	code := -1
	for _, p := range pods.Items {
		for _, c := range p.Status.ContainerStatuses {
			if c.State.Terminated != nil {
				code = int(c.State.Terminated.ExitCode)
			}
		}
	}
	return code
}

// restoreRefused runs a restore that has to refuse before it touches anything,
// in these words.
func (s *shopSet) restoreRefused(name string, words ...string) {
	s.t.Helper()
	s.jobFrom("keepset-restore", name)
	require.False(s.t, s.waitJob(name, 3*time.Minute), "job %s should fail:\n%s", name, s.logs(name))
	log := s.logs(name)
	assert.Equal(s.t, cli.ExitUsage, s.exitCode(name), log)
	for _, w := range words {
		assert.Contains(s.t, log, w)
	}
}

// guard asks every pod of one ordinal, once it is Ready as the set's own, how
// many orders it has. A replica that is Ready without its data is caught in the
// act.
type guard struct {
	mu   sync.Mutex
	seen map[string]int // pod UID -> orders at its first Ready
}

func (s *shopSet) guard(ordinal int) *guard {
	s.t.Helper()
	name := fmt.Sprintf("mysql-%d", ordinal)
	g := &guard{seen: map[string]int{}}
	begin := func() watch.Interface {
		w, err := s.kube.CoreV1().Pods(s.ns).Watch(s.t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + name})
		if err != nil {
			time.Sleep(200 * time.Millisecond)
			return watch.NewEmptyWatch()
		}
		return w
	}
	w := begin()
	go func() {
		for ; s.t.Context().Err() == nil; w = begin() { // the API server may end a watch at any time
			for event := range w.ResultChan() {
				pod, ok := event.Object.(*corev1.Pod)
				if !ok || !ready(pod) || g.knows(string(pod.UID)) {
					continue
				}
				n := s.firstOrders(pod.Status.PodIP)
				g.mu.Lock()
				g.seen[string(pod.UID)] = n
				g.mu.Unlock()
			}
		}
	}()
	return g
}

func (g *guard) knows(uid string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, known := g.seen[uid]
	return known
}

// firstOrders is how many orders a server has when it first answers, which is
// later than Ready where the pod has no readiness probe; -1 when it answers
// that there is no such table, or not at all.
func (s *shopSet) firstOrders(ip string) int {
	deadline := time.Now().Add(time.Minute)
	for {
		n, err := s.countOrders(ip)
		var answer *mysql.MySQLError
		if err == nil || errors.As(err, &answer) || s.t.Context().Err() != nil || time.Now().After(deadline) {
			return n
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// ordersOf counts the orders of a server; -1 when there is no such table.
func (s *shopSet) ordersOf(ip string) int {
	n, _ := s.countOrders(ip)
	return n
}

func (s *shopSet) countOrders(ip string) (int, error) {
	db := s.open(ip)
	defer func() { _ = db.Close() }()
	n := -1
	// A pod that is taken away in the middle does not hang up.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM shop.orders").Scan(&n)
	return n, err
}

// never requires that so many pods were Ready, and none with fewer orders.
func (g *guard) never(t *testing.T, pods, fewer int) {
	t.Helper()
	require.Eventually(t, func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.seen) >= pods
	}, time.Minute, 50*time.Millisecond, "the guard has not seen %d pods Ready", pods)
	g.mu.Lock()
	defer g.mu.Unlock()
	for uid, n := range g.seen {
		assert.GreaterOrEqual(t, n, fewer, "pod %s was Ready without its data", uid)
	}
}

// seeding waits until the restore's seed pod of an ordinal runs, or has run: a busy machine looks late.
func (s *shopSet) seeding(ordinal int) {
	s.t.Helper()
	s.until(2*time.Minute, fmt.Sprintf("ordinal %d is being seeded", ordinal), func() bool {
		pod := s.pod(fmt.Sprintf("mysql-%d", ordinal))
		return pod != nil && slices.Contains(pod.Finalizers, statefulset.Finalizer) && pod.Status.Phase != corev1.PodPending
	})
}

// bytesOf prints what each member of a backup added to the repository.
func (s *shopSet) bytesOf(id string) string {
	s.t.Helper()
	return strings.TrimSpace(s.keepset("backup", "show", id, "--set", "mysql", "--repository", s.repository))
}

// jobCreated is when a Job was made.
func (s *shopSet) jobCreated(name string) time.Time {
	s.t.Helper()
	j, err := s.kube.BatchV1().Jobs(s.ns).Get(s.t.Context(), name, metav1.GetOptions{})
	require.NoError(s.t, err)
	return j.CreationTimestamp.Time
}

// backupID is the ID of a Job's backup.
func (s *shopSet) backupID(job string) record.BackupID {
	s.t.Helper()
	j, err := s.kube.BatchV1().Jobs(s.ns).Get(s.t.Context(), job, metav1.GetOptions{})
	require.NoError(s.t, err)
	return record.NewBackupID(j.CreationTimestamp.Time, string(j.UID))
}

// replicas is what the set asks for.
func (s *shopSet) replicas() int {
	s.t.Helper()
	set, err := s.kube.AppsV1().StatefulSets(s.ns).Get(s.t.Context(), "mysql", metav1.GetOptions{})
	require.NoError(s.t, err)
	return int(*set.Spec.Replicas)
}

// nothingLeft: no restore has left anything on the set.
func (s *shopSet) nothingLeft() {
	s.t.Helper()
	require.Equal(s.t, s.ns+"/mysql: no restore is running and none has left anything\n", s.keepset("restore", "status", "--set", "mysql"))
}

// lastLog is the primary's newest binary log.
func (s *shopSet) lastLog() string {
	s.t.Helper()
	var name string
	rows, err := s.db(0).QueryContext(s.t.Context(), "SHOW BINARY LOGS")
	require.NoError(s.t, err)
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var size int64
		require.NoError(s.t, rows.Scan(&name, &size))
	}
	require.NoError(s.t, rows.Err())
	return name
}
