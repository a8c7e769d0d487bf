package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"keepset/internal/record"
	"keepset/internal/snapshot"
	"keepset/internal/statefulset"
)

// FileSnapshots have the files of a claim read as they were at one moment, whoever
// writes meanwhile: the volume is snapshotted, a worker reads a claim that is made
// of the snapshot, on any node, and both are deleted.
type FileSnapshots struct {
	// Snapshotter lists and deletes nothing but what it has cut for such a while.
	Snapshotter snapshot.Snapshotter
	// Cluster is the origin of the snapshots; see snapshot.Owner.
	Cluster string
}

// FromSnapshot says of which volume snapshot, and so of which moment, files are.
type FromSnapshot struct {
	Name  string
	CutAt time.Time
}

// describe writes it into the record of a member.
func (s *FromSnapshot) describe(r *record.Report) {
	if s == nil {
		return
	}
	r.CapturedAt, r.Consistency = s.CutAt.UTC(), ConsistencyCrash
	r.Warnings = append(r.Warnings, fmt.Sprintf("crash consistent: the files are those of volume snapshot %s, cut at %s while nobody held the program still", s.Name, s.CutAt.UTC().Format(time.RFC3339Nano)))
}

// owner of the snapshots.
func (f *FileWorkers) owner() snapshot.Owner {
	return snapshot.Owner{Cluster: f.Snapshots.Cluster, Set: record.SetID{Namespace: f.Cluster.Namespace(), Name: f.Set}}
}

// cutFor names the cut of one ordinal by one run. It is the same for every attempt
// of the run's Job, so that one that was started anew goes on where the last one was
// killed, and it names the Job, so that another run can find out whether that lives.
func (f *FileWorkers) cutFor(ordinal int) string {
	return fmt.Sprintf("files.%d.%s.%s", ordinal, f.Run.ID, f.Run.JobName)
}

// runOf is the run whose cut has this name.
func runOf(cut string) (id, job string, ok bool) {
	parts := strings.SplitN(cut, ".", 4) // a Job's name may have dots
	if len(parts) < 4 || parts[0] != "files" || parts[2] == "" || parts[3] == "" {
		return "", "", false
	}
	return parts[2], parts[3], true
}

// locate finds the volumes of all members and what a snapshot or a claim of it
// would fail for, before anything is cut. A claim that is missing fails its member
// alone; one whose driver has no snapshots is none that another try would mend.
func (f *FileWorkers) locate(ctx context.Context, inv Inventory) error {
	var refused []error
	for i := range inv.Members {
		m := &inv.Members[i]
		if m.Problem != nil {
			continue
		}
		claim := f.workers.Claim(f.members[m.Ordinal])
		located, err := f.Snapshots.Snapshotter.Locate(ctx, []snapshot.Volume{{
			Owner: f.owner(), Ordinal: m.Ordinal, Namespace: f.Cluster.Namespace(), Claim: claim.Name, Template: claim.Template,
		}})
		if err == nil {
			m.volumes = located
			err = f.checkFit(ctx, *m)
		}
		switch {
		case errors.Is(err, snapshot.ErrNotFound):
			m.Problem = fmt.Errorf("snapshot claim %s: %w", claim.Name, err)
		case err != nil:
			refused = append(refused, fmt.Errorf("snapshot claim %s: %w", claim.Name, err))
		}
	}
	return errors.Join(refused...)
}

func (f *FileWorkers) checkFit(ctx context.Context, m Member) error {
	explainer, ok := f.Snapshots.Snapshotter.(snapshot.Explainer)
	if !ok {
		return nil
	}
	target, err := f.target(ctx, m.Ordinal)
	if err != nil {
		return err
	}
	return explainer.CheckFit(ctx, m.volumes[0], target)
}

// target is the temporary claim of an ordinal.
func (f *FileWorkers) target(ctx context.Context, ordinal int) (snapshot.Target, error) {
	claim, err := f.workers.TemporaryClaim(ctx, f.members[ordinal])
	return snapshot.Target{Owner: f.owner(), Ordinal: ordinal, Run: f.Run.ID, Claim: claim}, err
}

