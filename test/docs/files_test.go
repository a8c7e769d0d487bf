package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/test/programs"
)

// TestFilesPage does what docs/files.md says, in its order, and by hand.
func TestFilesPage(t *testing.T) {
	bin, err := programs.Build()
	require.NoError(t, err)
	dir := t.TempDir()
	run := func(code string) string {
		cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -euo pipefail\n"+strings.ReplaceAll(code, "/srv/", dir+"/srv/"))
		cmd.Dir, cmd.Env = dir, []string{"PATH=" + bin + ":/usr/bin:/bin", "HOME=" + dir, "SET=_/www", "REPO=" + dir + "/srv/backups"}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	www := filepath.Join(dir, "srv/www")
	run(`mkdir -p /srv/www/uploads/a /srv/www/cache /srv/by-hand
		echo logo > /srv/www/uploads/a/logo; echo x > /srv/www/cache/x; echo t > /srv/www/uploads/t.tmp
		ln -s uploads/a/logo /srv/www/link; ln /srv/www/uploads/a/logo /srv/www/uploads/hard; mkfifo /srv/www/fifo
		head -c 3000000 /dev/urandom > /srv/www/large; chmod 4751 /srv/www/large; touch -d 2020-01-01 /srv/www/uploads`)

	page := read(t, "docs/files.md")
	assert.Contains(t, run(page.In("sh", "Back up")), "_/www")
	said := run("export KEEPSET_REPOSITORY=file:///srv/backups\n" + page.In("sh", "Restore"))
	assert.Contains(t, said, "would load ordinal 0 of backup")
	assert.Contains(t, said, "uploads/a/logo")
	run("rm -r /srv/www/cache /srv/www/uploads/t.tmp; touch -d 2020-01-01 /srv/www/uploads")
	run(byHand(t) + page.In("sh", "By hand"))
	for _, to := range []string{"restored", "by-hand"} {
		run("tar --create --file www.tar --format posix --directory /srv/www uploads link fifo large; tar --compare --file www.tar --directory /srv/" + to)
	}
	assert.FileExists(t, filepath.Join(dir, "srv/part/uploads/a/logo"))
	assert.NoFileExists(t, filepath.Join(dir, "srv/part/large"))
	assert.NoFileExists(t, filepath.Join(dir, "srv/restored/uploads/t.tmp"))
	assert.NoDirExists(t, filepath.Join(dir, "srv/restored/cache"))
	_, err = os.Stat(www)
	require.NoError(t, err)
	for _, k := range page.Blocks {
		require.Contains(t, []string{"Back up", "Restore", "By hand"}, k.Heading, "line %d is not followed", k.Line)
	}
}

// byHand is restore-by-hand.md up to the function that writes a stream, for a
// plain repository in a directory.
func byHand(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, k := range read(t, "docs/restore-by-hand.md").Blocks {
		if k.Note == "" || k.Note == "dir" || k.Note == "plain" {
			b.WriteString(k.Code)
		}
		if strings.HasPrefix(k.Code, "stream()") {
			return b.String()
		}
	}
	require.Fail(t, "restore-by-hand.md has no function stream")
	return ""
}
