package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestProof8Memory dumps and loads a database that is larger than the
// container's memory limit, the shipped 256 MiB, in one go: no pod is killed
// for its memory, none is tried twice.
func TestProof8Memory(t *testing.T) {
	t.Parallel()
	megabytes := 400
	if soak() {
		megabytes = 2048
	}
	s := newShopSet(t, shopOptions{replicas: 1})
	s.exec(0, "CREATE TABLE shop.big (id INT PRIMARY KEY AUTO_INCREMENT, note VARCHAR(1024), KEY (note(16)))")
	for done := 0; done < megabytes; done += 50 {
		s.exec(0, "INSERT INTO shop.big (note) SELECT HEX(RANDOM_BYTES(480)) FROM shop.seq_1_to_52000")
	}
	s.exec(0, "SET GLOBAL max_statement_time = 0")
	want := s.value(0, "SELECT CONCAT(COUNT(*), ' ', SUM(CRC32(note))) FROM shop.big")

	s.jobFrom("keepset-backup", "big")
	require.True(t, s.waitJob("big", 40*time.Minute), s.logs("big"))
	s.inMemory("big")
	last := s.backups()[0]
	assert.GreaterOrEqual(t, last.Bytes, int64(megabytes)<<20*9/10)

	s.parameters(map[string]string{"KEEPSET_REPLICAS": "2"})
	s.jobFrom("keepset-restore", "grow")
	require.True(t, s.waitJob("grow", 60*time.Minute), s.logs("grow"))
	s.inMemory("grow")
	assert.Equal(t, want, s.value(1, "SELECT CONCAT(COUNT(*), ' ', SUM(CRC32(note))) FROM shop.big"))
	t.Logf("%d bytes in %d rows dumped and loaded", last.Bytes, last.Rows)
}

// inMemory requires that a Job's one pod had the shipped limit, and ended
// well at the first try.
func (s *shopSet) inMemory(job string) {
	s.t.Helper()
	list, err := s.kube.CoreV1().Pods(s.ns).List(s.t.Context(), metav1.ListOptions{LabelSelector: "batch.kubernetes.io/job-name=" + job})
	require.NoError(s.t, err)
	require.Len(s.t, list.Items, 1, "pods of job %s:\n%s", job, s.logs(job))
	pod := list.Items[0]
	assert.Equal(s.t, "256Mi", pod.Spec.Containers[0].Resources.Limits.Memory().String())
	assert.Equal(s.t, corev1.PodSucceeded, pod.Status.Phase, fmt.Sprint(pod.Status.ContainerStatuses))
}
