package ebs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
)

// provisioning is one call of Prepare or Provision.
type provisioning struct {
	*Snapshotter
	ref    snapshot.Ref
	target snapshot.Target
}

func (p *provisioning) String() string {
	return p.target.Claim.Namespace + "/" + p.target.Claim.Name
}

// begin checks the arguments and waits for other calls for the same claim.
func (s *Snapshotter) begin(ctx context.Context, r snapshot.Ref, t snapshot.Target) (*provisioning, func(), error) {
	p := &provisioning{Snapshotter: s, ref: r, target: t}
	switch {
	case s.kube == nil:
		return nil, nil, fmt.Errorf("provision: %w", errNoCluster)
	case t.Claim == nil || t.Claim.Name == "" || t.Claim.Namespace == "":
		return nil, nil, errors.New("provision: the target's claim has no name or namespace")
	case t.Owner.Cluster == "" || t.Run == "":
		return nil, nil, fmt.Errorf("provision claim %s: the target's owner or run is missing", p)
	}
	unlock, err := s.lock(ctx, "claim "+p.String())
	if err != nil {
		return nil, nil, fmt.Errorf("provision claim %s: %w", p, err)
	}
	return p, unlock, nil
}

// Prepare implements [snapshot.Preparer].
func (s *Snapshotter) Prepare(ctx context.Context, r snapshot.Ref, t snapshot.Target) error {
	p, unlock, err := s.begin(ctx, r, t)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := p.prepare(ctx); err != nil {
		return fmt.Errorf("prepare a volume for claim %s: %w", p, err)
	}
	return nil
}

// Provision implements [snapshot.Snapshotter]. A claim that the set's controller
// has made meanwhile, and that is bound to the volume prepared for it, is success too.
func (s *Snapshotter) Provision(ctx context.Context, r snapshot.Ref, t snapshot.Target) error {
	p, unlock, err := s.begin(ctx, r, t)
	if err != nil {
		return err
	}
	defer unlock()
	if err := p.provision(ctx); err != nil {
		return fmt.Errorf("provision claim %s: %w", p, err)
	}
	return nil
}

func (p *provisioning) provision(ctx context.Context) error {
	claim, err := p.claim(ctx)
	if err != nil {
		return err
	}
	var pv *corev1.PersistentVolume
	if claim != nil {
		if pv, err = p.volumeOf(ctx, claim); err != nil {
			return err
		}
	} else {
		if pv, err = p.prepare(ctx); err != nil {
			return err
		}
		if err := p.createClaim(ctx, pv); err != nil {
			return err
		}
	}
	if pv, err = p.waitBound(ctx, pv); err != nil {
		return err
	}
	if err := p.finish(ctx, pv.Name); err != nil {
		return err
	}
	return p.sweepOthers(ctx, pv)
}

// sweepOthers removes what else was made for the claim that is bound by now: by a
// killed attempt, or for a claim of the set's controller that was in its place.
func (p *provisioning) sweepOthers(ctx context.Context, pv *corev1.PersistentVolume) error {
	h, err := handleOf(pv)
	if err != nil {
		return err
	}
	c, err := p.in(regionOf(h.zone))
	if err != nil {
		return err
	}
	_, err = p.sweep(ctx, c, p.target, func(v types.Volume) bool { return aws.ToString(v.VolumeId) == h.id })
	return err
}

// claim is the one that exists under the target's name, nil when none does.
func (p *provisioning) claim(ctx context.Context) (*corev1.PersistentVolumeClaim, error) {
	claim, err := p.kube.CoreV1().PersistentVolumeClaims(p.target.Claim.Namespace).Get(ctx, p.target.Claim.Name, metav1.GetOptions{})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, explain(ctx, err, "read the claim", "")
	}
	return claim, nil
}

// volumeOf is the PersistentVolume that was prepared for a claim that exists. ErrInUse when the
// claim has, or will get, another one.
func (p *provisioning) volumeOf(ctx context.Context, claim *corev1.PersistentVolumeClaim) (*corev1.PersistentVolume, error) {
	pv, err := p.prepared(ctx, claim)
	if err != nil {
		return nil, err
	}
	inUse := func(why string) error {
		return fmt.Errorf("%s, it is not made of snapshot %s by this restore; delete it or name another: %w", why, p.ref.ID, snapshot.ErrInUse)
	}
	switch {
	case claim.DeletionTimestamp != nil:
		return nil, inUse("it is being deleted")
	case pv == nil:
		return nil, inUse("it exists")
	case claim.Spec.VolumeName == "" && unbound(pv), claim.Spec.VolumeName == pv.Name,
		claim.Spec.VolumeName == "" && pv.Spec.ClaimRef.UID == claim.UID: // they are just being bound
		return pv, nil
	}
	return nil, inUse("it exists and is bound to persistentvolume " + claim.Spec.VolumeName)
}

// createClaim makes the claim as the set's controller would, but for its volume.
func (p *provisioning) createClaim(ctx context.Context, pv *corev1.PersistentVolume) error {
	claim := p.target.Claim.DeepCopy()
	claim.Status = corev1.PersistentVolumeClaimStatus{}
	claim.Spec.VolumeName, claim.Spec.StorageClassName = pv.Name, &pv.Spec.StorageClassName
	if claim.Annotations == nil {
		claim.Annotations = map[string]string{}
	}
	claim.Annotations[tagSnapshot], claim.Annotations[tagRun] = p.ref.ID, p.target.Run
	_, err := p.kube.CoreV1().PersistentVolumeClaims(claim.Namespace).Create(ctx, claim, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return explain(ctx, err, "create the claim", "")
	}
	// The reply to an earlier attempt was lost, or the controller was faster.
	existing, err := p.claim(ctx)
	if err != nil || existing == nil {
		return err
	}
	_, err = p.volumeOf(ctx, existing)
	return err
}

// identity tells what we made for this claim, and for which restore from what.
func (p *provisioning) identity() map[string]string {
	tags := targetTags(p.target)
	tags[tagOrdinal] = strconv.Itoa(p.target.Ordinal)
	tags[tagSnapshot], tags[tagRun] = p.ref.ID, p.target.Run
	return tags
}

// targetTags tell what we made for a claim, for whatever restore.
func targetTags(t snapshot.Target) map[string]string {
	tags := ownerTags(t.Owner)
	tags[tagClaim], tags[tagTarget] = t.Claim.Name, t.Claim.Namespace
	return tags
}

// bears says whether tags or annotations hold all of what is wanted.
func bears(have, want map[string]string) bool {
	for key, value := range maps.All(want) {
		if have[key] != value {
			return false
		}
	}
	return true
}
