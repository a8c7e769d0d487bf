package statefulset

import (
	"context"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// renewals is how often a Lease is renewed within its duration.
const renewals = 4

// Hold is a Lease that is ours. It renews itself; when it cannot do so in time,
// Lost is closed, and Check fails from then on, before another run may take
// the Lease.
type Hold struct {
	client   *Client
	set      string
	holder   string
	token    int32
	duration time.Duration

	lost chan struct{}
	stop context.CancelFunc
	done sync.WaitGroup
}

// newHold starts to renew. The renewal outlives ctx's cancellation, because
// cleaning up after a cancelled restore needs the Lease as well.
func newHold(ctx context.Context, c *Client, set string, l *coordinationv1.Lease, duration time.Duration) *Hold {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	h := &Hold{
		client: c, set: set, holder: deref(l.Spec.HolderIdentity), token: deref(l.Spec.LeaseTransitions),
		duration: duration, lost: make(chan struct{}), stop: stop,
	}
	h.done.Go(func() { h.renewLoop(ctx) })
	return h
}

// Token is the Lease's number of changes of hands: a fence against whoever held it before.
func (h *Hold) Token() int32 { return h.token }

// Lost is closed when the Lease could not be renewed in time, or was taken.
func (h *Hold) Lost() <-chan struct{} { return h.lost }

// Check asks the API server whether the Lease is still ours. Call it before
// every step that destroys something. It fails closed: when the question
// cannot be answered, the answer is no.
func (h *Hold) Check(ctx context.Context) error {
	select {
	case <-h.lost:
		return h.lostError("it could not be renewed in time")
	default:
	}
	l, err := h.client.lease(ctx, h.set)
	if err != nil {
		return err
	}
	if !h.ours(l) {
		return h.lostError("another run has taken it")
	}
	return nil
}

func (h *Hold) ours(l *coordinationv1.Lease) bool {
	return l != nil && deref(l.Spec.HolderIdentity) == h.holder && deref(l.Spec.LeaseTransitions) == h.token
}

func (h *Hold) lostError(why string) error {
	return fmt.Errorf("%w: %s: %s; nothing more is changed, run the %s again", ErrLeaseLost, h.client.ref("lease", h.client.leases.name(h.set)), why, h.client.leases.what)
}

// renewLoop renews until stopped or lost. It gives up one renewal before the
// Lease expires for others.
func (h *Hold) renewLoop(ctx context.Context) {
	interval := h.duration / renewals
	renewed := h.client.clock.Now()
	for h.client.sleep(ctx, interval) == nil {
		ours, err := h.renew(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && ours:
			renewed = h.client.clock.Now()
			continue
		case err == nil:
			close(h.lost)
			return
		}
		h.client.log.Warn("lease not renewed", "lease", h.client.leases.name(h.set), "error", err)
		if h.client.clock.Since(renewed) > h.duration-interval {
			close(h.lost)
			return
		}
	}
}

// renew writes the time into the Lease. False: it is not ours any more.
func (h *Hold) renew(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, h.duration/renewals)
	defer cancel()
	l, err := h.client.lease(ctx, h.set)
	if err != nil {
		return false, err
	}
	if !h.ours(l) {
		return false, nil
	}
	now := metav1.NewMicroTime(h.client.clock.Now())
	l = l.DeepCopy()
	l.Spec.RenewTime = &now
	return true, h.update(ctx, l)
}

// Begin ends the time in which backups that began before us may still commit.
// It comes before the first change, and fails when the Lease is not ours.
func (h *Hold) Begin(ctx context.Context) error {
	for {
		l, err := h.client.lease(ctx, h.set)
		if err != nil {
			return err
		}
		if !h.ours(l) {
			return h.lostError("another run has taken it")
		}
		l = l.DeepCopy()
		l.Annotations = waiting(l.Annotations, false)
		if err := h.update(ctx, l); !apierrors.IsConflict(err) {
			return explain(err, "update "+h.client.ref("lease", h.client.leases.name(h.set)))
		}
	}
}

// Release stops renewing and gives the Lease up. A Lease that is no longer
// ours is left alone.
func (h *Hold) Release(ctx context.Context) error {
	h.stop()
	h.done.Wait()
	for {
		l, err := h.client.lease(ctx, h.set)
		if err != nil {
			return err
		}
		if !h.ours(l) {
			return nil
		}
		free := ""
		l = l.DeepCopy()
		l.Spec.HolderIdentity = &free
		if err := h.update(ctx, l); !apierrors.IsConflict(err) {
			return explain(err, "release "+h.client.ref("lease", h.client.leases.name(h.set)))
		}
	}
}

func (h *Hold) update(ctx context.Context, l *coordinationv1.Lease) error {
	_, err := h.client.kube.CoordinationV1().Leases(h.client.namespace).Update(ctx, l, metav1.UpdateOptions{FieldManager: fieldManager})
	return err
}
