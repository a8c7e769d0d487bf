package ebs_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8stesting "k8s.io/client-go/testing"

	"keepset/internal/snapshot"
	"keepset/internal/snapshot/ebs"
	"keepset/internal/snapshot/ebstest"
	"keepset/internal/snapshot/ebstest/control"
)

// class makes a StorageClass of the name.
func (w *world) class(t *testing.T, name, provisioner string, parameters map[string]string, change ...func(*storagev1.StorageClass)) {
	t.Helper()
	c := storageClass()
	c.Name, c.Provisioner, c.Parameters = name, provisioner, parameters
	for _, f := range change {
		f(c)
	}
	_, err := w.kube.StorageV1().StorageClasses().Create(t.Context(), c, metav1.CreateOptions{})
	require.NoError(t, err)
}

func of(t snapshot.Target, class string) snapshot.Target {
	t.Claim.Spec.StorageClassName = &class
	return t
}

func sized(t snapshot.Target, size string) snapshot.Target {
	t.Claim.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse(size)
	return t
}

// TestParameters: what a class says becomes what EC2 is asked for, in the spellings of the
// driver and of the plugin.
func TestParameters(t *testing.T) {
	for name, test := range map[string]struct {
		provisioner string
		parameters  map[string]string
		size        string
		want        map[string]string
		absent      []string
	}{
		"the driver's default": {driver, nil, "1Gi", map[string]string{"VolumeType": "gp3", "Size": "1"}, []string{"Iops", "Throughput", "Encrypted", "KmsKeyId"}},
		"the plugin's default": {"kubernetes.io/aws-ebs", nil, "1Gi", map[string]string{"VolumeType": "gp2"}, []string{"Iops"}},
		"gp3": {
			driver,
			map[string]string{"type": "gp3", "iops": "4000", "throughput": "200"},
			"10Gi",
			map[string]string{"VolumeType": "gp3", "Iops": "4000", "Throughput": "200", "Size": "10"},
			nil,
		},
		"io1 by size": {
			"kubernetes.io/aws-ebs",
			map[string]string{"type": "io1", "iopsPerGB": "50"},
			"10Gi",
			map[string]string{"VolumeType": "io1", "Iops": "500"},
			nil,
		},
		"io1 by size, at least 100": {driver, map[string]string{"type": "io1", "iopsPerGB": "10", "allowAutoIOPSPerGBIncrease": "true"}, "4Gi", map[string]string{"Iops": "100"}, nil},
		"gp2 has no IOPS":           {driver, map[string]string{"type": "gp2", "iopsPerGB": "10"}, "4Gi", map[string]string{"VolumeType": "gp2"}, []string{"Iops"}},
		"encrypted":                 {driver, map[string]string{"encrypted": "true"}, "1Gi", map[string]string{"Encrypted": "true"}, []string{"KmsKeyId"}},
		"with a key": {
			driver,
			map[string]string{"encrypted": "true", "kmsKeyId": "arn:aws:kms:us-east-1:111122223333:key/k"},
			"1Gi",
			map[string]string{"Encrypted": "true", "KmsKeyId": "arn:aws:kms:us-east-1:111122223333:key/k"},
			nil,
		},
		"size is rounded up":  {driver, nil, "1500M", map[string]string{"Size": "2"}, nil},
		"initialization rate": {driver, map[string]string{"volumeInitializationRate": "150"}, "1Gi", map[string]string{"VolumeInitializationRate": "150"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.class(t, "other", test.provisioner, test.parameters)
			ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
			require.NoError(t, w.snap.Provision(t.Context(), ref, sized(of(target("data-mysql-2"), "other"), test.size)))
			made := w.calls("CreateVolume")
			require.Len(t, made, 1)
			for key, value := range test.want {
				require.Equal(t, value, made[0].Get(key), key)
			}
			for _, key := range test.absent {
				require.False(t, made[0].Has(key), key)
			}
			require.Equal(t, ref.ID, made[0].Get("SnapshotId"))
			require.Equal(t, zoneA, made[0].Get("AvailabilityZone"))
			pv := w.pv(t, namespace, "data-mysql-2")
			require.Equal(t, driver, pv.Spec.CSI.Driver)
			require.Equal(t, "other", pv.Spec.StorageClassName)
		})
	}
}

