package e2e

import (
	"context"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The second node of the test cluster, and the taint that keeps other tests' pods away.
const (
	secondNode = "keepset-node-b"
	secondZone = "us-east-1b"
	tolerating = `{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":null},"template":{"spec":{"tolerations":[{"key":"keepset.test/second","operator":"Exists"}]}}}}`
)

// thereIsOne second node, which is one test's at a time.
var thereIsOne sync.Mutex

// withSecondNode adds the second node and takes it away after all that the test
// has made on it.
func withSecondNode(t *testing.T) {
	t.Helper()
	thereIsOne.Lock()
	t.Cleanup(thereIsOne.Unlock)
	run := func(ctx context.Context, command string) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, filepath.Join(cacheRoot(), "bin", "cluster"), command).CombinedOutput()
		require.NoError(t, err, "cluster %s: %s", command, out)
	}
	t.Cleanup(func() { run(context.Background(), "remove-node") })
	run(t.Context(), "add-node")
}

// A lost volume comes back in another zone: made there, bound to a
// PersistentVolume that says so, and mounted by a pod on a node of that zone,
// which follows with all rows. The next one stays there by itself.
func TestSnapshotAnotherZone(t *testing.T) {
	t.Parallel()
	withSecondNode(t)
	s := bareShop(t)
	s.startS3()
	s.install(onEBS(shopOptions{class: "gp3", replicas: 2, patches: []string{shortLease}}))
	s.forgetCluster()
	s.waitReady(2)
	s.replicate(2)
	s.keepset("backup", "init", "--repository", s.repository)
	s.forgetSnapshots("mysql")
	require.NotEqual(t, secondNode, s.pod("mysql-1").Spec.NodeName)
	s.kubectl("patch", "statefulset", "mysql", "-p", tolerating)
	s.jobOK("keepset-backup", "backup-1")
	s.order("since the backup", 500)
	written := s.ordersOf(s.pod("mysql-0").Status.PodIP)
	neighbour := s.pod("mysql-0").UID

	guard := s.guard(1)
	s.parameters(map[string]string{"KEEPSET_ORDINAL": "1", "KEEPSET_REPLACE": "true", "KEEPSET_ZONE": secondZone})
	s.jobOK("keepset-restore", "moved")
	s.waitReady(2)
	guard.never(t, 1, written)
	s.inSecondZone("mysql-1")
	s.isFollower(1)

	// Without being told: where its volume is, as long as a node there takes it.
	s.parameters(map[string]string{"KEEPSET_ORDINAL": "1", "KEEPSET_REPLACE": "true", "KEEPSET_ZONE": ""})
	before := s.claim("data-mysql-1")
	s.jobOK("keepset-restore", "again")
	s.waitReady(2)
	require.NotEqual(t, before.volume, s.claim("data-mysql-1").volume)
	s.inSecondZone("mysql-1")
	s.isFollower(1)

	require.Equal(t, neighbour, s.pod("mysql-0").UID)
	s.nothingLost()
	s.noOrphans("ebs")
	s.nothingLeft()
	s.kubectl("delete", "statefulset", "mysql", "--wait=true")
	s.until(2*time.Minute, "the pods are gone", func() bool { return s.pod("mysql-1") == nil })
}

// inSecondZone: volume, PersistentVolume and pod.
func (s *shopSet) inSecondZone(pod string) {
	s.t.Helper()
	pv := s.persistentVolume(s.claim("data-" + pod).volume)
	if pv.Spec.CSI.Driver == "ebs.csi.aws.com" {
		assert.Equal(s.t, secondZone, s.volumesOf()[pv.Spec.CSI.VolumeHandle].Zone)
	}
	require.NotNil(s.t, pv.Spec.NodeAffinity)
	require.Len(s.t, pv.Spec.NodeAffinity.Required.NodeSelectorTerms, 1)
	for _, e := range pv.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions {
		assert.Equal(s.t, []string{secondZone}, e.Values, e.Key)
	}
	assert.Equal(s.t, secondNode, s.pod(pod).Spec.NodeName)
}

// Through CSI the driver and the scheduler choose the zone: a replica whose
// template says where it runs from now on comes back there.
func TestSnapshotAnotherZoneCSI(t *testing.T) {
	t.Parallel()
	withSecondNode(t)
	s := bareShop(t)
	s.startS3()
	s.install(shopOptions{shipped: "csi", class: csiLate, component: "csi-volume-restore volume-rights", replicas: 2, patches: []string{shortLease}})
	s.forgetCluster()
	s.waitReady(2)
	s.replicate(2)
	s.keepset("backup", "init", "--repository", s.repository)
	require.NotEqual(t, secondNode, s.pod("mysql-1").Spec.NodeName)
	s.kubectl("patch", "statefulset", "mysql", "-p", tolerating)
	s.kubectl("patch", "statefulset", "mysql", "-p", `{"spec":{"template":{"spec":{"nodeSelector":{"topology.kubernetes.io/zone":"`+secondZone+`"}}}}}`)
	s.jobOK("keepset-backup", "backup-1")
	s.order("since the backup", 500)
	written := s.ordersOf(s.pod("mysql-0").Status.PodIP)
	neighbour, before := s.pod("mysql-0").UID, s.claim("data-mysql-1")

	guard := s.guard(1)
	s.parameters(map[string]string{"KEEPSET_ORDINAL": "1", "KEEPSET_REPLACE": "true", "KEEPSET_ZONE": ""})
	s.jobOK("keepset-restore", "moved")
	s.waitReady(2)
	guard.never(t, 1, written)
	require.NotEqual(t, before.volume, s.claim("data-mysql-1").volume)
	s.inSecondZone("mysql-1")
	s.isFollower(1)

	require.Equal(t, neighbour, s.pod("mysql-0").UID)
	s.noOrphans("csi")
	s.nothingLeft()
	s.kubectl("delete", "statefulset", "mysql", "--wait=true")
	s.until(2*time.Minute, "the pods are gone", func() bool { return s.pod("mysql-1") == nil })
}
