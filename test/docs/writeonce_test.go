package docs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/test/programs"
	"keepset/test/servers"
)

// TestWriteOncePage does what docs/write-once.md says, each part with the account that it names.
func TestWriteOncePage(t *testing.T) {
	bin, err := programs.Build()
	require.NoError(t, err)
	options := []servers.S3Option{servers.WithVersioning(), servers.WithLongPolicies()}
	for _, role := range []string{"init", "backup", "prune", "restore"} {
		options = append(options, servers.WithAccount(role, role+"-secret", "user"))
	}
	server := servers.S3(t, options...)
	dir := t.TempDir()
	self, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "bin"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bin/aws"), fmt.Appendf(nil, "#!/bin/bash\n%s=1 exec %s \"$@\"\n", asAWS, self), 0o700))
	policies, err := filepath.Abs(root + "deploy")
	require.NoError(t, err)
	require.NoError(t, os.Symlink(policies, filepath.Join(dir, "deploy")))

	as := func(access, secret, code string, keys ...string) string {
		t.Helper()
		for _, file := range keys {
			code = "set -a; . keys/" + file + "; set +a\n" + code
		}
		cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -euo pipefail\n"+strings.ReplaceAll(code, "/srv/", dir+"/srv/"))
		cmd.Dir = dir
		cmd.Env = []string{
			"PATH=" + filepath.Join(dir, "bin") + ":" + bin + ":/usr/bin:/bin", "HOME=" + dir, "AWS_EC2_METADATA_DISABLED=true",
			"AWS_ENDPOINT_URL_S3=" + server.Endpoint, "AWS_REGION=" + server.Region, "AWS_ACCESS_KEY_ID=" + access, "AWS_SECRET_ACCESS_KEY=" + secret,
		}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	role := func(name, code string, keys ...string) string {
		t.Helper()
		return as(name, name+"-secret", code, keys...)
	}
	owner := func(code string) { t.Helper(); as(server.AccessKey, server.SecretKey, code) }
	page := read(t, "docs/write-once.md")
	var blocks []string
	for _, k := range page.Blocks {
		require.Equal(t, "sh", k.Language)
		blocks = append(blocks, k.Heading)
	}
	require.Equal(t, []string{
		"A bucket with Object Lock", "An account for each role", "Lock what is stored", "Lock what is stored", "Bring back what was hidden", "Bring back what was hidden",
	}, blocks)
	code := func(n int) string { return page.Blocks[n].Code }

	owner(code(0))
	owner(code(1))
	role("init", "mkdir -p /srv/www; seq 100000 > /srv/www/numbers; backup keygen --format env --out keys")
	role("init", code(2), "writer.env")
	role("backup", code(3), "writer.env")
	const repository = "export KEEPSET_REPOSITORY=s3://backups/prod\n"
	id := strings.TrimSpace(role("restore", repository+"backup list --set www --json | jq -r '.[0].backup'", "restore.env"))
	require.Contains(t, role("prune", repository+". keys/restore.env; export KEEPSET_TRUSTED_WRITERS; backup delete --set www --force "+id), "hid ")
	require.Contains(t, role("restore", repository+"backup list --set www", "restore.env"), "no backups")
	owner(code(4))
	role("restore", repository+code(5), "restore.env")
	want, err := os.ReadFile(filepath.Join(dir, "srv/www/numbers"))
	require.NoError(t, err)
	got, err := os.ReadFile(filepath.Join(dir, "srv/restored/numbers"))
	require.NoError(t, err)
	require.True(t, slices.Equal(want, got))
}
