package job

import (
	"context"
	"fmt"

	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/statefulset"
)

// FilesRestore is how claims are filled with the files of a backup: the seed pod
// is one of Keepset's own, which loads them from the repository by itself.
type FilesRestore struct {
	Spec statefulset.WorkerSpec
	// Args and Env are those of a seed pod, besides what the run's own Job has.
	Args func(plan *RestorePlan, item RestoreItem) []string
	Env  map[string]string
}

// checkMethod refuses a backup that the restore is not made for.
func (r *Restore) checkMethod(p *record.Plan) error {
	switch {
	case r.Files == nil:
		return checkSeedable(p)
	case p.Method != record.MethodFiles:
		return fmt.Errorf("%w: backup %s was captured by the method %s, not files: leave --method out, or choose another backup", ErrConfig, p.ID, p.Method)
	}
	return nil
}

// fillsClaims makes the spec one of a seed pod that loads the files of the item.
func (r *Restore) fillsClaims(ctx context.Context, spec statefulset.SeedSpec, set statefulset.Set, plan *RestorePlan, item RestoreItem) (statefulset.SeedSpec, error) {
	filler, err := r.Cluster.NewFiller(ctx, set, r.Files.Spec, r.Run)
	if err != nil {
		return spec, err
	}
	spec.Filler = filler.With(r.Files.Args(plan, item), r.Files.Env)
	return spec, nil
}

// entries opens the member, with the keys that the seed pod will have, before
// anything is taken away for it, and counts what it holds.
func (r *Restore) entries(ctx context.Context, plan *RestorePlan, item RestoreItem) (int64, error) {
	l := &LoadFiles{
		Repository: r.Repository, Set: plan.From, Ordinal: item.Base,
		Choice: Choice{Selector: repository.Selector{ID: plan.Backup}, AllowIncomplete: plan.Incomplete, AllowSuspect: plan.Suspect},
		Clock:  r.Clock, Log: r.Log,
	}
	report, err := l.DryRun(ctx)
	if err != nil {
		return 0, err
	}
	return report.Entries, nil
}

// errFillOutside refuses to fill claims without a Job that the seed pods could be
// made of.
var errFillOutside = fmt.Errorf("%w: claims are filled with files by seed pods that are made of the restore's own Job: leave out --local", ErrConfig)
