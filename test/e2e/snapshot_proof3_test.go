package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/cli"
	"keepset/internal/snapshot/ebstest/control"
)

// A pod with two claims, data and binary logs: both volumes are cut at one
// moment, though nobody holds the server still and a client writes on. A replica
// made of them starts like a server after a power cut, goes on from where its
// logs end, and has every row: were the logs' volume of another moment than the
// data's, rows would be missing or twice. Then a claim is missing, and nothing
// is cut.
func TestSnapshotProof3TwoClaims(t *testing.T) {
	t.Parallel()
	s := bareShop(t)
	s.startS3()
	s.install(onEBS(shopOptions{yaml: "twovolumes.yaml", class: "gp3", replicas: 1, patches: []string{shortLease, `
apiVersion: v1
kind: ConfigMap
metadata: {name: keepset-backup}
data: {KEEPSET_QUIESCE: none, KEEPSET_SOURCE_USER: ""}
`}}))
	s.forgetCluster()
	s.waitReady(1)
	s.replicate(1)
	s.keepset("backup", "init", "--repository", s.repository)
	s.forgetSnapshots("mysql")

	stop := s.writing()
	s.jobOK("keepset-backup", "crash")
	written, slowest := stop()
	t.Logf("measured: %d rows were written while two volumes were cut and copied, the slowest took %v", written, slowest)
	backup := s.backups()[0]
	require.Equal(t, "complete", backup.Status, "%v", backup.Problems)
	assert.Contains(t, s.logs("crash"), "crash consistent")
	cuts := s.cutsOf(backup.Backup)
	require.Len(t, cuts, 2)
	require.Contains(t, cuts, "data-mysql-0")
	require.Contains(t, cuts, "log-mysql-0")
	assert.Equal(t, cuts["data-mysql-0"].Started, cuts["log-mysql-0"].Started, "cut at one moment")
	assert.Equal(t, []string{"CreateSnapshots"}, s.calls("CreateSnapshot"), "in one call")

	guard := s.guard(1)
	s.parameters(map[string]string{"KEEPSET_REPLICAS": "2"})
	s.jobOK("keepset-restore", "grow")
	s.waitReady(2)
	guard.never(t, 1, 2000)
	s.order("after", 100)
	s.caughtUp(1)
	s.nothingLost()

	s.withoutClaim()
	s.nothingLeft()
}

// calls are the actions of a kind that the fake was asked for, for this
// namespace's set, in order.
func (c *cluster) calls(prefix string) []string {
	c.t.Helper()
	all, err := c.ec2().Calls(c.t.Context(), control.Scope{Tags: map[string]string{"keepset/namespace": c.ns}})
	require.NoError(c.t, err)
	var actions []string
	for _, call := range all {
		if strings.HasPrefix(call.Action, prefix) {
			actions = append(actions, call.Action)
		}
	}
	return actions
}

// withoutClaim takes the second replica's logs away below it, where a quota
// keeps the controller from making the claim anew.
func (s *shopSet) withoutClaim() {
	s.t.Helper()
	cuts, before := s.calls("CreateSnapshot"), s.snapshotsOf()
	s.kubectl("create", "quota", "no-claims", "--hard=persistentvolumeclaims=0")
	s.kubectl("delete", "pvc", "log-mysql-1", "--wait=false")
	s.kubectl("patch", "pvc", "log-mysql-1", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	s.until(time.Minute, "the claim is gone", func() bool { _, err := s.try("get", "pvc", "log-mysql-1"); return err != nil })
	run := s.host().with("KEEPSET_REPOSITORY=" + s.repository)
	line := run.fails(cli.ExitFailed, "backup", "run", "--set", "mysql", "--method", "snapshot", "--snapshotter", "ebs", "--quiesce", "none")
	assert.Contains(s.t, line, "log-mysql-1")
	assert.Contains(s.t, line, "is missing")
	assert.Equal(s.t, cuts, s.calls("CreateSnapshot"), "nothing is cut, of no member")
	ids := func(list []control.Snapshot) []string {
		var all []string
		for _, c := range list {
			all = append(all, c.ID)
		}
		slices.Sort(all)
		return all
	}
	assert.Equal(s.t, ids(before), ids(s.snapshotsOf()))
	require.Len(s.t, s.backups(), 1)
}
