package job_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/statefulset"
)

// directly has the set's own claims read, which can be mounted so.
func (c *filesCluster) directly(mode corev1.PersistentVolumeAccessMode, fuzzy bool) *job.Backup {
	c.t.Helper()
	for i := range c.roots {
		claim, err := c.kube.CoreV1().PersistentVolumeClaims(namespace).Get(c.t.Context(), fmt.Sprintf("data-www-%d", i), metav1.GetOptions{})
		require.NoError(c.t, err)
		claim.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{mode}
		require.NoError(c.t, c.kube.Tracker().Update(corev1.SchemeGroupVersion.WithResource("persistentvolumeclaims"), claim, namespace))
	}
	b := c.backup()
	b.Parallel, b.Workers.Snapshots, b.Workers.Spec.Temporary, b.Workers.Fuzzy = 1, nil, false, fuzzy
	return b
}

// stop takes the set's pods away, and returns them.
func (c *filesCluster) stop() (pods []*corev1.Pod) {
	c.t.Helper()
	list, err := c.kube.CoreV1().Pods(namespace).List(c.t.Context(), metav1.ListOptions{})
	require.NoError(c.t, err)
	for i := range list.Items {
		pods = append(pods, &list.Items[i])
		require.NoError(c.t, c.kube.CoreV1().Pods(namespace).Delete(c.t.Context(), list.Items[i].Name, metav1.DeleteOptions{}))
	}
	return pods
}

// TestScaledUpMeanwhile: a claim that comes into use while the files of another
// ordinal are read is not read without consent. Nothing but its own member fails.
func TestScaledUpMeanwhile(t *testing.T) {
	c := newFilesCluster(t, 2)
	pods := c.stop()
	b := c.directly(corev1.ReadWriteOnce, false)
	other := 0
	c.began = func(first int) {
		other = 1 - first
		require.NoError(t, c.kube.Tracker().Add(pods[other]))
	}
	report, err := b.Run(t.Context())
	require.ErrorIs(t, err, job.ErrIncomplete)
	require.ErrorContains(t, err, fmt.Sprintf("claim data-www-%d is in use by pod www-%d", other, other))
	require.Len(t, c.read, 1, "no worker was made for it")
	require.Equal(t, job.StatusFailed, report.Members[other].Status)
	require.Equal(t, record.StatusComplete, report.Members[1-other].Status)
	require.Empty(t, c.left())
}

// TestInUseWhileRead: a worker does not begin with a claim that is in use, and what it
// has read of one that came into use is suspect, whoever waits for it.
func TestInUseWhileRead(t *testing.T) {
	const claim = "data-www-1"
	for name, test := range map[string]struct {
		from     int64 // that question of the worker's on
		sentinel error
		says     string
		status   repository.Status
	}{
		"before": {1, job.ErrIncomplete, "ordinal 1 (www-1) failed", repository.StatusIncomplete},
		"since":  {3, job.ErrSuspect, "claim data-www-1 was in use by pod www-1 while its files were read", repository.StatusSuspect},
		"never":  {1000, nil, "", repository.StatusComplete},
	} {
		t.Run(name, func(t *testing.T) {
			c := newFilesCluster(t, 2)
			c.stop()
			var asked, begun atomic.Int64
			c.began = func(ordinal int) { begun.Store(int64(ordinal)) }
			c.users = func(context.Context) (map[string][]statefulset.ClaimUser, error) {
				if begun.Load() == 1 && asked.Add(1) >= test.from {
					return map[string][]statefulset.ClaimUser{claim: {{Pod: "www-1", Node: "node-1"}}}, nil
				}
				return nil, nil
			}
			b := c.directly(corev1.ReadWriteOnce, false)
			_, err := b.Run(t.Context())
			require.ErrorIs(t, err, test.sentinel)
			if test.sentinel != nil {
				require.ErrorContains(t, err, test.says)
			}
			require.Equal(t, test.status, c.listOf(filesSetID)[0].Status)
		})
	}
}

// TestNodeOfAWorker: a claim that one node alone can mount is read where its pod is by
// then, which has moved since the backup began; one of many nodes anywhere.
func TestNodeOfAWorker(t *testing.T) {
	for mode, want := range map[corev1.PersistentVolumeAccessMode][2]string{
		corev1.ReadWriteOnce: {"node-1", "node-2"}, corev1.ReadWriteMany: {"", ""}, corev1.ReadOnlyMany: {"", ""},
	} {
		t.Run(string(mode), func(t *testing.T) {
			c := newFilesCluster(t, 2)
			b := c.directly(mode, true)
			pods, err := c.kube.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
			require.NoError(t, err)
			first, begun := 0, 0
			c.began = func(ordinal int) {
				if begun++; begun > 1 {
					return
				}
				first = ordinal
				moved := pods.Items[1-ordinal].DeepCopy()
				moved.Spec.NodeName = "node-2"
				require.NoError(t, c.kube.Tracker().Update(corev1.SchemeGroupVersion.WithResource("pods"), moved, namespace))
			}
			_, err = b.Run(t.Context())
			require.NoError(t, err)
			require.Len(t, c.read, 2)
			require.Equal(t, want, [2]string{c.nodes[first], c.nodes[1-first]})
		})
	}
}