// TestSmallerClaim: a volume is never smaller than its snapshot, and the PersistentVolume says how large it is.
func TestSmallerClaim(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v, err := w.aws.CreateVolume(control.Volume{Zone: zoneA, SizeGiB: 3})
	require.NoError(t, err)
	w.bindTo(t, claim("data-mysql-0"), csiVolume(v.ID))
	located, err := w.snap.Locate(t.Context(), []snapshot.Volume{{Owner: owner, Namespace: namespace, Claim: "data-mysql-0"}})
	require.NoError(t, err)
	require.NoError(t, w.snap.Provision(t.Context(), w.cut(t, located)[0], target("data-mysql-2")))
	require.EqualValues(t, 3, w.volume(t, namespace, "data-mysql-2").SizeGiB)
	capacity := w.pv(t, namespace, "data-mysql-2").Spec.Capacity[corev1.ResourceStorage]
	require.EqualValues(t, 3*gib, capacity.Value())
}

// TestPersistentVolume: it is as the driver's provisioner would have made it.
func TestPersistentVolume(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
	require.NoError(t, w.snap.Prepare(t.Context(), ref, target("data-mysql-2")))
	id := w.calls("DescribeVolumes")[len(w.calls("DescribeVolumes"))-1].Get("Filter.1.Value.1")
	free, err := w.kube.CoreV1().PersistentVolumes().Get(t.Context(), "keepset-"+id, metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, corev1.PersistentVolumeReclaimRetain, free.Spec.PersistentVolumeReclaimPolicy, "until it is bound")
	require.Empty(t, free.Spec.ClaimRef.UID)

	require.NoError(t, w.snap.Provision(t.Context(), ref, target("data-mysql-2")))
	pv := w.pv(t, namespace, "data-mysql-2")
	require.Equal(t, free.Name, pv.Name)
	require.Equal(t, map[string]string{
		"pv.kubernetes.io/provisioned-by": driver,
		"keepset/cluster":                 "c0ffee", "keepset/namespace": "shop", "keepset/set": "mysql", "keepset/ordinal": "2",
		"keepset/claim": "data-mysql-2", "keepset/target-namespace": "shop", "keepset/snapshot": ref.ID, "keepset/run": runID,
	}, pv.Annotations)
	require.Equal(t, id, pv.Spec.CSI.VolumeHandle)
	require.Equal(t, "ext4", pv.Spec.CSI.FSType)
	require.Equal(t, corev1.PersistentVolumeReclaimDelete, pv.Spec.PersistentVolumeReclaimPolicy)
	require.Equal(t, []corev1.NodeSelectorRequirement{{Key: "topology.ebs.csi.aws.com/zone", Operator: corev1.NodeSelectorOpIn, Values: []string{zoneA}}},
		pv.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions, "under the key that the driver's other volumes have")
	capacity := pv.Spec.Capacity[corev1.ResourceStorage]
	require.EqualValues(t, gib, capacity.Value())

	v := w.volume(t, namespace, "data-mysql-2")
	require.Equal(t, map[string]string{
		"keepset/cluster": "c0ffee", "keepset/namespace": "shop", "keepset/set": "mysql", "keepset/ordinal": "2",
		"keepset/claim": "data-mysql-2", "keepset/target-namespace": "shop", "keepset/snapshot": ref.ID, "keepset/run": runID,
		"team": "shop", "ebs.csi.aws.com/cluster": "true",
		"kubernetes.io/created-for/pvc/name": "data-mysql-2", "kubernetes.io/created-for/pvc/namespace": "shop",
	}, v.Tags)
}

