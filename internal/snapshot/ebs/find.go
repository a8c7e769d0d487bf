package ebs

import (
	"context"
	"iter"
	"maps"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"keepset/internal/snapshot"
)

// pageSize is how many snapshots one reply may hold; without it EC2 sends all,
// and is slow to.
const pageSize = 500

// snapshots yields our account's snapshots that bear the tags, in whatever state.
func (s *Snapshotter) snapshots(ctx context.Context, c *clients, object string, tags map[string]string) iter.Seq2[types.Snapshot, error] {
	return func(yield func(types.Snapshot, error) bool) {
		input := &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}, Filters: filters(tags), MaxResults: aws.Int32(pageSize)}
		for {
			var page *ec2.DescribeSnapshotsOutput
			err := s.call(ctx, listSnapshots, object, func(ctx context.Context) (err error) {
				page, err = c.ec2.DescribeSnapshots(ctx, input)
				return err
			})
			if err != nil {
				yield(types.Snapshot{}, err)
				return
			}
			for _, found := range page.Snapshots {
				if !yield(found, nil) {
					return
				}
			}
			if aws.ToString(page.NextToken) == "" {
				return
			}
			input.NextToken = page.NextToken
		}
	}
}

// ofCut finds what bears a cut's name, copies apart.
func (s *Snapshotter) ofCut(ctx context.Context, c *clients, v snapshot.Volume, name string, more map[string]string) ([]types.Snapshot, error) {
	tags := ownerTags(v.Owner)
	tags[tagName], tags[tagOrdinal] = name, strconv.Itoa(v.Ordinal)
	maps.Copy(tags, more)
	var found []types.Snapshot
	for snap, err := range s.snapshots(ctx, c, "snapshots named "+name, tags) {
		if err != nil {
			return nil, err
		}
		if fromTags(snap.Tags)[tagCopyOf] == "" {
			found = append(found, snap)
		}
	}
	return found, nil
}

// snapshotByID returns nil when there is none, or it is in no state to be used.
func (s *Snapshotter) snapshotByID(ctx context.Context, c *clients, id string) (*types.Snapshot, error) {
	var page *ec2.DescribeSnapshotsOutput
	err := s.call(ctx, listSnapshots, "snapshot "+id, func(ctx context.Context) (err error) {
		page, err = c.ec2.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}})
		if code(err) == codeNoSnapshot {
			page, err = &ec2.DescribeSnapshotsOutput{}, nil
		}
		return err
	})
	if err != nil || len(page.Snapshots) == 0 {
		return nil, err
	}
	return &page.Snapshots[0], nil
}

// deleteSnapshot deletes one; absent is deleted.
func (s *Snapshotter) deleteSnapshot(ctx context.Context, c *clients, id string) error {
	return s.call(ctx, deleteSnapshot, "snapshot "+id, func(ctx context.Context) error {
		_, err := c.ec2.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: aws.String(id)})
		if code(err) == codeNoSnapshot {
			return nil
		}
		return err
	})
}

func (s *Snapshotter) createTags(ctx context.Context, c *clients, id string, tags map[string]string) error {
	return s.call(ctx, createTags, id, func(ctx context.Context) error {
		_, err := c.ec2.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{id}, Tags: toTags(tags)})
		return err
	})
}
