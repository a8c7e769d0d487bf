package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// kustomize builds a folder and returns its objects by "Kind/name".
func (c *cluster) kustomize(dir string) (string, map[string]string) {
	c.t.Helper()
	text := c.kubectl("kustomize", dir)
	objects := map[string]string{}
	for doc := range strings.SplitSeq(text, "\n---\n") {
		var head struct {
			Kind     string
			Metadata struct{ Name, Namespace string }
		}
		require.NoError(c.t, yaml.Unmarshal([]byte(doc), &head))
		objects[head.Kind+"/"+head.Metadata.Name] = doc
	}
	return text, objects
}

func decode[T any](t *testing.T, doc string) T {
	t.Helper()
	var out T
	require.NoError(t, yaml.UnmarshalStrict([]byte(doc), &out))
	return out
}

// Every overlay builds, and the API server of a namespace that enforces the
// restricted pod security standard takes it.
func TestOverlaysBuild(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "pod-security.kubernetes.io/enforce=restricted")
	overlays, err := filepath.Glob("../../deploy/cronjob/overlays/*")
	require.NoError(t, err)
	require.Len(t, overlays, 11)
	for _, dir := range overlays {
		text, objects := c.kustomize(dir)
		for _, want := range []string{
			"ServiceAccount/keepset-backup", "ServiceAccount/keepset-restore", "Role/keepset-backup", "Role/keepset-restore",
			"RoleBinding/keepset-backup", "RoleBinding/keepset-restore", "CronJob/keepset-backup", "CronJob/keepset-restore",
			"ConfigMap/keepset", "ConfigMap/keepset-backup", "ConfigMap/keepset-restore", "NetworkPolicy/keepset", "NetworkPolicy/keepset-seed",
		} {
			assert.Contains(t, objects, want, dir)
		}
		wide := clusterWide[filepath.Base(dir)]
		assert.Equal(t, wide, strings.Contains(text, "kind: Cluster"), "%s: rights outside of the namespace are opt-in", dir)
		assert.NotContains(t, text, "secrets", "no right on Secrets")
		for _, name := range []string{"CronJob/keepset-backup", "CronJob/keepset-restore"} {
			job := decode[batchv1.CronJob](t, objects[name])
			if !strings.HasSuffix(dir, "-suspended") || name != "CronJob/keepset-backup" {
				assert.Nil(t, job.Spec.Suspend, "%s: %s: what says suspend undoes what somebody has suspended", dir, name)
			}
			for _, rule := range job.Spec.JobTemplate.Spec.PodFailurePolicy.Rules {
				if rule.OnExitCodes != nil {
					assert.NotContains(t, rule.OnExitCodes.Values, int32(2), "2 is Go's panic status")
				}
			}
		}
		namespaced := strings.NewReplacer("namespace: default", "namespace: "+c.ns, "namespace: mysql", "namespace: "+c.ns).Replace(text)
		out, err := c.tryInput(namespaced, "apply", "--dry-run=server", "--warnings-as-errors", "-f", "-")
		require.NoError(t, err, "%s: %s", dir, out)
	}
}

// The set's name stands in one place; the labels by which a restore finds the
// CronJobs, and the names in its Role, follow it.
func TestOverlayForAnotherSet(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	root := t.TempDir()
	require.NoError(t, os.CopyFS(root, os.DirFS("../../deploy/cronjob")))
	file := filepath.Join(root, "overlays/mysql-replicated/config.yaml")
	text := strings.Replace(readFile(t, file), "KEEPSET_SET: mysql", "KEEPSET_SET: ledger", 1)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	kustomization := filepath.Join(root, "overlays/mysql-replicated/kustomization.yaml")
	text = strings.Replace(readFile(t, kustomization), "# components:\n#   - ../../components/fan-out", "components:\n  - ../../components/fan-out", 1)
	require.NoError(t, os.WriteFile(kustomization, []byte(text), 0o600))

	_, objects := c.kustomize(filepath.Dir(file))
	role := decode[rbacv1.Role](t, objects["Role/keepset-restore"])
	names := map[string][]string{}
	for _, r := range role.Rules {
		if len(r.ResourceNames) > 0 {
			names[r.Resources[0]] = r.ResourceNames
		}
	}
	assert.Equal(t, map[string][]string{"statefulsets": {"ledger"}, "statefulsets/scale": {"ledger"}, "cronjobs": {"keepset-backup"}}, names)
	job := decode[batchv1.CronJob](t, objects["CronJob/keepset-backup"])
	assert.Equal(t, "ledger", job.Labels["keepset/set"])
	assert.Equal(t, "ledger", job.Spec.JobTemplate.Labels["keepset/set"])
	assert.Equal(t, "ledger", job.Spec.JobTemplate.Spec.Template.Labels["keepset/set"])

	spec := job.Spec.JobTemplate.Spec
	assert.Equal(t, batchv1.IndexedCompletion, *spec.CompletionMode)
	assert.Nil(t, spec.BackoffLimit, "one budget for all would let an unreachable member end the healthy ones")
	assert.NotNil(t, spec.BackoffLimitPerIndex)
	assert.Nil(t, spec.MaxFailedIndexes, "it would have to be changed with completions, and would end the healthy ones")
}