func TestZone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	anywhere := func(c *storagev1.StorageClass) { c.AllowedTopologies = nil }
	w.class(t, "anywhere", driver, nil, anywhere)
	ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
	before := w.inventory(t)

	err := w.snap.Prepare(t.Context(), ref, of(target("data-mysql-2"), "anywhere"))
	require.ErrorIs(t, err, snapshot.ErrNotFound)
	require.ErrorContains(t, err, "name the zone")
	inB := target("data-mysql-2")
	inB.Zone = zoneB
	err = w.snap.Prepare(t.Context(), ref, inB)
	require.ErrorIs(t, err, snapshot.ErrUnfit)
	require.ErrorContains(t, err, zoneA)
	nowhere := of(target("data-mysql-2"), "anywhere")
	nowhere.Zone = "us-east-1z"
	err = w.snap.Prepare(t.Context(), ref, nowhere)
	require.ErrorIs(t, err, snapshot.ErrNotFound)
	require.ErrorContains(t, err, "us-east-1z")
	require.ElementsMatch(t, before, w.inventory(t))

	require.NoError(t, w.snap.Provision(t.Context(), ref, of(inB, "anywhere")))
	require.Equal(t, zoneB, w.volume(t, namespace, "data-mysql-2").Zone)
	affinity := w.pv(t, namespace, "data-mysql-2").Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0]
	require.Equal(t, []string{zoneB}, affinity.Values)
}

// TestOtherRegion: only where a copy is, and then of that copy.
func TestOtherRegion(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *ebstest.Options, o *ebs.Options) { o.Copies = []string{otherRegion} })
	w.class(t, "anywhere", driver, nil, func(c *storagev1.StorageClass) { c.AllowedTopologies = nil })
	ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
	there := of(target("data-mysql-2"), "anywhere")
	there.Zone = "eu-west-1a"
	err := w.snap.Prepare(t.Context(), ref, there)
	require.ErrorIs(t, err, snapshot.ErrNotFound)
	require.ErrorContains(t, err, "no copy in eu-west-1")

	ref, err = w.snap.Copy(t.Context(), ref, owner, otherRegion)
	require.NoError(t, err)
	copied := ref
	copied.Region, copied.ID, copied.Copies = otherRegion, ref.Copies[0].ID, nil
	require.NoError(t, w.snap.WaitReady(t.Context(), copied))
	require.NoError(t, w.snap.Provision(t.Context(), ref, there))
	require.Equal(t, otherRegion, w.volume(t, namespace, "data-mysql-2").Region)
	require.Equal(t, "data-mysql-0", w.read(t, namespace, "data-mysql-2"))

	seen := map[string]string{}
	for r, err := range w.snap.List(t.Context(), owner) {
		require.NoError(t, err)
		seen[r.ID] = r.Region
	}
	require.Equal(t, map[string]string{ref.ID: region, copied.ID: otherRegion}, seen)
	require.NoError(t, w.snap.Delete(t.Context(), owner, ref))
	require.Empty(t, w.aws.Snapshots(), "the copy too")
}

// TestKeyWithoutRights: the volume is made and vanishes.
func TestKeyWithoutRights(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
	before := w.inventory(t)
	rule := w.aws.Inject(ebstest.Rule{Action: "CreateVolume", Times: -1, Outcome: control.Vanishing})
	ref.KMSKey = "arn:aws:kms:us-east-1:111122223333:key/k"
	err := w.snap.Provision(t.Context(), ref, target("data-mysql-2"))
	require.ErrorIs(t, err, snapshot.ErrFailed)
	require.ErrorContains(t, err, "KMS key "+ref.KMSKey)
	require.ErrorContains(t, err, "kms:CreateGrant")
	require.ElementsMatch(t, before, w.inventory(t))
	made := w.calls("CreateVolume")
	require.Len(t, made, 2)
	require.NotEqual(t, made[0].Get("ClientToken"), made[1].Get("ClientToken"), "the first token is spent")

	rule.Remove() // the right was given
	require.NoError(t, w.snap.Provision(t.Context(), ref, target("data-mysql-2")))
	w.requireProvisioned(t, before)
}

// TestVolumeThatIsNotSeenAtOnce has not vanished.
func TestVolumeThatIsNotSeenAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
	before := w.inventory(t)
	w.aws.Inject(ebstest.Rule{Action: "CreateVolume", Hide: 2})
	require.NoError(t, w.snap.Provision(t.Context(), ref, target("data-mysql-2")))
	w.requireProvisioned(t, before)
	require.Len(t, w.calls("CreateVolume"), 1)
}

