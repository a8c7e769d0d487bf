package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/cli"
)

// shopSet is a StatefulSet called mysql, by default of replicating MariaDB
// servers, an S3 server, and Keepset as deploy/cronjob ships it, in a namespace
// of their own.
type shopSet struct {
	*cluster
	// repository is the URL, inside of the cluster and, with host's
	// environment, outside.
	repository string
	endpoint   string
	// password is root's.
	password string
}

// shopOptions shape the set. The zero value is three replicas, Parallel.
type shopOptions struct {
	// yaml is the set's in testdata; by default shop.yaml.
	yaml     string
	replicas int
	policy   string
	// mysql has MySQL in the place of MariaDB, and a stand-in for xtrabackup in its container of that name.
	mysql bool
	// shipped names an overlay of deploy/cronjob, which then says all but the
	// namespace, the image and the store. By default the base is taken, with
	// the settings that shop.yaml needs.
	shipped string
	// component names components of deploy/cronjob, for example fan-out.
	component string
	// class and size of the claims; by default the cluster's, and 1Gi.
	class, size string
	// patches are more kustomize patches of Keepset's objects.
	patches []string
	// empty leaves the set at zero replicas, without data.
	empty bool
}

const (
	rootPassword  = "root-secret"
	shopBucket    = "backups"
	backupAccount = "keepset_backup"
	replAccount   = "replication"
)

// shopParameters are what a restore of shop.yaml has to know.
const shopParameters = `
apiVersion: v1
kind: ConfigMap
metadata: {name: keepset-restore}
data:
  KEEPSET_REPLICATION_USER: ` + replAccount + `
  KEEPSET_SEED_PATCH: |
    spec:
      containers:
        - name: mysql
          args: [--skip-slave-start, --read-only=0, --event-scheduler=OFF, --innodb-buffer-pool-size=64M]
          env:
            - name: MARIADB_ROOT_PASSWORD
              valueFrom: {secretKeyRef: {name: keepset-restore, key: KEEPSET_TARGET_PASSWORD}}
`

func newShopSet(t *testing.T, o shopOptions) *shopSet {
	t.Helper()
	s := bareShop(t)
	s.startS3()
	s.install(o)
	if o.empty {
		return s
	}
	if o.replicas == 0 {
		o.replicas = 3
	}
	s.waitReady(o.replicas)
	s.replicate(o.replicas)
	s.keepset("backup", "init", "--repository", s.repository)
	return s
}

// bareShop is a namespace with nothing in it yet.
func bareShop(t *testing.T) *shopSet {
	t.Helper()
	return &shopSet{cluster: newCluster(t, "pod-security.kubernetes.io/enforce=baseline"), password: rootPassword}
}

// beside is a second, empty namespace for the same repository.
func (s *shopSet) beside(labels ...string) *shopSet {
	s.t.Helper()
	other := *s
	other.cluster = s.in(s.newNamespace(labels...))
	return &other
}

// startS3 starts the S3 server, which makes the bucket.
func (s *shopSet) startS3() {
	s.t.Helper()
	s.startS3Of("testdata/s3.yaml")
}

func (s *shopSet) startS3Of(file string) {
	s.t.Helper()
	s.apply(readFile(s.t, file))
	s.until(5*time.Minute, "the S3 server comes up", func() bool { p := s.pod("s3"); return p != nil && podReady(p) })
	service, err := s.kube.CoreV1().Services(s.ns).Get(s.t.Context(), "s3", metav1.GetOptions{})
	require.NoError(s.t, err)
	s.endpoint = "http://" + net.JoinHostPort(service.Spec.ClusterIP, "7070")
	s.repository = "s3://" + shopBucket + "/shop"
}

// podReady is ready for pods without an owner.
func podReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// install applies the set and Keepset.
func (s *shopSet) install(o shopOptions) {
	s.t.Helper()
	if o.policy == "" {
		o.policy = "Parallel" // starts in a third of the time
	}
	replicas := o.replicas
	if replicas == 0 && !o.empty {
		replicas = 3
	}
	if o.yaml == "" {
		o.yaml = "shop.yaml"
	}
	s.apply(render(s.t, "testdata/"+o.yaml, map[string]any{"Replicas": replicas, "Policy": o.policy, "Class": o.class, "Size": o.size, "MySQL": o.mysql, "StandIns": standIns()}))
	s.apply(s.secrets())
	dir := s.overlay(o)
	out, err := s.try("apply", "-k", dir)
	require.NoError(s.t, err, out)
}

// standIns is the image of the stand-ins; another tag for a run of one's own.
func standIns() string {
	return "keepset-test/standins:" + cmp.Or(os.Getenv("KEEPSET_E2E_STANDINS_TAG"), "1")
}

// secrets are what docs/install.md asks a user to make.
func (s *shopSet) secrets() string {
	store := "AWS_ACCESS_KEY_ID: keepset, AWS_SECRET_ACCESS_KEY: keepset-secret"
	return fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: keepset-backup}
stringData: {%s, KEEPSET_SOURCE_PASSWORD: backup-secret}
---
apiVersion: v1
kind: Secret
metadata: {name: keepset-restore}
stringData: {%s, KEEPSET_TARGET_PASSWORD: "%s", KEEPSET_REPLICATION_PASSWORD: repl-secret}
`, store, store, s.password)
}

// storePort lets Keepset's pods reach the S3 server, as docs/install.md shows it
// for a store on another port than 443.
const storePort = `
  - target: {kind: NetworkPolicy, name: keepset}
    patch: |
      - {op: add, path: /spec/egress/0/ports/-, value: {port: 7070, protocol: TCP}}
