package ebs_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"

	"keepset/internal/snapshot"
)

var errReset = errors.New("connection reset by peer")

// faultyCluster is the cluster as a process sees it whose nth write gets no reply.
type faultyCluster struct {
	kubernetes.Interface

	mu     sync.Mutex
	nth    int
	after  bool // it was done all the same
	writes []string
}

// write does a write or loses it.
func (f *faultyCluster) write(name string, do func() error) error {
	f.mu.Lock()
	hit := len(f.writes) == f.nth
	f.writes = append(f.writes, name)
	f.mu.Unlock()
	if !hit {
		return do()
	}
	if f.after {
		_ = do() // its answer is what gets lost
	}
	return errReset
}

func (f *faultyCluster) CoreV1() typed.CoreV1Interface { return faultyCore{f.Interface.CoreV1(), f} }

type faultyCore struct {
	typed.CoreV1Interface
	f *faultyCluster
}

func (c faultyCore) PersistentVolumes() typed.PersistentVolumeInterface {
	return faultyVolumes{c.CoreV1Interface.PersistentVolumes(), c.f}
}

func (c faultyCore) PersistentVolumeClaims(namespace string) typed.PersistentVolumeClaimInterface {
	return faultyClaims{c.CoreV1Interface.PersistentVolumeClaims(namespace), c.f}
}

type faultyVolumes struct {
	typed.PersistentVolumeInterface
	f *faultyCluster
}

func (v faultyVolumes) Create(ctx context.Context, pv *corev1.PersistentVolume, o metav1.CreateOptions) (made *corev1.PersistentVolume, err error) {
	err = v.f.write("create persistentvolume", func() (err error) { made, err = v.PersistentVolumeInterface.Create(ctx, pv, o); return err })
	return made, err
}

func (v faultyVolumes) Patch(ctx context.Context, name string, pt types.PatchType, data []byte, o metav1.PatchOptions, sub ...string) (made *corev1.PersistentVolume, err error) {
	err = v.f.write("patch persistentvolume", func() (err error) {
		made, err = v.PersistentVolumeInterface.Patch(ctx, name, pt, data, o, sub...)
		return err
	})
	return made, err
}

func (v faultyVolumes) Delete(ctx context.Context, name string, o metav1.DeleteOptions) error {
	return v.f.write("delete persistentvolume", func() error { return v.PersistentVolumeInterface.Delete(ctx, name, o) })
}

type faultyClaims struct {
	typed.PersistentVolumeClaimInterface
	f *faultyCluster
}

func (c faultyClaims) Create(ctx context.Context, claim *corev1.PersistentVolumeClaim, o metav1.CreateOptions) (made *corev1.PersistentVolumeClaim, err error) {
	err = c.f.write("create claim", func() (err error) { made, err = c.PersistentVolumeClaimInterface.Create(ctx, claim, o); return err })
	return made, err
}

// TestProvisionClusterFails: whatever write to the cluster is lost, done or not, another attempt ends right.
func TestProvisionClusterFails(t *testing.T) {
	// A first run leaves a volume and its PersistentVolume to be removed, so that there is a deletion too.
	flow := func(t *testing.T, f *faultyCluster) (w *world, ref snapshot.Ref, before []string, err error) {
		w = newWorld(t)
		ref = w.cut(t, w.located(t, "data-mysql-0"))[0]
		before = w.inventory(t)
		stale := target("data-mysql-2")
		stale.Run = "stale"
		require.NoError(t, w.snap.Prepare(t.Context(), ref, stale))
		f.Interface = w.kube
		o := w.options()
		o.Kube = f
		return w, ref, before, prepareAndProvision(t.Context(), w.open(t, o), ref)
	}
	trial := &faultyCluster{nth: -1}
	w, _, before, err := flow(t, trial)
	require.NoError(t, err)
	w.requireProvisioned(t, before)
	require.NotEmpty(t, trial.writes)
	t.Logf("%d writes to the cluster, done or not: %v", len(trial.writes), trial.writes)
	for nth, name := range trial.writes {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d %s done %t", nth, name, after), func(t *testing.T) {
				t.Parallel()
				w, ref, before, err := flow(t, &faultyCluster{nth: nth, after: after})
				require.ErrorIs(t, err, errReset)
				require.NoError(t, w.snap.Provision(t.Context(), ref, target("data-mysql-2")))
				w.requireProvisioned(t, before)
			})
			t.Run(fmt.Sprintf("%d %s done %t, given up", nth, name, after), func(t *testing.T) {
				t.Parallel()
				w, _, before, err := flow(t, &faultyCluster{nth: nth, after: after})
				require.ErrorIs(t, err, errReset)
				_, err = w.kube.CoreV1().PersistentVolumeClaims(namespace).Get(t.Context(), "data-mysql-2", metav1.GetOptions{})
				other := target("data-mysql-2")
				other.Run = "another"
				if !apierrors.IsNotFound(err) {
					w.awaitBound(t, namespace, "data-mysql-2")
					require.NoError(t, w.snap.Scrap(t.Context(), other))
					w.requireProvisioned(t, before)
					return
				}
				require.NoError(t, w.snap.Scrap(t.Context(), other))
				require.ElementsMatch(t, before, w.inventory(t))
			})
		}
	}
}
