package job

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/record"
	"keepset/internal/snapshot"
	"keepset/internal/statefulset"
)

// Abort clears away what dead restores have left on a set, and the volumes that
// they had prepared and no claim is bound to.
type Abort struct {
	Cluster *statefulset.Client
	Set     string
	Run     statefulset.Run
	Options statefulset.AbortOptions
	// Volumes opens the snapshotters of the stored restore plans.
	Volumes *VolumeRestore
	// Provider, if not empty, is asked for what was prepared for any ordinal that
	// the set has, and for Ordinals beside: a plan that has gone with its Job
	// does not name them.
	Provider string
	Ordinals []int
	Discover statefulset.DiscoverOptions
	// DrillNamespace is where drills of the set are made; empty: in its own.
	DrillNamespace string
}

// Execute returns the steps taken, or with DryRun those it would take, in
// words, also beside an error.
func (a *Abort) Execute(ctx context.Context) ([]string, error) {
	left, err := a.Cluster.Leftovers(ctx, a.Set)
	if err != nil {
		return nil, err
	}
	steps, err := a.Cluster.Abort(ctx, a.Set, a.Run, a.Options)
	if err != nil && !errors.Is(err, statefulset.ErrHeld) {
		return steps, err
	}
	scraped, scrapErr := a.scrap(ctx, left)
	drills, drillErr := a.Cluster.AbortDrills(ctx, a.Set, a.DrillNamespace, a.Run, a.Options)
	steps = slices.Concat(steps, scraped, drills)
	if err := errors.Join(err, scrapErr, drillErr); err != nil {
		return steps, err // a restore that lives may need what it has made
	}
	deleted, err := a.deleteMade(ctx, left)
	return append(steps, deleted...), err
}

// deleteMade deletes the snapshots that dead restores have made of the
// repository's blocks.
func (a *Abort) deleteMade(ctx context.Context, left statefulset.Leftovers) (steps []string, err error) {
	list, err := a.planned(left)
	if err != nil {
		return nil, err
	}
	providers := map[string]bool{}
	for _, p := range append(list, prepared{provider: a.Provider}) {
		if p.provider == "" || providers[p.provider] {
			continue
		}
		providers[p.provider] = true
		s, err := a.Volumes.Open(p.provider)
		if err != nil {
			return steps, err
		}
		made, err := madeForRestores(ctx, s, a.owner())
		if err != nil {
			return steps, err
		}
		for _, ref := range made {
			steps = append(steps, fmt.Sprintf("delete snapshot %s of %s, which a restore has made of the repository's blocks", ref.ID, p.provider))
			if a.Options.DryRun {
				continue
			}
			if err := s.Delete(ctx, a.owner(), ref); err != nil {
				return steps, fmt.Errorf("delete snapshot %s: %w", ref.ID, err)
			}
		}
	}
	return steps, nil
}

// owner is what stands on the volumes and snapshots of the set.
func (a *Abort) owner() snapshot.Owner {
	return snapshot.Owner{Cluster: a.Volumes.Cluster, Set: record.SetID{Namespace: a.Cluster.Namespace(), Name: a.Set}}
}

// prepared is a claim for which a volume may have been prepared.
type prepared struct {
	provider, claim, zone string
	ordinal               int
}

// scrap removes what was prepared by dead runs and no claim is bound to.
func (a *Abort) scrap(ctx context.Context, left statefulset.Leftovers) (steps []string, err error) {
	list, err := a.planned(left)
	if err != nil {
		return nil, err
	}
	if a.Provider != "" {
		more, err := a.everywhere(ctx)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	seen := map[string]bool{}
	for _, p := range list {
		if seen[p.provider+"/"+p.claim] {
			continue
		}
		seen[p.provider+"/"+p.claim] = true
		steps = append(steps, fmt.Sprintf("remove volumes of %s that were prepared for claim %s and that it has not got", p.provider, p.claim))
		if a.Options.DryRun {
			continue
		}
		if err := a.scrapClaim(ctx, p); err != nil {
			return steps, err
		}
	}
	return steps, nil
}

// planned are the claims of the plans that dead runs have left.
func (a *Abort) planned(left statefulset.Leftovers) ([]prepared, error) {
	var list []prepared
	for _, run := range left.Runs {
		if run.Plan == nil {
			continue
		}
		plan, err := parseRestorePlan(run.Plan, run.ID)
		if err != nil {
			return nil, err
		}
		for _, item := range plan.Items {
			for _, ref := range item.Snapshots {
				list = append(list, prepared{ref.Provider, statefulset.ClaimName(ref.Template, a.Set, item.Ordinal), item.Zone, item.Ordinal})
			}
		}
	}
	return list, nil
}

// everywhere are the claims of all ordinals that are known.
func (a *Abort) everywhere(ctx context.Context) ([]prepared, error) {
	set, err := a.Cluster.Discover(ctx, a.Set, a.Discover)
	if err != nil {
		return nil, err
	}
	ordinals := a.Ordinals
	for _, m := range slices.Concat(set.Members, set.Beyond) {
		ordinals = append(ordinals, m.Ordinal)
	}
	var list []prepared
	for _, ordinal := range ordinals {
		for _, t := range set.Templates {
			list = append(list, prepared{a.Provider, statefulset.ClaimName(t.Name, a.Set, ordinal), a.Volumes.Zone, ordinal})
		}
	}
	return list, nil
}

func (a *Abort) scrapClaim(ctx context.Context, p prepared) error {
	s, err := a.Volumes.Open(p.provider)
	if err != nil {
		return err
	}
	preparer, ok := s.(snapshot.Preparer)
	if !ok {
		return nil
	}
	namespace := a.Cluster.Namespace()
	err = preparer.Scrap(ctx, snapshot.Target{
		Owner: a.owner(), Ordinal: p.ordinal, Run: a.Run.ID, Zone: p.zone,
		Claim: &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: p.claim}},
	})
	if err != nil {
		return fmt.Errorf("remove what was prepared for claim %s/%s: %w", namespace, p.claim, err)
	}
	return nil
}
