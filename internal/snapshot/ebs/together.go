package ebs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// maxExcluded is how many data volumes of an instance can be left out of CreateSnapshots:
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InstanceSpecification.html
const maxExcluded = 40

// errApart says that the volumes have to be cut one after the other.
var errApart = errors.New("not in one call")

// instance is the one that all volumes are attached to, empty when there is none.
func (k *cutting) instance() string {
	instance := ""
	for i, v := range k.volumes {
		attachments := k.described[v.Handle].Attachments
		if len(attachments) != 1 || attachments[0].State != types.VolumeAttachmentStateAttached {
			return ""
		}
		id := aws.ToString(attachments[0].InstanceId)
		if i > 0 && id != instance {
			return ""
		}
		instance = id
	}
	return instance
}

// CutsTogether implements [snapshot.Together]: volumes on one instance.
func (*Snapshotter) CutsTogether() {}

// together cuts all volumes at one moment, and none of the instance's others.
func (k *cutting) together(ctx context.Context, instance string) (map[string]types.Snapshot, error) {
	exclude, err := k.others(ctx, instance)
	if err != nil {
		return nil, err
	}
	input := k.togetherInput(instance, exclude)
	var made []types.Snapshot
	looks := 0
	err = k.onceOrFound(ctx, createSnapshots, "instance "+instance,
		func(ctx context.Context) error {
			out, err := k.ec2.CreateSnapshots(ctx, input)
			if err == nil {
				made = fromInfo(out.Snapshots, input.TagSpecifications[0].Tags)
				for _, snap := range made {
					k.replied = append(k.replied, aws.ToString(snap.SnapshotId))
				}
			}
			return err
		},
		func(ctx context.Context) (found bool, err error) {
			made, err = k.madeByUs(ctx)
			looks++
			// Fewer: EC2 may not show them all yet, or has left some out.
			return len(made) >= len(k.volumes) || len(made) > 0 && looks%invisible == 0, err
		})
	switch code(err) {
	case codeNoInstance, "IncorrectInstanceState", "InvalidParameterValue", "UnsupportedOperation":
		return nil, fmt.Errorf("%w: %w", errApart, err)
	}
	if err != nil {
		return nil, err
	}
	return k.verify(ctx, instance, made)
}

// togetherInput asks for the snapshots of an instance's volumes but for its boot volume and those excluded.
func (k *cutting) togetherInput(instance string, exclude []string) *ec2.CreateSnapshotsInput {
	tags := k.cutTags(k.name, k.attempt, k.volumes[0])
	tags[tagTogether] = "true"
	return &ec2.CreateSnapshotsInput{
		Description: aws.String("keepset " + k.name),
		InstanceSpecification: &types.InstanceSpecification{
			InstanceId: aws.String(instance), ExcludeBootVolume: aws.Bool(true), ExcludeDataVolumeIds: exclude,
		},
		TagSpecifications: specify(types.ResourceTypeSnapshot, tags),
	}
}

// others are the instance's data volumes that are not ours.
func (k *cutting) others(ctx context.Context, instance string) ([]string, error) {
	var out *ec2.DescribeInstancesOutput
	err := k.call(ctx, listInstances, "instance "+instance, func(ctx context.Context) (err error) {
		out, err = k.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{instance}})
		return err
	})
	if code(err) == codeNoInstance {
		return nil, fmt.Errorf("%w: %w", errApart, err)
	}
	if err != nil {
		return nil, err
	}
	var exclude []string
	for _, reservation := range out.Reservations {
		for _, i := range reservation.Instances {
			for _, m := range i.BlockDeviceMappings {
				// The boot volume must not be among the data volumes that are excluded.
				if m.Ebs == nil || aws.ToString(m.DeviceName) == aws.ToString(i.RootDeviceName) {
					continue
				}
				if id := aws.ToString(m.Ebs.VolumeId); !k.wants(id) {
					exclude = append(exclude, id)
				}
			}
		}
	}
	if len(exclude) > maxExcluded {
		return nil, fmt.Errorf("%w: instance %s has %d other data volumes, of which EC2 can leave out %d", errApart, instance, len(exclude), maxExcluded)
	}
	return exclude, nil
}

func (k *cutting) wants(volume string) bool {
	_, ok := k.described[volume]
	return ok
}

// verify deletes the snapshots of volumes that were attached in between, and
// sees to it that those of ours are all there.
func (k *cutting) verify(ctx context.Context, instance string, made []types.Snapshot) (map[string]types.Snapshot, error) {
	whole := map[string]types.Snapshot{}
	for _, snap := range made {
		if volume := aws.ToString(snap.VolumeId); k.wants(volume) {
			whole[volume] = snap
			continue
		}
		k.log.InfoContext(ctx, "deleting the snapshot of a volume that is not the member's", "snapshot", aws.ToString(snap.SnapshotId), "volume", aws.ToString(snap.VolumeId))
		if err := k.deleteSnapshot(ctx, &k.clients, aws.ToString(snap.SnapshotId)); err != nil {
			return nil, err
		}
	}
	if !k.complete(whole) {
		var missing []string
		for _, v := range k.volumes {
			if _, ok := whole[v.Handle]; !ok {
				missing = append(missing, v.Handle)
			}
		}
		return nil, fmt.Errorf("%w: EC2 left out %s of instance %s", errApart, strings.Join(missing, ", "), instance)
	}
	return whole, k.tag(ctx, whole)
}

// tag gives each snapshot the tags that are its own, all at once: the member stands still.
func (k *cutting) tag(ctx context.Context, whole map[string]types.Snapshot) error {
	var group sync.WaitGroup
	errs := make([]error, len(k.volumes))
	for i, v := range k.volumes {
		snap, ok := whole[v.Handle]
		if !ok || fromTags(snap.Tags)[tagClaim] != "" {
			continue
		}
		group.Go(func() {
			errs[i] = k.createTags(ctx, &k.clients, aws.ToString(snap.SnapshotId), ownTags(v, k.described[v.Handle]))
		})
	}
	group.Wait()
	return errors.Join(slices.DeleteFunc(errs, func(err error) bool { return err == nil })...)
}

// fromInfo is what was made, which bears the tags that were asked for whether the reply repeats them or not.
func fromInfo(infos []types.SnapshotInfo, tags []types.Tag) []types.Snapshot {
	snaps := make([]types.Snapshot, len(infos))
	for i, info := range infos {
		snaps[i] = types.Snapshot{
			SnapshotId: info.SnapshotId, VolumeId: info.VolumeId, VolumeSize: info.VolumeSize,
			StartTime: info.StartTime, Encrypted: info.Encrypted, State: info.State, Tags: tags,
		}
	}
	return snaps
}
