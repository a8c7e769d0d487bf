package statefulset

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DefaultLeaseDuration is how long a killed holder keeps a set busy.
const DefaultLeaseDuration = time.Minute

// maxSkew is how far the clocks of two nodes may be apart at the very most.
const maxSkew = 10 * time.Minute

// leaseKind is one of the Leases that a set can have.
type leaseKind struct {
	// what takes them: "restore" or "drill".
	what   string
	name   func(set string) string
	labels func(set string) map[string]string
}

// restoreLeases are those that backups honour.
var restoreLeases = leaseKind{componentRestore, LeaseName, func(set string) map[string]string { return labelsOf(set, componentRestore) }}

// LeaseOptions for [Client.Acquire].
type LeaseOptions struct {
	// Duration after which a holder that no longer renews has lost the Lease.
	// Default DefaultLeaseDuration.
	Duration time.Duration
	// Wait for another holder to finish or to expire. Zero: ErrBusy at once
	// while it is alive.
	Wait time.Duration
	// Waiting: backups that began before may still commit, until [Hold.Begin].
	Waiting bool
}

// annotationWaiting stands on the Lease of a restore that waits for running
// backups to end.
const annotationWaiting = "keepset/waiting-for-backups"

// LeaseInfo is what a Lease says at one moment.
type LeaseInfo struct {
	Exists bool
	// Holder is "<run ID>/<pod UID>", empty when the Lease is free.
	Holder string
	// Token grows by one whenever the Lease changes hands.
	Token            int32
	Renewed, Expires time.Time
	// Live: held, and renewed within its duration by our clock.
	Live bool
	// Waiting: its holder lets running backups end, and has touched nothing yet.
	Waiting bool
}

// Run is the ID of the run that holds the Lease.
func (l LeaseInfo) Run() string {
	run, _, _ := strings.Cut(l.Holder, "/")
	return run
}

func (c *Client) leaseInfo(l *coordinationv1.Lease) LeaseInfo {
	info := LeaseInfo{Exists: true, Holder: deref(l.Spec.HolderIdentity), Token: deref(l.Spec.LeaseTransitions)}
	if l.Spec.RenewTime != nil {
		info.Renewed = l.Spec.RenewTime.Time
	}
	info.Expires = info.Renewed.Add(leaseDuration(l))
	info.Live = info.Holder != "" && c.clock.Now().Before(info.Expires)
	info.Waiting = l.Annotations[annotationWaiting] != ""
	return info
}

func leaseDuration(l *coordinationv1.Lease) time.Duration {
	return time.Duration(deref(l.Spec.LeaseDurationSeconds)) * time.Second
}

func deref[T any](p *T) T {
	var zero T
	if p == nil {
		return zero
	}
	return *p
}

// lease reads the set's Lease; nil when there is none.
func (c *Client) lease(ctx context.Context, set string) (*coordinationv1.Lease, error) {
	l, err := c.kube.CoordinationV1().Leases(c.namespace).Get(ctx, c.leases.name(set), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // a set without a Lease is a free set
	}
	return l, explain(err, "read "+c.ref("lease", c.leases.name(set)))
}

// CheckFree tells whether a backup may run: ErrBusy while a restore is alive.
// It only reads, since a backup never writes to the Lease: many backups may
// run beside each other, and none may run beside a restore.
func (c *Client) CheckFree(ctx context.Context, set string) (LeaseInfo, error) {
	l, err := c.lease(ctx, set)
	if err != nil || l == nil {
		return LeaseInfo{}, err
	}
	info := c.leaseInfo(l)
	if info.Live {
		return info, c.busy(set, info)
	}
	return info, nil
}

// CheckUnchanged tells, at the commit of a backup, whether a restore has touched
// the set since before was read: what was captured may then be half of one state
// and half of another. ErrBusy if so. One that still waits for backups to end has
// touched nothing, and neither has any before it.
func (c *Client) CheckUnchanged(ctx context.Context, set string, before LeaseInfo) error {
	l, err := c.lease(ctx, set)
	if err != nil {
		return err
	}
	now := LeaseInfo{}
	if l != nil {
		now = c.leaseInfo(l)
	}
	switch {
	case now.Waiting && now.Token == before.Token+1:
		return nil // it waits for this very backup
	case now.Live:
		return c.busy(set, now)
	case now.Token != before.Token:
		return fmt.Errorf("%w: a restore of %s ran while this backup was being taken; run the backup again", ErrBusy, c.ref("statefulset", set))
	}
	return nil
}

func (c *Client) busy(set string, info LeaseInfo) error {
	return fmt.Errorf("%w: %s run %s holds %s until %s (lease %s); wait for it, or see restore status --set %s",
		ErrBusy, c.leases.what, info.Run(), c.ref("statefulset", set), info.Expires.UTC().Format(time.RFC3339), c.leases.name(set), set)
}

