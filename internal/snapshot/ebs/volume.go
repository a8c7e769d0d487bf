package ebs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	corev1 "k8s.io/api/core/v1"

	"keepset/internal/snapshot"
)

// errVanished says that a volume that EC2 had made is no longer there.
var errVanished = errors.New("the volume has vanished")

// prepare makes the volume and its PersistentVolume, or takes over those that
// this restore has made before; what other restores have left half made goes.
func (p *provisioning) prepare(ctx context.Context) (*corev1.PersistentVolume, error) {
	plan, err := p.fit(ctx, p.ref, p.target)
	if err != nil {
		return nil, err
	}
	c, err := p.in(plan.region)
	if err != nil {
		return nil, err
	}
	snap, err := p.source(ctx, c, plan)
	if err != nil {
		return nil, err
	}
	kept, err := p.sweep(ctx, c, p.target, func(v types.Volume) bool { return p.adoptable(v, plan) })
	if err != nil {
		return nil, err
	}
	var volume types.Volume
	if kept != nil {
		volume, err = p.available(ctx, c, aws.ToString(kept.VolumeId))
	}
	if kept == nil || errors.Is(err, errVanished) {
		volume, err = p.make(ctx, c, plan, snap)
	}
	if err != nil {
		return nil, err
	}
	return p.present(ctx, plan, volume)
}

// source is the snapshot, which must be ready.
func (p *provisioning) source(ctx context.Context, c *clients, plan plan) (*types.Snapshot, error) {
	snap, err := p.snapshotByID(ctx, c, plan.snapshot)
	if err != nil {
		return nil, err
	}
	if snap == nil {
		return nil, fmt.Errorf("snapshot %s of claim %s does not exist in region %s: restore from another backup, or from the repository: %w", plan.snapshot, p.ref.Claim, c.region, snapshot.ErrNotFound)
	}
	ok, err := ready(snap)
	if err == nil && !ok {
		err = fmt.Errorf("it is %s (%s), wait until it is completed: %w", snap.State, aws.ToString(snap.Progress), snapshot.ErrFailed)
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", plan.snapshot, err)
	}
	return snap, nil
}

// adoptable says whether a volume is the one that would be made now.
func (p *provisioning) adoptable(v types.Volume, plan plan) bool {
	tags := fromTags(v.Tags)
	return bears(tags, p.identity()) && aws.ToString(v.AvailabilityZone) == plan.zone && v.VolumeType == plan.volumeType &&
		int64(aws.ToInt32(v.Size)) == plan.size && (v.State == types.VolumeStateCreating || v.State == types.VolumeStateAvailable)
}

// make makes the volume. When it vanishes the token it was made with is spent: EC2
// answers it with the same volume for as long as it remembers
// (https://github.com/kubernetes-sigs/aws-ebs-csi-driver/issues/3010).
func (p *provisioning) make(ctx context.Context, c *clients, plan plan, snap *types.Snapshot) (types.Volume, error) {
	for _, token := range []string{p.token(plan), newAttempt()} {
		id, err := p.create(ctx, c, plan, snap, token)
		if code(err) == codeMismatch {
			continue
		}
		if err != nil {
			return types.Volume{}, err
		}
		// An earlier attempt of this restore has got as far as a claim, which starts over.
		used, err := p.used(ctx, id)
		if err != nil {
			return types.Volume{}, err
		}
		if used {
			continue
		}
		volume, err := p.available(ctx, c, id)
		if !errors.Is(err, errVanished) {
			return volume, err
		}
		p.log.WarnContext(ctx, "the new volume has vanished, making another", "volume", id, "claim", p.String())
	}
	return types.Volume{}, fmt.Errorf("EC2 made a volume of snapshot %s and took it back: this account or role may not use the KMS key %s: allow kms:CreateGrant, kms:Decrypt, kms:DescribeKey, kms:GenerateDataKeyWithoutPlaintext and kms:ReEncrypt* on it: %w",
		plan.snapshot, or(or(plan.kmsKey, p.ref.KMSKey), "of the snapshot"), snapshot.ErrFailed)
}

// used: a claim was bound to the volume.
func (p *provisioning) used(ctx context.Context, id string) (bool, error) {
	pvs, err := p.persistentVolumes(ctx)
	return taken(pvs, id), err
}

// token is the same for the same volume, so that a call whose reply was lost makes no second one.
func (p *provisioning) token(plan plan) string {
	id := p.identity()
	return digest(id[tagCluster], id[tagNamespace], id[tagSet], id[tagOrdinal], id[tagTarget], id[tagClaim], id[tagRun],
		plan.region, plan.snapshot, plan.zone, string(plan.volumeType), plan.kmsKey,
		fmt.Sprint(plan.size, plan.iopsFor(plan.size), plan.throughput, plan.encrypted, plan.rate))
}

