package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/cli"
	"keepset/internal/record"
)

// TestProof4Killed kills each backup's pod at a random point, as the kernel
// does when memory runs out: by SIGKILL. Every Job ends in one complete backup,
// verify finds nothing wrong, and no listing shows a lie.
func TestProof4Killed(t *testing.T) {
	t.Parallel()
	jobs, together := 4, 2
	if soak() {
		jobs, together = 20, 4
	}
	s := newShopSet(t, shopOptions{replicas: 2, patches: []string{`
apiVersion: v1
kind: ConfigMap
metadata: {name: keepset-backup}
data:
  KEEPSET_LIMIT_UPLOAD: "1500"
`, `
apiVersion: batch/v1
kind: CronJob
metadata: {name: keepset-backup}
spec:
  successfulJobsHistoryLimit: 100
  failedJobsHistoryLimit: 100
  jobTemplate:
    spec:
      template:
        spec:
          containers:
            # A twentieth of a core makes a backup that stores nothing new last long enough to be hit.
            - name: keepset
              resources: {requests: {cpu: 25m}, limits: {cpu: 50m}}
`}})
	s.order("many", 40000)
	s.caughtUp(1)
	s.life("whole-0")
	life := s.life("whole-1")
	honest := s.listing()
	slots := make(chan struct{}, together)
	var wg sync.WaitGroup
	kills := make([]int, jobs)
	run := make([][]string, jobs)
	for i := range jobs {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			// A Job that was done before its moment came is of no use here: another one takes its place.
			for try := 0; kills[i] == 0 && try < 10; try++ {
				name := fmt.Sprintf("killed-%d-%d", i, try)
				if _, err := s.try("create", "job", name, "--from=cronjob/keepset-backup"); err != nil {
					t.Errorf("create job %s: %v", name, err)
					return
				}
				run[i] = append(run[i], name)
				kills[i] = s.killSomewhere(name, 1+i%2, life)
				assert.True(t, s.waitJob(name, 15*time.Minute), "job %s succeeds after its pod was killed:\n%s", name, s.logs(name))
			}
		})
	}
	wg.Wait()
	listings, proven := honest()
	total := 0
	for i := range jobs {
		assert.Positive(t, kills[i], "job %d was hit while it ran", i)
		total += kills[i]
	}
	names := slices.Concat(run...)
	assert.Equal(t, len(names)+2, proven, "every backup was verified when it was first listed as complete")
	t.Logf("measured: %d jobs, each of which was hit, and %d that were done before; %d pods killed within the %v that an unharmed one takes, %d listings",
		jobs, len(names)-jobs, total, life.Round(time.Millisecond), listings)

	byID := map[string]int{}
	for _, b := range s.backups() {
		assert.Equal(t, "complete", b.Status, "%s: %v", b.Backup, b.Problems)
		byID[string(b.Backup)]++
	}
	for _, name := range names {
		id := s.backupID(name)
		assert.Equal(t, 1, byID[string(id)], "job %s has one backup, %s", name, id)
	}
	assert.Len(t, byID, len(names)+2)
	assert.Contains(t, s.keepset("backup", "verify", "--repository", s.repository, "--read-data", "100"), "0 damaged")
}

// listing lists the backups again and again until it is ended, and holds the
// listings to their word: what is shown as complete is verified at once, to the
// last byte, and stays complete. It returns how many listings there were, and
// how many backups were verified.
func (s *shopSet) listing() (end func() (listings, verified int)) {
	host, stop, done := s.host(), make(chan struct{}), make(chan struct{})
	listings, verified := 0, map[record.BackupID]bool{}
	look := func() {
		r := host.run("backup", "list", "--json", "--set", "mysql", "--repository", s.repository)
		var all []cli.BackupSummary
		if !assert.Zero(s.t, r.code, r.stderr) || !assert.NoError(s.t, json.Unmarshal([]byte(r.stdout), &all)) {
			return
		}
		listings++
		complete := map[record.BackupID]bool{}
		for _, b := range all {
			if b.Status != "complete" {
				continue
			}
			complete[b.Backup] = true
			if verified[b.Backup] {
				continue
			}
			assert.Equal(s.t, map[int]string{0: "complete", 1: "complete"}, statuses(b), "%s was listed as complete", b.Backup)
			r := host.run("backup", "verify", string(b.Backup), "--set", "mysql", "--repository", s.repository, "--read-data", "100")
			verified[b.Backup] = assert.Zero(s.t, r.code, "%s was listed as complete, and is not:\n%s%s", b.Backup, r.stdout, r.stderr)
		}
		for id := range verified {
			assert.True(s.t, complete[id], "%s was complete, and is not any more", id)
		}
	}
	go func() {
		defer close(done)
		for {
			look()
			select {
			case <-stop:
				look()
				return
			case <-time.After(500 * time.Millisecond):
			}
		}
	}()
	return func() (int, int) {
		close(stop)
		<-done
		return listings, len(verified)
	}
}

// life takes a backup that nobody harms and returns how long its pod ran, so
// that kills hit running pods on slow and on fast machines.
func (s *shopSet) life(job string) time.Duration {
	s.t.Helper()
	_, err := s.try("create", "job", job, "--from=cronjob/keepset-backup")
	require.NoError(s.t, err)
	require.NotNil(s.t, s.nextPod(job, map[string]bool{}), "job %s has a running pod", job)
	began := time.Now()
	require.True(s.t, s.waitJob(job, 15*time.Minute), s.logs(job))
	return time.Since(began)
}

// killSomewhere kills up to count pods of a Job, each at a random moment of
// its life, and returns how many it caught running. The end of a Job is seen
// about a second late, hence the share of the life.
func (s *shopSet) killSomewhere(job string, count int, life time.Duration) int {
	seen := map[string]bool{}
	caught := 0
	for range count {
		pod := s.nextPod(job, seen)
		if pod == nil {
			return caught
		}
		seen[pod.Name] = true
		time.Sleep(time.Duration(rand.Float64() * 0.6 * float64(life)))
		if killPod(string(pod.UID), "backup", syscall.SIGKILL) > 0 {
			caught++
		}
	}
	return caught
}

// nextPod waits for a running pod of a Job that was not seen yet; nil when the
// Job has ended before.
func (s *shopSet) nextPod(job string, seen map[string]bool) *corev1.Pod {
	deadline := time.Now().Add(5 * time.Minute)
	for time.Now().Before(deadline) {
		list, err := s.kube.CoreV1().Pods(s.ns).List(s.t.Context(), metav1.ListOptions{LabelSelector: "batch.kubernetes.io/job-name=" + job})
		if err == nil {
			for i := range list.Items {
				p := &list.Items[i]
				if !seen[p.Name] && p.Status.Phase == corev1.PodRunning {
					return p
				}
			}
		}
		j, err := s.kube.BatchV1().Jobs(s.ns).Get(s.t.Context(), job, metav1.GetOptions{})
		if err == nil && (j.Status.Succeeded > 0 || j.Status.CompletionTime != nil) {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

// killPod sends a signal to the processes called name of a pod, which run on
// this machine as the cluster of the tests does, and returns how many it hit.
func killPod(uid, name string, sig syscall.Signal) int {
	hit := 0
	files, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(content, []byte(uid)) && !bytes.Contains(content, []byte(strings.ReplaceAll(uid, "-", "_"))) {
			continue
		}
		dir := filepath.Dir(file)
		comm, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil || strings.TrimSpace(string(comm)) != name {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err == nil && syscall.Kill(pid, sig) == nil {
			hit++
		}
	}
	return hit
}
