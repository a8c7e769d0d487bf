package job

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"keepset/internal/record"
	"keepset/internal/snapshot"
	"keepset/internal/statefulset"
)

// VolumeRestore is how claims are made of volume snapshots.
type VolumeRestore struct {
	// Open returns the snapshotter of a provider.
	Open func(provider string) (snapshot.Snapshotter, error)
	// Cluster is the origin of this cluster; see snapshot.Owner.
	Cluster string
	// Zone of new volumes; empty: where the replica was, or will be.
	Zone string
	// FromCopy makes volumes of the repository's copy of their blocks, even where
	// the provider still has the snapshots.
	FromCopy bool
	// Adopt is how the database starts on another's files.
	Adopt statefulset.Adoption
}

// planVolumes decides which snapshots make which claims, and where, and makes
// sure that the snapshots are still there.
func (r *Restore) planVolumes(ctx context.Context, set statefulset.Set, plan *RestorePlan, members backedUp) error {
	if r.Volumes == nil {
		return fmt.Errorf("%w: backup %s consists of volume snapshots, of which this job cannot make claims", ErrConfig, plan.Backup)
	}
	placed := map[int]string{}
	for i := range plan.Items {
		item := &plan.Items[i]
		item.Snapshots = members.snapshots(item.Base)
		for _, t := range set.Templates {
			if !slices.ContainsFunc(item.Snapshots, func(s record.VolumeSnapshot) bool { return s.Template == t.Name }) {
				return fmt.Errorf("%w: the set has the claim template %s, of which ordinal %d of backup %s holds no volume snapshot", ErrConfig, t.Name, item.Base, plan.Backup)
			}
		}
		item.Zone = r.Volumes.Zone
		if item.Zone == "" && slices.ContainsFunc(item.Snapshots, zoned) {
			var err error
			if item.Zone, err = r.Cluster.ZoneFor(ctx, set, item.Ordinal, placed); err != nil {
				return err
			}
			placed[item.Ordinal] = item.Zone
		}
	}
	return r.checkSnapshots(ctx, plan)
}

// zoned says whether we choose the zone of a volume made of the snapshot. A CSI
// driver and the scheduler choose themselves; only what the user demands is held
// against it.
func zoned(s record.VolumeSnapshot) bool { return s.Provider != record.ProviderCSI }

// checkSnapshots asks the provider for every snapshot of the plan.
func (r *Restore) checkSnapshots(ctx context.Context, plan *RestorePlan) error {
	for i := range plan.Items {
		item := &plan.Items[i]
		for _, ref := range item.Snapshots {
			near, copied, err := r.available(ctx, ref, item.Zone)
			if ref.Provider == record.ProviderCSI && errors.Is(err, snapshot.ErrNotFound) {
				// Its objects are gone; the driver may still have what they spoke of.
				plan.note("no object of the cluster speaks of snapshot %s of claim %s any more; the restore asks the driver before it touches anything", ref.ID, ref.Claim)
				err = nil
			}
			if err != nil {
				return fmt.Errorf("snapshot %s of claim %s, which backup %s needs: %w", ref.ID, ref.Claim, plan.Backup, err)
			}
			if near.ID != ref.ID && !copied {
				plan.note("the volume of claim %s is made of %s, the copy in region %s of snapshot %s", ref.Claim, near.ID, near.Region, ref.ID)
			}
			if copied {
				item.FromCopy = true
				plan.note("snapshot %s of claim %s is not used: its volume is made of the copy of its blocks in the repository", ref.ID, ref.Claim)
			}
		}
	}
	return nil
}

