package csi

import (
	"context"
	"errors"
	"fmt"
	"strings"

	volumesnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"keepset/internal/snapshot"
)

// Delete implements [snapshot.Snapshotter]. It returns once the VolumeSnapshot
// is gone, which under the deletion policy Delete is when the driver has deleted
// the snapshot. Under Retain it turns the content's policy to Delete first:
// ErrDenied, before anything is deleted, where it may not. A VolumeSnapshot
// that does not bear the owner is ErrInUse.
//
// Where the VolumeSnapshot is gone, a content that has outlived it is deleted
// if we may look for it; it is known by the VolumeSnapshot that it was made for,
// whose name begins with a hash of the owner.
func (s *Snapshotter) Delete(ctx context.Context, owner snapshot.Owner, r snapshot.Ref) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete VolumeSnapshot %s/%s: %w", r.Namespace, r.Name, err)
	}
	vs, err := s.readSnapshot(ctx, r.Namespace, r.Name)
	if missing(err) {
		return s.deleteOutlived(ctx, owner, r)
	}
	if err != nil {
		return err
	}
	if !bears(vs, owner, s.purpose) {
		return fmt.Errorf("delete VolumeSnapshot %s/%s: %w: it does not bear the labels of set %s, so it is left alone", r.Namespace, r.Name, snapshot.ErrInUse, owner.Set)
	}
	// One that was never cut may be bound to a content all the same, as those are whose
	// driver failed, and there is no moment by which to tell it from another one.
	if r.ID != "" && !r.CutAt.IsZero() {
		// Where the content is gone, so is the snapshot, and what is left is ours.
		same, err := s.isOf(ctx, vs, r)
		if err != nil && !missing(err) {
			return err
		}
		if err == nil && !same {
			return s.deleteOutlived(ctx, owner, r)
		}
	}
	return s.remove(ctx, vs)
}

// remove deletes a VolumeSnapshot of ours with its snapshot, and waits until
// both are gone.
func (s *Snapshotter) remove(ctx context.Context, vs *volumesnapshotv1.VolumeSnapshot) error {
	content, err := s.unretain(ctx, vs)
	if err != nil {
		return err
	}
	if err := s.deleteObject(ctx, vs); err != nil {
		return err
	}
	if err := s.awaitGone(ctx, vs); err != nil {
		return err
	}
	if content == nil {
		return nil
	}
	return s.deleteContent(ctx, content)
}

// unretain makes sure that a snapshot goes with its VolumeSnapshot, whatever its
// class says: else nobody would find it again. It returns the content, nil where
// there is none or we may not look. ErrDenied where the snapshot would stay.
func (s *Snapshotter) unretain(ctx context.Context, vs *volumesnapshotv1.VolumeSnapshot) (*volumesnapshotv1.VolumeSnapshotContent, error) {
	content, err := s.contentFor(ctx, vs)
	switch {
	case missing(err):
		return nil, nil
	case err != nil:
		return nil, err
	case content != nil:
		return content, s.release(ctx, content)
	case vs.Annotations[annotationPolicy] == string(volumesnapshotv1.VolumeSnapshotContentRetain):
		return nil, fmt.Errorf("delete VolumeSnapshot %s/%s: %w: its class says Retain, so that its snapshot would stay, and VolumeSnapshotContent %s may not be changed; the opt-in ClusterRole keepset-snapshot-restore of deploy/cronjob/components/csi-volume-restore allows it",
			vs.Namespace, vs.Name, snapshot.ErrDenied, contentNameFor(vs))
	}
	return nil, nil
}

