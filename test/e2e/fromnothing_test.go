package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"keepset/internal/cli"
)

// usedSet is what the pod template of shop.yaml names when the set has been in
// use for a while.
const usedSet = `{"spec":{"template":{"spec":{
  "serviceAccountName":"mysql",
  "volumes":[{"name":"extra","configMap":{"name":"mysql-config"}}],
  "containers":[
    {"name":"mysql","volumeMounts":[{"name":"extra","mountPath":"/etc/mysql/mariadb.conf.d"}],
     "env":[{"name":"ZONE","valueFrom":{"configMapKeyRef":{"name":"mysql-zone","key":"zone"}}}]},
    {"name":"xtrabackup","envFrom":[{"secretRef":{"name":"mysql-replication"}}]}]}}}}`

// bareSeedPatch is what shopParameters say of the seeds of shop.yaml, for a cluster
// in which nobody has installed Keepset.
const bareSeedPatch = `
spec:
  containers:
    - name: mysql
      args: [--skip-slave-start, --read-only=0, --event-scheduler=OFF, --innodb-buffer-pool-size=64M]
`

// TestFromNothing: a set with its Services, ConfigMaps, Secrets and a budget is
// backed up by the shipped CronJob, and its namespace deleted altogether. What
// docs/objects.md says brings all of it back, one command with the bucket and
// its keys alone, through the API server; killed half-way, the same command goes
// on; and where Keepset is installed a Job does the same.
func TestFromNothing(t *testing.T) {
	t.Parallel()
	store := bareShop(t)
	store.startS3()
	s := store.beside()
	keys := s.usedShop()
	r := s.reader(s.ns)
	require.NoError(t, os.Symlink(filepath.Dir(keys), filepath.Join(r.dir, "keys")))
	r.env = append(r.env, "KEEPSET_SEED_PATCH="+bareSeedPatch)
	s.jobOK("keepset-backup", "backup-1")
	log := s.logs("backup-1")
	assert.NotContains(t, log, "not in the backup", "the shipped rights are enough")
	s.order("after the backup", 10)
	rows, sum := s.value(0, "SELECT COUNT(*) FROM shop.orders WHERE customer = 'first'"), s.value(0, firstSum)

	s.deleteNamespace()
	secret := secretData(t, keys)
	exported := []string{ // by the page, for what comes after
		"KEEPSET_REPOSITORY=" + s.repository, "KEEPSET_TARGET_USER=root", "KEEPSET_REPLICATION_USER=" + replAccount,
		"KEEPSET_RESTORE_IDENTITY=" + secret["KEEPSET_RESTORE_IDENTITY"], "KEEPSET_TRUSTED_WRITERS=" + secret["KEEPSET_TRUSTED_WRITERS"],
	}
	restore := s.host().with("KEEPSET_NAMESPACE=", "KEEPSET_SEED_PATCH="+bareSeedPatch).with(exported...)
	command := []string{
		"restore", "run", "--set", s.ns + "/mysql", "--all", "--with-objects", "--local", "--port-forward",
		"--target-password-secret", "mysql/root", "--replication-password-secret", "mysql-replication/password", "--lease-wait", "5m",
	}
	said := restore.ok(append(slices.Clone(command), "--dry-run")...)
	assert.Contains(t, said, "would be created")
	s.noNamespace()

	begin := time.Now()
	said = r.follow("../../docs/objects.md", "From nothing")
	took := time.Since(begin)
	assert.Contains(t, said, "2 ordinals ready")
	r.env = append(r.env, exported...)
	t.Logf("measured: from nothing to a running set with %s rows in %.1f s", rows, took.Seconds())
	s.asBefore(rows, sum)

	// Once more, killed when the first replica is up and the second is being filled.
	s.deleteNamespace()
	var out bytes.Buffer
	killed := restore.command(command...)
	killed.Stdout, killed.Stderr = &out, &out
	require.NoError(t, killed.Start())
	s.until(5*time.Minute, "the second ordinal is being filled", func() bool {
		pod := s.pod("mysql-1")
		return pod != nil && !ready(pod) && ready(s.pod("mysql-0"))
	})
	require.NoError(t, killed.Process.Kill())
	err := killed.Wait()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, "it was still at work: %s", out.String())
	guard := s.guard(1)
	said = restore.ok(command...)
	assert.NotContains(t, said, "ordinal 0:", "what is there is left alone")
	guard.never(t, 1, 1)
	s.asBefore(rows, sum)
	assert.Equal(t, s.ns+"/mysql: no restore is running and none has left anything\n", s.keepset("restore", "status", "--set", "mysql"))

	// The whole of it is there: nothing is done again, and it is said why.
	again := restore.run(command...)
	assert.Equal(t, cli.ExitUsage, again.code, again.stderr)
	assert.Contains(t, again.stderr, "zero replicas")
	s.looks(restore, r)
	s.byJob(r, keys, rows, sum)
}

const firstSum = "SELECT CONCAT(COUNT(*), ' ', COALESCE(SUM(CRC32(CONCAT_WS('|', id, customer, note))), 0)) FROM shop.orders WHERE customer = 'first'"

