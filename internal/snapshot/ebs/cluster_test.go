package ebs_test

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
)

// binder does with claims and PersistentVolumes what the cluster's own
// controller does, as far as volumes that exist go. It provisions nothing.
type binder struct {
	kube *fake.Clientset
}

// newCluster is a fake clientset in which claims are bound until the test ends.
func newCluster(t *testing.T, objects ...runtime.Object) *fake.Clientset {
	t.Helper()
	kube := fake.NewClientset(objects...)
	var uid atomic.Int64
	kube.PrependReactor("create", "*", func(action k8stesting.Action) (bool, runtime.Object, error) {
		create, ok := action.(k8stesting.CreateAction)
		if !ok {
			return false, nil, nil
		}
		object, err := meta.Accessor(create.GetObject())
		if err == nil && object.GetUID() == "" {
			object.SetUID(types.UID("uid-" + strconv.FormatInt(uid.Add(1), 10)))
		}
		return false, nil, nil
	})
	b := &binder{kube: kube}
	kick := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	claims, err := kube.CoreV1().PersistentVolumeClaims("").Watch(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	volumes, err := kube.CoreV1().PersistentVolumes().Watch(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	var group sync.WaitGroup
	for _, w := range []watch.Interface{claims, volumes} {
		group.Go(func() {
			for range w.ResultChan() {
				select {
				case kick <- struct{}{}:
				default:
				}
			}
		})
	}
	group.Go(func() {
		for {
			select {
			case <-kick:
				b.reconcile(ctx)
			case <-ctx.Done():
				return
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		claims.Stop()
		volumes.Stop()
		group.Wait()
	})
	return kube
}

// reconcile looks at everything once. What fails is looked at again with the next event.
func (b *binder) reconcile(ctx context.Context) {
	pvs, err := b.kube.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return
	}
	claims, err := b.kube.CoreV1().PersistentVolumeClaims("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return
	}
	for i := range pvs.Items {
		pv := &pvs.Items[i]
		switch {
		case pv.Status.Phase == "":
			pv.Status.Phase = corev1.VolumeAvailable
			b.update(ctx, pv)
		case pv.Status.Phase == corev1.VolumeBound && !slices.ContainsFunc(claims.Items, func(c corev1.PersistentVolumeClaim) bool {
			return pv.Spec.ClaimRef != nil && c.UID == pv.Spec.ClaimRef.UID
		}):
			pv.Status.Phase = corev1.VolumeReleased
			b.update(ctx, pv)
		}
	}
	for i := range claims.Items {
		c := &claims.Items[i]
		if c.Status.Phase != corev1.ClaimBound {
			b.bind(ctx, c, pvs.Items)
		}
	}
}

// bind binds a claim to the volume that it names, or that is reserved for it.
func (b *binder) bind(ctx context.Context, c *corev1.PersistentVolumeClaim, pvs []corev1.PersistentVolume) {
	for i := range pvs {
		pv := &pvs[i]
		ref := pv.Spec.ClaimRef
		reserved := ref != nil && ref.Namespace == c.Namespace && ref.Name == c.Name && (ref.UID == "" || ref.UID == c.UID)
		named := c.Spec.VolumeName == pv.Name && (ref == nil || reserved)
		if !named && (c.Spec.VolumeName != "" || !reserved) || !fits(pv, c) {
			continue
		}
		pv.Spec.ClaimRef = &corev1.ObjectReference{Kind: "PersistentVolumeClaim", Namespace: c.Namespace, Name: c.Name, UID: c.UID}
		pv.Status.Phase = corev1.VolumeBound
		if !b.update(ctx, pv) {
			return
		}
		c.Spec.VolumeName, c.Status.Phase, c.Status.Capacity = pv.Name, corev1.ClaimBound, pv.Spec.Capacity
		_, _ = b.kube.CoreV1().PersistentVolumeClaims(c.Namespace).Update(ctx, c, metav1.UpdateOptions{})
		return
	}
}

// fits is the check of the cluster's controller.
func fits(pv *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) bool {
	request, capacity := c.Spec.Resources.Requests[corev1.ResourceStorage], pv.Spec.Capacity[corev1.ResourceStorage]
	if capacity.Cmp(request) < 0 || c.Spec.StorageClassName == nil || *c.Spec.StorageClassName != pv.Spec.StorageClassName {
		return false
	}
	if modeOf(c.Spec.VolumeMode) != modeOf(pv.Spec.VolumeMode) || text(c.Spec.VolumeAttributesClassName) != text(pv.Spec.VolumeAttributesClassName) {
		return false
	}
	for _, m := range c.Spec.AccessModes {
		if !slices.Contains(pv.Spec.AccessModes, m) {
			return false
		}
	}
	return true
}

func modeOf(m *corev1.PersistentVolumeMode) corev1.PersistentVolumeMode {
	if m == nil {
		return corev1.PersistentVolumeFilesystem
	}
	return *m
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func (b *binder) update(ctx context.Context, pv *corev1.PersistentVolume) bool {
	_, err := b.kube.CoreV1().PersistentVolumes().Update(ctx, pv, metav1.UpdateOptions{})
	return err == nil || apierrors.IsConflict(err)
}
