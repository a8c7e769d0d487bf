package e2e

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestProof5BadInput is the table of TestPlainBadInput for what only a cluster
// can get wrong.
func TestProof5BadInput(t *testing.T) {
	t.Parallel()
	s := newShopSet(t, shopOptions{})
	s.jobOK("keepset-backup", "good")
	first := s.backups()[0]
	require.Equal(t, "complete", first.Status)
	run := s.host().with("KEEPSET_SOURCE_USER="+backupAccount, "KEEPSET_SOURCE_PASSWORD=backup-secret", "KEEPSET_REPOSITORY="+s.repository)

	fails := func(code int, p *plain, args []string, says ...string) {
		t.Helper()
		line := p.fails(code, args...)
		for _, want := range says {
			assert.Contains(t, line, want)
		}
		t.Logf("%d  %s", code, line)
	}
	backup := []string{"backup", "run", "--set", "mysql"}

	fails(64, run, []string{"backup", "run", "--set", "postgres"}, "postgres", "not found", "mysql")
	fails(1, run.with("KEEPSET_SOURCE_PASSWORD=wrong"), backup, "backup failed", "access denied by the server")
	fails(64, run.with("KEEPSET_REPOSITORY=s3://nowhere/x"), backup, "nowhere", "does not exist")
	fails(64, run, append(backup, "--ordinals", "0,7"), "the set has no ordinal 7")
	fails(64, run, append(backup, "--container", "web"), "web", "mysql")
	fails(1, run.with("KUBECONFIG="+s.kubeconfigOf("default")), backup, "not allowed", "default may not get leases", "rbac-backup.yaml")
	restore := s.host().with("KEEPSET_TARGET_USER=root", "KEEPSET_TARGET_PASSWORD="+rootPassword, "KEEPSET_REPOSITORY="+s.repository,
		"KEEPSET_REPLICATION_USER="+replAccount, "KEEPSET_REPLICATION_PASSWORD=repl-secret")
	fails(64, restore, []string{"restore", "plan", "--set", "mysql"}, "exactly one of --replicas, --ordinal and --all")
	fails(64, restore, []string{"restore", "plan", "--set", "mysql", "--replicas", "3"}, "adds none")
	fails(64, restore, []string{"restore", "plan", "--set", "mysql", "--all"}, "zero replicas")
	fails(64, restore, []string{"restore", "plan", "--set", "mysql", "--ordinal", "9"}, "ordinal 9")
	fails(64, restore, []string{"restore", "plan", "--set", "mysql", "--ordinal", "2"}, "--replace", "--keep")
	fails(64, restore, []string{"restore", "plan", "--set", "mysql", "--ordinal", "0", "--replace"}, "--allow-rollback")
	fails(64, restore, []string{"restore", "plan", "--set", "mysql", "--replicas", "4", "--backup", "2001-01-01"}, "no eligible backup")
	fails(64, restore, []string{"restore", "plan", "--set", "mysql", "--replicas", "4", "--from-set", "other/mysql"}, "no eligible backup")

	// A Job that is wrong ends at once, and its pod says why.
	s.kubectl("patch", "configmap", "keepset", "--type=merge", "-p", `{"data":{"KEEPSET_REPOSITORY":"s3://nowhere/x"}}`)
	s.jobFrom("keepset-backup", "wrong-bucket")
	assert.False(t, s.waitJob("wrong-bucket", 5*time.Minute))
	code, message, pods := s.ended("wrong-bucket")
	assert.EqualValues(t, 64, code)
	assert.Contains(t, message, "nowhere")
	assert.Equal(t, 1, pods, "not tried again")

	s.unreachableReplica(run, backup)
	s.missingClaim(run, backup)
	assert.Equal(t, "complete", status(s.host(), s.repository, s.ns+"/mysql", string(first.Backup)), "the earlier backup is untouched")
	assert.Contains(t, s.keepset("backup", "verify", "--repository", s.repository, "--read-data", "100"), "0 damaged")
}

// unreachableReplica stops a server so that it does not answer any more.
func (s *shopSet) unreachableReplica(run *plain, backup []string) {
	s.t.Helper()
	uid := string(s.pod("mysql-2").UID)
	require.Positive(s.t, killPod(uid, "mariadbd", syscall.SIGSTOP), "the server of mysql-2 runs on this machine")
	line := run.fails(3, append(backup, "--connect-timeout", "3s")...)
	killPod(uid, "mariadbd", syscall.SIGCONT)
	s.t.Logf("3  %s", line)
	assert.Contains(s.t, line, "ordinal 2 (mysql-2) failed")
	assert.NotContains(s.t, line, "ordinal 1")
	s.waitReady(3)
}

// missingClaim takes a claim away below a running pod, as an eager hand does,
// where a quota keeps the controller from making it anew.
func (s *shopSet) missingClaim(run *plain, backup []string) {
	s.t.Helper()
	s.kubectl("create", "quota", "no-claims", "--hard=persistentvolumeclaims=0")
	s.kubectl("delete", "pvc", "data-mysql-2", "--wait=false")
	// Kubernetes protects a claim in use; a hand takes the protection off.
	s.kubectl("patch", "pvc", "data-mysql-2", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	s.until(time.Minute, "the claim is gone", func() bool { _, err := s.try("get", "pvc", "data-mysql-2"); return err != nil })
	line := run.fails(3, backup...)
	s.t.Logf("3  %s", line)
	assert.Contains(s.t, line, "ordinal 2 (mysql-2) failed")
	assert.Contains(s.t, line, "data-mysql-2")
}

// ended says how the container of a Job's last pod ended, and how many pods it had.
func (s *shopSet) ended(job string) (code int32, message string, pods int) {
	s.t.Helper()
	list, err := s.kube.CoreV1().Pods(s.ns).List(s.t.Context(), metav1.ListOptions{LabelSelector: "batch.kubernetes.io/job-name=" + job})
	require.NoError(s.t, err)
	for _, p := range list.Items {
		for _, c := range p.Status.ContainerStatuses {
			if c.State.Terminated != nil {
				code, message = c.State.Terminated.ExitCode, c.State.Terminated.Message
			}
		}
	}
	return code, message, len(list.Items)
}

// kubeconfigOf writes a kubeconfig with the rights of a service account.
func (s *shopSet) kubeconfigOf(account string) string {
	s.t.Helper()
	config := s.as(account)
	path := filepath.Join(s.t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`
apiVersion: v1
kind: Config
current-context: x
clusters: [{name: x, cluster: {server: %q, certificate-authority: %q, certificate-authority-data: %q}}]
users: [{name: x, user: {token: %q}}]
contexts: [{name: x, context: {cluster: x, user: x, namespace: %q}}]
`, config.Host, config.CAFile, base64.StdEncoding.EncodeToString(config.CAData), config.BearerToken, s.ns)
	require.NoError(s.t, os.WriteFile(path, []byte(strings.TrimSpace(text)), 0o600))
	return path
}
