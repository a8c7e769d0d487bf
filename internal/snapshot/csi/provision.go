package csi

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
)

// Provision implements [snapshot.Snapshotter]: it makes a claim whose data
// source is the VolumeSnapshot, or in another namespace, or where that is gone,
// one that stands in for it.
//
// Where the class binds at once, it returns when the claim is bound, and the
// stand-in is gone again. Where the class waits for a first consumer, or cannot
// be looked at, it returns when the claim exists, and the stand-in has to stay
// until the claim is bound: Scrap, or the same Provision once more, removes it
// then. A claim that asks for less than the snapshot needs is made larger.
func (s *Snapshotter) Provision(ctx context.Context, r snapshot.Ref, t snapshot.Target) error {
	name := "claim " + t.Claim.Namespace + "/" + t.Claim.Name
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("provision %s: %w", name, err)
	}
	claim, err := s.standing(ctx, r, t)
	if err != nil {
		return err
	}
	class, err := s.fits(ctx, r, t)
	if err != nil {
		return err
	}
	made := claim == nil
	if made {
		if claim, err = s.create(ctx, r, t); err != nil {
			return s.undo(ctx, t, nil, err)
		}
	}
	if !isBound(claim) {
		if waits(class) {
			return nil
		}
		if err := s.awaitBound(ctx, claim, t.Zone); err != nil {
			if made {
				return s.undo(ctx, t, claim, err)
			}
			return err
		}
	}
	if source := claim.Spec.DataSource; source != nil && source.Name == standInName(claim.Namespace, claim.Name) {
		return s.scrapStandIn(ctx, t)
	}
	return nil
}

// standing reads the claim of that name: nil if there is none, an error if it
// is not what this run makes.
func (s *Snapshotter) standing(ctx context.Context, r snapshot.Ref, t snapshot.Target) (*corev1.PersistentVolumeClaim, error) {
	name := "claim " + t.Claim.Namespace + "/" + t.Claim.Name
	claim, err := s.kube.CoreV1().PersistentVolumeClaims(t.Claim.Namespace).Get(ctx, t.Claim.Name, metav1.GetOptions{})
	if err = explain(err, "read "+name); missing(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	a := claim.Annotations
	switch {
	case claim.DeletionTimestamp != nil:
		return nil, fmt.Errorf("%s: %w: it is being deleted; wait until it is gone", name, snapshot.ErrInUse)
	case a[annotationRun] == "":
		return nil, fmt.Errorf("%s: %w: it exists, and was not made from a volume snapshot", name, snapshot.ErrInUse)
	case a[annotationRun] != t.Run, a[annotationSource] != r.ID, a[annotationCluster] != t.Owner.Cluster, a[annotationOwnerSet] != t.Owner.Set.String():
		return nil, fmt.Errorf("%s: %w: restore run %s made it from volume snapshot %s", name, snapshot.ErrInUse, a[annotationRun], a[annotationSource])
	}
	return claim, nil
}

// create makes the claim, and before it what it is made from.
func (s *Snapshotter) create(ctx context.Context, r snapshot.Ref, t snapshot.Target) (*corev1.PersistentVolumeClaim, error) {
	from, err := s.source(ctx, r, t)
	if err != nil {
		return nil, err
	}
	claim := t.Claim.DeepCopy()
	claim.ResourceVersion, claim.UID, claim.Status, claim.Spec.VolumeName = "", "", corev1.PersistentVolumeClaimStatus{}, ""
	if claim.Annotations == nil {
		claim.Annotations = map[string]string{}
	}
	claim.Annotations[annotationCluster], claim.Annotations[annotationOwnerSet] = t.Owner.Cluster, t.Owner.Set.String()
	claim.Annotations[annotationRun], claim.Annotations[annotationSource] = t.Run, r.ID
	if err := s.enlarge(claim, max(from.size, r.Size)); err != nil {
		return nil, err
	}
	group := "snapshot.storage.k8s.io"
	claim.Spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: &group, Kind: "VolumeSnapshot", Name: from.name}
	claim.Spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: &group, Kind: "VolumeSnapshot", Name: from.name}
	doing := "create claim " + claim.Namespace + "/" + claim.Name
	made, err := s.kube.CoreV1().PersistentVolumeClaims(claim.Namespace).Create(ctx, claim, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil, fmt.Errorf("%s: %w: somebody else has made it in this moment", doing, snapshot.ErrInUse)
	}
	return made, explain(err, doing)
}

