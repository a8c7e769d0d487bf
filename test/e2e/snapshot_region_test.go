package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/cli"
	"keepset/internal/snapshot/ebstest"
	"keepset/internal/snapshot/ebstest/control"
)

// downSet is a set whose pod no node takes, on a volume that a fake EC2 of the
// test's own keeps: what is asked of AWS needs no pod.
const downSet = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 1
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      nodeSelector: {nowhere: "true"}
      containers:
        - {name: db, image: none, ports: [{containerPort: 3306}], volumeMounts: [{name: data, mountPath: /data}]}
  volumeClaimTemplates:
    - metadata: {name: data}
      spec:
        accessModes: [ReadWriteOnce]
        storageClassName: gp3
        volumeName: %[2]s
        resources: {requests: {storage: 1Gi}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: %[2]s}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: gp3
  persistentVolumeReclaimPolicy: Retain
  claimRef: {namespace: %[1]s, name: data-db-0}
  csi: {driver: ebs.csi.aws.com, volumeHandle: %[3]s, fsType: ext4}
`

// --copy-to-region: the snapshots are in both regions before the backup counts;
// one that cannot be copied fails its member and leaves nothing in either; the
// region that was backed up is lost, and a restore into the other one takes the
// copy; both go with their backup.
func TestSnapshotCopyToRegion(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	aws := ebstest.Start(t, ebstest.Options{
		SnapshotInterval: -1, Region: "us-east-1", Regions: map[string][]string{"us-east-1": {"us-east-1a"}, "eu-west-1": {"eu-west-1a"}},
		Clock: func() time.Time { return time.Now().Add(-5 * 24 * time.Hour) }, // older than what a running backup may still need
	})
	volume, err := aws.CreateVolume(control.Volume{Zone: "us-east-1a", SizeGiB: 1, Type: "gp3"})
	require.NoError(t, err)
	pv := "keepset-test-" + c.ns
	t.Cleanup(func() {
		assert.NoError(t, c.kube.CoreV1().PersistentVolumes().Delete(context.Background(), pv, metav1.DeleteOptions{}))
	})
	c.apply(fmt.Sprintf(downSet, c.ns, pv, volume.ID))
	c.until(time.Minute, "the claim is bound", func() bool {
		out, err := c.try("get", "pvc", "data-db-0", "-o", "jsonpath={.status.phase}")
		return err == nil && out == "Bound"
	})
	run := newPlain(t, "KUBECONFIG="+c.kubeconfig, "KEEPSET_NAMESPACE="+c.ns, "AWS_ENDPOINT_URL_EC2="+aws.URL(), "AWS_REGION=us-east-1",
		"AWS_ACCESS_KEY_ID=AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY=secret", "KEEPSET_REPOSITORY=file://"+t.TempDir()+"/r")
	run.ok("backup", "init")
	args := []string{"backup", "run", "--set", "db", "--method", "snapshot", "--snapshotter", "ebs", "--quiesce", "none", "--copy-to-region"}
	assert.Contains(t, run.fails(cli.ExitUsage, append(args, "us-east-1")...), "that is the region of the volumes")

	rule := aws.Inject(ebstest.Rule{Action: "CopySnapshot", Outcome: control.Failing, Message: "no rights on the key"})
	failed := run.fails(cli.ExitFailed, append(args, "eu-west-1")...)
	assert.Contains(t, failed, "the copy in region eu-west-1")
	assert.Contains(t, failed, "no rights on the key")
	assert.Empty(t, aws.Snapshots(), "nothing is left in either region")
	rule.Remove()

	run.ok(append(args, "eu-west-1")...)
	kept := map[string]string{}
	for _, s := range aws.Snapshots() {
		kept[s.Region] = s.ID
		assert.Equal(t, "completed", s.State)
		assert.Equal(t, c.ns, s.Tags["keepset/namespace"])
	}
	require.Len(t, kept, 2)
	run.ok(append(args, "eu-west-1")...)
	require.Len(t, aws.Snapshots(), 4)
	assert.Contains(t, run.ok("backup", "verify", "--set", "db", "--orphans", "--snapshotter", "ebs"), "4 volume snapshots needed, 0 of them gone, 0 kept")

	var second, first string
	for _, b := range run.list(run.repository(), c.ns+"/db") {
		if b.Status == "complete" {
			second, first = orElse(second, string(b.Backup)), string(b.Backup)
		}
	}
	require.NotEqual(t, first, second)
	run.ok("backup", "delete", "--set", "db", "--snapshotter", "ebs", first)
	require.Len(t, aws.Snapshots(), 2, "its copy goes with it")
	for _, s := range aws.Snapshots() {
		assert.NotEqual(t, kept[s.Region], s.ID)
		kept[s.Region] = s.ID
	}

	down := aws.Inject(ebstest.Rule{Scope: control.Scope{Place: control.Place{Region: "us-east-1"}}, Times: -1, Fail: &control.Error{Code: "AuthFailure"}})
	defer down.Remove()
	plan := []string{"restore", "plan", "--set", "db", "--ordinal", "0", "--replace", "--as-follower-of", "none", "--target-user", "root"}
	run.fails(cli.ExitFailed, plan...)
	said := run.ok(append(plan, "--zone", "eu-west-1a")...)
	assert.Contains(t, said, kept["eu-west-1"]+", the copy in region eu-west-1 of snapshot "+kept["us-east-1"])
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
