package csi

import (
	"context"
	"fmt"
	"strings"

	volumesnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
)

// source is the VolumeSnapshot, in the claim's namespace, that a claim is made
// from, and the least size of its volume in bytes.
type source struct {
	name string
	size int64
}

// source finds the VolumeSnapshot of r, ready to use, or has another one stand
// in for it.
func (s *Snapshotter) source(ctx context.Context, r snapshot.Ref, t snapshot.Target) (source, error) {
	if r.Namespace == t.Claim.Namespace && r.Name != "" {
		vs, err := s.readSnapshot(ctx, r.Namespace, r.Name)
		if err != nil && !missing(err) {
			return source{}, err
		}
		if err == nil && vs.DeletionTimestamp == nil {
			same, err := s.isOf(ctx, vs, r)
			if err != nil && !missing(err) {
				return source{}, err
			}
			if same {
				ready, err := s.awaitReady(ctx, vs.Namespace, vs.Name)
				if err != nil {
					return source{}, err
				}
				return source{name: ready.Name, size: restoreSize(ready)}, nil
			}
		}
	}
	return s.standIn(ctx, r, t)
}

// standIn makes a VolumeSnapshotContent of the snapshot's handle by hand, and
// a VolumeSnapshot in the claim's namespace that is bound to it. Its policy is
// Retain: when both are deleted, the snapshot stays. What another run, or this
// one for another snapshot, has left of the same name is removed first.
func (s *Snapshotter) standIn(ctx context.Context, r snapshot.Ref, t snapshot.Target) (source, error) {
	handle, err := s.handle(ctx, r)
	if err != nil {
		return source{}, err
	}
	content, vs := s.newStandIn(r, t, handle)
	if err := s.clearStandIn(ctx, content, t); err != nil {
		return source{}, err
	}
	if _, err = s.snapshots.SnapshotV1().VolumeSnapshotContents().Create(ctx, content, metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
		// It is the one of ours that clearStandIn has left.
		err = nil
	}
	if err != nil {
		return source{}, explain(err, "create VolumeSnapshotContent "+content.Name)
	}
	_, err = s.snapshots.SnapshotV1().VolumeSnapshots(vs.Namespace).Create(ctx, vs, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		err = s.adopt(ctx, vs)
	}
	if err != nil {
		return source{}, explain(err, "create VolumeSnapshot "+vs.Namespace+"/"+vs.Name)
	}
	ready, err := s.awaitStandIn(ctx, r, vs)
	if err != nil {
		return source{}, err
	}
	return source{name: ready.Name, size: restoreSize(ready)}, nil
}

func (s *Snapshotter) newStandIn(r snapshot.Ref, t snapshot.Target, handle string) (*volumesnapshotv1.VolumeSnapshotContent, *volumesnapshotv1.VolumeSnapshot) {
	name, mode := standInName(t.Claim.Namespace, t.Claim.Name), modeOf(r.Block)
	meta := metav1.ObjectMeta{Name: name}
	mark(&meta, t.Owner, purposeRestore, t.Ordinal)
	meta.Annotations[annotationClaim] = t.Claim.Namespace + "/" + t.Claim.Name
	meta.Annotations[annotationRun] = t.Run
	meta.Annotations[annotationSource] = r.ID
	content := &volumesnapshotv1.VolumeSnapshotContent{
		ObjectMeta: *meta.DeepCopy(),
		Spec: volumesnapshotv1.VolumeSnapshotContentSpec{
			VolumeSnapshotRef: corev1.ObjectReference{APIVersion: volumesnapshotv1.SchemeGroupVersion.String(), Kind: "VolumeSnapshot", Namespace: t.Claim.Namespace, Name: name},
			DeletionPolicy:    volumesnapshotv1.VolumeSnapshotContentRetain,
			Driver:            r.Driver,
			Source:            volumesnapshotv1.VolumeSnapshotContentSource{SnapshotHandle: &handle},
			SourceVolumeMode:  &mode,
		},
	}
	if s.class != "" {
		// The csi-snapshotter finds in it the Secret with which some drivers list.
		content.Spec.VolumeSnapshotClassName = &s.class
	}
	vs := &volumesnapshotv1.VolumeSnapshot{
		ObjectMeta: *meta.DeepCopy(),
		Spec:       volumesnapshotv1.VolumeSnapshotSpec{Source: volumesnapshotv1.VolumeSnapshotSource{VolumeSnapshotContentName: &name}},
	}
	vs.Namespace = t.Claim.Namespace
	if s.class != "" {
		vs.Spec.VolumeSnapshotClassName = &s.class
	}
	return content, vs
}

