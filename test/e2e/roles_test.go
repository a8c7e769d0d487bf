package e2e

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"keepset/internal/cli"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/storage"
	"keepset/internal/storage/s3"
	"keepset/test/servers"
)

// roleAccounts are accounts of the store, and which policy of deploy/iam each has.
var roleAccounts = map[string]string{
	"backup": "store-backup", "restore": "store-restore", "prune": "store-prune", "status": "store-status", "keys": "store-keys",
}

// roleComponents are what the test adds to the overlay: rules that let go what is two hours old, and a store on another port.
func roleComponents(trusted string) []string {
	patches := []string{`
apiVersion: v1
kind: ConfigMap
metadata: {name: keepset-prune}
data: {KEEPSET_KEEP_DAILY: "1", KEEPSET_KEEP_WEEKLY: "", KEEPSET_KEEP_MONTHLY: "", KEEPSET_MIN_AGE: 2h}
`}
	for component, more := range map[string]string{"prune": "", "verify": "", "status": "        - {port: 6443, protocol: TCP}\n"} {
		patches = append(patches, fmt.Sprintf(`
apiVersion: v1
kind: ConfigMap
metadata: {name: keepset-%[1]s}
data: {KEEPSET_TRUSTED_WRITERS: %[2]q}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: keepset-%[1]s}
spec:
  egress:
    - ports:
        - {port: 53, protocol: UDP}
        - {port: 53, protocol: TCP}
%[3]s        - {port: 7070, protocol: TCP}
`, component, trusted, more))
	}
	return patches
}

// TestRoles: an encrypted repository in a store that enforces rights, and the CronJobs that are shipped, each with its own account. The
// prune's deletes in two steps what its rules let go, and nothing else; the backup's account deletes nothing; status and verify see that all
// is well, and a finding is a failed Job; a new restore key takes the place of the old one.
func TestRoles(t *testing.T) {
	t.Parallel()
	w := newRoles(t)
	s := w.shopSet
	old := w.oldBackup()
	gone := w.keys("sets/")
	w.age("sets")
	s.jobOK("keepset-backup", "nightly")
	all := s.backups()
	require.Len(t, all, 2)

	// The backup's account deletes none of it.
	for _, key := range w.keys("") {
		answer := w.store.Send(t, servers.S3Request{Access: "backup", Secret: "backup-secret", Method: http.MethodDelete, Path: "/" + shopBucket + "/" + key})
		require.Equal(t, http.StatusForbidden, answer.Status, "%s: %s", key, answer.Body)
	}

	// One prune condemns, and one that comes after the grace deletes.
	s.jobOK("keepset-prune", "prune-1")
	require.Len(t, s.backups(), 1)
	require.NotEqual(t, string(old), string(s.backups()[0].Backup))
	require.NotEmpty(t, w.packs(gone), "what it holds waits")
	s.jobOK("keepset-prune", "prune-2")
	require.NotEmpty(t, w.packs(gone), "nothing is due")
	w.age("sets/*/*/prune")
	s.jobOK("keepset-prune", "prune-3")
	require.Empty(t, w.packs(gone), s.logs("prune-3"))

	// What is left is whole. Who looks is content, until somebody has to look.
	s.jobOK("keepset-verify", "verify-1")
	assert.Contains(t, s.logs("verify-1"), "0 damaged")
	s.jobOK("keepset-status", "status-1")
	assert.Contains(t, s.logs("status-1"), "0 findings")
	s.kubectl("patch", "cronjob", "keepset-backup", "-p", `{"spec":{"suspend":true}}`)
	s.jobFrom("keepset-status", "status-2")
	require.False(t, s.waitJob("status-2", 3*time.Minute), s.logs("status-2"))
	code, message, pods := s.ended("status-2")
	assert.EqualValues(t, cli.ExitSuspect, code)
	assert.Contains(t, message, "cronjob keepset-backup is suspended")
	assert.Equal(t, 1, pods, "a finding is no reason to look again")
	s.kubectl("patch", "cronjob", "keepset-backup", "-p", `{"spec":{"suspend":false}}`)

	// A new restore key: as docs/keys.md says. The old one opens nothing any more, and the new one restores.
	sum := s.sum(0)
	w.newRestoreKey()
	s.parameters(map[string]string{"KEEPSET_ORDINAL": "0", "KEEPSET_REPLACE": "true"})
	s.restoreRefused("restore-old", "opens none of the key files")
	w.follow.follow("../../docs/keys.md", "In a cluster")
	s.jobOK("keepset-restore", "restore-new")
	s.waitReady(1)
	assert.Equal(t, sum, s.sum(0))
	s.nothingLeft()
}

