package e2e

import (
	"context"
	"crypto/rand"
	"io"
	mathrand "math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestFilesKilled: a worker that is killed is tried again; a run that is killed
// finds its worker at work; a worker that is killed each time makes the backup
// fail, and it is not there to be restored; and workers go with their Job.
func TestFilesKilled(t *testing.T) {
	t.Parallel()
	s := newFilesSet(t, "restricted", filesOptions{Replicas: 1, UID: 1000, Mode: "ReadWriteOnce", settings: map[string]string{"KEEPSET_LIMIT_UPLOAD": "6144"}})
	s.fuzzy()

	s.large()
	want := s.tree(0)
	s.jobFrom("keepset-backup", "worker-killed")
	s.kill(s.worker())
	require.True(t, s.waitJob("worker-killed", 10*time.Minute), s.logs("worker-killed"))
	assert.Empty(t, s.workers())
	s.restored(want)

	s.large()
	want = s.tree(0)
	s.jobFrom("keepset-backup", "run-killed")
	require.NotNil(t, s.worker())
	s.kill(s.nextPod("run-killed", map[string]bool{}))
	require.True(t, s.waitJob("run-killed", 10*time.Minute), s.logs("run-killed"))
	assert.Regexp(t, "worker of an earlier attempt goes on|already committed by an earlier attempt", s.logs("run-killed")) // which, the machine's pace decides
	assert.Empty(t, s.workers())
	s.restored(want)

	s.large()
	good := s.backups()[0].Backup
	s.once("keepset-backup", "hopeless")
	for range 3 {
		s.kill(s.worker())
	}
	require.False(t, s.waitJob("hopeless", 10*time.Minute), s.logs("hopeless"))
	code, message, _ := s.ended("hopeless")
	t.Logf("%d  %s", code, message)
	assert.EqualValues(t, 1, code)
	assert.Contains(t, message, "ordinal 0 (www-0) failed: the worker ended with exit code 137")
	assert.Empty(t, s.workers())
	assert.Equal(t, "incomplete", s.backups()[0].Status)
	assert.Contains(t, s.keepset("restore", "load", "--set", s.ns+"/www", "--target", "file://"+t.TempDir()+"/dry", "--repository", s.repository, "--dry-run"), good)

	s.large()
	s.jobFrom("keepset-backup", "deleted")
	require.NotNil(t, s.worker())
	s.kubectl("delete", "job", "deleted", "--wait=false")
	s.until(2*time.Minute, "workers go with the Job", func() bool { return s.workers() == "" })
	require.NotEmpty(t, s.claim("data-www-0").uid, "and claims do not")
}

// large puts a file that takes seconds to back up, and is another one each time.
func (s *filesSet) large() {
	s.t.Helper()
	path := s.dir(0) + "/large"
	f, err := os.Create(path)
	require.NoError(s.t, err)
	_, err = io.CopyN(f, rand.Reader, 128<<20)
	require.NoError(s.t, err)
	require.NoError(s.t, f.Close())
	require.NoError(s.t, os.Chown(path, 1000, 1000))
	s.age(s.dir(0))
}

// worker waits for the running pod of a worker.
func (s *filesSet) worker() (pod *corev1.Pod) {
	s.t.Helper()
	s.until(5*time.Minute, "a worker runs", func() bool {
		list, err := s.kube.CoreV1().Pods(s.ns).List(s.t.Context(), metav1.ListOptions{LabelSelector: "keepset/worker"})
		if err != nil {
			return false
		}
		for i := range list.Items {
			if p := &list.Items[i]; p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil {
				pod = p
				return true
			}
		}
		return false
	})
	return pod
}

// kill kills the program of a running pod, somewhere, and waits until the cluster
// has seen it.
func (s *filesSet) kill(pod *corev1.Pod) {
	s.t.Helper()
	require.NotNil(s.t, pod)
	time.Sleep(time.Duration(mathrand.Float64() * float64(time.Second)))
	require.Positive(s.t, killPod(string(pod.UID), "backup", syscall.SIGKILL), "pod %s was at work", pod.Name)
	s.until(time.Minute, "pod "+pod.Name+" has ended", func() bool {
		p := s.pod(pod.Name)
		return p == nil || p.Status.Phase == corev1.PodFailed
	})
}

// once makes a Job that is not tried again.
func (s *filesSet) once(cronJob, name string) {
	s.t.Helper()
	from, err := s.kube.BatchV1().CronJobs(s.ns).Get(context.Background(), cronJob, metav1.GetOptions{})
	require.NoError(s.t, err)
	never := int32(0)
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: from.Spec.JobTemplate.Labels}, Spec: from.Spec.JobTemplate.Spec}
	job.Spec.BackoffLimit = &never
	_, err = s.kube.BatchV1().Jobs(s.ns).Create(context.Background(), job, metav1.CreateOptions{})
	require.NoError(s.t, err)
}

// restored restores the newest backup on this machine and compares.
func (s *filesSet) restored(want []string) {
	s.t.Helper()
	to := s.t.TempDir() + "/restored"
	s.keepset("restore", "load", "--set", s.ns+"/www", "--target", "file://"+to, "--repository", s.repository)
	assert.Equal(s.t, want, s.treeAt(to))
}
