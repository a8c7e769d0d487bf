package ebs

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"

	"keepset/internal/snapshot"
)

// CheckRights implements [snapshot.RightsChecker]. It asks AWS, for located volumes of one member, whether it would let us cut them, and
// does nothing. ErrDenied names every action that is missing. What it cannot ask is whether we may
// delete: that needs a snapshot that is there.
func (s *Snapshotter) CheckRights(ctx context.Context, volumes []snapshot.Volume) error {
	const name = "dry-run"
	if err := checkCut(name, volumes); err != nil {
		return err
	}
	c, err := s.in(regionOf(volumes[0].Zone))
	if err != nil {
		return err
	}
	k := &cutting{Snapshotter: s, clients: *c, name: name, attempt: name, volumes: volumes}
	if k.described, err = k.describeLocated(ctx, volumes); err != nil {
		return fmt.Errorf("check the rights to cut: %w", err)
	}
	_, looked := k.ofCut(ctx, c, volumes[0], name, nil)
	errs := []error{looked}
	for _, v := range volumes {
		errs = append(errs, s.ask(ctx, createSnapshot, "volume "+v.Handle, func(ctx context.Context) error {
			input := k.oneInput(v)
			input.DryRun = aws.Bool(true)
			_, err := k.ec2.CreateSnapshot(ctx, input)
			return err
		}))
	}
	if instance := k.instance(); instance != "" && len(volumes) > 1 {
		errs = append(errs, k.askTogether(ctx, instance))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("check the rights to cut: %w", err)
	}
	return nil
}

func (k *cutting) askTogether(ctx context.Context, instance string) error {
	exclude, err := k.others(ctx, instance)
	if errors.Is(err, errApart) {
		return nil
	}
	if err != nil {
		return err
	}
	return k.ask(ctx, createSnapshots, "instance "+instance, func(ctx context.Context) error {
		input := k.togetherInput(instance, exclude)
		input.DryRun = aws.Bool(true)
		_, err := k.ec2.CreateSnapshots(ctx, input)
		return err
	})
}

// ask makes a call that AWS answers with an error whatever it thinks of it.
func (s *Snapshotter) ask(ctx context.Context, a action, object string, do func(context.Context) error) error {
	return s.call(ctx, a, object, func(ctx context.Context) error {
		if err := do(ctx); code(err) != codeDryRun {
			return err
		}
		return nil
	})
}