// TestUnfit: all that could end in an empty volume is refused before anything is made.
func TestUnfit(t *testing.T) {
	vac := "fast"
	for name, test := range map[string]struct {
		change func(*corev1.PersistentVolumeClaim)
		want   error
		says   string
	}{
		"many writers": {func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
		}, snapshot.ErrUnfit, "ReadWriteMany"},
		"no access mode": {func(c *corev1.PersistentVolumeClaim) { c.Spec.AccessModes = nil }, snapshot.ErrUnfit, "no access mode"},
		"selector":       {func(c *corev1.PersistentVolumeClaim) { c.Spec.Selector = &metav1.LabelSelector{} }, snapshot.ErrUnfit, "labels"},
		"data source":    {func(c *corev1.PersistentVolumeClaim) { c.Spec.DataSource = &corev1.TypedLocalObjectReference{} }, snapshot.ErrUnfit, "data source"},
		"limit": {func(c *corev1.PersistentVolumeClaim) {
			c.Spec.Resources.Limits = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("500Mi")}
		}, snapshot.ErrUnfit, "limited to 500Mi"},
		"another provisioner":    {func(c *corev1.PersistentVolumeClaim) { *c.Spec.StorageClassName = "efs" }, snapshot.ErrUnfit, "efs.csi.aws.com"},
		"no class":               {func(c *corev1.PersistentVolumeClaim) { *c.Spec.StorageClassName = "" }, snapshot.ErrUnfit, "no storageclass"},
		"no default class":       {func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = nil }, snapshot.ErrNotFound, "none is the default"},
		"bad number":             {func(c *corev1.PersistentVolumeClaim) { *c.Spec.StorageClassName = "bad" }, snapshot.ErrUnfit, "not a number"},
		"what EBS does not make": {func(c *corev1.PersistentVolumeClaim) { *c.Spec.StorageClassName = "floppy" }, snapshot.ErrUnfit, "ec2:CreateVolume"},
		"attributes missing":     {func(c *corev1.PersistentVolumeClaim) { n := "none"; c.Spec.VolumeAttributesClassName = &n }, snapshot.ErrNotFound, "volumeattributesclass none"},
		"attributes of another":  {func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeAttributesClassName = &vac }, snapshot.ErrUnfit, "volumeattributesclass fast"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.class(t, "efs", "efs.csi.aws.com", nil)
			w.class(t, "bad", driver, map[string]string{"iops": "many"})
			w.class(t, "floppy", driver, map[string]string{"type": "floppy"})
			_, err := w.kube.StorageV1().VolumeAttributesClasses().Create(t.Context(),
				&storagev1.VolumeAttributesClass{ObjectMeta: metav1.ObjectMeta{Name: vac}, DriverName: "efs.csi.aws.com"}, metav1.CreateOptions{})
			require.NoError(t, err)
			ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
			before := w.inventory(t)
			unfit := target("data-mysql-0")
			test.change(unfit.Claim)
			err = w.snap.Prepare(t.Context(), ref, unfit)
			require.ErrorIs(t, err, test.want)
			require.ErrorContains(t, err, test.says)
			require.ErrorContains(t, err, "shop/data-mysql-0")
			require.ElementsMatch(t, before, w.inventory(t))
		})
	}
}