// usedShop installs two replicas of a set that has been in use for a while, and
// Keepset with its keys, in an encrypted repository. It returns the file with the
// restore keys.
func (s *shopSet) usedShop() string {
	s.t.Helper()
	text := render(s.t, "testdata/shop.yaml", map[string]any{"Replicas": 2, "Policy": "Parallel"})
	s.apply(readFile(s.t, "testdata/fromnothing.yaml"))
	s.apply(strings.Replace(text, "replicas: 2", "replicas: 0", 1))
	s.kubectl("patch", "statefulset", "mysql", "--type=strategic", "-p", usedSet)
	s.kubectl("scale", "statefulset", "mysql", "--replicas=2")
	s.waitReady(2)
	s.replicate(2)

	dir := filepath.Join(s.t.TempDir(), "keys")
	s.keepset("backup", "keygen", "--namespace", s.ns, "--out", dir)
	s.apply(readFile(s.t, filepath.Join(dir, "writer.yaml")))
	s.apply(s.secrets())
	out, err := s.try("apply", "-k", s.overlay(shopOptions{component: "secrets"}))
	require.NoError(s.t, err, out)
	writer := secretData(s.t, filepath.Join(dir, "writer.yaml"))
	env := make([]string, 0, len(writer))
	for k, v := range writer {
		env = append(env, k+"="+v)
	}
	s.host().with(env...).ok("backup", "init", "--repository", s.repository)
	return filepath.Join(dir, "restore.yaml")
}

// secretData reads the Secret that keygen wrote.
func secretData(t *testing.T, file string) map[string]string {
	t.Helper()
	var secret struct {
		StringData map[string]string `json:"stringData"`
	}
	require.NoError(t, yaml.Unmarshal([]byte(readFile(t, file)), &secret))
	require.NotEmpty(t, secret.StringData, file)
	return secret.StringData
}

// deleteNamespace takes away the set's namespace, and waits until it is gone:
// what is left is what an empty cluster has.
func (s *shopSet) deleteNamespace() {
	s.t.Helper()
	require.NoError(s.t, s.kube.CoreV1().Namespaces().Delete(s.t.Context(), s.ns, metav1.DeleteOptions{}))
	s.until(5*time.Minute, "namespace "+s.ns+" is gone", func() bool {
		_, err := s.kube.CoreV1().Namespaces().Get(s.t.Context(), s.ns, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

func (s *shopSet) noNamespace() {
	s.t.Helper()
	_, err := s.kube.CoreV1().Namespaces().Get(s.t.Context(), s.ns, metav1.GetOptions{})
	require.True(s.t, apierrors.IsNotFound(err), "a dry run makes no namespace")
}

// asBefore: the set runs as it did, with what it had when it was backed up.
func (s *shopSet) asBefore(rows, sum string) {
	s.t.Helper()
	s.waitReady(2)
	assert.Equal(s.t, 2, s.replicas())
	s.caughtUp(1)
	for i := range 2 {
		assert.Equal(s.t, rows, s.value(i, "SELECT COUNT(*) FROM shop.orders"), "what was written after the backup is not in it")
		assert.Equal(s.t, sum, s.value(i, firstSum))
	}
	assert.Equal(s.t, "1", s.value(1, "SELECT @@read_only"))
	s.order("life goes on", 10)
	s.caughtUp(1)
	for _, object := range []string{"sa/mysql", "secret/mysql", "secret/mysql-replication", "configmap/mysql-config", "configmap/mysql-zone", "service/mysql", "service/mysql-primary", "pdb/mysql"} {
		s.kubectl("get", object)
	}
	for _, object := range []string{"secret/strangers", "service/strangers"} {
		_, err := s.try("get", object)
		require.Error(s.t, err, "%s has nothing to do with the set", object)
	}
	s.kubectl("exec", "mysql-0", "-c", "mysql", "--", "grep", "max-connections", "/etc/mysql/mariadb.conf.d/extra.cnf")
}

// looks goes through what `restore objects` says of a set that is there.
func (s *shopSet) looks(restore *plain, r *reader) {
	s.t.Helper()
	s.kubectl("delete", "service", "mysql-primary")
	s.kubectl("patch", "configmap", "mysql-zone", "--type=merge", "-p", `{"data":{"zone":"elsewhere"}}`)
	args := []string{"restore", "objects", "--set", s.ns + "/mysql"}
	said := restore.ok(args...)
	for _, want := range []string{"mysql-primary created", "mysql-zone exists and differs", "mysql-config exists -", "StatefulSet mysql exists -", "data-mysql-1 left out"} {
		assert.Contains(s.t, strings.Join(strings.Fields(said), " "), want, said)
	}
	assert.Equal(s.t, "elsewhere", s.kubectl("get", "configmap", "mysql-zone", "-o", "jsonpath={.data.zone}"), "what exists is never changed")
	r.follow("../../docs/objects.md", "The objects alone")
	manifests := readFile(s.t, filepath.Join(r.dir, "mysql.yaml"))
	assert.Contains(s.t, manifests, "replicas: 0")
	stored := restore.ok("restore", "export", "--set", s.ns+"/mysql", "--ordinal", "1", "--stream", "kubernetes/objects.json", "--to", "-")
	assert.Contains(s.t, stored, `"replicas": 2`)
	for _, text := range []string{strings.ReplaceAll(manifests, "namespace: "+s.ns, "namespace: default"), stored} {
		out, err := s.tryInput(text, "apply", "--namespace=default", "--dry-run=server", "-f", "-")
		require.NoError(s.t, err, out)
	}
}

// byJob does it once more, in a cluster where Keepset is installed, with the
// rights of the component alone.
func (s *shopSet) byJob(r *reader, keys, rows, sum string) {
	s.t.Helper()
	s.kubectl("delete", "statefulset,pod,pvc,service,pdb", "--all")
	s.kubectl("delete", "sa/mysql", "secret/mysql", "secret/mysql-replication", "configmap/mysql-config", "configmap/mysql-zone")
	s.apply(s.secrets())
	s.apply(readFile(s.t, keys))
	out, err := s.try("apply", "-k", s.overlay(shopOptions{component: "objects"}))
	require.NoError(s.t, err, out)
	assert.Contains(s.t, r.follow("../../docs/objects.md", "By a Job"), "2 ordinals ready")
	s.asBefore(rows, sum)
}