// Acquire takes the set's Lease and renews it in the background until
// [Hold.Release]. ErrBusy when another run holds it; a pod of the same run,
// killed a moment ago, is waited for. The clocks of two nodes may differ, so a
// Lease that looks expired is first watched for a while: it is taken only if
// it was not renewed meanwhile.
func (c *Client) Acquire(ctx context.Context, set string, run Run, o LeaseOptions) (*Hold, error) {
	if o.Duration == 0 {
		o.Duration = DefaultLeaseDuration
	}
	a := attempt{client: c, set: set, run: run, options: o, deadline: c.clock.Now().Add(o.Wait)}
	for {
		l, err := c.lease(ctx, set)
		if err != nil {
			return nil, err
		}
		switch take, err := a.mayTake(l); {
		case err != nil:
			return nil, err
		case take:
			hold, err := a.take(ctx, l)
			if hold != nil || err != nil {
				return hold, err
			}
		}
		if err := c.sleep(ctx, min(c.poll, o.Duration/10)); err != nil {
			return nil, fmt.Errorf("wait for %s: %w", c.ref("lease", c.leases.name(set)), err)
		}
	}
}

// attempt is one call of Acquire: what it has seen of the Lease so far.
type attempt struct {
	client   *Client
	set      string
	run      Run
	options  LeaseOptions
	deadline time.Time
	version  string
	since    time.Time
}

// mayTake decides on what was read. False without an error: look again later.
func (a *attempt) mayTake(l *coordinationv1.Lease) (bool, error) {
	if l == nil || deref(l.Spec.HolderIdentity) == "" || deref(l.Spec.HolderIdentity) == a.run.holder() {
		return true, nil
	}
	now := a.client.clock.Now()
	if l.ResourceVersion != a.version {
		a.version, a.since = l.ResourceVersion, now
	}
	info, watched := a.client.leaseInfo(l), now.Sub(a.since)
	duration := max(leaseDuration(l), time.Second)
	longGone := info.Expires.Add(maxSkew).Before(now)
	if longGone || watched >= duration || !info.Live && watched >= duration/renewals+duration/10 {
		return true, nil
	}
	ours := info.Run() == a.run.ID
	if info.Live && !ours && !now.Before(a.deadline) {
		return false, a.client.busy(a.set, info)
	}
	return false, nil
}

// take writes our name into the Lease. Nil without an error: somebody else was
// quicker.
func (a *attempt) take(ctx context.Context, l *coordinationv1.Lease) (*Hold, error) {
	c, leases := a.client, a.client.kube.CoordinationV1().Leases(a.client.namespace)
	now := metav1.NewMicroTime(c.clock.Now())
	holder, seconds := a.run.holder(), int32(max(1, a.options.Duration/time.Second))
	var err error
	if l == nil {
		token := int32(1)
		l, err = leases.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{
				Name: c.leases.name(a.set), Namespace: c.namespace, Labels: c.leases.labels(a.set), Annotations: waiting(nil, a.options.Waiting),
			},
			Spec: coordinationv1.LeaseSpec{
				HolderIdentity: &holder, LeaseDurationSeconds: &seconds, AcquireTime: &now, RenewTime: &now, LeaseTransitions: &token,
			},
		}, metav1.CreateOptions{FieldManager: fieldManager})
	} else {
		token := deref(l.Spec.LeaseTransitions) + 1
		l = l.DeepCopy()
		l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds, l.Spec.LeaseTransitions = &holder, &seconds, &token
		l.Spec.AcquireTime, l.Spec.RenewTime = &now, &now
		l.Annotations = waiting(l.Annotations, a.options.Waiting)
		l, err = leases.Update(ctx, l, metav1.UpdateOptions{FieldManager: fieldManager})
	}
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return nil, nil //nolint:nilnil // lost the race; Acquire looks again
	}
	if err != nil {
		return nil, explain(err, "take "+c.ref("lease", c.leases.name(a.set)))
	}
	return newHold(ctx, c, a.set, l, a.options.Duration), nil
}

// waiting puts the mark of a restore that waits among annotations, or takes it away.
func waiting(annotations map[string]string, yes bool) map[string]string {
	annotations = maps.Clone(annotations)
	delete(annotations, annotationWaiting)
	if yes {
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[annotationWaiting] = "true"
	}
	return annotations
}

// sleep waits, or returns the context's error.
func (c *Client) sleep(ctx context.Context, d time.Duration) error {
	timer := c.clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C():
		return nil
	}
}

// labelsOf are the labels of an object that belongs to a set.
func labelsOf(set, component string) map[string]string {
	return map[string]string{labelName: product, labelManagedBy: product, labelComponent: component, LabelSet: set}
}