func (p *provisioning) create(ctx context.Context, c *clients, plan plan, snap *types.Snapshot, token string) (string, error) {
	input := &ec2.CreateVolumeInput{
		AvailabilityZone: aws.String(plan.zone), SnapshotId: aws.String(plan.snapshot), Size: aws.Int32(int32(plan.size)),
		VolumeType: plan.volumeType, ClientToken: aws.String(token),
		TagSpecifications: specify(types.ResourceTypeVolume, p.tags(plan, snap)),
	}
	if iops := plan.iopsFor(plan.size); iops > 0 {
		input.Iops = aws.Int32(int32(iops))
	}
	if plan.throughput > 0 {
		input.Throughput = aws.Int32(int32(plan.throughput))
	}
	if plan.encrypted || plan.kmsKey != "" {
		input.Encrypted = aws.Bool(true)
	}
	if plan.kmsKey != "" {
		input.KmsKeyId = aws.String(plan.kmsKey)
	}
	if rate := max(plan.rate, int64(p.options.InitializationRate)); rate > 0 {
		input.VolumeInitializationRate = aws.Int32(int32(rate))
	}
	var id string
	err := p.call(ctx, createVolume, fmt.Sprintf("a volume of snapshot %s in zone %s", plan.snapshot, plan.zone), func(ctx context.Context) error {
		out, err := c.ec2.CreateVolume(ctx, input)
		if err == nil {
			id = aws.ToString(out.VolumeId)
		}
		return err
	})
	return id, err
}

// tags are the user's, those of the volume that was cut (by which the driver's own
// rights to attach and delete may be bound), the driver's for this claim, and ours.
func (p *provisioning) tags(plan plan, snap *types.Snapshot) map[string]string {
	tags := map[string]string{}
	for key, value := range fromTags(snap.Tags) {
		if !reserved(key) && !perVolume(key) {
			tags[key] = value
		}
	}
	maps.Copy(tags, plan.parameters.tags)
	maps.Copy(tags, p.options.Tags)
	if plan.driver == driverCSI {
		// AmazonEBSCSIDriverPolicy lets the driver delete only what bears this.
		tags["ebs.csi.aws.com/cluster"] = "true"
	}
	tags["kubernetes.io/created-for/pvc/namespace"] = p.target.Claim.Namespace
	tags["kubernetes.io/created-for/pvc/name"] = p.target.Claim.Name
	maps.Copy(tags, p.identity())
	tags[tagUnbound] = "true"
	return tags
}

// available waits until a volume is. What EC2 does not show for some looks has vanished.
func (p *provisioning) available(ctx context.Context, c *clients, id string) (types.Volume, error) {
	var volume types.Volume
	unseen, deadline := 0, p.clock.Now().Add(p.patience.Call)
	err := p.until(ctx, func(ctx context.Context) (bool, error) {
		found, err := p.volumesByID(ctx, c, []string{id})
		if err != nil {
			return false, err
		}
		v, ok := found[id]
		switch {
		case !ok:
			if unseen++; unseen >= invisible {
				return false, errVanished
			}
			return false, nil
		case gone(v):
			return false, errVanished
		case v.State == types.VolumeStateAvailable:
			volume = v
			return true, nil
		case v.State == types.VolumeStateError:
			return false, fmt.Errorf("volume %s: AWS gave it up, check the KMS key and the rights on it: %w", id, snapshot.ErrFailed)
		case v.State == types.VolumeStateInUse:
			return false, fmt.Errorf("volume %s is attached to an instance already: %w", id, snapshot.ErrInUse)
		case p.clock.Now().After(deadline):
			return false, fmt.Errorf("volume %s is still %s after %s: %w", id, v.State, p.patience.Call, snapshot.ErrUnreachable)
		}
		return false, nil
	})
	return volume, err
}

// volumesFor finds the volumes that we made for a claim and that none was bound to yet.
func (s *Snapshotter) volumesFor(ctx context.Context, c *clients, t snapshot.Target) ([]types.Volume, error) {
	tags := targetTags(t)
	tags[tagUnbound] = "true"
	object := fmt.Sprintf("volumes for claim %s/%s", t.Claim.Namespace, t.Claim.Name)
	found, err := s.describeVolumes(ctx, c, object, filters(tags))
	if err != nil {
		return nil, err
	}
	var standing []types.Volume
	for _, v := range found {
		if !gone(v) && strings.HasPrefix(aws.ToString(v.VolumeId), "vol-") {
			standing = append(standing, v)
		}
	}
	return standing, nil
}
