package ebs

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
)

// Scrap implements [snapshot.Preparer].
func (s *Snapshotter) Scrap(ctx context.Context, t snapshot.Target) error {
	if s.kube == nil {
		return fmt.Errorf("scrap: %w", errNoCluster)
	}
	if t.Claim == nil || t.Owner.Cluster == "" {
		return errors.New("scrap: the target's claim or owner is missing")
	}
	object := t.Claim.Namespace + "/" + t.Claim.Name
	unlock, err := s.lock(ctx, "claim "+object)
	if err != nil {
		return fmt.Errorf("scrap what was prepared for claim %s: %w", object, err)
	}
	defer unlock()
	regions := s.regions(regionOf(t.Zone))
	if len(regions) == 0 {
		regions = []string{""}
	}
	for _, region := range regions {
		c, err := s.in(region)
		if err == nil {
			_, err = s.sweep(ctx, c, t, func(types.Volume) bool { return false })
		}
		if err != nil {
			return fmt.Errorf("scrap what was prepared for claim %s: %w", object, err)
		}
	}
	return nil
}

// sweep removes the volumes and PersistentVolumes that were made for a claim and that none
// was bound to, and returns the first that is to be kept. What is bound is finished.
func (s *Snapshotter) sweep(ctx context.Context, c *clients, t snapshot.Target, keep func(types.Volume) bool) (*types.Volume, error) {
	volumes, err := s.volumesFor(ctx, c, t)
	if err != nil {
		return nil, err
	}
	pvs, err := s.persistentVolumes(ctx)
	if err != nil {
		return nil, err
	}
	if pvs, err = s.markAwaited(ctx, t, pvs); err != nil {
		return nil, err
	}
	standing := map[string]bool{}
	var kept *types.Volume
	for i := range volumes {
		v, id := &volumes[i], aws.ToString(volumes[i].VolumeId)
		standing[id] = true
		if kept == nil && keep(*v) && !taken(pvs, id) {
			kept = v
			continue
		}
		if err := s.discard(ctx, c, t, *v, pvs); err != nil {
			return nil, err
		}
	}
	return kept, s.sweepPVs(ctx, c, t, pvs, standing)
}

// markAwaited lets a PersistentVolume that a claim is just being bound to count as bound: the claim
// names it, or names none and is the one that it is reserved for.
func (s *Snapshotter) markAwaited(ctx context.Context, t snapshot.Target, pvs []corev1.PersistentVolume) ([]corev1.PersistentVolume, error) {
	claim, err := (&provisioning{Snapshotter: s, target: t}).claim(ctx)
	if err != nil || claim == nil {
		return pvs, err
	}
	for i := range pvs {
		if named := claim.Spec.VolumeName; refersTo(&pvs[i], claim) && (named == "" || named == pvs[i].Name) && unbound(&pvs[i]) {
			pvs[i].Spec.ClaimRef.UID = claim.UID
		}
	}
	return pvs, nil
}

// sweepPVs finishes those that are bound, and deletes those whose volume is not there any more.
func (s *Snapshotter) sweepPVs(ctx context.Context, c *clients, t snapshot.Target, pvs []corev1.PersistentVolume, standing map[string]bool) error {
	for i := range pvs {
		pv := &pvs[i]
		h, err := handleOf(pv)
		if err != nil || !bears(pv.Annotations, targetTags(t)) || pv.Annotations[tagUnbound] == "" || !s.inRegion(c, h.zone) {
			continue
		}
		switch {
		case pv.Status.Phase == corev1.VolumeBound:
			err = s.finish(ctx, pv.Name)
		case !standing[h.id] && removable(pv, t):
			err = s.deletePV(ctx, pv)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Snapshotter) inRegion(c *clients, zone string) bool {
	return regionOf(zone) == "" || regionOf(zone) == c.region
}

// removable: we made it for this claim, and no claim was ever bound to it; or one
// that is gone was, for a moment in which no pod could have used it: the set's
// controller had made it, and the mark that goes once ours is bound still stands.
func removable(pv *corev1.PersistentVolume, t snapshot.Target) bool {
	return bears(pv.Annotations, targetTags(t)) && pv.Annotations[tagUnbound] != "" && (unbound(pv) || pv.Status.Phase == corev1.VolumeReleased)
}

// taken: a PersistentVolume that is bound, or that we did not make, speaks of the volume.
func taken(pvs []corev1.PersistentVolume, id string) bool {
	for i := range pvs {
		if h, err := handleOf(&pvs[i]); err == nil && h.id == id && (!unbound(&pvs[i]) || pvs[i].Annotations[tagUnbound] == "") {
			return true
		}
	}
	return false
}

// discard deletes a volume that nobody uses, its PersistentVolume first.
func (s *Snapshotter) discard(ctx context.Context, c *clients, t snapshot.Target, v types.Volume, pvs []corev1.PersistentVolume) error {
	id := aws.ToString(v.VolumeId)
	if len(v.Attachments) > 0 {
		return nil
	}
	for i := range pvs {
		pv := &pvs[i]
		h, err := handleOf(pv)
		switch {
		case err != nil || h.id != id:
		case removable(pv, t):
			if err := s.deletePV(ctx, pv); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	s.log.InfoContext(ctx, "deleting a volume that was prepared and not used", "volume", id, "claim", t.Claim.Name)
	return s.deleteVolume(ctx, c, id)
}

// deletePV deletes one that is as it was seen, and waits until it is gone.
func (s *Snapshotter) deletePV(ctx context.Context, pv *corev1.PersistentVolume) error {
	object := "persistentvolume " + pv.Name
	err := s.kube.CoreV1().PersistentVolumes().Delete(ctx, pv.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &pv.UID, ResourceVersion: &pv.ResourceVersion},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return explain(ctx, err, "delete "+object, roleRestore)
	}
	deadline := s.clock.Now().Add(s.patience.Call)
	return s.until(ctx, func(ctx context.Context) (bool, error) {
		_, err := s.kube.CoreV1().PersistentVolumes().Get(ctx, pv.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return true, nil
		case err != nil:
			return false, explain(ctx, err, "read "+object, roleRestore)
		case s.clock.Now().After(deadline):
			return false, fmt.Errorf("%s is still being deleted after %s, look at its finalizers: %w", object, s.patience.Call, snapshot.ErrUnreachable)
		}
		return false, nil
	})
}

// deleteVolume deletes one, as soon as it is made; absent is deleted.
func (s *Snapshotter) deleteVolume(ctx context.Context, c *clients, id string) error {
	deadline := s.clock.Now().Add(s.patience.Call)
	return s.until(ctx, func(ctx context.Context) (bool, error) {
		err := s.call(ctx, deleteVolume, "volume "+id, func(ctx context.Context) error {
			_, err := c.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: aws.String(id)})
			return err
		})
		switch {
		case code(err) == codeNoVolume:
			return true, nil
		case code(err) == "IncorrectState" && s.clock.Now().Before(deadline): // still creating
			return false, nil
		}
		return err == nil, err
	})
}
