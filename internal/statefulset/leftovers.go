package statefulset

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Leftovers is everything that restores have put on a set and its
// surroundings and have not taken away: by a running one, or by a dead one.
type Leftovers struct {
	Lease LeaseInfo
	// Runs are the IDs of the restore runs that left something.
	Runs []RunInfo
	// Seeds are the pods that hold an ordinal's name.
	Seeds []SeedInfo
	// Claims are those that a run was filling, or that our finalizer holds.
	Claims []HeldClaim
	// CronJobs are those that a restore has suspended.
	CronJobs []CronJob
	// Drills is what drills have made, in the set's own namespace.
	Drills DrillInfo
	// Volumes are those that ordinals had before, kept from their reclaim policies.
	Volumes []KeptVolume
}

// RunInfo is a run that left something behind.
type RunInfo struct {
	ID string
	// Job is the name of its Job, where the run has stored a plan.
	Job string
	// Finished: the Job has ended or is gone.
	Finished bool
	// Plan is the frozen restore plan, nil when none is stored.
	Plan []byte
}

// SeedInfo is one seed pod.
type SeedInfo struct {
	Ordinal           int
	Pod, Phase, Run   string
	Reason            string
	LoadedBackup      string
	Terminating, Held bool
	// Claims that it fills, by name.
	Claims []string
}

// HeldClaim is a claim with the ordinal it belongs to.
type HeldClaim struct {
	Ordinal int
	Claim
}

// Empty reports that nothing is left, and no restore is running.
func (l Leftovers) Empty() bool {
	return !l.Lease.Live && len(l.Seeds) == 0 && len(l.Claims) == 0 && len(l.CronJobs) == 0 && len(l.Volumes) == 0 && len(l.Drills.Objects) == 0
}

// Leftovers reads them. It needs the rights of rbac-restore.yaml.
func (c *Client) Leftovers(ctx context.Context, set string) (Leftovers, error) {
	object, err := c.getSet(ctx, set)
	if err != nil {
		return Leftovers{}, err
	}
	var l Leftovers
	lease, err := c.lease(ctx, set)
	if err != nil {
		return l, err
	}
	if lease != nil {
		l.Lease = c.leaseInfo(lease)
	}
	pods, err := c.seedPods(ctx, set)
	if err != nil {
		return l, err
	}
	for i := range pods {
		if seed, ok := newSeedInfo(&pods[i], newSet(object)); ok {
			l.Seeds = append(l.Seeds, seed)
		}
	}
	if l.Claims, err = c.heldClaims(ctx, newSet(object)); err != nil {
		return l, err
	}
	cronJobs, err := c.BackupCronJobs(ctx, set)
	if err != nil {
		return l, err
	}
	l.CronJobs = slices.DeleteFunc(cronJobs, func(j CronJob) bool { return j.SuspendedByRestore == "" })
	if l.Volumes, err = c.KeptVolumes(ctx, set); err != nil {
		return l, err
	}
	if l.Drills, err = c.Drills(ctx, set, ""); err != nil {
		return l, err
	}
	l.Runs, err = c.runs(ctx, l.runIDs())
	return l, err
}

// newSeedInfo reads a seed pod; false when its name is none of the set's. Which ordinal it holds its name says, not a
// label, and of the claims that it lists only the ordinal's own count: abort deletes them, and both can be edited.
func newSeedInfo(pod *corev1.Pod, set Set) (SeedInfo, bool) {
	ordinal, ok := suffixOrdinal(pod.Name, set.Name+"-")
	claims := slices.DeleteFunc(strings.Fields(pod.Annotations[annotationClaims]), func(name string) bool {
		return !slices.ContainsFunc(set.Templates, func(t ClaimTemplate) bool { return name == claimName(t.Name, set.Name, ordinal) })
	})
	return SeedInfo{
		Claims: claims, Ordinal: ordinal, Pod: pod.Name, Phase: string(pod.Status.Phase), Run: pod.Labels[LabelRun], Reason: podReason(pod),
		LoadedBackup: pod.Annotations[AnnotationLoaded], Terminating: pod.DeletionTimestamp != nil, Held: hasFinalizer(pod),
	}, ok
}

// seedPods finds the set's seed pods by the labels that only Keepset gives.
func (c *Client) seedPods(ctx context.Context, set string) ([]corev1.Pod, error) {
	selector := labels.SelectorFromSet(labelsOf(set, componentSeed))
	list, err := c.kube.CoreV1().Pods(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: selector.String()})
	if err != nil {
		return nil, explain(err, "list the seed pods of "+c.ref("statefulset", set))
	}
	return list.Items, nil
}

// heldClaims finds the set's claims that are half loaded or held.
func (c *Client) heldClaims(ctx context.Context, set Set) ([]HeldClaim, error) {
	claims, err := c.claims(ctx)
	if err != nil {
		return nil, err
	}
	var held []HeldClaim
	for name, pvc := range claims {
		for _, t := range set.Templates {
			ordinal, ok := suffixOrdinal(name, t.Name+"-"+set.Name+"-")
			if ok && (hasFinalizer(pvc) || pvc.Annotations[AnnotationSeeding] != "") {
				held = append(held, HeldClaim{Ordinal: ordinal, Claim: newClaim(t.Name, name, pvc)})
			}
		}
	}
	slices.SortFunc(held, func(a, b HeldClaim) int { return a.Ordinal - b.Ordinal })
	return held, nil
}

// runIDs are the runs that the leftovers name, each once.
func (l Leftovers) runIDs() []string {
	var ids []string
	add := func(id string) {
		if id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	add(l.Lease.Run())
	for _, s := range l.Seeds {
		add(s.Run)
	}
	for _, claim := range l.Claims {
		add(claim.Seeding)
	}
	for _, j := range l.CronJobs {
		add(j.SuspendedByRestore)
	}
	return ids
}

// runs reads what is known of each run: its plan, and the Job that owns it.
func (c *Client) runs(ctx context.Context, ids []string) ([]RunInfo, error) {
	infos := make([]RunInfo, 0, len(ids))
	for _, id := range ids {
		info := RunInfo{ID: id}
		l, err := c.kube.CoordinationV1().Leases(c.namespace).Get(ctx, planName(id), metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, explain(err, "read "+c.ref("lease", planName(id)))
		}
		if err == nil {
			info.Plan = []byte(l.Annotations[annotationPlan])
			for _, o := range l.OwnerReferences {
				info.Job = o.Name
			}
		}
		if info.Finished, err = c.jobEnded(ctx, info); err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// jobEnded: the run's Job is finished, gone, or another one by now.
func (c *Client) jobEnded(ctx context.Context, run RunInfo) (bool, error) {
	if run.Job == "" {
		return false, nil
	}
	job, err := c.kube.BatchV1().Jobs(c.namespace).Get(ctx, run.Job, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, explain(err, "read "+c.ref("job", run.Job))
	}
	return string(job.UID) != run.ID || finished(job), nil
}
