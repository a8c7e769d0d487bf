// Package snapshottest says what a snapshotter must do, as tests.
//
// [Run] is the conformance suite of [snapshot.Snapshotter] and of the powers
// beside it; every snapshotter passes it. Its central type is [Harness]: a
// provider and a cluster of a test's own. The same suite runs at object level,
// over a fake clientset in which a few lines of Go bind claims, and on a real
// cluster with a real driver; what differs is in the harness.
//
// What it promises: a snapshotter that passes cuts what it was told to cut and
// nothing else, finds again what it made under a name, fills a claim with
// exactly what was cut, touches nothing that is not its owner's, and leaves
// nothing behind when it fails, refuses or is told to stop.
package snapshottest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"keepset/internal/record"
	"keepset/internal/snapshot"
)

// Harness is a provider of volumes and a cluster. Nobody but the test uses
// them. All functions fail the test themselves.
type Harness struct {
	Snapshotter snapshot.Snapshotter
	Kube        kubernetes.Interface
	// Namespace that the set's claims are in, and another one.
	Namespace, OtherNamespace string
	// Class is the storage class of all claims.
	Class string
	// Size of the suite's volumes in bytes; 0 means 1 GiB, as small as EBS's can be.
	Size int64
	// Wait bounds whatever the suite waits for; 0 means 10 seconds.
	Wait time.Duration
	// Bind creates the claim, which names its class, size and modes, and gives
	// it a volume of the provider's. Claims of one ordinal sit on one node.
	Bind func(t *testing.T, claim *corev1.PersistentVolumeClaim)
	// BindStrange creates the claim with a volume that the snapshotter cannot cut.
	BindStrange func(t *testing.T, claim *corev1.PersistentVolumeClaim)
	// Write makes text, shorter than 100 bytes, the content of a bound claim's volume.
	Write func(t *testing.T, namespace, claim, text string)
	// Read returns what was written last. It brings up a first consumer where the claim waits for one.
	Read func(t *testing.T, namespace, claim string) string
	// Lose makes the volume behind a bound claim vanish, and the claim stay.
	Lose func(t *testing.T, namespace, claim string)
	// FailSnapshots makes snapshots that are cut from now on fail, after they
	// were cut, for the reason given.
	FailSnapshots func(t *testing.T, reason string)
	// Inventory names all that a snapshotter could have made and left, whoever
	// made it: snapshots, volumes, PersistentVolumes, claims, each once.
	Inventory func(t *testing.T) []string
	// OneMoment says whether the provider can cut several volumes of a member
	// at the same moment.
	OneMoment bool
}

const (
	cutName = "20261120T131730Z-1a2b3c4d-0"
	run     = "b7e1f0d2-restore"
)

// suite is one test's view of its harness.
type suite struct {
	*Harness
	snap snapshot.Snapshotter
	// owner of everything: a set in the harness's namespace, as sets are.
	owner snapshot.Owner
}

func newSuite(h *Harness) *suite {
	if h.Size == 0 {
		h.Size = 1 << 30
	}
	if h.Wait == 0 {
		h.Wait = 10 * time.Second
	}
	owner := snapshot.Owner{Cluster: "c0ffee", Set: record.SetID{Namespace: h.Namespace, Name: "mysql"}}
	return &suite{Harness: h, snap: h.Snapshotter, owner: owner}
}

// claim is a claim as the set's controller would make it.
func (s *suite) claim(namespace, name string) *corev1.PersistentVolumeClaim {
	mode := corev1.PersistentVolumeFilesystem
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name,
			Labels:      map[string]string{"app": "mysql"},
			Annotations: map[string]string{"example.com/note": "as the template says"},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			StorageClassName: &s.Class,
			VolumeMode:       &mode,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceStorage: *resource.NewQuantity(s.Size, resource.BinarySI),
			}},
		},
	}
}

// volume names the claim as a backup's plan does.
func (s *suite) volume(claim string) snapshot.Volume {
	return snapshot.Volume{Owner: s.owner, Namespace: s.Namespace, Claim: claim, Template: "data"}
}

// located makes claims, each with its own name as its content, and locates them.
func (s *suite) located(t *testing.T, claims ...string) []snapshot.Volume {
	t.Helper()
	return s.locatedIn(t, s.Namespace, claims...)
}

func (s *suite) locatedIn(t *testing.T, namespace string, claims ...string) []snapshot.Volume {
	t.Helper()
	volumes := make([]snapshot.Volume, 0, len(claims))
	for _, c := range claims {
		s.Bind(t, s.claim(namespace, c))
		s.Write(t, namespace, c, c)
		v := s.volume(c)
		v.Namespace = namespace
		volumes = append(volumes, v)
	}
	located, err := s.snap.Locate(t.Context(), volumes)
	require.NoError(t, err)
	return located
}

// cut makes the claim data-mysql-0 and cuts it.
func (s *suite) cut(t *testing.T) snapshot.Ref {
	t.Helper()
	refs, err := s.snap.Cut(t.Context(), cutName, s.located(t, "data-mysql-0"))
	require.NoError(t, err)
	require.Len(t, refs, 1)
	require.NoError(t, s.snap.WaitReady(t.Context(), refs[0]))
	return refs[0]
}

// target is where the tests provision to: the claim of another ordinal.
func (s *suite) target(claim string) snapshot.Target {
	return snapshot.Target{Owner: s.owner, Ordinal: 2, Run: run, Claim: s.claim(s.Namespace, claim)}
}

// list returns the owner's snapshots.
func (s *suite) list(t *testing.T, o snapshot.Owner) []snapshot.Ref {
	t.Helper()
	refs := []snapshot.Ref{}
	for r, err := range s.snap.List(t.Context(), o) {
		require.NoError(t, err)
		refs = append(refs, r)
	}
	return refs
}

// requireInventory waits until there is what there was before: providers
// delete at their leisure.
func (s *suite) requireInventory(t *testing.T, before []string) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		assert.ElementsMatch(c, before, s.Inventory(t))
	}, s.Wait, 20*time.Millisecond)
}

// get returns a claim that must be there.
func (s *suite) get(t *testing.T, namespace, claim string) *corev1.PersistentVolumeClaim {
	t.Helper()
	c, err := s.Kube.CoreV1().PersistentVolumeClaims(namespace).Get(t.Context(), claim, metav1.GetOptions{})
	require.NoError(t, err)
	return c
}

// claims counts the claims of both namespaces.
func (s *suite) claims(t *testing.T) int {
	t.Helper()
	n := 0
	for _, namespace := range []string{s.Namespace, s.OtherNamespace} {
		list, err := s.Kube.CoreV1().PersistentVolumeClaims(namespace).List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		n += len(list.Items)
	}
	return n
}

// cancelled is a context that has ended.
func cancelled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
