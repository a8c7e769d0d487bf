package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"

	"keepset/internal/cli"
	"keepset/internal/job"
	"keepset/test/docs"
)

// secretFiles are the accounts as files of Secrets, with the names of
// docs/install.md.
const secretFiles = `
apiVersion: v1
kind: Secret
metadata: {name: keepset-backup-files}
stringData:
  source-password: "backup-secret\n"
  aws-credentials: "[default]\naws_access_key_id = keepset\naws_secret_access_key = keepset-secret\n"
---
apiVersion: v1
kind: Secret
metadata: {name: keepset-restore-files}
stringData:
  target-password: "root-secret\n"
  replication-password: "repl-secret\n"
  aws-credentials: "[default]\naws_access_key_id = keepset\naws_secret_access_key = keepset-secret\n"
`

// restoreFromFiles is what docs/install.md shows, for the restore.
func restoreFromFiles(backup string) string {
	return strings.NewReplacer("keepset-backup-files", "keepset-restore-files", "keepset-backup", "keepset-restore",
		"keepset-writer-keys", "keepset-restore-keys",
		"- {name: KEEPSET_SOURCE_PASSWORD_FILE, value: /secrets/source-password}",
		"- {name: KEEPSET_TARGET_PASSWORD_FILE, value: /secrets/target-password}\n"+
			"                - {name: KEEPSET_REPLICATION_PASSWORD_FILE, value: /secrets/replication-password}").Replace(backup)
}

// The accounts come from files, as docs/install.md shows it: of Secrets there is
// nothing in the environment. Only followers are backed up, and from one of them
// comes another. And what --dry-run says is what is done then, and all that it does.
func TestFlagsInTheCluster(t *testing.T) {
	t.Parallel()
	page, err := docs.Read("../../docs/install.md")
	require.NoError(t, err)
	shown := page.In("yaml", "Secrets as files")
	s := newShopSet(t, shopOptions{replicas: 2, patches: []string{shown, restoreFromFiles(shown), `
apiVersion: v1
kind: ConfigMap
metadata: {name: keepset-backup}
data: {KEEPSET_ROLE: follower}
`}})
	s.apply(secretFiles)

	s.jobOK("keepset-backup", "followers")
	assert.Equal(t, "keepset-writer-keys", s.secretsInEnvironment("followers"), "the keys alone, which there are none of")
	assert.Contains(t, s.logs("followers"), "member left out")
	taken := s.backups()[0]
	assert.Equal(t, "complete", taken.Status)
	assert.Equal(t, map[int]string{1: job.RoleFollower}, roles(taken))
	s.order("since the backup", 100)
	s.parameters(map[string]string{"KEEPSET_REPLICAS": "3"})
	s.jobOK("keepset-restore", "grow")
	assert.Equal(t, "keepset-restore-keys", s.secretsInEnvironment("grow"))
	s.waitReady(3)
	s.caughtUp(2)
	s.nothingLeft()

	s.dryRuns()

	s.kubectl("patch", "secret", "keepset-backup-files", "--type=merge", "-p", `{"stringData":{"source-password":"\n"}}`)
	s.jobFrom("keepset-backup", "empty-file")
	require.False(t, s.waitJob("empty-file", 3*time.Minute), s.logs("empty-file"))
	code, message, pods := s.ended("empty-file")
	assert.EqualValues(t, cli.ExitUsage, code)
	assert.Contains(t, message, "secret file /secrets/source-password is empty")
	assert.Equal(t, 1, pods, "not tried again")
}

// secretsInEnvironment are the Secrets that a Job's pods have as variables.
func (s *shopSet) secretsInEnvironment(job string) string {
	s.t.Helper()
	return s.kubectl("get", "job", job, "-o", "jsonpath={..secretRef.name}{..secretKeyRef.name}")
}

