package docs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/test/programs"
)

// asAgeKeygen makes the test's program the `age-keygen` of a page's commands.
const asAgeKeygen = "KEEPSET_TEST_AS_AGE_KEYGEN"

// ageKeygenMain is `age-keygen`, for exactly the commands of docs/keys.md, so that a test needs no such program.
func ageKeygenMain(args []string) int {
	if err := ageKeygen(args); err != nil {
		fmt.Fprintln(os.Stderr, "age-keygen:", err)
		return 1
	}
	return 0
}

func ageKeygen(args []string) error {
	if len(args) != 2 || args[0] != "-o" && args[0] != "-y" {
		return fmt.Errorf("not understood: %q", args)
	}
	if args[0] == "-o" {
		identity, err := age.GenerateX25519Identity()
		if err != nil {
			return err
		}
		return os.WriteFile(args[1], []byte("# public key: "+identity.Recipient().String()+"\n"+identity.String()+"\n"), 0o600)
	}
	text, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	identities, err := age.ParseIdentities(strings.NewReader(string(text)))
	if err != nil {
		return err
	}
	one, ok := identities[0].(*age.X25519Identity)
	if !ok {
		return fmt.Errorf("not understood: %s", args[1])
	}
	_, err = fmt.Fprintln(os.Stdout, one.Recipient())
	return err
}

// TestKeysPage does what docs/keys.md says, in its order and in one shell, and what it says that is refused.
func TestKeysPage(t *testing.T) {
	bin, err := programs.Build()
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "srv/www"), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "srv/restored"), 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "bin"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "srv/www/index.html"), []byte(strings.Repeat("hello\n", 1000)), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bin/age-keygen"), fmt.Appendf(nil, "#!/bin/bash\n%s=1 exec %s \"$@\"\n", asAgeKeygen, self), 0o700))
	shell := func(code string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -euo pipefail\n"+strings.ReplaceAll(code, "/srv/", dir+"/srv/"))
		cmd.Dir, cmd.Env = dir, []string{"PATH=" + filepath.Join(dir, "bin") + ":" + bin + ":/usr/bin:/bin", "HOME=" + dir}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	page := read(t, "docs/keys.md")
	done := ""
	follow := func(headings ...string) string {
		t.Helper()
		// What is exported goes on to the next part, which has a shell of its own.
		code := page.In("sh", headings...)
		out, err := shell("touch state; set -a; . ./state; set +a\n" + code + "\n{ export -p | grep ' KEEPSET_'; declare -p COLLEAGUE; } > state 2>/dev/null || true")
		require.NoError(t, err, "%s", out)
		done += strings.Join(headings, "\n") + "\n"
		return out
	}
	said := follow("See and prove the keys")
	assert.Contains(t, said, "key file opened")
	said = follow("One more who may restore")
	assert.Contains(t, said, "would: recipient ")
	assert.Equal(t, 2, strings.Count(said, "of epoch 1  key file "), said)
	said = follow("One less")
	assert.Contains(t, said, "can no longer open epoch 1")
	out, err := shell("set -a; . ./state; set +a; unset KEEPSET_RESTORE_IDENTITY_FILE; . keys/restore.env; KEEPSET_RESTORE_IDENTITY=$KEEPSET_RESTORE_IDENTITY backup keys list")
	require.ErrorContains(t, err, "exit status 64", out)
	require.Contains(t, out, "opens none of the key files")

	said = follow("A new writer key")
	assert.Contains(t, said, "is retired, what it signs counts until")
	assert.Equal(t, 2, strings.Count(said, " 1/1 "), said)
	stale := func(secret string) {
		t.Helper()
		out, err := shell("set -a; . ./state; . " + secret + "; backup run --method files --source file:///srv/www")
		require.ErrorContains(t, err, "exit status 64", out)
		require.Contains(t, out, "was retired")
		require.Contains(t, out, "backup keys rotate-writer")
	}
	stale("keys/writer.env")
	said = follow("After a theft")
	assert.Contains(t, said, "would: epoch 2 begins")
	stale("keys/writer.env")
	stale("keys-2/writer.env")
	restored, err := os.ReadFile(filepath.Join(dir, "srv/restored/index.html"))
	require.NoError(t, err)
	require.Len(t, restored, 6000)
	done += "In a cluster\n" // TestRoles does, end to end
	for _, k := range page.Blocks {
		require.Contains(t, done, k.Heading+"\n", "line %d is not followed", k.Line)
	}
}