// workedFromSnapshot has a worker read the member's claim as it is now, and leaves
// nothing of what that takes.
func (c *capture) workedFromSnapshot(ctx context.Context, member Member) (result statefulset.JobResult, report record.Report, err error) {
	f := c.job.Workers
	defer func() {
		if undo := f.removeTemporary(context.WithoutCancel(ctx), member.Ordinal); undo != nil {
			err = errors.Join(err, fmt.Errorf("and what files were read from stays behind, until the next backup or with the run's Job: %w", undo))
		}
	}()
	target, err := f.target(ctx, member.Ordinal)
	if err != nil {
		return result, report, err
	}
	ref, err := f.provision(ctx, member, target)
	if errors.Is(err, snapshot.ErrInUse) { // an earlier attempt was killed as it removed them
		c.job.Log.Warn("what an earlier attempt has left is removed and made anew", "ordinal", member.Ordinal, "reason", err)
		if err = f.removeTemporary(ctx, member.Ordinal); err == nil {
			ref, err = f.provision(ctx, member, target)
		}
	}
	if err != nil {
		return result, report, err
	}
	from := FromSnapshot{Name: ref.Name, CutAt: ref.CutAt}
	c.job.Log.Info("files are read from a volume snapshot", "ordinal", member.Ordinal, "volumesnapshot", ref.Name, "cut", ref.CutAt, "claim", target.Claim.Name)
	from.describe(&report)
	report.Warnings = nil // the worker has said so
	result, err = f.workers.Work(ctx, f.members[member.Ordinal], "", f.Env(c.writer.Plan().ID, member.Ordinal, &from), f.Out)
	explainer, ok := f.Snapshots.Snapshotter.(snapshot.Explainer)
	if errors.Is(err, statefulset.ErrTimeout) && ok {
		if unbound := explainer.CheckBound(ctx, target); unbound != nil {
			err = fmt.Errorf("%w: %w", err, unbound)
		}
	}
	return result, report, err
}

// provision cuts the member's volume and makes the claim of it, or finds what an
// earlier attempt of this run has made.
func (f *FileWorkers) provision(ctx context.Context, member Member, target snapshot.Target) (snapshot.Ref, error) {
	refs, err := f.Snapshots.Snapshotter.Cut(ctx, f.cutFor(member.Ordinal), member.volumes)
	if err != nil {
		return snapshot.Ref{}, fmt.Errorf("snapshot claim %s: %w", member.volumes[0].Claim, err)
	}
	if err := f.Snapshots.Snapshotter.Provision(ctx, refs[0], target); err != nil {
		return snapshot.Ref{}, fmt.Errorf("make a claim of volume snapshot %s for the worker: %w", refs[0].Name, err)
	}
	return refs[0], nil
}

// removeTemporary deletes what this run has made to read an ordinal from, whichever
// attempt it was: the worker, its claim, and the snapshot that this was made of.
func (f *FileWorkers) removeTemporary(ctx context.Context, ordinal int) error {
	if err := f.workers.Remove(ctx, ordinal); err != nil {
		return err
	}
	if err := f.workers.RemoveClaim(ctx, ordinal); err != nil {
		return err // which may still be made of the snapshot
	}
	return f.deleteCuts(ctx, func(ref snapshot.Ref) (bool, error) { return ref.Cut == f.cutFor(ordinal), nil })
}

// removeLeft deletes what dead runs have left. A backup is taken all the same where
// that fails: the next one tries again.
func (f *FileWorkers) removeLeft(ctx context.Context, log *slog.Logger) {
	if f == nil || f.Snapshots == nil {
		return
	}
	claims, err := f.workers.RemoveLeft(ctx)
	if err == nil {
		err = f.deleteCuts(ctx, func(ref snapshot.Ref) (bool, error) {
			id, job, ok := runOf(ref.Cut)
			if !ok {
				return false, nil
			}
			return f.workers.Ended(ctx, job, id)
		})
	}
	if len(claims) > 0 {
		log.Info("temporary claims of a dead run were removed", "claims", claims)
	}
	if err != nil {
		log.Warn("what a dead run has left to read files from stays behind until the next backup", "error", err)
	}
}

// deleteCuts deletes the snapshots that are chosen. All are tried.
func (f *FileWorkers) deleteCuts(ctx context.Context, chosen func(snapshot.Ref) (bool, error)) error {
	var refs []snapshot.Ref
	for ref, err := range f.Snapshots.Snapshotter.List(ctx, f.owner()) {
		if err != nil {
			return err
		}
		ok, err := chosen(ref)
		if err != nil {
			return err
		}
		if ok {
			refs = append(refs, ref)
		}
	}
	var failed []error
	for _, ref := range refs {
		failed = append(failed, f.Snapshots.Snapshotter.Delete(ctx, f.owner(), ref))
	}
	return errors.Join(failed...)
}
