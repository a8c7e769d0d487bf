package main

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/cli"
	"keepset/internal/cli/clitest"
	"keepset/test/servers"
)

// fill makes a table of a few megabytes that do not compress well.
func fill(t *testing.T, s *servers.MySQL) {
	t.Helper()
	s.Exec(t, "CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, note TEXT)",
		"INSERT INTO shop.orders (note) SELECT CONCAT(SHA2(seq, 512), SHA2(-seq, 512)) FROM shop.seq_1_to_20000")
}

// TestProgress runs backups on terminals, and looks at what they draw.
func TestProgress(t *testing.T) {
	one, other := servers.MariaDB(t), servers.MariaDB(t)
	fill(t, one)
	fill(t, other)
	repository := "--repository=file://" + t.TempDir() + "/r"
	require.NoError(t, exec.CommandContext(t.Context(), "backup", "init", repository).Run())
	env := []string{"KEEPSET_SOURCE_PASSWORD=" + one.Password}
	run := func(set string) []string {
		return []string{
			"run", repository, "--set=" + set, "--limit-upload=800",
			"--source=mysql://root@" + one.Addr, "--source=mysql://root@" + other.Addr,
		}
	}
	for _, columns := range []int{40, 200} {
		t.Run(fmt.Sprint(columns, " columns"), func(t *testing.T) {
			set := fmt.Sprint("shop", columns)
			term := clitest.OnTerminal(t, uint16(columns), env, "backup", run(set)...)
			term.Await(`ordinal 0.* B.*\n.*ordinal 1`)
			code, last := term.End(columns)
			require.Zero(t, code, last)
			assert.Regexp(t, `(?s)^(.*\n)?ordinal 0 .* in [0-9.]+s.*\nordinal 1 .* in [0-9.]+s.*\n.*complete in`, last)
			assert.NotContains(t, last, "ETA")
		})
	}
	t.Run("the second backup knows how much there is", func(t *testing.T) {
		fresh := []string{"INSERT INTO shop.orders (note) SELECT CONCAT(SHA2(seq + 1000000, 512), SHA2(seq + 2000000, 512)) FROM shop.seq_1_to_20000"}
		one.Exec(t, fresh...)
		term := clitest.OnTerminal(t, 200, env, "backup", append(run("shop200"), "--limit-upload=700")...)
		term.Await(`ordinal 0 .*\[=*> *\].* [0-9]+%.* of .*/s  (ETA|finishing)`)
		code, last := term.End(200)
		require.Zero(t, code, last)
	})
	t.Run("Ctrl-C", func(t *testing.T) {
		term := clitest.OnTerminal(t, 80, env, "backup", append(run("other"), "--limit-upload=1", "--no-extra-verify")...)
		term.Await(`ordinal 0 `)
		term.Type("\x03")
		code, last := term.End(80)
		assert.Equal(t, cli.ExitFailed, code)
		assert.Regexp(t, `ordinal 0 .*(failed|stopped)`, last)
		assert.Contains(t, last, "backup: interrupted: ")
	})
	t.Run("none in a pipe", func(t *testing.T) {
		cmd := exec.CommandContext(t.Context(), "backup", run("shop40")...)
		cmd.Env = append(cmd.Environ(), env...)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		assert.NotContains(t, string(out), "\x1b")
		assert.NotContains(t, string(out), "\nordinal 0")
		assert.Equal(t, 1, strings.Count(string(out), "complete in"))
	})
	t.Run("none where nobody wants them", func(t *testing.T) {
		for _, flag := range []string{"--no-progress", "--json"} {
			term := clitest.OnTerminal(t, 80, env, "backup", append(run("shop40"), flag)...)
			code, last := term.End(80)
			require.Zero(t, code, last)
			assert.NotContains(t, last, "ordinal 0 ")
		}
	})
}
