package ebs

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"keepset/internal/record"
	"keepset/internal/snapshot"
)

var _ snapshot.Copier = (*Snapshotter)(nil)

// Copy implements [snapshot.Copier].
func (s *Snapshotter) Copy(ctx context.Context, r snapshot.Ref, owner snapshot.Owner, region string) (snapshot.Ref, error) {
	copied, err := s.copy(ctx, r, owner, region)
	if err != nil {
		return r, fmt.Errorf("copy snapshot %s to region %s: %w", r.ID, region, err)
	}
	r.Copies = slices.DeleteFunc(slices.Clone(r.Copies), func(c record.SnapshotCopy) bool { return c.Region == region })
	r.Copies = append(r.Copies, copied)
	return r, nil
}

// Near implements [snapshot.Copier].
func (s *Snapshotter) Near(r snapshot.Ref, zone string) (snapshot.Ref, error) {
	_, id, err := s.sourceIn(r, regionOf(zone))
	if err != nil {
		return r, err
	}
	for _, one := range r.Whole() {
		if one.ID == id && id != r.ID {
			return one, nil
		}
	}
	return r, nil
}

// ListIn implements [snapshot.Copier].
func (s *Snapshotter) ListIn(ctx context.Context, owner snapshot.Owner, region string) iter.Seq2[snapshot.Ref, error] {
	return s.list(ctx, owner, []string{region})
}

func (s *Snapshotter) copy(ctx context.Context, r snapshot.Ref, owner snapshot.Owner, region string) (record.SnapshotCopy, error) {
	if err := isEBS(r); err != nil {
		return record.SnapshotCopy{}, err
	}
	unlock, err := s.lock(ctx, "copy "+region+" "+r.ID)
	if err != nil {
		return record.SnapshotCopy{}, err
	}
	defer unlock()
	from, err := s.in(r.Region)
	if err != nil {
		return record.SnapshotCopy{}, err
	}
	to, err := s.in(region)
	if err != nil {
		return record.SnapshotCopy{}, err
	}
	if from.region == to.region {
		return record.SnapshotCopy{}, fmt.Errorf("it is there already: %w", snapshot.ErrUnsupported)
	}
	source, err := s.snapshotByID(ctx, from, r.ID)
	if err != nil {
		return record.SnapshotCopy{}, err
	}
	if source == nil {
		return record.SnapshotCopy{}, fmt.Errorf("it does not exist in region %s: %w", from.region, snapshot.ErrNotFound)
	}
	if !owned(fromTags(source.Tags), owner) {
		return record.SnapshotCopy{}, fmt.Errorf("its tags do not say that it is of set %s in cluster %s: %w", owner.Set, owner.Cluster, snapshot.ErrDenied)
	}
	return s.copyOnce(ctx, from, to, *source, owner)
}

// copyOnce begins the copy unless there is one. CopySnapshot has no client
// token, so that after a lost reply it looks before it asks again.
func (s *Snapshotter) copyOnce(ctx context.Context, from, to *clients, source types.Snapshot, owner snapshot.Owner) (record.SnapshotCopy, error) {
	if found, err := s.copyOf(ctx, to, source, owner); err != nil || found.ID != "" {
		return found, err
	}
	var made record.SnapshotCopy
	input := s.copyInput(from, source)
	err := s.onceOrFound(ctx, copySnapshot, "snapshot "+aws.ToString(source.SnapshotId),
		func(ctx context.Context) error {
			out, err := to.ec2.CopySnapshot(ctx, input)
			if err == nil {
				made = record.SnapshotCopy{Region: to.region, ID: aws.ToString(out.SnapshotId), KMSKey: s.options.KMSKey}
			}
			return err
		},
		func(ctx context.Context) (found bool, err error) {
			made, err = s.copyOf(ctx, to, source, owner)
			return made.ID != "", err
		})
	return made, err
}

func (s *Snapshotter) copyInput(from *clients, source types.Snapshot) *ec2.CopySnapshotInput {
	tags := maps.Clone(s.options.Tags)
	if tags == nil {
		tags = map[string]string{}
	}
	for key, value := range fromTags(source.Tags) {
		if !strings.HasPrefix(key, "aws:") {
			tags[key] = value
		}
	}
	tags[tagCopyOf] = aws.ToString(source.SnapshotId)
	input := &ec2.CopySnapshotInput{
		SourceRegion: aws.String(from.region), SourceSnapshotId: source.SnapshotId, Description: source.Description,
		TagSpecifications: specify(types.ResourceTypeSnapshot, tags),
	}
	if s.options.KMSKey != "" {
		input.Encrypted, input.KmsKeyId = aws.Bool(true), aws.String(s.options.KMSKey)
	}
	return input
}

// copyOf finds the copy of a snapshot in a region; those that failed, and a second one, are deleted.
func (s *Snapshotter) copyOf(ctx context.Context, c *clients, source types.Snapshot, owner snapshot.Owner) (record.SnapshotCopy, error) {
	tags := ownerTags(owner)
	tags[tagCopyOf] = aws.ToString(source.SnapshotId)
	var found record.SnapshotCopy
	var rest []string
	for snap, err := range s.snapshots(ctx, c, "copies of snapshot "+tags[tagCopyOf], tags) {
		switch {
		case err != nil:
			return found, err
		case snap.State == types.SnapshotStateError || found.ID != "":
			rest = append(rest, aws.ToString(snap.SnapshotId))
		default:
			found = record.SnapshotCopy{Region: c.region, ID: aws.ToString(snap.SnapshotId), KMSKey: s.options.KMSKey}
		}
	}
	for _, id := range rest {
		if err := s.deleteSnapshot(ctx, c, id); err != nil {
			return found, err
		}
	}
	return found, nil
}
