package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/cli"
	"keepset/internal/job"
)

// drillPatches are what an overlay says of the component drill: the account, the seed patch that the set needs, and the port of a store
// that is no Amazon's.
var drillPatches = []string{`
apiVersion: v1
kind: ConfigMap
metadata: {name: keepset-drill}
data:
  KEEPSET_CHECK_SQL: |
    SELECT COUNT(*) >= 300 FROM shop.orders
    SELECT 1, 'a, b'
  KEEPSET_SEED_PATCH: |
    spec:
      containers:
        - name: mysql
          args: [--skip-slave-start, --read-only=0, --event-scheduler=OFF, --innodb-buffer-pool-size=64M]
          env:
            - name: MARIADB_ROOT_PASSWORD
              valueFrom: {secretKeyRef: {name: keepset-drill, key: KEEPSET_TARGET_PASSWORD}}
`, `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: keepset-drill}
spec:
  egress:
    - ports:
        - {port: 53, protocol: UDP}
        - {port: 53, protocol: TCP}
        - {port: 443, protocol: TCP}
        - {port: 6443, protocol: TCP}
        - {port: 3306, protocol: TCP}
        - {port: 7070, protocol: TCP}
`}

// TestDrill: the weekly drill as it is shipped. It passes, touches nothing of the set, lets backups go on, removes what it made, also when it is
// killed or its Job is deleted, and finds a backup that is wanting.
func TestDrill(t *testing.T) {
	t.Parallel()
	s := newShopSet(t, shopOptions{component: "drill", patches: drillPatches})
	s.apply(strings.ReplaceAll(s.secrets(), "keepset-restore", "keepset-drill"))
	s.order("ada", 300)
	s.jobOK("keepset-backup", "nightly")
	before := s.identities()

	s.jobOK("keepset-drill", "drill-1")
	assert.Contains(t, s.logs("drill-1"), "was restored in")
	assert.Contains(t, s.logs("drill-1"), "queries: ok: 2 answered as they should")
	s.noDrillLeft()
	assert.Equal(t, before, s.identities(), "the set is as it was")
	events := s.kubectl("get", "events", "-o", "jsonpath={.items[?(@.reason=='DrillPassed')].message}")
	assert.Contains(t, events, "was restored in")
	assert.Equal(t, job.CheckOK, s.drillCheck())

	// Killed while its database is up: the retry removes what it left. A backup takes no notice.
	s.jobFrom("keepset-drill", "drill-2")
	s.drillServer()
	pods := s.jobPods("drill-2")
	require.NotEmpty(t, pods)
	require.Positive(t, killPod(string(pods[0].UID), "restore", syscall.SIGKILL))
	require.NotEmpty(t, s.drillObjects(), "the dead left something")
	s.jobOK("keepset-backup", "meanwhile")
	require.True(t, s.waitJob("drill-2", 10*time.Minute), s.logs("drill-2"))
	assert.Contains(t, s.logs("drill-2"), "was restored in")
	s.noDrillLeft()

	// Its Job is deleted in the middle: Kubernetes takes the pod and the claims along.
	s.jobFrom("keepset-drill", "drill-3")
	s.drillServer()
	s.kubectl("delete", "job", "drill-3", "--wait=false")
	s.until(3*time.Minute, "the drill's pod and claims go with its Job", func() bool { return len(s.drillObjects()) == 0 })

	// A backup that is wanting: from outside, by a Job that ends with 4 and is not repeated.
	run := s.host().run("restore", "drill", "--set", "mysql", "--repository", s.repository, "--job-name", "drill-4", "--check-sql", "SELECT COUNT(*) FROM shop.nothing")
	assert.Equal(t, cli.ExitSuspect, run.code, run.stderr)
	assert.Contains(t, run.stderr, "shop.nothing")
	s.noDrillLeft()
	assert.Equal(t, job.CheckAlert, s.drillCheck())
	assert.Equal(t, before, s.identities())
}

// identities are the UIDs of the set's pods and claims, and whether its CronJob is suspended.
func (s *shopSet) identities() string {
	s.t.Helper()
	return s.kubectl("get", "pods,pvc", "-l", "app=mysql", "-o", "jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {end}") +
		s.kubectl("get", "cronjob", "keepset-backup", "-o", "jsonpath={.spec.suspend} {.metadata.annotations}")
}

const drillObjects = "app.kubernetes.io/managed-by=keepset,app.kubernetes.io/component=drill-server"

// drillObjects are the pods and claims of drills.
func (s *shopSet) drillObjects() []string {
	s.t.Helper()
	return strings.Fields(s.kubectl("get", "pods,pvc", "-l", drillObjects, "-o", "jsonpath={range .items[*]}{.metadata.name} {end}"))
}

func (s *shopSet) noDrillLeft() {
	s.t.Helper()
	assert.Empty(s.t, s.drillObjects())
}

// drillServer waits until a drill's database runs.
func (s *shopSet) drillServer() {
	s.t.Helper()
	s.until(5*time.Minute, "a drill's database runs", func() bool {
		list, err := s.kube.CoreV1().Pods(s.ns).List(s.t.Context(), metav1.ListOptions{LabelSelector: drillObjects})
		require.NoError(s.t, err)
		return slices.ContainsFunc(list.Items, func(p corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning })
	})
}

// drillCheck is what backup status says of drills.
func (s *shopSet) drillCheck() string {
	s.t.Helper()
	run := s.host().run("backup", "status", "--set", "mysql", "--repository", s.repository, "--drill-days", "8", "--json")
	var reports []job.StatusReport
	require.NoError(s.t, json.Unmarshal([]byte(run.stdout), &reports), run.stderr)
	require.Len(s.t, reports, 1)
	for _, c := range reports[0].Checks {
		if c.Check == job.CheckDrill {
			return c.State
		}
	}
	return ""
}