// clearStandIn removes a stand-in of that name unless it is the same.
func (s *Snapshotter) clearStandIn(ctx context.Context, want *volumesnapshotv1.VolumeSnapshotContent, t snapshot.Target) error {
	content, err := s.readContent(ctx, want.Name)
	if missing(err) {
		return s.scrapStandIn(ctx, t)
	}
	if err != nil {
		return err
	}
	if !bears(content, t.Owner, purposeRestore) {
		return fmt.Errorf("VolumeSnapshotContent %s: %w: it exists and belongs to set %s; restore that set's claim first, or remove it", content.Name, snapshot.ErrInUse, content.Annotations[annotationOwnerSet])
	}
	same := content.DeletionTimestamp == nil && handleOf(content) == handleOf(want) && content.Spec.Driver == want.Spec.Driver
	for _, key := range []string{annotationRun, annotationSource} {
		same = same && content.Annotations[key] == want.Annotations[key]
	}
	if same {
		return nil
	}
	return s.scrapStandIn(ctx, t)
}

// awaitStandIn waits until the driver has found the snapshot. That it does not
// have it is the one error that is believed at once, and is ErrNotFound.
func (s *Snapshotter) awaitStandIn(ctx context.Context, r snapshot.Ref, vs *volumesnapshotv1.VolumeSnapshot) (*volumesnapshotv1.VolumeSnapshot, error) {
	w := waiting{
		namespace: vs.Namespace, name: vs.Name, what: "ready to use", bound: s.bind, poll: s.patience.Poll, grace: s.patience.Call,
		done: isReady, fatal: func(text string) error {
			if !unknownToDriver(text) {
				return nil
			}
			return fmt.Errorf("provision from snapshot %s of driver %s: %w: its VolumeSnapshot %s/%s is gone or is elsewhere, and the driver says: %s",
				r.ID, r.Driver, snapshot.ErrNotFound, r.Namespace, r.Name, text)
		},
	}
	ready, err := s.await(ctx, w)
	if err == nil && contentName(ready) != vs.Name {
		err = fmt.Errorf("VolumeSnapshot %s/%s: %w: it is bound to VolumeSnapshotContent %s, not to the one that was made for it", vs.Namespace, vs.Name, snapshot.ErrInUse, contentName(ready))
	}
	return ready, err
}

// adopt checks that a VolumeSnapshot that exists is the stand-in want. Whoever
// may create VolumeSnapshots in the namespace could have made another one.
func (s *Snapshotter) adopt(ctx context.Context, want *volumesnapshotv1.VolumeSnapshot) error {
	vs, err := s.readSnapshot(ctx, want.Namespace, want.Name)
	if err != nil {
		return err
	}
	from := vs.Spec.Source.VolumeSnapshotContentName
	same := from != nil && *from == want.Name && vs.Labels[labelManagedBy] == managedBy
	for _, key := range []string{annotationCluster, annotationOwnerSet, annotationRun, annotationSource} {
		same = same && vs.Annotations[key] == want.Annotations[key]
	}
	if !same {
		return fmt.Errorf("%w: it exists, and is not what this restore would make; find out whose it is, and remove it", snapshot.ErrInUse)
	}
	return nil
}

// unknownToDriver says whether a status's error means that there is no such
// snapshot. The words are those of the csi-snapshotter, where a driver lists
// nothing under the handle, and of gRPC, where the driver itself says so.
func unknownToDriver(text string) bool {
	return strings.Contains(text, "can not find snapshot for snapshotID") || strings.Contains(text, "code = NotFound")
}

// scrapStandIn removes the stand-in for a target's claim and waits until it is
// gone; a stand-in of another owner is left alone. Nothing there: nil.
func (s *Snapshotter) scrapStandIn(ctx context.Context, t snapshot.Target) error {
	name := standInName(t.Claim.Namespace, t.Claim.Name)
	vs, err := s.readSnapshot(ctx, t.Claim.Namespace, name)
	if err != nil && !missing(err) {
		return err
	}
	content, err := s.readContent(ctx, name)
	switch {
	case denied(err) && vs == nil:
		// Who may not read it cannot have made it.
		return nil
	case err != nil && !missing(err):
		return err
	case content != nil && bears(content, t.Owner, purposeRestore) && content.Spec.DeletionPolicy != volumesnapshotv1.VolumeSnapshotContentRetain:
		return fmt.Errorf("VolumeSnapshotContent %s: %w: somebody has changed its policy to %s, so that deleting it would delete the snapshot; set it to Retain",
			name, snapshot.ErrInUse, content.Spec.DeletionPolicy)
	}
	if vs != nil && bears(vs, t.Owner, purposeRestore) {
		if err := s.deleteObject(ctx, vs); err != nil {
			return err
		}
		if err := s.awaitGone(ctx, vs); err != nil {
			return err
		}
	}
	if content != nil && bears(content, t.Owner, purposeRestore) {
		return s.deleteContent(ctx, content)
	}
	return nil
}