func isBound(claim *corev1.PersistentVolumeClaim) bool {
	return claim.Status.Phase == corev1.ClaimBound && claim.Spec.VolumeName != ""
}

// awaitBound waits until the claim has its volume, and that in the zone where
// one is asked for.
func (s *Snapshotter) awaitBound(ctx context.Context, claim *corev1.PersistentVolumeClaim, zone string) error {
	name := "claim " + claim.Namespace + "/" + claim.Name
	var trouble complaint
	last := claim
	err := s.until(ctx, s.bind, s.patience.Poll, func(ctx context.Context) (bool, error) {
		now, err := s.kube.CoreV1().PersistentVolumeClaims(claim.Namespace).Get(ctx, claim.Name, metav1.GetOptions{})
		if err != nil {
			return false, explain(err, "read "+name)
		}
		switch last = now; {
		case now.UID != claim.UID || now.DeletionTimestamp != nil:
			return false, fmt.Errorf("%s: %w: somebody is deleting or replacing it", name, snapshot.ErrInUse)
		case now.Status.Phase == corev1.ClaimLost:
			return false, fmt.Errorf("%s: %w: it has lost its volume %s", name, snapshot.ErrFailed, now.Spec.VolumeName)
		case isBound(now):
			return true, nil
		}
		if trouble.lasts(s.clock.Now(), s.complaintOf(ctx, now), s.patience.Call) {
			return false, fmt.Errorf("%s: %w: no volume was made for it: %s", name, snapshot.ErrFailed, trouble.text)
		}
		return false, nil
	})
	switch {
	case errors.Is(err, errLate):
		return fmt.Errorf("%s: %w: not bound after %s; `kubectl describe pvc` says why: %s", name, snapshot.ErrUnreachable, s.bind, trouble.text)
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("%s: not bound yet: %w", name, err)
	case err != nil:
		return err
	}
	return s.inZone(ctx, last, zone)
}

// complaintOf is what the provisioner last said of a claim in an Event; empty
// where it said nothing, or we may not look.
func (s *Snapshotter) complaintOf(ctx context.Context, claim *corev1.PersistentVolumeClaim) string {
	list, err := s.kube.CoreV1().Events(claim.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(claim.UID)})
	if err != nil {
		return ""
	}
	var newest *corev1.Event
	for i := range list.Items {
		e := &list.Items[i]
		if e.InvolvedObject.UID == claim.UID && e.Type == corev1.EventTypeWarning && (newest == nil || newest.LastTimestamp.Before(&e.LastTimestamp)) {
			newest = e
		}
	}
	if newest == nil {
		return ""
	}
	return newest.Reason + ": " + newest.Message
}

// inZone checks where a volume that was made at once has come to lie: its
// driver chose the zone, and a pod that has to run elsewhere would never start.
func (s *Snapshotter) inZone(ctx context.Context, claim *corev1.PersistentVolumeClaim, zone string) error {
	if zone == "" {
		return nil
	}
	volume, err := s.kube.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
	if err = explain(err, "read volume "+claim.Spec.VolumeName); denied(err) {
		return nil
	} else if err != nil {
		return err
	}
	if got := zoneOf(volume); got != "" && got != zone {
		return fmt.Errorf("claim %s/%s: %w: its volume was made in zone %s, and the replica will run in %s; take a StorageClass with volumeBindingMode %s",
			claim.Namespace, claim.Name, snapshot.ErrUnfit, got, zone, storagev1.VolumeBindingWaitForFirstConsumer)
	}
	return nil
}

// undo removes what this call has made and that came to nothing for the reason
// cause: the claim, if there is one, and the stand-in. When the context has
// ended, all stays for the next attempt of the same run.
func (s *Snapshotter) undo(ctx context.Context, t snapshot.Target, claim *corev1.PersistentVolumeClaim, cause error) error {
	if ctx.Err() != nil {
		return cause
	}
	errs := []error{cause}
	if claim != nil {
		err := s.kube.CoreV1().PersistentVolumeClaims(claim.Namespace).Delete(ctx, claim.Name, onlyThis(claim.UID))
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, explain(err, "and it stays behind: delete claim "+claim.Namespace+"/"+claim.Name))
		}
	}
	if err := s.scrapStandIn(ctx, t); err != nil {
		errs = append(errs, fmt.Errorf("and what stood in for the snapshot stays behind: %w", err))
	}
	return errors.Join(errs...)
}
