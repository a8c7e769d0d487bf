package statefulset

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Claims are the claims that the seed fills, as the controller would make them.
func (s *Seed) Claims() []*corev1.PersistentVolumeClaim {
	claims := make([]*corev1.PersistentVolumeClaim, 0, len(s.spec.ClaimTemplates))
	for _, t := range s.spec.ClaimTemplates {
		claims = append(claims, s.newClaim(t))
	}
	return claims
}

// makeFilledClaims makes claims that come with their content, and then lets
// the seed pod be scheduled. The controller, which cannot make the pod, may
// make an empty claim first; no pod has run on that one, so it is taken away.
func (s *Seed) makeFilledClaims(ctx context.Context) error {
	for _, template := range s.spec.ClaimTemplates {
		if err := s.makeFilledClaim(ctx, template); err != nil {
			return err
		}
	}
	if err := s.makeClaims(ctx); err != nil { // those that the seed does not fill, and the marks
		return err
	}
	return s.ungate(ctx)
}

func (s *Seed) makeFilledClaim(ctx context.Context, template string) error {
	const rounds = 5
	var err error
	for range rounds {
		if err = s.fence(ctx); err != nil {
			return err
		}
		claim := s.newClaim(template)
		err = s.spec.MakeClaim(ctx, claim)
		if !errors.Is(err, ErrClaimInUse) {
			break
		}
		s.client.log.Info("a claim was made by the set's controller first, and is taken away: no pod has run on it", "claim", claim.Name)
		if err := s.removeClaim(ctx, claim.Name); err != nil {
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", s.client.ref("claim", claimName(template, s.set.Name, s.spec.Ordinal)), err)
	}
	return nil
}

// removeClaim deletes a claim of the ordinal, whose name the seed holds.
func (s *Seed) removeClaim(ctx context.Context, name string) error {
	claim, err := s.client.getClaim(ctx, name)
	if err != nil || claim == nil {
		return err
	}
	if err := s.client.holdAndDelete(ctx, claim); err != nil {
		return err
	}
	return s.dropClaim(ctx, name, claim)
}

// ungate lets the seed pod be scheduled.
func (s *Seed) ungate(ctx context.Context) error {
	pod, err := s.own(ctx)
	if err != nil {
		return err
	}
	gates := slices.DeleteFunc(slices.Clone(pod.Spec.SchedulingGates), func(g corev1.PodSchedulingGate) bool { return g.Name == schedulingGate })
	if len(gates) == len(pod.Spec.SchedulingGates) {
		return nil
	}
	return s.client.patchPod(ctx, pod.Name, map[string]any{"spec": map[string]any{"schedulingGates": gates}})
}