// release makes the driver delete a content's snapshot with the content.
func (s *Snapshotter) release(ctx context.Context, content *volumesnapshotv1.VolumeSnapshotContent) error {
	if content.Spec.DeletionPolicy == volumesnapshotv1.VolumeSnapshotContentDelete {
		return nil
	}
	patch := fmt.Appendf(nil, `{"metadata":{"uid":%q},"spec":{"deletionPolicy":%q}}`, content.UID, volumesnapshotv1.VolumeSnapshotContentDelete)
	_, err := s.snapshots.SnapshotV1().VolumeSnapshotContents().Patch(ctx, content.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return explain(err, "set the deletion policy of VolumeSnapshotContent "+content.Name)
}

// deleteOutlived deletes the content of r, and its snapshot, where the
// VolumeSnapshot is gone. Nothing there, or no right to look: nil.
func (s *Snapshotter) deleteOutlived(ctx context.Context, owner snapshot.Owner, r snapshot.Ref) error {
	if r.ID == "" || !strings.HasPrefix(r.Name, ownerPrefix(owner)) {
		return nil
	}
	list, err := s.snapshots.SnapshotV1().VolumeSnapshotContents().List(ctx, metav1.ListOptions{})
	if err = explain(err, "list the VolumeSnapshotContents"); denied(err) {
		return nil
	} else if err != nil {
		return err
	}
	for i := range list.Items {
		c := &list.Items[i]
		ref := c.Spec.VolumeSnapshotRef
		if c.Spec.Driver != r.Driver || ref.Namespace != r.Namespace || ref.Name != r.Name || r.ID != handleOf(c) && r.ID != contentPrefix+c.Name {
			continue
		}
		if err := s.release(ctx, c); err != nil {
			return err
		}
		return s.deleteContent(ctx, c)
	}
	return nil
}

// deleteObject asks for a VolumeSnapshot's deletion, and that of no other one
// of its name. Absent: nil.
func (s *Snapshotter) deleteObject(ctx context.Context, vs *volumesnapshotv1.VolumeSnapshot) error {
	err := s.snapshots.SnapshotV1().VolumeSnapshots(vs.Namespace).Delete(ctx, vs.Name, onlyThis(vs.UID))
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return explain(err, "delete VolumeSnapshot "+vs.Namespace+"/"+vs.Name)
}

// awaitGone waits until a VolumeSnapshot is gone, or another has its name.
func (s *Snapshotter) awaitGone(ctx context.Context, vs *volumesnapshotv1.VolumeSnapshot) error {
	object := "delete VolumeSnapshot " + vs.Namespace + "/" + vs.Name
	last := vs
	err := s.until(ctx, s.patience.Call, s.patience.Poll, func(ctx context.Context) (bool, error) {
		now, err := s.readSnapshot(ctx, vs.Namespace, vs.Name)
		if missing(err) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		last = now
		return now.UID != vs.UID, nil
	})
	if errors.Is(err, errLate) {
		why := statusError(last)
		if why == "" {
			why = "a claim is being made from it, or the driver has not deleted its snapshot"
		}
		return fmt.Errorf("%s: %w: still there after %s: %s", object, snapshot.ErrUnreachable, s.patience.Call, why)
	}
	return err
}

// deleteContent deletes a VolumeSnapshotContent and waits until it is gone.
// Where it went with its VolumeSnapshot, no right to delete it is needed.
func (s *Snapshotter) deleteContent(ctx context.Context, content *volumesnapshotv1.VolumeSnapshotContent) error {
	doing := "delete VolumeSnapshotContent " + content.Name
	asked := false
	last := content
	err := s.until(ctx, s.patience.Call, s.patience.Poll, func(ctx context.Context) (bool, error) {
		now, err := s.readContent(ctx, content.Name)
		if missing(err) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		if last = now; now.UID != content.UID {
			return true, nil
		}
		if now.DeletionTimestamp == nil && !asked {
			err := s.snapshots.SnapshotV1().VolumeSnapshotContents().Delete(ctx, content.Name, onlyThis(content.UID))
			if err != nil && !apierrors.IsNotFound(err) {
				return false, explain(err, doing)
			}
			asked = true
		}
		return false, nil
	})
	if errors.Is(err, errLate) {
		why := "its driver has not let go of it"
		if last.Status != nil && last.Status.Error != nil && last.Status.Error.Message != nil {
			why = *last.Status.Error.Message
		}
		return fmt.Errorf("%s: %w: still there after %s: %s", doing, snapshot.ErrUnreachable, s.patience.Call, why)
	}
	return err
}

func onlyThis(uid types.UID) metav1.DeleteOptions {
	if uid == "" {
		return metav1.DeleteOptions{}
	}
	return metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}
}
