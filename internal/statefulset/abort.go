package statefulset

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// AbortOptions for [Client.Abort].
type AbortOptions struct {
	// ReleaseEmpty consents to what an aborted recovery of an ordinal that the
	// set asks for comes to: its pod starts on an empty claim.
	ReleaseEmpty bool
	DryRun       bool
	// Wait for a holder of the Lease to expire. Zero: ErrBusy at once.
	Wait time.Duration
	// Timeout for each pod and claim to go. Default 10 minutes.
	Timeout time.Duration
}

// Abort clears away what dead restores have left: a loaded ordinal is
// released, a half-loaded one wiped, CronJobs are resumed, held claims let go.
// It never lets the controller start a pod on a half-loaded claim; an ordinal
// that the set asks for stays held, with ErrHeld, unless ReleaseEmpty. ErrBusy
// while a restore is alive. The steps taken, or with DryRun the steps it would
// take, come back in words, also beside an error.
func (c *Client) Abort(ctx context.Context, set string, run Run, o AbortOptions) (steps []string, err error) {
	if o.Timeout == 0 {
		o.Timeout = defaultStartTimeout
	}
	object, err := c.getSet(ctx, set)
	if err != nil {
		return nil, err
	}
	a := &abort{client: c, set: newSet(object), options: o, fence: func(context.Context) error { return nil }}
	if o.DryRun {
		if _, err := c.CheckFree(ctx, set); err != nil {
			return nil, err
		}
		err = a.run(ctx)
		return a.steps, err
	}
	last, err := c.lease(ctx, set)
	if err != nil {
		return nil, err
	}
	if last != nil {
		a.last = c.leaseInfo(last).Run()
	}
	hold, err := c.Acquire(ctx, set, run, LeaseOptions{Wait: o.Wait})
	if err != nil {
		return nil, err
	}
	a.fence = hold.Check
	err = a.run(ctx)
	return a.steps, errors.Join(err, hold.Release(context.WithoutCancel(ctx)))
}

// abort is one call of Abort.
type abort struct {
	client  *Client
	set     Set
	options AbortOptions
	fence   func(context.Context) error
	// last is the run that held the Lease when it was taken for this; empty:
	// none, or the Lease was not taken.
	last  string
	steps []string
	held  []error
}

func (a *abort) run(ctx context.Context) error {
	left, err := a.client.Leftovers(ctx, a.set.Name)
	if err != nil {
		return err
	}
	done := map[int]bool{}
	for _, s := range left.Seeds {
		done[s.Ordinal] = true
		if err := a.seed(ctx, s); err != nil {
			return err
		}
	}
	for _, claim := range left.Claims {
		if !done[claim.Ordinal] {
			done[claim.Ordinal] = true
			if err := a.orphans(ctx, claim.Ordinal, left.claimsOf(claim.Ordinal)); err != nil {
				return err
			}
		}
	}
	for _, j := range left.CronJobs {
		a.say("resume cronjob %s", j.Name)
	}
	if len(left.CronJobs) > 0 && !a.options.DryRun {
		if _, err := a.client.ResumeBackups(ctx, a.set.Name, AnyRestore); err != nil {
			a.held = append(a.held, err)
		}
	}
	for _, v := range left.Volumes {
		a.say("leave volume %s, which was ordinal %d's before (claim %s), as it is: kept, to be looked at or deleted by hand", v.Name, v.Ordinal, v.Claim)
	}
	if err := a.plans(ctx, left.runIDs()); err != nil {
		return err
	}
	return errors.Join(a.held...)
}

// plans deletes the stored plans of dead runs that no Job will take along.
func (a *abort) plans(ctx context.Context, ids []string) error {
	if a.last != "" && !slices.Contains(ids, a.last) {
		ids = append(ids, a.last)
	}
	runs, err := a.client.runs(ctx, ids)
	if err != nil {
		return err
	}
	for _, r := range runs {
		if r.Plan != nil && r.Job == "" {
			a.held = append(a.held, a.deletePlan(ctx, r.ID))
		}
	}
	return nil
}

func (a *abort) say(format string, args ...any) {
	a.steps = append(a.steps, fmt.Sprintf(format, args...))
}

func (l Leftovers) claimsOf(ordinal int) []HeldClaim {
	var list []HeldClaim
	for _, claim := range l.Claims {
		if claim.Ordinal == ordinal {
			list = append(list, claim)
		}
	}
	return list
}

// seed ends one seed pod.
func (a *abort) seed(ctx context.Context, s SeedInfo) error {
	if s.LoadedBackup != "" {
		lost, err := a.lost(ctx, s)
		if err != nil {
			return err
		}
		if lost != "" && !a.mayEmpty(s.Ordinal, "was loaded, and claim "+lost+" is no longer the one that was filled") {
			return nil
		}
		a.say("release seed pod %s, which is loaded with backup %s", s.Pod, s.LoadedBackup)
		if a.options.DryRun {
			return nil
		}
		if err := a.fence(ctx); err != nil {
			return err
		}
		return a.client.release(ctx, a.set.Name, s.Pod, a.options.Timeout)
	}
	if !a.mayEmpty(s.Ordinal, halfLoaded) {
		return nil
	}
	return a.wipe(ctx, s.Ordinal, s.Claims)
}

