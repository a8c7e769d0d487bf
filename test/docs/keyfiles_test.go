package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/test/programs"
)

// TestLostKeyFiles: the commands of docs/storage.md put a lost key file back
// out of the writer's Secret, to the byte.
func TestLostKeyFiles(t *testing.T) {
	bin, err := programs.Build()
	require.NoError(t, err)
	dir := t.TempDir()
	shell := func(code string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "/bin/bash", "-euc", code)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	shell("backup keygen --format env --out made && set -a && . made/writer.env && backup init --repository file://$PWD/r && mv r/keys lost && mkdir r/keys")
	files, err := filepath.Glob(dir + "/lost/*")
	require.NoError(t, err)
	require.Len(t, files, 1)
	name := filepath.Base(files[0])
	blocks := read(t, "docs/storage.md").Blocks
	i := slices.IndexFunc(blocks, func(b Block) bool { return b.Heading == "Lost key files" })
	require.GreaterOrEqual(t, i, 0)
	// The page's fingerprint and bucket stand for the reader's own.
	code := strings.ReplaceAll(blocks[i].Code, "0123456789abcdef", strings.Split(name, ".")[1])
	code = regexp.MustCompile(`aws s3 cp (\S+) s3://BUCKET/PREFIX/(\S+)`).ReplaceAllString(code, "cp $1 r/$2")
	require.Contains(t, code, " r/keys/")
	shell("set -a && . made/writer.env && " + code)
	want, err := os.ReadFile(files[0])
	require.NoError(t, err)
	got, err := os.ReadFile(dir + "/r/keys/" + name)
	require.NoError(t, err)
	require.Equal(t, want, got)
	shell("backup verify --repository file://$PWD/r")
}
