package ebs

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// action is one of AWS's, by the name that IAM knows it under.
type action struct {
	name string
	// once: it has no client token. After a reply that was lost somebody must
	// look for what it has done before it is repeated.
	once bool
}

var (
	createSnapshot   = action{name: "ec2:CreateSnapshot", once: true}
	createSnapshots  = action{name: "ec2:CreateSnapshots", once: true}
	copySnapshot     = action{name: "ec2:CopySnapshot", once: true}
	deleteSnapshot   = action{name: "ec2:DeleteSnapshot"}
	listSnapshots    = action{name: "ec2:DescribeSnapshots"}
	listVolumes      = action{name: "ec2:DescribeVolumes"}
	listInstances    = action{name: "ec2:DescribeInstances"}
	createVolume     = action{name: "ec2:CreateVolume"}
	deleteVolume     = action{name: "ec2:DeleteVolume"}
	createTags       = action{name: "ec2:CreateTags"}
	deleteTags       = action{name: "ec2:DeleteTags"}
	listBlocks       = action{name: "ebs:ListSnapshotBlocks"}
	listChanged      = action{name: "ebs:ListChangedBlocks"}
	getBlock         = action{name: "ebs:GetSnapshotBlock"}
	startSnapshot    = action{name: "ebs:StartSnapshot"}
	putBlock         = action{name: "ebs:PutSnapshotBlock"}
	completeSnapshot = action{name: "ebs:CompleteSnapshot"}
)

// maxPause is the longest pause between two attempts.
const maxPause = 15 * time.Second

// call performs an action, again and again where that may help, for no longer
// than Patience.Call. What it returns says which action failed on which
// object, and wraps one of package snapshot's sentinels.
func (s *Snapshotter) call(ctx context.Context, a action, object string, do func(context.Context) error) error {
	deadline := s.clock.Now().Add(s.patience.Call)
	for attempt := 0; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s of %s: %w", a.name, object, err)
		}
		err := try(ctx, do)
		if err == nil {
			return nil
		}
		if ended := ctx.Err(); ended != nil {
			return fmt.Errorf("%s of %s: %w", a.name, object, ended)
		}
		k := classify(err)
		pause := s.pause(attempt)
		late := s.clock.Now().Add(pause).After(deadline)
		if !k.again || a.once && k.unknown || late {
			return a.describe(object, k, err)
		}
		s.log.DebugContext(ctx, "asking AWS again", "action", a.name, "object", object, "attempt", attempt+1, "pause", pause, "error", err)
		if err := s.sleep(ctx, pause); err != nil {
			return fmt.Errorf("%s of %s: %w", a.name, object, err)
		}
	}
}

// invisible is for how many looks something that was just made may not be seen.
// EC2 is eventually consistent: https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
const invisible = 3

// onceOrFound performs an action that has no client token. When its reply was
// lost, found looks for what it may have done, and only if that is nothing is it repeated.
func (s *Snapshotter) onceOrFound(ctx context.Context, a action, object string, do func(context.Context) error, found func(context.Context) (bool, error)) error {
	deadline := s.clock.Now().Add(s.patience.Call)
	for {
		err := s.call(ctx, a, object, do)
		if err == nil || !lost(err) || s.clock.Now().After(deadline) {
			return err
		}
		for range invisible {
			if err := s.sleep(ctx, s.patience.Poll); err != nil {
				return err
			}
			if ok, err := found(ctx); ok || err != nil {
				return err
			}
		}
	}
}

func try(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	return do(ctx)
}

// pause grows from a tenth of Poll, with jitter: all members of a set are
// throttled at the same time, and shall not come back at the same time.
func (s *Snapshotter) pause(attempt int) time.Duration {
	limit := min(s.patience.Poll/10<<min(attempt, 16), maxPause)
	return limit/2 + rand.N(limit/2+1)
}