// TestComponentsBuild: the overlay mysql-replicated with all that is commented out in it, for a set of another name. The API server of a
// namespace that enforces the restricted standard takes it, each CronJob has an account of its own, and no restore takes it for a backup.
func TestComponentsBuild(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "pod-security.kubernetes.io/enforce=restricted")
	root := t.TempDir()
	require.NoError(t, os.CopyFS(root, os.DirFS("../../deploy/cronjob")))
	dir := filepath.Join(root, "overlays/mysql-replicated")
	text := strings.Replace(readFile(t, filepath.Join(dir, "config.yaml")), "KEEPSET_SET: mysql", "KEEPSET_SET: ledger", 1)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(text), 0o600))
	text = strings.ReplaceAll(readFile(t, filepath.Join(dir, "kustomization.yaml")), "#   - ../../components/", "  - ../../components/")
	text = strings.Replace(text, "# components:", "components:", 1)
	text = strings.Replace(text, "namespace: mysql", "namespace: "+c.ns, 1)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600))
	built, objects := c.kustomize(dir)
	for _, name := range []string{"prune", "drill", "status", "verify"} {
		job := decode[batchv1.CronJob](t, objects["CronJob/keepset-"+name])
		pod := job.Spec.JobTemplate.Spec.Template
		assert.Equal(t, "keepset-"+name, pod.Spec.ServiceAccountName)
		for _, labels := range []map[string]string{job.Labels, job.Spec.JobTemplate.Labels, pod.Labels} {
			assert.Equal(t, "ledger", labels["keepset/set"], name)
			assert.Equal(t, name, labels["app.kubernetes.io/component"])
		}
		_, bound := objects["RoleBinding/keepset-"+name]
		assert.Equal(t, name == "drill" || name == "status", bound, "%s has a right in Kubernetes", name)
		assert.Contains(t, objects, "NetworkPolicy/keepset-"+name)
		assert.Contains(t, objects, "ConfigMap/keepset-"+name)
	}
	out, err := c.tryInput(built, "apply", "--dry-run=server", "--warnings-as-errors", "-f", "-")
	require.NoError(t, err, out)
}

// TestOptInComponents: the overlay csi with all that is commented out in it
// builds, the API server takes it, and its bindings, which belong to the whole
// cluster, are for the service accounts of its namespace, under its name.
func TestOptInComponents(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	root := t.TempDir()
	require.NoError(t, os.CopyFS(root, os.DirFS("../../deploy/cronjob")))
	kustomization := filepath.Join(root, "overlays/csi/kustomization.yaml")
	text := strings.ReplaceAll(readFile(t, kustomization), "  # - ../../components/", "  - ../../components/")
	text = strings.Replace(text, "namespace: mysql", "namespace: "+c.ns, 1)
	require.NoError(t, os.WriteFile(kustomization, []byte(text), 0o600))
	built, objects := c.kustomize(filepath.Dir(kustomization))
	for _, want := range []string{
		"Role/keepset-backup-snapshots", "Role/keepset-restore-snapshots", "Role/keepset-backup-exec", "RoleBinding/keepset-backup-snapshots", "RoleBinding/keepset-restore-snapshots",
		"ClusterRole/keepset-snapshot-look", "ClusterRole/keepset-snapshot-restore", "ClusterRole/keepset-snapshot-backup", "ClusterRole/keepset-volume-restore",
	} {
		require.Contains(t, objects, want)
		if role, ok := strings.CutPrefix(want, "ClusterRole/"); ok {
			require.Contains(t, objects["ClusterRoleBinding/"+role+":"+c.ns], "namespace: "+c.ns)
		}
	}
	out, err := c.tryInput(built, "apply", "--dry-run=server", "--warnings-as-errors", "-f", "-")
	require.NoError(t, err, out)
}
