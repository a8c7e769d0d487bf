package statefulset

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// controllerGrace is how long the set's controller is given to make a claim
// itself before we make it as it would.
const controllerGrace = 10 * time.Second

// errNameTaken: the controller's pod was quicker than the seed.
var errNameTaken = errors.New("the ordinal's name is taken")

// Place puts the seed pod in the ordinal's place, on fresh claims. Whatever
// was there is removed in an order that leaves the controller no gap: the
// claims are deleted but held Terminating, which keeps it from creating the
// pod; then the pod goes; then the seed takes its name; then the claims go and
// are made anew. A second call starts over, unless the ordinal is loaded.
func (s *Seed) Place(ctx context.Context) error {
	status, err := s.Inspect(ctx)
	if err != nil {
		return err
	}
	if status.State == SeedLoaded || status.State == SeedReleased {
		return fmt.Errorf("ordinal %d of %s is %s already: %s", s.spec.Ordinal, s.client.ref("statefulset", s.set.Name), status.State, status.Text)
	}
	if err := s.consent(status); err != nil {
		return err
	}
	return s.place(ctx)
}

// PlaceAnew is Place for an ordinal that another run has loaded with another
// backup: that load is given up.
func (s *Seed) PlaceAnew(ctx context.Context) error { return s.place(ctx) }

func (s *Seed) place(ctx context.Context) error {
	if err := s.checkServices(ctx); err != nil {
		return err
	}
	if err := s.tryPod(ctx); err != nil {
		return err
	}
	// The controller may recreate a pod that had no claims left to hold it up;
	// its claims are then seconds old, and the next round takes them away too.
	const rounds = 5
	var err error
	for range rounds {
		if err = s.clear(ctx); err != nil {
			return err
		}
		if err = s.takeName(ctx); err == nil {
			err = s.checkFresh(ctx)
		}
		if !errors.Is(err, errNameTaken) {
			break
		}
	}
	if err != nil {
		return err
	}
	if s.spec.MakeClaim != nil {
		if err := s.keepVolumes(ctx); err != nil {
			return err
		}
	}
	if err := s.dropClaims(ctx); err != nil {
		return err
	}
	if s.spec.MakeClaim != nil {
		return s.makeFilledClaims(ctx)
	}
	return s.makeClaims(ctx)
}

// tryPod asks the API server whether it would take the seed pod, while the
// replica and its claims still stand: a typo in the patch, pod security or another
// policy would be noticed only when they are gone. That the name is taken is
// asked last; and a quota counts the pod that goes.
func (s *Seed) tryPod(ctx context.Context) error {
	_, err := s.client.kube.CoreV1().Pods(s.client.namespace).Create(ctx, s.pod, metav1.CreateOptions{FieldManager: fieldManager, DryRun: []string{metav1.DryRunAll}})
	if err == nil || apierrors.IsAlreadyExists(err) || apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota") {
		return nil
	}
	return explain(err, "the cluster would not take the "+s.client.ref("seed pod", s.pod.Name)+", and nothing was touched")
}

// clear deletes the claims under our finalizer, then the pod.
func (s *Seed) clear(ctx context.Context) error {
	now, err := s.look(ctx)
	if err != nil {
		return err
	}
	for _, claim := range now.claims {
		if err := s.fence(ctx); err != nil {
			return err
		}
		if err := s.client.holdAndDelete(ctx, claim); err != nil {
			return err
		}
	}
	if now.pod == nil {
		return nil
	}
	if err := s.fence(ctx); err != nil {
		return err
	}
	return s.client.removePod(ctx, now.pod, s.spec.ForcePod, s.spec.StartTimeout)
}

// removePod deletes exactly this pod, lets go of its name if it is a seed of
// ours, and waits until it is gone.
func (c *Client) removePod(ctx context.Context, pod *corev1.Pod, force bool, timeout time.Duration) error {
	o := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}
	if force {
		now := int64(0)
		o.GracePeriodSeconds = &now
	}
	err := c.kube.CoreV1().Pods(c.namespace).Delete(ctx, pod.Name, o)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return explain(err, "delete "+c.ref("pod", pod.Name))
	}
	if err := c.dropPodFinalizer(ctx, pod); err != nil {
		return err
	}
	err = c.until(ctx, timeout, func(ctx context.Context) (bool, error) {
		now, err := c.getPod(ctx, pod.Name)
		return now == nil || now.UID != pod.UID, err
	})
	return describeTimeout(err, timeout, c.ref("pod", pod.Name)+" on node "+pod.Spec.NodeName+
		" does not go; if that node is dead, remove the node or give --force-pod")
}

// takeName creates the seed pod. errNameTaken when the name is not free.
func (s *Seed) takeName(ctx context.Context) error {
	if err := s.fence(ctx); err != nil {
		return err
	}
	created, err := s.client.kube.CoreV1().Pods(s.client.namespace).Create(ctx, s.pod, metav1.CreateOptions{FieldManager: fieldManager})
	if apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create %s: %w", s.client.ref("seed pod", s.pod.Name), errNameTaken)
	}
	if err != nil {
		return explain(err, "create "+s.client.ref("seed pod", s.pod.Name))
	}
	s.client.log.Info("seed pod created", "pod", created.Name, "container", s.at.container)
	return nil
}

