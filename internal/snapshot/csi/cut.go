package csi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	volumesnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"keepset/internal/snapshot"
)

// Cut implements [snapshot.Snapshotter]. The requests for all volumes are made
// at once and answered one by one, so the caller has to hold the database still.
// It returns when every status has a creationTime, which the driver's
// csi-snapshotter sets together with the snapshot's handle; a Ref's ID is that
// handle, or where it cannot be read the name of the content that has it.
//
// VolumeSnapshots of the same name that an earlier call brought to its end are
// returned as they are: their point in time is that of the earlier call, see
// CutAt. What an earlier call left unfinished is deleted and cut anew. One of
// the same name that is not ours, or is of another claim, is ErrInUse.
func (s *Snapshotter) Cut(ctx context.Context, name string, volumes []snapshot.Volume) ([]snapshot.Ref, error) {
	release, err := s.cutting.lock(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("cut: %w", err)
	}
	defer release()
	wanted, err := s.wanted(ctx, name, volumes)
	if err != nil {
		return nil, err
	}
	refs, err := s.earlier(ctx, wanted)
	if refs != nil || err != nil {
		return refs, err
	}
	made := make([]*volumesnapshotv1.VolumeSnapshot, 0, len(wanted))
	for _, w := range wanted {
		vs, err := s.request(ctx, w)
		if err != nil {
			return nil, s.discard(ctx, made, err)
		}
		made = append(made, vs)
	}
	if refs, err = s.finish(ctx, made); err != nil {
		return nil, s.discard(ctx, made, err)
	}
	return refs, nil
}

// wanted are the VolumeSnapshots of a cut, before anything is made.
func (s *Snapshotter) wanted(ctx context.Context, name string, volumes []snapshot.Volume) ([]*volumesnapshotv1.VolumeSnapshot, error) {
	if name == "" || len(volumes) == 0 {
		return nil, errors.New("cut: a name and at least one volume are needed")
	}
	classes := map[string]snapshotClass{}
	for _, driver := range drivers(volumes) {
		if driver == "" {
			return nil, errors.New("cut: the volumes have not been located")
		}
		class, err := s.classOf(ctx, driver)
		if err != nil {
			return nil, err
		}
		classes[driver] = class
	}
	list, seen := make([]*volumesnapshotv1.VolumeSnapshot, len(volumes)), map[string]bool{}
	for i, v := range volumes {
		key := v.Namespace + "/" + v.Claim
		if seen[key] {
			return nil, fmt.Errorf("cut claim %s: it is named twice", key)
		}
		seen[key] = true
		vs, err := s.newSnapshot(name, v, classes[v.Driver])
		if err != nil {
			return nil, err
		}
		list[i] = vs
	}
	return list, nil
}

