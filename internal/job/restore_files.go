package job

import (
	"context"
	"fmt"
	"path"

	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/statefulset"
)

// FilesRestore is how claims are filled with the files of a backup: the seed pod
// is one of Keepset's own, which loads them from the repository by itself.
type FilesRestore struct {
	// Method by which the backup has to be captured.
	Method string
	Spec   statefulset.WorkerSpec
	// Place finds in the claims where a server keeps the files of which a backup
	// tells; nil where the claims are filled as a whole.
	Place func(statefulset.Set, record.Report) (statefulset.DataPlace, error)
	// Args and Env are those of a seed pod, besides what the run's own Job has.
	// The files go to dir.
	Args func(plan *RestorePlan, item RestoreItem, dir string) []string
	Env  map[string]string
	// Base says what the files of a server become; nil where there is no server.
	Base func(item RestoreItem) (Base, error)
	// Ask asks the set's own server, once it is Ready; nil where it has been asked
	// before, or there is none.
	Ask func(item RestoreItem) Asker
	// Adopt says how a server is started on the files within the seed pod, which is
	// then asked over the network to be one of its own; nil where the files are all
	// that it takes.
	Adopt *statefulset.Adoption
}

// filesAlone says that claims are filled by seed pods in which no server runs.
func (r *Restore) filesAlone() bool { return r.Files != nil && r.Files.Adopt == nil }

// checkMethod refuses a backup that the restore is not made for.
func (r *Restore) checkMethod(p *record.Plan) error {
	switch {
	case r.Files == nil:
		return checkSeedable(p)
	case p.Method != r.Files.Method:
		return fmt.Errorf("%w: backup %s was captured by the method %s, not %s: say so by --method, or choose another backup", ErrConfig, p.ID, p.Method, r.Files.Method)
	}
	return nil
}

// fillsClaims makes the spec one of a seed pod that loads the files of the item.
func (r *Restore) fillsClaims(ctx context.Context, spec statefulset.SeedSpec, set statefulset.Set, plan *RestorePlan, item RestoreItem) (statefulset.SeedSpec, error) {
	worker, dir := r.Files.Spec, statefulset.WorkerPath
	if r.Files.Place != nil {
		if item.Place == nil {
			return spec, fmt.Errorf("%w: the stored plan is another version's: start a new restore", ErrConfig)
		}
		worker.Template, dir = item.Place.Template, path.Join(dir, item.Place.Path)
	}
	filler, err := r.Cluster.NewFiller(ctx, set, worker, r.Run)
	if err != nil {
		return spec, err
	}
	filler = filler.With(r.Files.Args(plan, item, dir), r.Files.Env)
	if r.filesAlone() {
		spec.Filler = filler
	} else {
		spec.Fill, spec.Adopt = filler, r.Files.Adopt
	}
	return spec, nil
}

// placeFiles says in the plan where the files of an item go, and what its server will
// be asked for.
func (r *Restore) placeFiles(set statefulset.Set, report record.Report, item *RestoreItem) error {
	if r.Files == nil || r.Files.Place == nil {
		return nil
	}
	at, err := r.Files.Place(set, report)
	if err != nil {
		return fmt.Errorf("ordinal %d: %w", item.Ordinal, err)
	}
	item.Place = &at
	if r.Files.Ask != nil { // those of MySQL may be long, and a stored plan may not
		item.Coordinates = &report.Coordinates
	}
	return nil
}

// entries opens the member, with the keys that the seed pod will have, before
// anything is taken away for it, and counts what it holds. A server's upstream is
// asked whether it can be followed.
func (r *Restore) entries(ctx context.Context, plan *RestorePlan, item RestoreItem) (int64, error) {
	l := &LoadFiles{
		Repository: r.Repository, Set: plan.From, Ordinal: item.Base,
		Choice: Choice{Selector: repository.Selector{ID: plan.Backup}, AllowIncomplete: plan.Incomplete, AllowSuspect: plan.Suspect},
		Clock:  r.Clock, Log: r.Log,
	}
	if r.Files.Base != nil {
		var err error
		if l.Base, err = r.Files.Base(item); err != nil {
			return 0, err
		}
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
