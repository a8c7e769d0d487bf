package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/cli"
)

// A replica whose pod, claim and volume are gone is recovered with a namespaced
// Role only; two restores at once have one winner; a lost primary with newer
// followers, and a purged log, are refused before anything is touched; one
// table comes out of the backup; the whole set comes up in another namespace.
func TestProof3Recovery(t *testing.T) {
	t.Parallel()
	s := newShopSet(t, shopOptions{policy: "Parallel"})
	s.jobOK("keepset-backup", "backup-1")
	first, sumThen := string(s.backups()[0].Backup), s.sum(0)
	s.order("second", 500)

	volume := s.kubectl("get", "pvc", "data-mysql-1", "-o", "jsonpath={.spec.volumeName}")
	s.kubectl("delete", "pvc", "data-mysql-1", "--wait=false")
	s.kubectl("delete", "pv", volume, "--wait=false")
	s.kubectl("delete", "pod", "mysql-1", "--grace-period=0", "--force")
	s.parameters(map[string]string{"KEEPSET_ORDINAL": "1", "KEEPSET_REPLACE": "true"})
	s.jobFrom("keepset-restore", "recover-a")
	s.seeding(1)
	s.jobFrom("keepset-restore", "recover-b")
	s.until(time.Minute, "the second restore is turned away", func() bool { return strings.Contains(s.logs("recover-b"), "set is busy") })
	s.until(time.Minute, "with exit code 5", func() bool { return s.exitCode("recover-b") == cli.ExitBusy })
	s.kubectl("delete", "job", "recover-b")
	s.jobFrom("keepset-backup", "meanwhile")
	s.until(time.Minute, "a backup by hand is turned away", func() bool { return s.exitCode("meanwhile") == cli.ExitBusy })
	s.kubectl("delete", "job", "meanwhile") // its retries might come after the restore
	require.True(t, s.waitJob("recover-a", 5*time.Minute), s.logs("recover-a"))
	s.waitReady(3)
	s.caughtUp(1)
	assert.Equal(t, "101", s.value(1, "SELECT @@server_id"))
	assert.Equal(t, "1", s.value(1, "SELECT @@read_only"))
	s.nothingLeft()

	s.parameters(map[string]string{"KEEPSET_ORDINAL": "0", "KEEPSET_REPLACE": "true"})
	before := s.pod("mysql-0").UID
	s.restoreRefused("primary", "--allow-rollback")
	require.Equal(t, before, s.pod("mysql-0").UID, "refused before anything was touched")

	table := s.host().with("KEEPSET_TARGET_PASSWORD="+rootPassword).ok("restore", "load", "--repository", s.repository, "--set", s.ns+"/mysql", "--ordinal", "0", "--backup", first,
		"--target", "mysql://root@"+s.pod("mysql-0").Status.PodIP+":3306", "--table", "shop.orders", "--rename", "shop=shop_then")
	t.Log(table)
	assert.Equal(t, sumThen, s.value(0, strings.ReplaceAll(sumQuery, "shop.", "shop_then.")), "the table as it was at the backup")

	// The whole set, in another namespace, where its YAML stands at zero replicas.
	other := s.beside("pod-security.kubernetes.io/enforce=restricted")
	other.install(shopOptions{empty: true})
	guard := other.guard(0)
	other.parameters(map[string]string{"KEEPSET_ALL": "true", "KEEPSET_FROM_SET": s.ns + "/mysql", "KEEPSET_BACKUP": first})
	other.jobOK("keepset-restore", "whole-set")
	other.waitReady(3)
	assert.Equal(t, sumThen, other.sum(0))
	guard.never(t, 1, 1)
	other.order("life goes on", 100)
	for i := 1; i < 3; i++ {
		other.caughtUp(i)
	}

	// Replication cannot continue from a log that is gone.
	s.exec(0, "FLUSH BINARY LOGS", "FLUSH BINARY LOGS")
	s.order("fourth", 10)
	for i := 1; i < 3; i++ {
		s.caughtUp(i)
	}
	s.exec(0, "PURGE BINARY LOGS TO '"+s.lastLog()+"'")
	s.parameters(map[string]string{"KEEPSET_ORDINAL": "2", "KEEPSET_REPLACE": "true", "KEEPSET_BACKUP": first})
	before = s.pod("mysql-2").UID
	s.jobFrom("keepset-restore", "purged")
	require.False(t, s.waitJob("purged", 3*time.Minute), s.logs("purged"))
	assert.Contains(t, s.logs("purged"), "replication cannot continue")
	code, _, _ := s.ended("purged")
	assert.EqualValues(t, cli.ExitUsage, code)
	require.Equal(t, before, s.pod("mysql-2").UID, "refused before anything was touched")
	s.jobOK("keepset-backup", "fresh")
	s.parameters(map[string]string{"KEEPSET_ORDINAL": "2", "KEEPSET_REPLACE": "true"})
	s.jobOK("keepset-restore", "from-fresh")
	s.waitReady(3)
	s.caughtUp(2)
	s.nothingLeft()
}
