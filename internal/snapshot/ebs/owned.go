package ebs

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"keepset/internal/record"
	"keepset/internal/snapshot"
)

// Delete implements [snapshot.Snapshotter]. It deletes the copies in other regions first.
func (s *Snapshotter) Delete(ctx context.Context, owner snapshot.Owner, r snapshot.Ref) error {
	if err := isEBS(r); err != nil {
		return err
	}
	for _, c := range r.Copies {
		if err := s.delete(ctx, owner, c.Region, c.ID); err != nil {
			return fmt.Errorf("delete the copy of snapshot %s: %w", r.ID, err)
		}
	}
	if err := s.deleteUnknownCopies(ctx, owner, r); err != nil {
		return fmt.Errorf("delete the copies of snapshot %s: %w", r.ID, err)
	}
	if err := s.delete(ctx, owner, r.Region, r.ID); err != nil {
		return fmt.Errorf("delete snapshot %s: %w", r.ID, err)
	}
	return nil
}

// deleteUnknownCopies deletes copies that were begun and that r does not know of,
// since the reply to that was lost, or nobody waited for it.
func (s *Snapshotter) deleteUnknownCopies(ctx context.Context, owner snapshot.Owner, r snapshot.Ref) error {
	tags := ownerTags(owner)
	tags[tagCopyOf] = r.ID
	for _, region := range s.options.Copies {
		if region == r.Region {
			continue
		}
		c, err := s.in(region)
		if err != nil {
			return err
		}
		var found []string
		for snap, err := range s.snapshots(ctx, c, "copies of snapshot "+r.ID, tags) {
			if err != nil {
				return err
			}
			found = append(found, aws.ToString(snap.SnapshotId))
		}
		for _, id := range found {
			if err := s.deleteSnapshot(ctx, c, id); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Snapshotter) delete(ctx context.Context, owner snapshot.Owner, region, id string) error {
	c, err := s.in(region)
	if err != nil {
		return err
	}
	snap, err := s.snapshotByID(ctx, c, id)
	// What was made a moment ago may not be seen yet.
	for look := 1; err == nil && snap == nil && look < invisible; look++ {
		if err = s.sleep(ctx, s.patience.Poll); err == nil {
			snap, err = s.snapshotByID(ctx, c, id)
		}
	}
	if err != nil || snap == nil {
		return err
	}
	if tags := fromTags(snap.Tags); !owned(tags, owner) {
		return fmt.Errorf("its tags do not say that it is of set %s in cluster %s: %w", owner.Set, owner.Cluster, snapshot.ErrDenied)
	}
	return s.deleteSnapshot(ctx, c, id)
}

// List implements [snapshot.Snapshotter]. It yields snapshots in all states, those
// of cuts that were not completed too, in the home region and those of Options.Copies.
func (s *Snapshotter) List(ctx context.Context, owner snapshot.Owner) iter.Seq2[snapshot.Ref, error] {
	return s.list(ctx, owner, s.regions())
}

func (s *Snapshotter) list(ctx context.Context, owner snapshot.Owner, regions []string) iter.Seq2[snapshot.Ref, error] {
	return func(yield func(snapshot.Ref, error) bool) {
		if len(regions) == 0 {
			_, err := s.in("")
			yield(snapshot.Ref{}, fmt.Errorf("list the snapshots of set %s: %w", owner.Set, err))
			return
		}
		if owner.Cluster == "" {
			yield(snapshot.Ref{}, errors.New("list snapshots: the owner's cluster is missing"))
			return
		}
		for _, region := range regions {
			if !s.listRegion(ctx, region, owner, yield) {
				return
			}
		}
	}
}

func (s *Snapshotter) listRegion(ctx context.Context, region string, owner snapshot.Owner, yield func(snapshot.Ref, error) bool) bool {
	c, err := s.in(region)
	if err != nil {
		return yield(snapshot.Ref{}, err)
	}
	for snap, err := range s.snapshots(ctx, c, "snapshots of set "+owner.Set.String(), ownerTags(owner)) {
		if err != nil {
			yield(snapshot.Ref{}, err)
			return false
		}
		if !yield(refOf(snap, region), nil) {
			return false
		}
	}
	return true
}

// refOf is what the snapshot itself says; the record knows more.
func refOf(snap types.Snapshot, region string) snapshot.Ref {
	tags := fromTags(snap.Tags)
	return snapshot.Ref{
		Provider: record.ProviderEBS, ID: aws.ToString(snap.SnapshotId), Cut: tags[tagName], Region: region,
		Claim: tags[tagClaim], Volume: aws.ToString(snap.VolumeId), Size: int64(aws.ToInt32(snap.VolumeSize)) * gib,
		Encrypted: aws.ToBool(snap.Encrypted), KMSKey: aws.ToString(snap.KmsKeyId), CutAt: aws.ToTime(snap.StartTime).UTC(),
	}
}