// volumeSpec completes the form of a seed whose claims come with their content.
func (r *Restore) volumeSpec(spec statefulset.SeedSpec, plan *RestorePlan, item RestoreItem) (statefulset.SeedSpec, error) {
	if r.Volumes == nil || len(item.Snapshots) == 0 {
		return spec, fmt.Errorf("%w: ordinal %d of backup %s has no volume snapshots, of which claims could be made", ErrConfig, item.Base, plan.Backup)
	}
	spec.ClaimTemplates = nil
	for _, ref := range item.Snapshots {
		spec.ClaimTemplates = append(spec.ClaimTemplates, ref.Template)
	}
	adopt := r.Volumes.Adopt
	spec.Adopt = &adopt
	spec.MakeClaim = func(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
		s, ref, target, err := r.target(ctx, plan, item, claim)
		if err != nil {
			return err
		}
		if err := s.Provision(ctx, ref, target); err != nil {
			if errors.Is(err, snapshot.ErrInUse) {
				err = fmt.Errorf("%w: %w", statefulset.ErrClaimInUse, err)
			}
			return err
		}
		return nil
	}
	return spec, nil
}

// owner is what stands on the volumes of the set that is restored.
func (r *Restore) owner() snapshot.Owner {
	return snapshot.Owner{Cluster: r.Volumes.Cluster, Set: record.SetID{Namespace: r.Cluster.Namespace(), Name: r.Set}}
}

// target says what a claim of the item is made of.
func (r *Restore) target(ctx context.Context, plan *RestorePlan, item RestoreItem, claim *corev1.PersistentVolumeClaim) (snapshot.Snapshotter, snapshot.Ref, snapshot.Target, error) {
	s, ref, target, err := r.source(item, claim)
	if err == nil && item.FromCopy {
		ref, err = r.rewritten(ctx, plan, item, ref)
	}
	return s, ref, target, err
}

// source is the snapshot that a claim of the item is made of.
func (r *Restore) source(item RestoreItem, claim *corev1.PersistentVolumeClaim) (snapshot.Snapshotter, snapshot.Ref, snapshot.Target, error) {
	target := snapshot.Target{Owner: r.owner(), Ordinal: item.Ordinal, Run: r.Run.ID, Claim: claim, Zone: item.Zone}
	for _, ref := range item.Snapshots {
		if claim.Name == statefulset.ClaimName(ref.Template, r.Set, item.Ordinal) {
			s, err := r.Volumes.Open(ref.Provider)
			return s, ref, target, err
		}
	}
	return nil, snapshot.Ref{}, target, fmt.Errorf("%w: the backup holds no volume snapshot for claim %s", ErrConfig, claim.Name)
}

// prepareVolumes does what can be done while the old claims still stand, and
// refuses what would not fit.
func (r *Restore) prepareVolumes(ctx context.Context, seed *statefulset.Seed, plan *RestorePlan, item RestoreItem) error {
	if plan.Method != record.MethodSnapshot {
		return nil
	}
	for _, claim := range seed.Claims() {
		s, ref, target, err := r.target(ctx, plan, item, claim)
		if err != nil {
			return err
		}
		p, ok := s.(snapshot.Preparer)
		if !ok {
			continue
		}
		if err := p.Prepare(ctx, ref, target); err != nil {
			return fmt.Errorf("prepare a volume of snapshot %s for claim %s: %w", ref.ID, claim.Name, err)
		}
	}
	return nil
}

// scrapVolumes takes away what was prepared and did not become a claim: nobody
// may ever come back for it. A restore that is being stopped leaves it to its
// next attempt.
func (r *Restore) scrapVolumes(ctx context.Context, seed *statefulset.Seed, plan *RestorePlan, item RestoreItem) error {
	if plan.Method != record.MethodSnapshot {
		return nil
	}
	select {
	case <-ctx.Done():
		return nil
	default:
	}
	var failed []error
	for _, claim := range seed.Claims() {
		s, _, target, err := r.source(item, claim)
		if p, ok := s.(snapshot.Preparer); err == nil && ok {
			err = p.Scrap(ctx, target)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("and what was prepared for claim %s stays behind: %w", claim.Name, err))
		}
	}
	return errors.Join(failed...)
}
