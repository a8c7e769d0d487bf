package pains

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/snapshot"
	"keepset/internal/snapshot/ebs"
	"keepset/internal/snapshot/ebstest"
	"keepset/internal/snapshot/ebstest/control"
	"keepset/internal/statefulset"
)

// This file: volumes that were left out, that could not move, or that did not fit.

const (
	className = "mysql-gp3"
	driver    = "ebs.csi.aws.com"
	instance  = "i-00000000000000001"
	zoneA     = "us-east-1a"
	zoneB     = "us-east-1b"
	abroad    = "eu-west-1"
)

// cloud is a cluster with the set db, of one replica with the claims data and wal, and volumes of a simulated EC2.
type cloud struct {
	*days
	kube    *fake.Clientset
	aws     *ebstest.Server
	volumes *ebs.Snapshotter
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: className}, Provisioner: driver, Parameters: map[string]string{"type": "gp3"}}
	c := &cloud{days: newDays(t), kube: fake.NewClientset(statefulSet(1, "data", "wal"), podOf(0), class)}
	c.aws = ebstest.Start(t, ebstest.Options{
		Region: "us-east-1", Regions: map[string][]string{"us-east-1": {zoneA, zoneB}, abroad: {abroad + "a"}}, SnapshotInterval: -1,
		Clock: c.now,
	})
	_, err := c.aws.PutInstance(control.Instance{ID: instance, Zone: zoneA, RootGiB: 8})
	require.NoError(t, err)
	c.volumes, err = ebs.New(t.Context(), ebs.Options{
		Kube: c.kube, Region: "us-east-1", EC2Endpoint: c.aws.URL(), EBSEndpoint: c.aws.URL(), Copies: []string{abroad},
		Credentials: ebs.Credentials{AccessKeyID: "AKIAEXAMPLE", SecretAccessKey: "secret"},
		Patience:    snapshot.Patience{Call: 10 * time.Second, Poll: 5 * time.Millisecond}, Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(c.volumes.Close)
	return c
}

// bind makes a claim of ordinal 0 on a volume of so many GiB.
func (c *cloud) bind(template string, gib int64) {
	c.t.Helper()
	v, err := c.aws.CreateVolume(control.Volume{Zone: zoneA, SizeGiB: gib, Type: "gp3"})
	require.NoError(c.t, err)
	_, err = c.aws.Attach(v.ID, instance, "")
	require.NoError(c.t, err)
	claim := claimOf(template, 0)
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(fmt.Sprintf("%dGi", gib))}
	claim.Spec.VolumeName, claim.Spec.Resources.Requests = "pv-"+claim.Name, size
	claim.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, Capacity: size}
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: claim.Spec.VolumeName}}
	pv.Spec.Capacity = size
	pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: v.ID, FSType: "ext4"}
	pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpIn, Values: []string{zoneA}}},
	}}}}
	_, err = c.kube.CoreV1().PersistentVolumes().Create(c.t.Context(), pv, metav1.CreateOptions{})
	require.NoError(c.t, err)
	_, err = c.kube.CoreV1().PersistentVolumeClaims(namespace).Create(c.t.Context(), claim, metav1.CreateOptions{})
	require.NoError(c.t, err)
}

// cut is `backup run --method snapshot --quiesce none`.
func (c *cloud) cut(ctx context.Context) (*job.BackupReport, error) {
	b := c.job()
	b.Plan.Method, b.Plan.Engine = record.MethodSnapshot, "memory"
	b.Discover = job.FromCluster(c.client(), "db", statefulset.DiscoverOptions{DefaultPort: 3306})
	b.Volumes = &job.VolumeCuts{Snapshotter: c.volumes, Cluster: "here", CrashConsistent: true}
	return b.Run(ctx)
}

func (c *cloud) client() *statefulset.Client { return statefulset.New(c.kube, namespace, nil) }

// prepare makes the volume that a claim of ordinal 0 gets of a snapshot, and returns it.
func (c *cloud) prepare(r record.VolumeSnapshot, zone string) (control.Volume, error) {
	c.t.Helper()
	claim := claimOf(r.Template, 0)
	claim.Annotations = map[string]string{}
	err := c.volumes.Prepare(c.t.Context(), r, snapshot.Target{
		Owner: snapshot.Owner{Cluster: "here", Set: daysSet}, Run: "run-1", Claim: claim, Zone: zone,
	})
	var made control.Volume
	for _, v := range c.aws.Volumes() {
		if v.Zone == zone && v.Snapshot != "" {
			made = v
		}
	}
	return made, err
}