// checkFresh makes sure, now that the name is ours, that no claim has come into
// being on which the controller's pod may have run meanwhile.
func (s *Seed) checkFresh(ctx context.Context) error {
	now, err := s.look(ctx)
	if err != nil {
		return err
	}
	for name, claim := range now.claims {
		if claim.DeletionTimestamp == nil && !neverBound(claim) {
			return fmt.Errorf("%s appeared while the ordinal was being cleared: %w", s.client.ref("claim", name), errNameTaken)
		}
	}
	return nil
}

// dropClaims lets the deleted claims go and waits until they are gone. Claims
// that another pod still mounts are kept by Kubernetes until it ends.
func (s *Seed) dropClaims(ctx context.Context) error {
	now, err := s.look(ctx)
	if err != nil {
		return err
	}
	for name, claim := range now.claims {
		if claim.DeletionTimestamp == nil {
			continue
		}
		if err := s.dropClaim(ctx, name, claim); err != nil {
			return err
		}
	}
	return nil
}

// dropClaim lets one deleted claim go and waits until it is gone.
func (s *Seed) dropClaim(ctx context.Context, name string, claim *corev1.PersistentVolumeClaim) error {
	if err := s.fence(ctx); err != nil {
		return err
	}
	if err := s.client.dropClaimFinalizer(ctx, claim); err != nil {
		return err
	}
	err := s.client.until(ctx, s.spec.StartTimeout, func(ctx context.Context) (bool, error) {
		again, err := s.client.getClaim(ctx, name)
		return again == nil || again.UID != claim.UID, err
	})
	return describeTimeout(err, s.spec.StartTimeout, s.client.ref("claim", name)+" does not go: some other pod still mounts it")
}

// makeClaims sees to it that every claim exists and is marked as being filled.
// For an ordinal that the set asks for, the controller makes them, the seed's
// name notwithstanding, unless an earlier ordinal holds it up.
func (s *Seed) makeClaims(ctx context.Context) error {
	wait := time.Duration(0)
	if s.set.Wanted(s.spec.Ordinal) {
		wait = controllerGrace
		if err := s.client.enqueue(ctx, s.set.Name); err != nil {
			return err
		}
	}
	var left []string
	err := s.client.until(ctx, wait, func(ctx context.Context) (bool, error) {
		var err error
		left, err = s.missingClaims(ctx)
		return len(left) == 0, err
	})
	if err != nil && !errors.Is(err, errLate) {
		return err
	}
	for _, t := range left {
		claim := s.newClaim(t)
		_, err := s.client.kube.CoreV1().PersistentVolumeClaims(s.client.namespace).Create(ctx, claim, metav1.CreateOptions{FieldManager: fieldManager})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return explain(err, "create "+s.client.ref("claim", claim.Name))
		}
	}
	return s.annotateClaims(ctx, map[string]any{AnnotationSeeding: s.run.ID, AnnotationSeeded: nil, AnnotationSeededRun: nil})
}

// missingClaims are the templates, those that the seed does not fill included,
// whose claims the seed pod would wait for in vain.
func (s *Seed) missingClaims(ctx context.Context) ([]string, error) {
	var left []string
	for _, t := range templateNames(s.set.object) {
		claim, err := s.client.getClaim(ctx, claimName(t, s.set.Name, s.spec.Ordinal))
		if err != nil {
			return nil, err
		}
		if claim == nil {
			left = append(left, t)
		}
	}
	return left, nil
}

// newClaim is the claim that the controller would make from a template: the
// template's metadata, the selector's labels, and an owner if the set's claims
// go with the set.
func (s *Seed) newClaim(template string) *corev1.PersistentVolumeClaim {
	object := s.set.object
	i := slices.IndexFunc(object.Spec.VolumeClaimTemplates, func(c corev1.PersistentVolumeClaim) bool { return c.Name == template })
	claim := object.Spec.VolumeClaimTemplates[i].DeepCopy()
	claim.Status = corev1.PersistentVolumeClaimStatus{}
	claim.Name = claimName(template, s.set.Name, s.spec.Ordinal)
	claim.Namespace = s.client.namespace
	if claim.Labels == nil {
		claim.Labels = map[string]string{}
	}
	maps.Copy(claim.Labels, object.Spec.Selector.MatchLabels)
	if claim.Annotations == nil {
		claim.Annotations = map[string]string{}
	}
	if slices.Contains(s.spec.ClaimTemplates, template) {
		claim.Annotations[AnnotationSeeding] = s.run.ID
	}
	if s.set.WhenDeletedDelete {
		yes := true
		claim.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: appsv1.SchemeGroupVersion.String(), Kind: "StatefulSet", Name: s.set.Name, UID: types.UID(s.set.UID), Controller: &yes,
		}}
	}
	return claim
}

// annotateClaims sets annotations on all claims that the seed fills.
func (s *Seed) annotateClaims(ctx context.Context, annotations map[string]any) error {
	var failed []error
	for _, t := range s.spec.ClaimTemplates {
		name := claimName(t, s.set.Name, s.spec.Ordinal)
		failed = append(failed, s.client.patchClaim(ctx, name, map[string]any{"metadata": map[string]any{"annotations": annotations}}))
	}
	return errors.Join(failed...)
}