// roleSet is a set whose store has accounts, and the keys of its repository.
type roleSet struct {
	*shopSet
	store  *servers.S3Server
	env    []string // the keys for restores
	dir    string
	follow *reader
}

func newRoles(t *testing.T) *roleSet {
	t.Helper()
	w := &roleSet{shopSet: bareShop(t), dir: t.TempDir()}
	s := w.shopSet
	s.startS3Of("testdata/s3roles.yaml")
	w.store = &servers.S3Server{Endpoint: s.endpoint, AccessKey: "keepset", SecretKey: "keepset-secret", Region: "us-east-1"}
	s.until(time.Minute, "the S3 server's Service answers", func() bool { // a Ready pod is not one yet that its Service reaches
		answer, err := w.store.Ask(t.Context(), w.store.Root(http.MethodPut, "/"+shopBucket, "", ""))
		return err == nil && (answer.Status == http.StatusOK || answer.Status == http.StatusConflict)
	})
	files := map[string]string{}
	for account, policy := range roleAccounts {
		w.store.Account(t, account, account+"-secret", "user")
		files[account] = "../../deploy/iam/" + policy + ".json"
	}
	w.store.Grant(t, shopBucket, "shop", files)

	s.keepset("backup", "keygen", "--namespace", s.ns, "--out", filepath.Join(w.dir, "keys"))
	writer, restore := secretOf(t, filepath.Join(w.dir, "keys/writer.yaml")), secretOf(t, filepath.Join(w.dir, "keys/restore.yaml"))
	for name, value := range restore {
		w.env = append(w.env, name+"="+value)
	}
	s.install(shopOptions{replicas: 1, component: "prune verify status", patches: roleComponents(restore[repository.NameTrustedWriters])})
	for _, file := range []string{"writer.yaml", "restore.yaml"} {
		s.kubectl("apply", "-f", filepath.Join(w.dir, "keys", file))
	}
	for secret, account := range map[string]string{"backup": "backup", "restore": "restore", "prune": "prune", "status": "status", "verify": "restore"} {
		more := map[string]string{"backup": ", KEEPSET_SOURCE_PASSWORD: backup-secret", "restore": ", KEEPSET_TARGET_PASSWORD: " + rootPassword + ", KEEPSET_REPLICATION_PASSWORD: repl-secret"}[secret]
		s.apply(fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: keepset-%s}\nstringData: {AWS_ACCESS_KEY_ID: %s, AWS_SECRET_ACCESS_KEY: %s-secret%s}\n", secret, account, account, more))
	}
	w.init(writer)
	s.waitReady(1)
	s.replicate(1)
	return w
}

// secretOf reads the values of a Secret that keygen has written.
func secretOf(t *testing.T, file string) map[string]string {
	t.Helper()
	var secret corev1.Secret
	require.NoError(t, yaml.Unmarshal([]byte(readFile(t, file)), &secret))
	require.NotEmpty(t, secret.StringData)
	return secret.StringData
}

// open opens the store as its owner.
func (w *roleSet) open() storage.Store {
	w.t.Helper()
	store, err := s3.New(w.t.Context(), s3.Options{
		Bucket: shopBucket, Prefix: "shop", Endpoint: w.endpoint, Region: "us-east-1",
		Credentials: s3.Credentials{AccessKeyID: "keepset", SecretAccessKey: "keepset-secret"},
	})
	require.NoError(w.t, err)
	return store
}

// longest is how long a backup may take here: so that one which was captured an hour ago may be stored now, or two hours ago.
const longest = 90 * time.Minute

// init makes the repository and keeps the writer's keys for oldBackup.
func (w *roleSet) init(writer map[string]string) {
	w.t.Helper()
	keys, err := repository.LoadKeys(func(name string) string { return writer[name] })
	require.NoError(w.t, err)
	_, err = repository.Init(w.t.Context(), w.open(), repository.InitOptions{Keys: keys, LongestBackup: longest, Slack: 5 * time.Minute, Clock: time.Now})
	require.NoError(w.t, err)
}

