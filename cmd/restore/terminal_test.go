package main

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/cli"
	"keepset/internal/cli/clitest"
	"keepset/internal/repository"
	"keepset/internal/storage/dir"
	"keepset/test/servers"
)

// TestProgress loads on terminals, and looks at what is drawn.
func TestProgress(t *testing.T) {
	source, target := servers.MariaDB(t), servers.MariaDB(t)
	source.Exec(t, "CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, note TEXT)",
		"INSERT INTO shop.orders (note) SELECT CONCAT(SHA2(seq, 512), SHA2(-seq, 512)) FROM shop.seq_1_to_50000")
	world := clitest.NewWorld(t, nil, "KEEPSET_SOURCE_PASSWORD="+source.Password, "KEEPSET_TARGET_PASSWORD="+target.Password)
	store, err := dir.Create(dir.Options{Path: world.Repository})
	require.NoError(t, err)
	_, err = repository.Init(t.Context(), store, repository.InitOptions{})
	require.NoError(t, err)
	clitest.Backup(t, world.Env, "--source", "mysql://root@"+source.Addr)
	load := []string{"load", "--target=mysql://root@" + target.Addr, "--replace"}

	for _, columns := range []int{40, 200} {
		t.Run(fmt.Sprint(columns, " columns"), func(t *testing.T) {
			term := clitest.OnTerminal(t, uint16(columns), world.Env, "restore", append(load, "--limit-download=3000")...)
			term.Await(`ordinal 0 .* [0-9]+%`)
			code, last := term.End(columns)
			require.Zero(t, code, last)
			assert.Regexp(t, `ordinal 0  .*[0-9.]+ MiB in [0-9.]+s`, last)
			assert.Contains(t, last, "\nloaded ordinal 0 of backup")
		})
	}
	t.Run("Ctrl-C", func(t *testing.T) {
		term := clitest.OnTerminal(t, 80, world.Env, "restore", append(load, "--limit-download=50")...)
		term.Await(`ordinal 0 .*[0-9]+%`)
		term.Type("\x03")
		code, last := term.End(80)
		assert.Equal(t, cli.ExitFailed, code)
		assert.Regexp(t, `ordinal 0 .*(failed|stopped)`, last)
		assert.Contains(t, last, "restore: interrupted: ")
	})
}