`

// overlay writes a user's kustomization over what is shipped.
func (s *shopSet) overlay(o shopOptions) string {
	s.t.Helper()
	dir := s.t.TempDir()
	shipped, err := filepath.Abs("../../deploy/cronjob")
	require.NoError(s.t, err)
	shipped, err = filepath.Rel(dir, shipped) // kustomize wants relative paths
	require.NoError(s.t, err)
	components := ""
	for name := range strings.FieldsSeq(o.component) {
		components += "  - " + shipped + "/components/" + name + "\n"
	}
	if components != "" {
		components = "components:\n" + components
	}
	patches := []string{`
apiVersion: v1
kind: ConfigMap
metadata: {name: keepset}
data:
  KEEPSET_SET: mysql
  KEEPSET_REPOSITORY: ` + s.repository + `
  AWS_ENDPOINT_URL_S3: ` + s.endpoint + `
`}
	from := "overlays/" + o.shipped
	if o.shipped == "" {
		from = "base"
		patches = append(patches, shopParameters)
	}
	patches = append(patches, o.patches...)
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: %s\nresources: [%s/%s]\n%s", s.ns, shipped, from, components)
	b.WriteString("images: [{name: keepset, newName: keepset, newTag: " + imageTag() + "}]\n" + bindingsOf(o.shipped) + "patches:\n" + storePort + ec2Port(o.shipped))
	for i, p := range patches {
		name := fmt.Sprintf("patch-%d.yaml", i)
		require.NoError(s.t, os.WriteFile(filepath.Join(dir, name), []byte(strings.TrimSpace(p)+"\n"), 0o600))
		fmt.Fprintf(&b, "  - path: %s\n", name)
	}
	require.NoError(s.t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(b.String()), 0o600))
	return dir
}

func render(t *testing.T, file string, values any) string {
	t.Helper()
	tmpl, err := template.ParseFiles(file)
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, tmpl.Execute(&out, values))
	return out.String()
}

// waitReady waits until the set's replicas are Ready.
func (s *shopSet) waitReady(replicas int) {
	s.t.Helper()
	s.until(10*time.Minute, "the set comes up", func() bool {
		for i := range replicas {
			if !ready(s.pod(fmt.Sprintf("mysql-%d", i))) {
				return false
			}
		}
		return true
	})
}

// host is a runner of the programs on this machine, with the S3 server's
// account and a kubeconfig.
func (s *shopSet) host() *plain {
	s.t.Helper()
	return newPlain(s.t, "KUBECONFIG="+s.kubeconfig, "KEEPSET_NAMESPACE="+s.ns,
		"AWS_ENDPOINT_URL_S3="+s.endpoint, "AWS_ENDPOINT_URL_EC2="+ec2URL, "AWS_ENDPOINT_URL_EBS="+ec2URL,
		"AWS_ACCESS_KEY_ID=keepset", "AWS_SECRET_ACCESS_KEY=keepset-secret", "AWS_REGION=us-east-1")
}

// keepset runs a program on this machine that must succeed.
func (s *shopSet) keepset(args ...string) string {
	s.t.Helper()
	return s.host().ok(args...)
}

// backups lists the set's backups, newest first.
func (s *shopSet) backups() []cli.BackupSummary {
	s.t.Helper()
	var all []cli.BackupSummary
	out := s.keepset("backup", "list", "--json", "--repository", s.repository)
	require.NoError(s.t, json.Unmarshal([]byte(out), &all), out)
	return all
}

// jobFrom does kubectl create job --from=cronjob/...
func (s *shopSet) jobFrom(cronJob, name string) {
	s.t.Helper()
	s.kubectl("create", "job", name, "--from=cronjob/"+cronJob)
}

// waitJob waits for a Job's end and returns whether it succeeded.
func (s *shopSet) waitJob(name string, timeout time.Duration) bool {
	s.t.Helper()
	succeeded := false
	s.until(timeout, "job "+name+" ends", func() bool {
		j, err := s.kube.BatchV1().Jobs(s.ns).Get(context.Background(), name, metav1.GetOptions{})
		if err != nil {
			return false
		}
		for _, c := range j.Status.Conditions {
			if c.Status != corev1.ConditionTrue {
				continue
			}
			switch c.Type {
			case batchv1.JobComplete:
				succeeded = true
				return true
			case batchv1.JobFailed:
				return true
			}
		}
		return false
	})
	return succeeded
}

// logs are what the pods of a Job wrote.
func (s *shopSet) logs(job string) string {
	out, err := s.try("logs", "--prefix", "--tail=-1", "-l", "batch.kubernetes.io/job-name="+job)
	if err != nil {
		return err.Error() + ": " + out
	}
	return out
}

// jobOK creates a Job from a CronJob and waits until it has succeeded.
func (s *shopSet) jobOK(cronJob, name string) {
	s.t.Helper()
	s.jobFrom(cronJob, name)
	require.True(s.t, s.waitJob(name, 15*time.Minute), "job %s failed:\n%s", name, s.logs(name))
}

// parameters sets variables of the restore's ConfigMap, the others go empty.
func (s *shopSet) parameters(values map[string]string) {
	s.t.Helper()
	data := map[string]string{"KEEPSET_BACKUP": "latest"}
	for _, k := range []string{"KEEPSET_REPLICAS", "KEEPSET_ORDINAL", "KEEPSET_ALL", "KEEPSET_REPLACE", "KEEPSET_KEEP", "KEEPSET_FROM_SET", "KEEPSET_ALLOW_ROLLBACK", "KEEPSET_AS_FOLLOWER_OF", "KEEPSET_LIMIT_DOWNLOAD"} {
		data[k] = ""
	}
	maps.Copy(data, values)
	patch, err := json.Marshal(map[string]any{"data": data})
	require.NoError(s.t, err)
	s.kubectl("patch", "configmap", "keepset-restore", "--type=merge", "-p", string(patch))
}