// oldBackup stores a backup of an hour ago that nobody needs, with content of its own.
func (w *roleSet) oldBackup() record.BackupID {
	w.t.Helper()
	writer := secretOf(w.t, filepath.Join(w.dir, "keys/writer.yaml"))
	keys, err := repository.LoadKeys(func(name string) string { return writer[name] })
	require.NoError(w.t, err)
	then := time.Now().Add(-time.Hour)
	r, err := repository.Open(w.t.Context(), w.open(), keys, repository.Options{Clock: time.Now})
	require.NoError(w.t, err)
	id := record.NewBackupID(then, "")
	b, err := r.Begin(w.t.Context(), record.Plan{
		ID: id, Set: record.SetID{Namespace: w.ns, Name: "mysql"}, Method: record.MethodDump, Engine: "mysql", CreatedAt: then, Replicas: 1,
		Members: []record.PlannedMember{{Name: "mysql-0"}},
	}, record.NewAttemptID())
	require.NoError(w.t, err)
	m, err := b.Member(w.t.Context(), 0)
	require.NoError(w.t, err)
	stream, err := m.Create(w.t.Context(), "old", repository.StreamOptions{})
	require.NoError(w.t, err)
	noise := make([]byte, 100<<10)
	_, err = rand.Read(noise)
	require.NoError(w.t, err)
	_, err = bytes.NewReader(noise).WriteTo(stream)
	require.NoError(w.t, err)
	require.NoError(w.t, stream.Close())
	_, err = m.Commit(w.t.Context(), record.Report{Engine: "mysql", Layout: "mysql/1", CapturedAt: then, Rows: 1, Bytes: 100 << 10}, repository.CommitStatus{})
	require.NoError(w.t, err)
	require.NoError(w.t, b.Close())
	return id
}

// keys are those of the bucket below the repository.
func (w *roleSet) keys(below string) (keys []string) {
	w.t.Helper()
	for o, err := range w.open().List(w.t.Context(), below) {
		require.NoError(w.t, err)
		keys = append(keys, "shop/"+o.Key)
	}
	require.NotEmpty(w.t, keys)
	return keys
}

// packs are those of the keys that are packs and still there.
func (w *roleSet) packs(of []string) (left []string) {
	w.t.Helper()
	there := map[string]bool{}
	for _, key := range w.keys("sets/") {
		there[key] = true
	}
	for _, key := range of {
		if strings.Contains(key, "/packs/") && there[key] {
			left = append(left, key)
		}
	}
	return left
}

// age has the store say that objects are two hours old, and a little.
func (w *roleSet) age(below string) {
	w.t.Helper()
	w.kubectl("exec", "s3", "-c", "clock", "--", "bash", "-c",
		"shopt -s globstar nullglob; for f in /state/data/"+shopBucket+"/shop/"+below+"/**; do [ -d $f ] || touch -d '125 minutes ago' $f; done")
}

// newRestoreKey lets a second key in and the first one out, as docs/keys.md does.
func (w *roleSet) newRestoreKey() {
	w.t.Helper()
	colleague, err := age.GenerateX25519Identity()
	require.NoError(w.t, err)
	r := w.reader(w.ns)
	w.follow = r
	file := filepath.Join(r.dir, "colleague.key")
	require.NoError(w.t, os.WriteFile(file, []byte(colleague.String()+"\n"), 0o600))
	account := []string{"AWS_ACCESS_KEY_ID=keys", "AWS_SECRET_ACCESS_KEY=keys-secret", "KEEPSET_REPOSITORY=" + w.repository}
	mine := w.host().with(append(account, w.env...)...)
	mine.ok("backup", "keys", "add-recipient", colleague.Recipient().String())
	var was string
	for _, kv := range w.env {
		if value, found := strings.CutPrefix(kv, repository.NameRestoreIdentity+"="); found {
			was = value
		} else {
			r.env = append(r.env, kv)
		}
	}
	former, err := age.ParseX25519Identity(was)
	require.NoError(w.t, err)
	mine.with(repository.NameRestoreIdentity+"=").ok("backup", "keys", "remove-recipient", repository.Fingerprint(former.Recipient().String()), "--restore-identity-file", file)
}
