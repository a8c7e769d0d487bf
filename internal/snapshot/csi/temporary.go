package csi

import (
	"context"
	"fmt"

	volumesnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
)

// Temporary is for what one run needs, and deletes before it ends. What would stay
// behind all the same is refused before it is made: a snapshot whose class says
// Retain, and a claim whose volume would outlive it.
type Temporary struct {
	// Owners that VolumeSnapshots belong to: what a killed run has left goes with
	// them at the latest.
	Owners []metav1.OwnerReference
}

// owners of what is cut.
func (s *Snapshotter) owners() []metav1.OwnerReference {
	if s.temporary == nil {
		return nil
	}
	return s.temporary.Owners
}

// without is what to do about volumes that cannot be snapshotted.
func (s *Snapshotter) without() string {
	if s.temporary == nil {
		return "leave them out, or use another method than snapshot"
	}
	return "leave --from-snapshot out, and stop the set for the time of the backup or consent with --fuzzy"
}

// goes refuses a class whose snapshots would stay when their VolumeSnapshots are
// deleted: to delete those, too, is a right over every snapshot of the cluster.
func (s *Snapshotter) goes(class snapshotClass) error {
	if s.temporary == nil || class.policy != volumesnapshotv1.VolumeSnapshotContentRetain {
		return nil
	}
	return fmt.Errorf("VolumeSnapshotClass %s: %w: its deletionPolicy is Retain, so that a snapshot that is needed for a while would stay in the storage; give --volume-snapshot-class one with Delete",
		class.name, snapshot.ErrUnsupported)
}

// goesToo refuses a class whose volumes would stay when their claims are deleted.
func (s *Snapshotter) goesToo(claim string, class *storagev1.StorageClass) error {
	if s.temporary == nil || class.ReclaimPolicy == nil || *class.ReclaimPolicy != corev1.PersistentVolumeReclaimRetain {
		return nil
	}
	return fmt.Errorf("%s: %w: the reclaimPolicy of its class %s is Retain, so that a volume that is needed for a while would stay in the storage; give --worker-storage-class one of driver %s with Delete",
		claim, snapshot.ErrUnfit, class.Name, class.Provisioner)
}

// CheckFit implements [snapshot.Explainer].
func (s *Snapshotter) CheckFit(ctx context.Context, v snapshot.Volume, t snapshot.Target) error {
	_, err := s.fits(ctx, refOf(v, "", ""), t)
	return err
}

// CheckBound implements [snapshot.Explainer]. What the provisioner says it takes
// from the claim's Events, where we may look at them.
func (s *Snapshotter) CheckBound(ctx context.Context, t snapshot.Target) error {
	name := "claim " + t.Claim.Namespace + "/" + t.Claim.Name
	claim, err := s.kube.CoreV1().PersistentVolumeClaims(t.Claim.Namespace).Get(ctx, t.Claim.Name, metav1.GetOptions{})
	if err != nil {
		return explain(err, "read "+name)
	}
	if isBound(claim) {
		return nil
	}
	why := s.complaintOf(ctx, claim)
	if why == "" {
		why = "`kubectl describe pvc` says why"
	}
	return fmt.Errorf("%s: %w: no volume was made for it: %s", name, snapshot.ErrFailed, why)
}