// versions are the objects of the namespace, Keepset's Events included, with
// their versions.
func (s *shopSet) versions() map[string]string {
	s.t.Helper()
	lists, err := s.kube.Discovery().ServerPreferredNamespacedResources()
	require.NoError(s.t, err)
	objects, err := metadata.NewForConfig(s.config)
	require.NoError(s.t, err)
	found := map[string]string{}
	for _, l := range lists {
		group, err := schema.ParseGroupVersion(l.GroupVersion)
		require.NoError(s.t, err)
		for _, r := range l.APIResources {
			if !slices.Contains(r.Verbs, "list") || r.Name == "events" {
				continue // other people's Events come when they please
			}
			items, err := objects.Resource(group.WithResource(r.Name)).Namespace(s.ns).List(s.t.Context(), metav1.ListOptions{})
			require.NoError(s.t, err, r.Name)
			for _, o := range items.Items {
				found[r.Kind+"/"+o.Name] = o.ResourceVersion
			}
		}
	}
	events, err := s.kube.CoreV1().Events(s.ns).List(s.t.Context(), metav1.ListOptions{FieldSelector: "source=keepset"})
	require.NoError(s.t, err)
	for _, e := range events.Items {
		found["Event/"+e.Name] = e.ResourceVersion
	}
	return found
}

// unchanged runs what must change nothing, and returns what it said.
func (s *shopSet) unchanged(run func() string) string {
	s.t.Helper()
	// The controllers have their own last words on what came before.
	before, since := s.versions(), time.Now()
	s.until(time.Minute, "the cluster comes to rest", func() bool {
		if now := s.versions(); !maps.Equal(now, before) {
			before, since = now, time.Now()
		}
		return time.Since(since) > 2*time.Second
	})
	require.Contains(s.t, before, "StatefulSet/mysql")
	out := run()
	require.Equal(s.t, before, s.versions(), "a dry run changed something")
	return out
}

// dryRuns holds every --dry-run that stands for a change of the cluster to what
// the real run does.
func (s *shopSet) dryRuns() {
	s.t.Helper()
	host := s.host().with("KEEPSET_TARGET_USER=root", "KEEPSET_TARGET_PASSWORD="+rootPassword, "KEEPSET_REPOSITORY="+s.repository,
		"KEEPSET_REPLICATION_USER="+replAccount, "KEEPSET_REPLICATION_PASSWORD=repl-secret")
	says := func(out string, words ...string) {
		s.t.Helper()
		for _, w := range words {
			assert.Contains(s.t, out, w)
		}
	}
	says(s.unchanged(func() string { return host.ok("restore", "run", "--set", "mysql", "--replicas", "4", "--dry-run") }),
		"scale-up of "+s.ns+"/mysql", "replicas: 3 now, 4 then", "ordinal 3: loads member 1, follows mysql-0.mysql."+s.ns+".svc:3306",
		"create seed pod mysql-3", "create claim data-mysql-3 from template data", "scale the set to 4")
	says(s.unchanged(func() string {
		return host.ok("restore", "run", "--set", "mysql", "--ordinal", "1", "--replace", "--force-pod", "--dry-run")
	}), "recovery of", "delete claim data-mysql-1 (volume pvc-", "delete pod mysql-1", "create seed pod mysql-1")
	says(s.unchanged(func() string {
		return host.ok("restore", "run", "--set", "mysql", "--ordinal", "1", "--keep", "--dry-run")
	}),
		"keep what is there: claims exist: data-mysql-1")
	says(s.unchanged(func() string {
		return host.fails(cli.ExitUsage, "restore", "run", "--set", "mysql", "--ordinal", "1", "--dry-run")
	}),
		"--replace", "--keep")

	s.cronJob("by-kubectl", "mysql", "backup", "true")
	for _, use := range []string{"suspend", "resume", "resume"} {
		// The second resume finds nothing left to do; that, too, is said by both.
		end := func(r result) string { return fmt.Sprintf("%sexit code %d\n", r.stdout, r.code) }
		dry := s.unchanged(func() string { return end(host.run("backup", use, "--set", "mysql", "--dry-run")) })
		done := end(host.run("backup", use, "--set", "mysql"))
		assert.Equal(s.t, done, strings.ReplaceAll(dry, "would be ", ""), "%s: what was said and what was done", use)
		s.t.Logf("%s:\n%s", use, done)
		suspended := s.kubectl("get", "cronjobs", "-o", `jsonpath={range .items[?(@.spec.suspend==true)]}{.metadata.name} {end}`)
		want := map[string]string{"suspend": "by-kubectl keepset-backup", "resume": "by-kubectl"}[use]
		assert.Equal(s.t, want, suspended, fmt.Sprint("after ", use))
	}
}
