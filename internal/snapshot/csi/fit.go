package csi

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
)

// annotationDefaultStorageClass makes a StorageClass the cluster's default.
const annotationDefaultStorageClass = "storageclass.kubernetes.io/is-default-class"

// fits checks what can be known before anything is made: that the driver that
// would make the claim's volume is the one that has the snapshot, and that the
// volume is of the same mode. It returns the class, nil where we may not look.
func (s *Snapshotter) fits(ctx context.Context, r snapshot.Ref, t snapshot.Target) (*storagev1.StorageClass, error) {
	name := "claim " + t.Claim.Namespace + "/" + t.Claim.Name
	if block := isBlock(t.Claim); block != r.Block {
		return nil, fmt.Errorf("%s: %w: it asks for %s, and the snapshot of claim %s is of %s", name, snapshot.ErrUnfit, modeOf(block), r.Claim, modeOf(r.Block))
	}
	class, err := s.storageClass(ctx, t.Claim)
	if err != nil || class == nil {
		return nil, err
	}
	if class.Provisioner != r.Driver {
		return nil, fmt.Errorf("%s: %w: its class %s makes volumes by %s, and the snapshot of claim %s is %s's; choose a class of that driver",
			name, snapshot.ErrUnfit, class.Name, class.Provisioner, r.Claim, r.Driver)
	}
	return class, s.goesToo(name, class)
}

func modeOf(block bool) corev1.PersistentVolumeMode {
	if block {
		return corev1.PersistentVolumeBlock
	}
	return corev1.PersistentVolumeFilesystem
}

// storageClass is the class that a claim's volume will be made by; nil where
// we may not look.
func (s *Snapshotter) storageClass(ctx context.Context, claim *corev1.PersistentVolumeClaim) (*storagev1.StorageClass, error) {
	doing := fmt.Sprintf("find the StorageClass of claim %s/%s", claim.Namespace, claim.Name)
	if claim.Spec.StorageClassName == nil {
		return s.defaultStorageClass(ctx, doing)
	}
	name := *claim.Spec.StorageClassName
	if name == "" {
		return nil, fmt.Errorf("%s: %w: it names none (\"\"), so that no volume would be made; name one of the snapshot's driver", doing, snapshot.ErrUnfit)
	}
	class, err := s.kube.StorageV1().StorageClasses().Get(ctx, name, metav1.GetOptions{})
	switch err = explain(err, doing); {
	case denied(err):
		return nil, nil
	case missing(err):
		return nil, fmt.Errorf("%s: %w: there is no StorageClass %s", doing, snapshot.ErrNotFound, name)
	case err != nil:
		return nil, err
	}
	return class, nil
}

// defaultStorageClass is what the cluster gives a claim that names no class: of
// several defaults the newest.
func (s *Snapshotter) defaultStorageClass(ctx context.Context, doing string) (*storagev1.StorageClass, error) {
	list, err := s.kube.StorageV1().StorageClasses().List(ctx, metav1.ListOptions{})
	if err = explain(err, doing); denied(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var newest *storagev1.StorageClass
	for i := range list.Items {
		c := &list.Items[i]
		if c.Annotations[annotationDefaultStorageClass] == "true" && (newest == nil || newest.CreationTimestamp.Before(&c.CreationTimestamp)) {
			newest = c
		}
	}
	if newest == nil {
		return nil, fmt.Errorf("%s: %w: it names none, and the cluster has no default; name one of the snapshot's driver", doing, snapshot.ErrNotFound)
	}
	return newest, nil
}

// waits says whether the class makes a volume only when a pod uses the claim.
// A class that we may not look at is taken for one that does.
func waits(class *storagev1.StorageClass) bool {
	return class == nil || class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

// enlarge makes the claim ask for at least so many bytes: a provisioner refuses
// a volume that is smaller than the snapshot, and a set takes a claim that is
// larger than its template. What the template asked for is kept beside it.
func (s *Snapshotter) enlarge(claim *corev1.PersistentVolumeClaim, least int64) error {
	asked := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if asked.Value() >= least {
		return nil
	}
	size := *resource.NewQuantity(least, resource.BinarySI)
	name := claim.Namespace + "/" + claim.Name
	if limit, ok := claim.Spec.Resources.Limits[corev1.ResourceStorage]; ok && limit.Cmp(size) < 0 {
		return fmt.Errorf("claim %s: %w: its limit is %s, and the snapshot needs %s", name, snapshot.ErrUnfit, limit.String(), size.String())
	}
	if claim.Spec.Resources.Requests == nil {
		claim.Spec.Resources.Requests = corev1.ResourceList{}
	}
	claim.Spec.Resources.Requests[corev1.ResourceStorage] = size
	claim.Annotations[annotationRaised] = asked.String()
	s.log.Info("the claim is made larger than its template asks for: the snapshot needs it", "claim", name, "asked", asked.String(), "size", size.String())
	return nil
}
