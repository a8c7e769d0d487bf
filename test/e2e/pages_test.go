package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/test/docs"
)

// reader follows pages word for word, in one shell's working directory, with
// real kubectl and our programs. Only the names that a reader would replace
// are replaced.
type reader struct {
	t     *testing.T
	dir   string
	env   []string
	names *strings.Replacer
}

// secretsOfReader stand for the dots in NAME=... of a page.
var secretsOfReader = map[string]string{
	"KEEPSET_SOURCE_PASSWORD": "change-me", "KEEPSET_TARGET_PASSWORD": rootPassword, "KEEPSET_REPLICATION_PASSWORD": "repl-secret",
	"AWS_ACCESS_KEY_ID": "keepset", "AWS_SECRET_ACCESS_KEY": "keepset-secret",
}

var dots = regexp.MustCompile(`\b([A-Z_]+)=\.\.\.`)

// follow runs a page's commands in order, or those below some headings, and
// returns what they said.
func (r *reader) follow(page string, headings ...string) string {
	r.t.Helper()
	p, err := docs.Read(page)
	require.NoError(r.t, err)
	shown := p.In("sh", headings...)
	require.NotEmpty(r.t, shown, "%s: %q", page, headings)
	code := dots.ReplaceAllStringFunc(r.names.Replace(shown), func(s string) string {
		name := dots.FindStringSubmatch(s)[1]
		require.Contains(r.t, secretsOfReader, name)
		return name + "=" + secretsOfReader[name]
	})
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", "set -euxo pipefail\n"+code)
	cmd.Dir, cmd.Env = r.dir, r.env
	out, err := cmd.CombinedOutput()
	require.NoError(r.t, err, "%s:\n%s", page, out)
	return string(out)
}

// TestPages installs Keepset in a namespace as docs/install.md says, with keys,
// and goes through all of docs/restore.md: plan, a fourth and a fifth replica, a
// replica recovered, the whole set in another namespace, status and abort.
func TestPages(t *testing.T) {
	t.Parallel()
	s := bareShop(t)
	s.startS3()
	s.apply(render(t, "testdata/shop.yaml", map[string]any{"Replicas": 3, "Policy": "Parallel"}))
	s.waitReady(3)
	s.replicate(3)
	install, err := docs.Read("../../docs/install.md")
	require.NoError(t, err)
	s.exec(0, "DROP USER "+backupAccount+"@'%'", install.In("sql"))

	staging := s.beside("pod-security.kubernetes.io/enforce=baseline")
	r := s.reader(staging.ns)
	said := r.follow("../../docs/install.md")
	assert.Contains(t, said, "encrypted and signed")
	assert.Contains(t, said, "BackupComplete")
	assert.Contains(t, said, "0 damaged")
	assert.Equal(t, "false", s.kubectl("get", "cronjob", "keepset-backup", "-o", "jsonpath={.spec.suspend}"))

	s.order("second", 500)
	sum := s.sum(0)
	staging.apply(render(t, "testdata/shop.yaml", map[string]any{"Replicas": 0, "Policy": "Parallel"}))
	staging.apply(staging.secrets())
	keys := strings.ReplaceAll(readFile(t, filepath.Join(r.dir, "keys/restore.yaml")), s.ns, staging.ns)
	staging.apply(keys)
	out, err := staging.try("apply", "-k", staging.overlay(shopOptions{}))
	require.NoError(t, err, out)
	fourth, fifth := s.guard(3), s.guard(4)
	said = r.follow("../../docs/restore.md")
	assert.Contains(t, said, "3 ordinals ready")
	s.waitReady(5)
	fourth.never(t, 1, 1)
	fifth.never(t, 1, 1)
	for i := range 5 {
		s.caughtUp(i)
	}
	assert.Equal(t, sum, s.sum(0))
	staging.waitReady(3)
	s.nothingLeft()
}

// reader makes the surroundings that the pages take for granted: the two
// programs, kubectl, and the account of the bucket.
func (s *shopSet) reader(staging string) *reader {
	s.t.Helper()
	return s.readerOf("mysql-replicated", s.overlay(shopOptions{}), staging)
}

// readerOf puts the folder of a kustomization in the place of an overlay that
// the page applies.
func (s *shopSet) readerOf(overlay, folder, staging string) *reader {
	s.t.Helper()
	host := s.host()
	bin := s.t.TempDir()
	require.NoError(s.t, os.Symlink(s.kubectlBin, filepath.Join(bin, "kubectl")))
	return &reader{
		t: s.t, dir: s.t.TempDir(),
		env: []string{
			"HOME=" + s.t.TempDir(), "PATH=" + bin + ":" + host.dir + ":" + os.Getenv("PATH"), "KUBECONFIG=" + s.kubeconfig,
			"AWS_ENDPOINT_URL_S3=" + s.endpoint, "AWS_ENDPOINT_URL_EC2=" + ec2URL, "AWS_ENDPOINT_URL_EBS=" + ec2URL,
			"AWS_ACCESS_KEY_ID=keepset", "AWS_SECRET_ACCESS_KEY=keepset-secret", "AWS_REGION=us-east-1",
		},
		names: strings.NewReplacer(
			"s3://my-backups/mysql/mysql", s.repository, "staging/mysql", staging+"/mysql", "mysql/mysql", s.ns+"/mysql",
			"-n mysql ", "-n "+s.ns+" ", "--namespace mysql ", "--namespace "+s.ns+" ", "/namespace=mysql", "/namespace="+s.ns,
			"deploy/cronjob/overlays/"+overlay, folder,
		),
	}
}