// orphans deals with claims whose seed pod is not there: a run was killed
// before it had placed one, or somebody removed it by force.
func (a *abort) orphans(ctx context.Context, ordinal int, claims []HeldClaim) error {
	untouched := true
	names := make([]string, 0, len(claims))
	for _, claim := range claims {
		names = append(names, claim.Name)
		untouched = untouched && !claim.Terminating && claim.Seeding == ""
	}
	if !untouched {
		if !a.mayEmpty(ordinal, halfLoaded) {
			return nil
		}
		return a.wipe(ctx, ordinal, names)
	}
	for _, claim := range claims {
		a.say("let go of claim %s, which was not deleted yet", claim.Name)
		if a.options.DryRun {
			continue
		}
		pvc, err := a.client.getClaim(ctx, claim.Name)
		if err != nil || pvc == nil {
			return err
		}
		if err := a.client.dropClaimFinalizer(ctx, pvc); err != nil {
			return err
		}
	}
	return nil
}

// lost names a claim of a loaded seed pod that is no longer the one that it filled.
func (a *abort) lost(ctx context.Context, s SeedInfo) (string, error) {
	pod, err := a.client.getPod(ctx, s.Pod)
	if err != nil || pod == nil {
		return "", err // it was let go by now
	}
	claims, err := a.client.claimsNamed(ctx, s.Claims)
	return lostClaim(pod, s.Claims, claims), err
}

const halfLoaded = "is half loaded"

// mayEmpty decides whether an ordinal may be let go without its data, and why that
// is what it comes to.
func (a *abort) mayEmpty(ordinal int, why string) bool {
	if !a.set.Wanted(ordinal) || a.options.ReleaseEmpty {
		return true
	}
	a.held = append(a.held, fmt.Errorf("%w: ordinal %d of %s %s, and letting it go would start an empty replica; "+
		"restore it again, scale the set below it, or give --release-empty", ErrHeld, ordinal, a.client.ref("statefulset", a.set.Name), why))
	return false
}

// wipe removes an ordinal's claims that a dead run has begun with and whatever pod holds
// them, in the order that never lets a pod start on them.
func (a *abort) wipe(ctx context.Context, ordinal int, claims []string) error {
	name := podName(a.set.Name, ordinal)
	for _, claim := range claims {
		if err := a.wipeClaim(ctx, ordinal, claim); err != nil {
			return err
		}
	}
	a.say("remove seed pod %s", name)
	if a.options.DryRun {
		return nil
	}
	pod, err := a.client.getPod(ctx, name)
	if err != nil {
		return err
	}
	if pod != nil {
		if err := a.client.removePod(ctx, pod, false, a.options.Timeout); err != nil {
			return err
		}
	}
	for _, claim := range claims {
		pvc, err := a.client.getClaim(ctx, claim)
		if err != nil {
			return err
		}
		if pvc != nil && pvc.DeletionTimestamp != nil {
			if err := a.client.dropClaimFinalizer(ctx, pvc); err != nil {
				return err
			}
		}
	}
	return a.client.enqueue(ctx, a.set.Name)
}

// wipeClaim deletes one of them. It stays, Terminating, under our finalizer.
func (a *abort) wipeClaim(ctx context.Context, ordinal int, name string) error {
	claim, err := a.client.getClaim(ctx, name)
	if err != nil || claim == nil {
		return err
	}
	before := hadBefore(claim)
	if before {
		a.say("delete claim %s, which the ordinal had before; its volume %s is kept, if we may change volumes, and else goes by its reclaim policy", name, claim.Spec.VolumeName)
	} else {
		a.say("delete half-loaded claim %s", name)
	}
	if a.options.DryRun {
		return nil
	}
	if err := a.fence(ctx); err != nil {
		return err
	}
	if before {
		err = a.client.keepVolume(ctx, a.set.Name, ordinal, claim)
	} else {
		err = a.client.disposeVolume(ctx, claim)
	}
	if err := a.client.withoutRights(err, claim); err != nil {
		return err
	}
	return a.client.holdAndDelete(ctx, claim)
}

// hadBefore: the claim is what the ordinal had before a run began to delete it, and its
// volume may be the last one with the ordinal's data. What runs fill is marked, and
// what the set's controller has made for a seed is neither held nor deleted.
func hadBefore(claim *corev1.PersistentVolumeClaim) bool {
	begun := claim.DeletionTimestamp != nil || hasFinalizer(claim)
	return begun && claim.Annotations[AnnotationSeeding] == "" && claim.Spec.VolumeName != ""
}

// deletePlan removes a plan that no Job will take along.
func (a *abort) deletePlan(ctx context.Context, run string) error {
	a.say("delete the stored plan of run %s", run)
	if a.options.DryRun {
		return nil
	}
	return a.client.deletePlan(ctx, run)
}
