package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// shippedReader follows a page with overlays as they are shipped, in the test's
// namespace and with the test's image, and with patches, the text of that field
// of a kustomization.
func (s *shopSet) shippedReader(patches string, overlays ...string) *reader {
	s.t.Helper()
	bin, folder := s.t.TempDir(), s.t.TempDir()
	require.NoError(s.t, os.Symlink(s.kubectlBin, filepath.Join(bin, "kubectl")))
	for _, name := range overlays {
		dir := filepath.Join(folder, name)
		require.NoError(s.t, os.Mkdir(dir, 0o700))
		shipped, err := filepath.Abs("../../deploy/cronjob/overlays/" + name)
		require.NoError(s.t, err)
		shipped, err = filepath.Rel(dir, shipped) // kustomize wants relative paths
		require.NoError(s.t, err)
		text := fmt.Sprintf("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: %s\nresources: [%s]\nimages: [{name: keepset, newTag: %s}]\n%s", s.ns, shipped, imageTag(), patches)
		require.NoError(s.t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600))
	}
	return &reader{
		t: s.t, dir: s.t.TempDir(),
		env:   []string{"HOME=" + s.t.TempDir(), "PATH=" + bin + ":" + os.Getenv("PATH"), "KUBECONFIG=" + s.kubeconfig},
		names: strings.NewReplacer("-n default ", "-n "+s.ns+" ", "deploy/cronjob/overlays/", folder+"/"),
	}
}

// scheduled are the Jobs that the CronJob's schedule has made since a moment.
func (s *shopSet) scheduled(since time.Time) []batchv1.Job {
	s.t.Helper()
	jobs, err := s.kube.BatchV1().Jobs(s.ns).List(s.t.Context(), metav1.ListOptions{})
	require.NoError(s.t, err)
	var found []batchv1.Job
	for _, j := range jobs.Items {
		if _, byClock := j.Annotations[batchv1.CronJobScheduledTimestampAnnotation]; byClock && j.CreationTimestamp.After(since) {
			found = append(found, j)
		}
	}
	return found
}

// scheduledBackup waits until one of them has succeeded. None may fail.
func (s *shopSet) scheduledBackup(since time.Time) {
	s.t.Helper()
	s.until(4*time.Minute, "a backup on schedule", func() bool {
		complete := false
		for _, j := range s.scheduled(since) {
			for _, c := range j.Status.Conditions {
				require.False(s.t, c.Type == batchv1.JobFailed && c.Status == corev1.ConditionTrue, "job %s failed: %s\n%s", j.Name, c.Message, s.logs(j.Name))
				if c.Type == batchv1.JobComplete && c.Status == corev1.ConditionTrue {
					complete = true
				}
			}
		}
		return complete
	})
}

// idle waits until the CronJob is suspended and no backup of its runs any more.
func (s *shopSet) idle() {
	s.t.Helper()
	s.until(2*time.Minute, "the backups rest", func() bool {
		c, err := s.kube.BatchV1().CronJobs(s.ns).Get(s.t.Context(), "keepset-backup", metav1.GetOptions{})
		return err == nil && c.Spec.Suspend != nil && *c.Spec.Suspend && len(c.Status.Active) == 0
	})
}

// everyMinute patches an overlay's schedule, for which no test waits longer.
const everyMinute = `
patches:
  - target: {kind: CronJob, name: keepset-backup}
    patch: |
      - {op: replace, path: /spec/schedule, value: "* * * * *"}
`

// failing runs the CronJob's backup once, without a second try, and returns what
// it said when it failed.
func (s *shopSet) failing(job string) string {
	s.t.Helper()
	text := s.kubectl("create", "job", job, "--from=cronjob/keepset-backup", "--dry-run=client", "-o", "yaml")
	s.apply(strings.Replace(text, "backoffLimit: 3", "backoffLimit: 0", 1))
	require.False(s.t, s.waitJob(job, 5*time.Minute), "job %s succeeded:\n%s", job, s.logs(job))
	return s.logs(job)
}