// cloudnative-pg #9053: the backup of a cluster's volumes left the one with the write-ahead log out.
func TestPain14EveryClaim(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	c.bind("data", 1)
	_, err := c.cut(t.Context())
	require.ErrorContains(t, err, "claim shop/wal-db-0: is missing")
	require.Empty(t, c.aws.Snapshots(), "nothing is cut that cannot be whole")

	c.bind("wal", 1)
	report, err := c.cut(t.Context())
	require.NoError(t, err)
	require.Len(t, report.Members, 1)
	var claims []string
	for _, s := range report.Members[0].VolumeSnapshots {
		require.True(t, s.Together, "of one moment")
		claims = append(claims, s.Claim)
	}
	require.ElementsMatch(t, []string{"data-db-0", "wal-db-0"}, claims)
}

// velero #1755, #103 and #3772: a snapshot could not be restored in another zone than that of its volume, nor in another region.
func TestPain16AnotherZone(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	c.bind("data", 1)
	c.bind("wal", 1)
	report, err := c.cut(t.Context())
	require.NoError(t, err)
	data := report.Members[0].VolumeSnapshots[0]

	// The volume's zone is gone: the new one is made where its pod can run.
	for zone, ready := range map[string]corev1.ConditionStatus{zoneA: corev1.ConditionFalse, zoneB: corev1.ConditionTrue} {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-" + zone, Labels: map[string]string{corev1.LabelTopologyZone: zone}}}
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
		_, err = c.kube.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	set, err := c.client().Discover(t.Context(), "db", statefulset.DiscoverOptions{DefaultPort: 3306})
	require.NoError(t, err)
	zone, err := c.client().ZoneFor(t.Context(), set, 0, nil)
	require.NoError(t, err)
	require.Equal(t, zoneB, zone)
	made, err := c.prepare(data, zone)
	require.NoError(t, err)
	require.Equal(t, data.ID, made.Snapshot)

	// The region is gone: there is a copy in another one, or it is said that there is none.
	_, err = c.prepare(data, abroad+"a")
	require.ErrorContains(t, err, "has no copy in "+abroad)
	data, err = c.volumes.Copy(t.Context(), data, snapshot.Owner{Cluster: "here", Set: daysSet}, abroad)
	require.NoError(t, err)
	copied := data
	copied.Region, copied.ID = abroad, data.Copies[0].ID
	require.NoError(t, c.volumes.WaitReady(t.Context(), copied))
	made, err = c.prepare(data, abroad+"a")
	require.NoError(t, err)
	require.Equal(t, copied.ID, made.Snapshot)
}

// velero #4373 and #3854: claims had been given another class, or another size, and the templates of their set had not; the
// restored set made its claims by the old ones.
func TestPain18ChangedClaim(t *testing.T) {
	t.Parallel()
	d, c := replicated(t), newCluster(t, 2, 2)
	plan, err := c.restore(d, job.Request{Replicas: 3}).Resolve(t.Context())
	require.NoError(t, err)
	require.Empty(t, plan.Notes)
	claim, err := c.kube.CoreV1().PersistentVolumeClaims(namespace).Get(t.Context(), "data-db-1", metav1.GetOptions{})
	require.NoError(t, err)
	faster := "io2"
	claim.Spec.StorageClassName, claim.Spec.Resources.Requests[corev1.ResourceStorage] = &faster, resource.MustParse("8Gi")
	require.NoError(t, c.tracker.Update(claimsResource, claim, namespace))

	// It is known before anything is touched, and so is the way on.
	plan, err = c.restore(d, job.Request{Replicas: 3}).Resolve(t.Context())
	require.NoError(t, err)
	require.Len(t, plan.Notes, 1)
	require.Contains(t, plan.Notes[0], "claim data-db-1 asks for 8Gi of io2, and its template in the set for 1Gi of "+className)
	require.Contains(t, plan.Notes[0], "kubectl delete statefulset db --cascade=orphan")

	// A volume that is made of a snapshot is as large as that, whatever the template says.
	grown := newCloud(t)
	grown.bind("data", 8)
	grown.bind("wal", 1)
	report, err := grown.cut(t.Context())
	require.NoError(t, err)
	made, err := grown.prepare(report.Members[0].VolumeSnapshots[0], zoneA)
	require.NoError(t, err)
	require.EqualValues(t, 8, made.SizeGiB)
}
