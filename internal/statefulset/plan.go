package statefulset

import (
	"context"
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// planLimit keeps a plan within what the API server allows as annotations of
// one object (256 KiB).
const planLimit = 200 << 10

// FreezePlan stores a resolved restore plan under the run's ID, once. A retry
// of the same Job gets the stored one back, whatever has changed since, with
// existed true. The plan lives in the annotation of a Lease object of its own:
// a restore may create those anyway, so that no right on ConfigMaps, whose
// content belongs to others, is needed. The object goes with its Job.
func (c *Client) FreezePlan(ctx context.Context, set string, run Run, plan []byte) (stored []byte, existed bool, err error) {
	if len(plan) > planLimit {
		return nil, false, fmt.Errorf("store the restore plan: it has %d bytes, more than %d; restore fewer ordinals at a time", len(plan), planLimit)
	}
	if stored, existed, err := c.FrozenPlan(ctx, run); err != nil || existed {
		return stored, existed, err
	}
	labels := labelsOf(set, componentRestore)
	labels[LabelRun] = run.ID
	holder := run.holder()
	_, err = c.kube.CoordinationV1().Leases(c.namespace).Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Name: planName(run.ID), Namespace: c.namespace, Labels: labels, OwnerReferences: run.owner(),
			Annotations: map[string]string{annotationPlan: string(plan)},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder},
	}, metav1.CreateOptions{FieldManager: fieldManager})
	if apierrors.IsAlreadyExists(err) {
		return c.FrozenPlan(ctx, run)
	}
	return plan, false, explain(err, "store the restore plan in "+c.ref("lease", planName(run.ID)))
}

// ForgetPlan removes the plan of a run that no retry can continue, and that no
// Job takes along when it goes: one outside of a Job. Of others it does nothing.
func (c *Client) ForgetPlan(ctx context.Context, run Run) error {
	if run.JobUID != "" {
		return nil
	}
	return c.deletePlan(ctx, run.ID)
}

func (c *Client) deletePlan(ctx context.Context, run string) error {
	err := c.kube.CoordinationV1().Leases(c.namespace).Delete(ctx, planName(run), metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return explain(err, "delete the restore plan in "+c.ref("lease", planName(run)))
}

// FrozenPlan reads the plan that an earlier pod of the run stored.
func (c *Client) FrozenPlan(ctx context.Context, run Run) ([]byte, bool, error) {
	l, err := c.kube.CoordinationV1().Leases(c.namespace).Get(ctx, planName(run.ID), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, explain(err, "read the restore plan from "+c.ref("lease", planName(run.ID)))
	}
	plan := l.Annotations[annotationPlan]
	if plan == "" {
		return nil, false, fmt.Errorf("%s holds no restore plan: somebody changed it; delete the job and start a new restore", c.ref("lease", planName(run.ID)))
	}
	return []byte(plan), true, nil
}
