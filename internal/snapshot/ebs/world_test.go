package ebs_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"keepset/internal/record"
	"keepset/internal/snapshot"
	"keepset/internal/snapshot/ebs"
	"keepset/internal/snapshot/ebstest"
	"keepset/internal/snapshot/ebstest/control"
	"keepset/internal/snapshot/snapshottest"
)

const (
	region      = "us-east-1"
	zoneA       = "us-east-1a"
	zoneB       = "us-east-1b"
	otherRegion = "eu-west-1"
	namespace   = "shop"
	elsewhere   = "staging"
	className   = "mysql-gp3"
	driver      = "ebs.csi.aws.com"
	gib         = 1 << 30
	cutName     = "20261120T131730Z-1a2b3c4d-0"
	runID       = "b7e1f0d2"
	accessKey   = "AKIAEXAMPLE"
)

var owner = snapshot.Owner{Cluster: "c0ffee", Set: record.SetID{Namespace: namespace, Name: "mysql"}}

// world is a cluster, whose volumes are the fake EC2's.
type world struct {
	aws  *ebstest.Server
	kube *fake.Clientset
	// still is held for reading while a volume is written, and for writing while volumes are cut.
	still sync.RWMutex
	snap  *ebs.Snapshotter
}

// newWorld starts one. It may be called in parallel tests. Options are changed by change before anything is made of them.
func newWorld(t *testing.T, change ...func(*ebstest.Options, *ebs.Options)) *world {
	t.Helper()
	w := &world{kube: newCluster(t, storageClass())}
	options := ebstest.Options{
		SnapshotInterval: -1,
		Regions:          map[string][]string{region: {zoneA, zoneB}, otherRegion: {"eu-west-1a"}},
		Region:           region,
		Freeze: func(context.Context, []string) (func(), error) {
			w.still.Lock()
			return w.still.Unlock, nil
		},
	}
	mine := w.options()
	for _, c := range change {
		c(&options, &mine)
	}
	w.aws = ebstest.Start(t, options)
	w.snap = w.open(t, mine)
	return w
}

// options are those of a Snapshotter that is impatient.
func (w *world) options() ebs.Options {
	log := io.Discard
	if testing.Verbose() {
		log = os.Stderr
	}
	return ebs.Options{
		Kube: w.kube, Region: region, Credentials: ebs.Credentials{AccessKeyID: accessKey, SecretAccessKey: "secret"},
		Patience: snapshot.Patience{Call: 3 * time.Second, Poll: 2 * time.Millisecond},
		Log:      slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
}

func (w *world) open(t *testing.T, o ebs.Options) *ebs.Snapshotter {
	t.Helper()
	o.EC2Endpoint, o.EBSEndpoint = w.aws.URL(), w.aws.URL()
	s, err := ebs.New(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

func storageClass() *storagev1.StorageClass {
	reclaim := corev1.PersistentVolumeReclaimDelete
	return &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: className}, Provisioner: driver, ReclaimPolicy: &reclaim,
		Parameters: map[string]string{"type": "gp3", "csi.storage.k8s.io/fstype": "ext4"},
		AllowedTopologies: []corev1.TopologySelectorTerm{{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{
			{Key: "topology.ebs.csi.aws.com/zone", Values: []string{zoneA}},
		}}},
	}
}

// harness is the world as the conformance suite wants it.
func (w *world) harness() *snapshottest.Harness {
	return &snapshottest.Harness{
		Snapshotter: w.snap, Kube: w.kube, Namespace: namespace, OtherNamespace: elsewhere, Class: className, OneMoment: true,
		Bind: w.bind, BindStrange: w.bindStrange, Write: w.write, Read: w.read, Inventory: w.inventory,
		Lose: func(t *testing.T, namespace, claim string) {
			require.NoError(t, w.aws.Set(w.handle(t, namespace, claim), control.Change{Outcome: control.Vanishing}))
		},
		FailSnapshots: func(t *testing.T, reason string) {
			for _, action := range []string{"CreateSnapshot", "CreateSnapshots"} {
				rule := w.aws.Inject(ebstest.Rule{Action: action, Times: -1, Outcome: control.Failing, Message: reason})
				t.Cleanup(rule.Remove)
			}
		},
	}
}

// instanceOf is the node of a claim's ordinal. It has a boot volume and a volume of somebody else.
func (w *world) instanceOf(t *testing.T, claim string) string {
	t.Helper()
	id := fmt.Sprintf("i-%017s", claim[strings.LastIndex(claim, "-")+1:])
	for _, v := range w.aws.Volumes() {
		if v.Instance == id {
			return id
		}
	}
	_, err := w.aws.PutInstance(control.Instance{ID: id, Zone: zoneA, RootGiB: 8})
	require.NoError(t, err)
	w.attach(t, id, map[string]string{"somebody": "else"})
	return id
}

// attach makes a volume and attaches it.
func (w *world) attach(t *testing.T, instance string, tags map[string]string) control.Volume {
	t.Helper()
	v, err := w.aws.CreateVolume(control.Volume{Zone: zoneA, SizeGiB: 1, Type: "gp2", Tags: tags})
	require.NoError(t, err)
	v, err = w.aws.Attach(v.ID, instance, "")
	require.NoError(t, err)
	return v
}

func (w *world) bind(t *testing.T, claim *corev1.PersistentVolumeClaim) {
	t.Helper()
	v := w.attach(t, w.instanceOf(t, claim.Name), map[string]string{
		"kubernetes.io/created-for/pvc/name": claim.Name, "team": "shop", "ebs.csi.aws.com/cluster": "true",
	})
	w.bindTo(t, claim, csiVolume(v.ID))
}

func csiVolume(id string) corev1.PersistentVolumeSource {
	return corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: id, FSType: "ext4"}}
}