// earlier looks for what an earlier call of the same name made. If it came to
// its end, the refs are returned; if not, what it left is removed.
func (s *Snapshotter) earlier(ctx context.Context, wanted []*volumesnapshotv1.VolumeSnapshot) ([]snapshot.Ref, error) {
	var standing []*volumesnapshotv1.VolumeSnapshot
	var refs []snapshot.Ref
	for _, w := range wanted {
		vs, err := s.readSnapshot(ctx, w.Namespace, w.Name)
		if missing(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := sameCut(vs, w); err != nil {
			return nil, err
		}
		standing = append(standing, vs)
		if r, whole := decodeRecord(vs); whole && vs.DeletionTimestamp == nil {
			content, err := s.boundContent(ctx, vs)
			if err != nil {
				return nil, err
			}
			refs = append(refs, complete(r, vs, content))
		}
	}
	if len(refs) == len(wanted) {
		return refs, nil
	}
	for _, vs := range standing {
		s.log.Warn("an earlier attempt was cut off while its volume snapshots were made: they are deleted and made anew", "volumesnapshot", vs.Namespace+"/"+vs.Name)
		if err := s.remove(ctx, vs); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// sameCut says whether a VolumeSnapshot that exists is what a cut would make.
func sameCut(vs, want *volumesnapshotv1.VolumeSnapshot) error {
	claim := vs.Spec.Source.PersistentVolumeClaimName
	same := claim != nil && *claim == *want.Spec.Source.PersistentVolumeClaimName
	for _, key := range []string{annotationCluster, annotationOwnerSet, annotationBackup} {
		same = same && vs.Annotations[key] == want.Annotations[key]
	}
	for _, key := range []string{labelManagedBy, labelOwner, labelPurpose} {
		same = same && vs.Labels[key] == want.Labels[key]
	}
	if same {
		return nil
	}
	return fmt.Errorf("VolumeSnapshot %s/%s: %w: it exists, and is not one of claim %s made by Keepset for this backup; find out whose it is, and remove or rename it",
		vs.Namespace, vs.Name, snapshot.ErrInUse, *want.Spec.Source.PersistentVolumeClaimName)
}

func (s *Snapshotter) request(ctx context.Context, w *volumesnapshotv1.VolumeSnapshot) (*volumesnapshotv1.VolumeSnapshot, error) {
	vs, err := s.snapshots.SnapshotV1().VolumeSnapshots(w.Namespace).Create(ctx, w, metav1.CreateOptions{})
	doing := "create VolumeSnapshot " + w.Namespace + "/" + w.Name
	if apierrors.IsAlreadyExists(err) {
		return nil, fmt.Errorf("%s: %w: another run has made it in this moment", doing, snapshot.ErrInUse)
	}
	return vs, explain(err, doing)
}

// finish waits until all of them are cut, and writes so on each.
func (s *Snapshotter) finish(ctx context.Context, made []*volumesnapshotv1.VolumeSnapshot) ([]snapshot.Ref, error) {
	refs := make([]snapshot.Ref, len(made))
	for i, vs := range made {
		cut, err := s.awaitCut(ctx, vs)
		if err != nil {
			return nil, err
		}
		content, err := s.boundContent(ctx, cut)
		if err != nil {
			return nil, err
		}
		r, _ := decodeRecord(cut)
		if refs[i] = complete(r, cut, content); refs[i].ID == "" {
			return nil, fmt.Errorf("VolumeSnapshot %s/%s: %w: it was cut, and is bound to no VolumeSnapshotContent", vs.Namespace, vs.Name, snapshot.ErrFailed)
		}
	}
	for i, r := range refs {
		text, err := encodeRecord(r)
		if err != nil {
			return nil, err
		}
		if err := s.annotate(ctx, made[i], annotationRecord, text); err != nil {
			return nil, err
		}
	}
	// The hold may have ended while the last of them was written.
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("cut: %w", err)
	}
	return refs, nil
}

func (s *Snapshotter) annotate(ctx context.Context, vs *volumesnapshotv1.VolumeSnapshot, key, value string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": vs.UID, "annotations": map[string]string{key: value}}})
	if err != nil {
		return fmt.Errorf("annotate VolumeSnapshot %s/%s: %w", vs.Namespace, vs.Name, err)
	}
	_, err = s.snapshots.SnapshotV1().VolumeSnapshots(vs.Namespace).Patch(ctx, vs.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return explain(err, "annotate VolumeSnapshot "+vs.Namespace+"/"+vs.Name)
}

// discard deletes what a cut made that came to nothing for the reason cause,
// and does not wait for it to be gone. What cannot be deleted is found by List.
func (s *Snapshotter) discard(ctx context.Context, made []*volumesnapshotv1.VolumeSnapshot, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.patience.Call)
	defer cancel()
	errs := []error{cause}
	for _, vs := range made {
		_, err := s.unretain(ctx, vs)
		if err == nil {
			err = s.deleteObject(ctx, vs)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("and what was cut stays behind: %w", err))
		}
	}
	return errors.Join(errs...)
}
