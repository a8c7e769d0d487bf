package ebs

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"keepset/internal/snapshot"
)

// WaitReady implements [snapshot.Snapshotter].
func (s *Snapshotter) WaitReady(ctx context.Context, r snapshot.Ref) error {
	if err := isEBS(r); err != nil {
		return err
	}
	r = s.here(r)
	c, err := s.in(r.Region)
	if err != nil {
		return fmt.Errorf("wait for snapshot %s: %w", r.ID, err)
	}
	progress, unseen := "", 0
	err = s.until(ctx, func(ctx context.Context) (bool, error) {
		snap, err := s.snapshotByID(ctx, c, r.ID)
		if err != nil {
			return false, err
		}
		if snap == nil {
			if unseen++; unseen < invisible {
				return false, nil
			}
			return false, fmt.Errorf("snapshot %s of claim %s does not exist in region %s: %w", r.ID, r.Claim, c.region, snapshot.ErrNotFound)
		}
		unseen = 0
		if p := aws.ToString(snap.Progress); p != progress {
			progress = p
			s.log.InfoContext(ctx, "snapshot in progress", "snapshot", r.ID, "claim", r.Claim, "progress", p, "state", snap.State)
		}
		return ready(snap)
	})
	if err != nil {
		return fmt.Errorf("wait for snapshot %s: %w", r.ID, err)
	}
	return nil
}

// here is the snapshot, or where the home region is another one and has a copy, the copy.
func (s *Snapshotter) here(r snapshot.Ref) snapshot.Ref {
	s.mu.Lock()
	home := s.region
	s.mu.Unlock()
	for _, c := range r.Copies {
		if c.Region == home && home != r.Region {
			r.Region, r.ID = c.Region, c.ID
		}
	}
	return r
}

// ready says whether volumes can be made of the snapshot, or why they never can.
func ready(snap *types.Snapshot) (bool, error) {
	switch snap.State {
	case types.SnapshotStateCompleted:
		return true, nil
	case types.SnapshotStateError:
		return false, fmt.Errorf("AWS gave it up: %w: %s", snapshot.ErrFailed, or(aws.ToString(snap.StateMessage), "without a reason"))
	case types.SnapshotStateRecoverable, types.SnapshotStateRecovering:
		return false, fmt.Errorf("it was deleted and is in the Recycle Bin, take it out first: %w", snapshot.ErrNotFound)
	default:
		return false, nil
	}
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