func (w *world) bindStrange(t *testing.T, claim *corev1.PersistentVolumeClaim) {
	t.Helper()
	w.bindTo(t, claim, corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "efs.csi.aws.com", VolumeHandle: "fs-1"}})
}

// bindTo makes a PersistentVolume and the claim that is bound to it.
func (w *world) bindTo(t *testing.T, claim *corev1.PersistentVolumeClaim, source corev1.PersistentVolumeSource) {
	t.Helper()
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pvc-" + claim.Namespace + "-" + claim.Name},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:    corev1.ResourceList{corev1.ResourceStorage: *resource.NewQuantity(gib, resource.BinarySI)},
			AccessModes: claim.Spec.AccessModes, StorageClassName: *claim.Spec.StorageClassName, VolumeMode: claim.Spec.VolumeMode,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete, PersistentVolumeSource: source,
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: "topology.ebs.csi.aws.com/zone", Operator: corev1.NodeSelectorOpIn, Values: []string{zoneA},
				}},
			}}}},
		},
	}
	_, err := w.kube.CoreV1().PersistentVolumes().Create(t.Context(), pv, metav1.CreateOptions{})
	require.NoError(t, err)
	claim.Spec.VolumeName = pv.Name
	_, err = w.kube.CoreV1().PersistentVolumeClaims(claim.Namespace).Create(t.Context(), claim, metav1.CreateOptions{})
	require.NoError(t, err)
	w.awaitBound(t, claim.Namespace, claim.Name)
}

// awaitBound waits until a claim is bound.
func (w *world) awaitBound(t *testing.T, namespace, claim string) {
	t.Helper()
	require.Eventually(t, func() bool {
		got, err := w.kube.CoreV1().PersistentVolumeClaims(namespace).Get(t.Context(), claim, metav1.GetOptions{})
		return err == nil && got.Status.Phase == corev1.ClaimBound
	}, 10*time.Second, time.Millisecond)
}

// pv is the PersistentVolume behind a claim that is bound.
func (w *world) pv(t *testing.T, namespace, claim string) *corev1.PersistentVolume {
	t.Helper()
	c, err := w.kube.CoreV1().PersistentVolumeClaims(namespace).Get(t.Context(), claim, metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, corev1.ClaimBound, c.Status.Phase)
	pv, err := w.kube.CoreV1().PersistentVolumes().Get(t.Context(), c.Spec.VolumeName, metav1.GetOptions{})
	require.NoError(t, err)
	return pv
}

func (w *world) handle(t *testing.T, namespace, claim string) string {
	t.Helper()
	return w.pv(t, namespace, claim).Spec.CSI.VolumeHandle
}

// volume is the fake's view of the volume behind a claim.
func (w *world) volume(t *testing.T, namespace, claim string) control.Volume {
	t.Helper()
	v, err := w.aws.Volume(w.handle(t, namespace, claim))
	require.NoError(t, err)
	return v
}

const textSize = 128

func (w *world) write(t *testing.T, namespace, claim, text string) {
	path := w.volume(t, namespace, claim).Path
	w.still.RLock()
	defer w.still.RUnlock()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte(text+strings.Repeat("\x00", textSize-len(text))), 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func (w *world) read(t *testing.T, namespace, claim string) string {
	t.Helper()
	return readText(t, w.volume(t, namespace, claim).Path)
}

// readText reads what is written at the beginning of an image.
func readText(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	text := make([]byte, textSize)
	_, err = io.ReadFull(f, text)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return strings.TrimRight(string(text), "\x00")
}

func (w *world) inventory(t *testing.T) []string {
	t.Helper()
	all := []string{}
	for _, s := range w.aws.Snapshots() {
		all = append(all, "snapshot "+s.ID)
	}
	for _, v := range w.aws.Volumes() {
		all = append(all, "volume "+v.ID)
	}
	pvs, err := w.kube.CoreV1().PersistentVolumes().List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for _, pv := range pvs.Items {
		all = append(all, "persistentvolume "+pv.Name)
	}
	claims, err := w.kube.CoreV1().PersistentVolumeClaims("").List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for _, c := range claims.Items {
		all = append(all, "claim "+c.Namespace+"/"+c.Name)
	}
	return all
}

// claim is one as the set's controller would make it.
func claim(name string) *corev1.PersistentVolumeClaim {
	class, mode := className, corev1.PersistentVolumeFilesystem
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": "mysql"}},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &class, VolumeMode: &mode,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
}

func target(name string) snapshot.Target {
	return snapshot.Target{Owner: owner, Ordinal: 2, Run: runID, Claim: claim(name)}
}

// located makes claims with their names as content, and locates them.
func (w *world) located(t *testing.T, claims ...string) []snapshot.Volume {
	t.Helper()
	volumes := make([]snapshot.Volume, 0, len(claims))
	for _, c := range claims {
		w.bind(t, claim(c))
		w.write(t, namespace, c, c)
		volumes = append(volumes, snapshot.Volume{Owner: owner, Namespace: namespace, Claim: c, Template: "data"})
	}
	located, err := w.snap.Locate(t.Context(), volumes)
	require.NoError(t, err)
	return located
}

// cut cuts volumes and waits until they are ready.
func (w *world) cut(t *testing.T, volumes []snapshot.Volume) []snapshot.Ref {
	t.Helper()
	refs, err := w.snap.Cut(t.Context(), cutName, volumes)
	require.NoError(t, err)
	for _, r := range refs {
		require.NoError(t, w.snap.WaitReady(t.Context(), r))
	}
	return refs
}