// TestAttributesClass: it has the last word on the type, and the volume bears its name.
func TestAttributesClass(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	name := "fast"
	_, err := w.kube.StorageV1().VolumeAttributesClasses().Create(t.Context(), &storagev1.VolumeAttributesClass{
		ObjectMeta: metav1.ObjectMeta{Name: name}, DriverName: driver, Parameters: map[string]string{"iops": "5000"},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
	fast := sized(target("data-mysql-2"), "20Gi")
	fast.Claim.Spec.VolumeAttributesClassName = &name
	require.NoError(t, w.snap.Provision(t.Context(), ref, fast))
	require.Equal(t, "5000", w.calls("CreateVolume")[0].Get("Iops"))
	require.Equal(t, &name, w.pv(t, namespace, "data-mysql-2").Spec.VolumeAttributesClassName)
}

// TestControllerIsFaster: the set's controller makes the claim as soon as its name is free.
func TestControllerIsFaster(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
	before := w.inventory(t)
	require.NoError(t, w.snap.Prepare(t.Context(), ref, target("data-mysql-2")))
	_, err := w.kube.CoreV1().PersistentVolumeClaims(namespace).Create(t.Context(), claim("data-mysql-2"), metav1.CreateOptions{})
	require.NoError(t, err)
	require.NoError(t, w.snap.Provision(t.Context(), ref, target("data-mysql-2")))
	w.requireProvisioned(t, before)
}

// TestControllerIsFasterInBetween: its claim takes what was prepared while Provision, which saw no claim, makes another volume.
func TestControllerIsFasterInBetween(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
	before := w.inventory(t)
	require.NoError(t, w.snap.Prepare(t.Context(), ref, target("data-mysql-2")))
	volumes, err := w.kube.CoreV1().PersistentVolumes().List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	var prepared string
	for _, pv := range volumes.Items {
		if pv.Spec.ClaimRef.Name == "data-mysql-2" {
			prepared = pv.Name
		}
	}
	require.NotEmpty(t, prepared)
	looked := false
	w.kube.PrependReactor("get", "persistentvolumeclaims", func(k8stesting.Action) (bool, runtime.Object, error) {
		if looked {
			return false, nil, nil
		}
		looked = true // and saw nothing; then the controller makes its claim, which is bound
		go func() {
			_, err := w.kube.CoreV1().PersistentVolumeClaims(namespace).Create(context.Background(), claim("data-mysql-2"), metav1.CreateOptions{})
			assert.NoError(t, err)
		}()
		return true, nil, apierrors.NewNotFound(corev1.Resource("persistentvolumeclaims"), "data-mysql-2")
	})
	w.aws.Inject(ebstest.Rule{Action: "DescribeSnapshots", Before: func(ebstest.Call) {
		for range 1000 { // until it is bound
			c, err := w.kube.CoreV1().PersistentVolumeClaims(namespace).Get(context.Background(), "data-mysql-2", metav1.GetOptions{})
			if err == nil && c.Status.Phase == corev1.ClaimBound {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}})
	require.NoError(t, w.snap.Provision(t.Context(), ref, target("data-mysql-2")))
	c, err := w.kube.CoreV1().PersistentVolumeClaims(namespace).Get(t.Context(), "data-mysql-2", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, prepared, c.Spec.VolumeName)
	w.requireProvisioned(t, before)
}

// TestNeverBound: a claim that the cluster does not bind is reported with what the cluster says.
func TestNeverBound(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *ebstest.Options, o *ebs.Options) { o.Patience.Call = 200 * time.Millisecond })
	ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
	require.NoError(t, w.snap.Prepare(t.Context(), ref, target("data-mysql-2")))
	larger := sized(target("data-mysql-2"), "5Gi")
	made, err := w.kube.CoreV1().PersistentVolumeClaims(namespace).Create(t.Context(), larger.Claim, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = w.kube.CoreV1().Events(namespace).Create(t.Context(), &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: "e", Namespace: namespace},
		InvolvedObject: corev1.ObjectReference{Kind: "PersistentVolumeClaim", Name: "data-mysql-2", UID: made.UID},
		Reason:         "VolumeMismatch", Message: "requested PV is too small",
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	err = w.snap.Provision(t.Context(), ref, target("data-mysql-2"))
	require.ErrorIs(t, err, snapshot.ErrUnfit)
	require.ErrorContains(t, err, "VolumeMismatch: requested PV is too small")
}

// TestNotOurs: what is bound, attached, without our mark, or spoken of by somebody else's
// PersistentVolume stays, whatever its tags say.
func TestNotOurs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
	marked := map[string]string{
		"keepset/cluster": "c0ffee", "keepset/namespace": "shop", "keepset/set": "mysql", "keepset/claim": "data-mysql-2",
		"keepset/target-namespace": "shop", "keepset/unbound": "true",
	}
	unmarked := map[string]string{}
	for key, value := range marked {
		if key != "keepset/unbound" {
			unmarked[key] = value
		}
	}
	w.attach(t, w.instanceOf(t, "x-5"), marked)
	retained, err := w.aws.CreateVolume(control.Volume{Zone: zoneA, SizeGiB: 1, Tags: unmarked})
	require.NoError(t, err)
	foreign, err := w.aws.CreateVolume(control.Volume{Zone: zoneA, SizeGiB: 1, Tags: marked})
	require.NoError(t, err)
	for name, id := range map[string]string{"theirs": foreign.ID, "retained": retained.ID} {
		_, err = w.kube.CoreV1().PersistentVolumes().Create(t.Context(), &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: id},
			}},
		}, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	before := w.inventory(t)
	require.NoError(t, w.snap.Scrap(t.Context(), target("data-mysql-2")))
	require.ElementsMatch(t, before, w.inventory(t))
	require.NoError(t, w.snap.Provision(t.Context(), ref, target("data-mysql-2")))
	w.requireProvisioned(t, before)
}

