package pains

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

// This file: backups that were called good and were not.

// k8up #910 and #1032: a backup whose command failed, or whose volume could not be read, was shown as a success.
func TestPain01UnreadableVolume(t *testing.T) {
	t.Parallel()
	server := newShop(t)
	server.Exec(t, "CREATE TABLE shop.invoices (id INT PRIMARY KEY) ENGINE=MyISAM", "INSERT INTO shop.invoices VALUES (1), (2)",
		"FLUSH TABLES shop.invoices")
	require.NoError(t, os.Remove(filepath.Join(server.DataDir, "shop/invoices.MYD")))
	s := newSite(t, server.Addr)

	require.Contains(t, s.backUp(1), "invoices")
	require.Equal(t, []string{"incomplete"}, s.statuses(), "the orders could be read, and make no backup")
	s.requireNothingToRestore()
}

// mariadb-operator #1901: a backup that ran into its deadline was deleted, and reported as a success.
func TestPain02Deadline(t *testing.T) {
	t.Parallel()
	server := newShop(t)
	s := newSite(t, server.Addr)

	running, release := s.stuck(server)
	require.NoError(t, running.Process.Signal(syscall.SIGTERM), "as the kubelet does at a Job's deadline")
	require.Error(t, running.Wait())
	require.Equal(t, 1, running.ProcessState.ExitCode())
	require.Equal(t, []string{"incomplete"}, s.statuses())
	s.requireNothingToRestore()

	// Success is a commit that can be read, and nothing else.
	release()
	s.backUp(0)
	require.Equal(t, []string{"complete", "incomplete"}, s.statuses())
	commit := s.files("commits/*/*")
	require.Len(t, commit, 1)
	require.NoError(t, os.Truncate(commit[0], 0))
	require.NotContains(t, s.statuses(), "complete")
	s.requireNothingToRestore()
}

// bitpoke/mysql-operator #256: 33 MB were all that a backup held of a database of 200 GB. kubeblocks-addons, pull request
// 2753: a backup of 0 bytes was Completed.
func TestPain05SmallBackup(t *testing.T) {
	t.Parallel()
	server := newShop(t)
	s := newSite(t, server.Addr)
	s.backUp(0)
	good := s.list()[0].Backup

	server.Exec(t, "DELETE FROM shop.orders WHERE id > 30")
	require.Contains(t, s.backUp(4), "rows fell from 3300 to 330")
	require.Equal(t, []string{"suspect", "complete"}, s.statuses())
	plan := s.run(0, "restore", "load", "--dry-run", "--target", "mysql://root@"+server.Addr)
	require.Contains(t, plan, good, "the latest is the latest good one")

	packs := s.files("packs/*")
	require.NotEmpty(t, packs)
	for _, pack := range packs {
		require.NoError(t, os.Truncate(pack, 0))
	}
	require.Contains(t, s.run(1, "backup", "verify"), good)
	s.load(1, server, "--rename", "shop=copy")
}

// nfrastack/db-backup #398: the connection broke in the middle of a dump, which then had completed successfully.
func TestPain06Disconnect(t *testing.T) {
	t.Parallel()
	line := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), "database", "127.0.0.1:0", shop(t).Addr)
	require.NoError(t, line.Start())
	t.Cleanup(line.Stop)
	// It ends as politely as a server that has no more to say.
	_, err := line.Toxics.AddToxicJson(strings.NewReader(`{"type": "limit_data", "stream": "downstream", "attributes": {"bytes": 300000}}`))
	require.NoError(t, err)
	s := newSite(t, line.Listen)

	s.backUp(1)
	require.Equal(t, []string{"incomplete"}, s.statuses())
	s.requireNothingToRestore()

	line.Toxics.ResetToxics(t.Context())
	s.backUp(0)
	require.Equal(t, []string{"complete", "incomplete"}, s.statuses())
}

// velero #6212 and #5834: a backup was Completed in which volumes had failed, or had been skipped.
func TestPain15SkippedMember(t *testing.T) {
	t.Parallel()
	const nobody = "127.0.0.1:1"
	s := newSite(t, shop(t).Addr, nobody, strings.Replace(shop(t).Addr, "127.0.0.1", "localhost", 1))

	require.Contains(t, s.backUp(3), "ordinal 1 ("+nobody+") failed")
	require.Equal(t, []string{"incomplete"}, s.statuses())
	s.requireNothingToRestore()

	// What had to be in it was written down before anything was read.
	plans := s.files("backups/*/plan")
	require.Len(t, plans, 1)
	content, err := os.ReadFile(plans[0])
	require.NoError(t, err)
	var plan struct{ Members []struct{ Ordinal int } }
	require.NoError(t, json.NewDecoder(strings.NewReader(string(content))).Decode(&plan), "%s", content)
	require.Len(t, plan.Members, 3)
}