// TestRestoredVolumeIsKept: what a claim was bound to once is no longer a restore's, even after the claim is gone.
func TestRestoredVolumeIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
	require.NoError(t, w.snap.Provision(t.Context(), ref, target("data-mysql-2")))
	id := w.handle(t, namespace, "data-mysql-2")
	require.NoError(t, w.kube.CoreV1().PersistentVolumeClaims(namespace).Delete(t.Context(), "data-mysql-2", metav1.DeleteOptions{}))
	require.NoError(t, w.kube.CoreV1().PersistentVolumes().Delete(t.Context(), "keepset-"+id, metav1.DeleteOptions{}))
	again := target("data-mysql-2")
	again.Run = "another"
	require.NoError(t, w.snap.Provision(t.Context(), ref, again))
	require.NotEqual(t, id, w.handle(t, namespace, "data-mysql-2"))
	_, err := w.aws.Volume(id)
	require.NoError(t, err, "it is still there")
}

// TestProvisionAfterTheScrap: the client token of the volume that was scrapped is spent.
func TestProvisionAfterTheScrap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
	before := w.inventory(t)
	require.NoError(t, w.snap.Prepare(t.Context(), ref, target("data-mysql-2")))
	require.NoError(t, w.snap.Scrap(t.Context(), target("data-mysql-2")))
	require.NoError(t, w.snap.Provision(t.Context(), ref, target("data-mysql-2")))
	w.requireProvisioned(t, before)
}

// TestPendingSnapshot: what is not ready is not provisioned from.
func TestPendingSnapshot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *ebstest.Options, _ *ebs.Options) { o.SnapshotTime = time.Hour })
	refs, err := w.snap.Cut(t.Context(), cutName, w.located(t, "data-mysql-0"))
	require.NoError(t, err, "Cut does not wait")
	err = w.snap.Provision(t.Context(), refs[0], target("data-mysql-2"))
	require.ErrorIs(t, err, snapshot.ErrFailed)
	require.ErrorContains(t, err, "pending")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, w.snap.WaitReady(ctx, refs[0]), context.DeadlineExceeded)
}

// TestScrapOfWhatIsAwaited: a claim that names the volume, or that the volume is reserved for, is about to be bound to it.
func TestScrapOfWhatIsAwaited(t *testing.T) {
	for name, named := range map[string]bool{"named": true, "reserved": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
			require.NoError(t, w.snap.Prepare(t.Context(), ref, target("data-mysql-2")))
			pvs, err := w.kube.CoreV1().PersistentVolumes().List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=keepset"})
			require.NoError(t, err)
			require.Len(t, pvs.Items, 1)
			larger := sized(target("data-mysql-2"), "5Gi").Claim // so that it stays unbound
			if named {
				larger.Spec.VolumeName = pvs.Items[0].Name
			}
			_, err = w.kube.CoreV1().PersistentVolumeClaims(namespace).Create(t.Context(), larger, metav1.CreateOptions{})
			require.NoError(t, err)
			before := w.inventory(t)
			require.NoError(t, w.snap.Scrap(t.Context(), target("data-mysql-2")))
			require.ElementsMatch(t, before, w.inventory(t))
			require.NoError(t, w.kube.CoreV1().PersistentVolumeClaims(namespace).Delete(t.Context(), larger.Name, metav1.DeleteOptions{}))
			require.NoError(t, w.snap.Scrap(t.Context(), target("data-mysql-2")))
			require.Len(t, w.inventory(t), len(before)-3, "the claim, its volume and its persistentvolume")
		})
	}
}
