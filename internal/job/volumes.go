package job

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"keepset/internal/dbdump"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/snapshot"
)

// ConsistencyCrash is the consistency of a member that nobody held still: its
// volumes hold what a power cut would have left.
const ConsistencyCrash = "crash"

// unseen says that nobody has asked the member's server what it holds and where
// it stands: only its files know.
func unseen(r record.Report) bool {
	return r.Consistency == ConsistencyCrash || r.Consistency == dbdump.ConsistencyCommand
}

// VolumeCuts is how the method snapshot captures members: the server is held
// still for as long as it takes to cut its volumes.
type VolumeCuts struct {
	Snapshotter snapshot.Snapshotter
	// Cluster is the origin of the snapshots; see snapshot.Owner.
	Cluster string
	// Hold bounds how long writers are held up.
	Hold time.Duration
	// Quiesce makes what holds a member still; nil when nothing shall.
	Quiesce func(Member) (dbdump.Quiescer, error)
	// CrashConsistent: a member that could not be held still is cut all the
	// same, and its record says so.
	CrashConsistent bool
	// Apart: the volumes of a member may be cut one after the other. That is
	// right only where nothing but one of them changes while the server is held
	// still: InnoDB writes pages all the time.
	Apart bool
	// Copy the blocks of the snapshots into the repository, too.
	Copy bool
	// Regions that the provider copies every snapshot to before its member is
	// committed; the Snapshotter is then a [snapshot.Copier].
	Regions []string
}

// mayBeDown: the server is not needed.
func (v *VolumeCuts) mayBeDown() bool { return v.CrashConsistent || v.Quiesce == nil }

// locate finds the volumes of all members before anything is cut: one claim
// that is missing fails the run.
func (v *VolumeCuts) locate(ctx context.Context, set record.SetID, inv *Inventory) error {
	if _, ok := v.Snapshotter.(snapshot.Copier); len(v.Regions) > 0 && !ok {
		return fmt.Errorf("%w: this snapshotter does not copy to other regions", ErrConfig)
	}
	for i := range inv.Members {
		m := &inv.Members[i]
		if m.Problem != nil {
			return fmt.Errorf("ordinal %d of %s: %w", m.Ordinal, set, m.Problem)
		}
		var wanted []snapshot.Volume
		for _, c := range m.Claims {
			if c.Template != "" { // others are shared by all members
				wanted = append(wanted, snapshot.Volume{
					Owner: snapshot.Owner{Cluster: v.Cluster, Set: set}, Ordinal: m.Ordinal,
					Namespace: set.Namespace, Claim: c.Name, Template: c.Template, Node: m.Node,
				})
			}
		}
		if len(wanted) == 0 {
			return fmt.Errorf("%w: ordinal %d of %s has no claim of its own that could be snapshotted", ErrConfig, m.Ordinal, set)
		}
		if _, ok := v.Snapshotter.(snapshot.Together); len(wanted) > 1 && !ok && !v.Apart {
			return fmt.Errorf("%w: ordinal %d of %s has %d claims, which this snapshotter cuts one after the other; %s", ErrConfig, m.Ordinal, set, len(wanted), apartWarning)
		}
		var err error
		if m.volumes, err = v.Snapshotter.Locate(ctx, wanted); err != nil {
			return fmt.Errorf("find the volumes of ordinal %d of %s: %w", m.Ordinal, set, err)
		}
	}
	return nil
}

// checkRights asks the provider whether it would let us cut, where it can be asked.
func (v *VolumeCuts) checkRights(ctx context.Context, inv Inventory) error {
	checker, ok := v.Snapshotter.(snapshot.RightsChecker)
	if !ok {
		return nil
	}
	for _, m := range inv.Members {
		if err := checker.CheckRights(ctx, m.volumes); err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
	}
	return nil
}

// cutName names the cut of one member by one attempt. Another attempt cuts
// anew: what the server said while it was held still died with the first.
func cutName(id record.BackupID, ordinal int, attempt record.AttemptID) string {
	return fmt.Sprintf("%s%s", cutPrefix(id, ordinal), attempt)
}

func cutPrefix(id record.BackupID, ordinal int) string { return fmt.Sprintf("%s.%d.", id, ordinal) }

// cut captures the member by its volumes and commits it. What it has cut and
// not committed is deleted again; what a killed attempt has left, the one that
// commits deletes. A commit that failed may stand all the same, its reply lost, and
// then the backup needs what was cut.
func (c *capture) cut(ctx context.Context, member Member) (commit record.Commit, report record.Report, err error) {
	w, err := c.writer.Member(ctx, member.Ordinal)
	if err != nil {
		return record.Commit{}, record.Report{}, fmt.Errorf("open the member in the repository: %w", err)
	}
	stop := c.watch(w)
	defer func() { stop(err) }()
	report, refs, err := c.held(ctx, member)
	if err == nil {
		if err = c.readyCut(ctx, w, member, refs); err == nil {
			commit, err = c.commitCut(ctx, w, report)
		}
	}
	switch {
	case errors.Is(err, errMayStand):
		return record.Commit{}, report, err
	case err != nil:
		w.Abort()
		return record.Commit{}, report, errors.Join(err, c.giveUp(ctx, member, refs))
	}
	c.snapshots = refs
	c.sweep(ctx)
	return commit, report, nil
}

// readyCut waits for what was cut, has it copied, and writes what the commit is of. What
// it adds to refs stands there after an error, too.
func (c *capture) readyCut(ctx context.Context, w *repository.MemberWriter, member Member, refs []snapshot.Ref) error {
	for _, r := range refs {
		if err := c.job.Volumes.Snapshotter.WaitReady(ctx, r); err != nil {
			return fmt.Errorf("wait for snapshot %s of claim %s: %w", r.ID, r.Claim, err)
		}
	}
	if err := c.job.Volumes.beginCopies(ctx, member, refs); err != nil {
		return err
	}
	if c.job.Volumes.Copy { // while the provider copies
		if err := c.copyBlocks(ctx, w, refs); err != nil {
			return err
		}
	}
	if err := c.job.Volumes.waitCopies(ctx, refs); err != nil {
		return err
	}
	if err := c.job.check(ctx); err != nil {
		return err
	}
	if err := c.writeObjects(ctx, w); err != nil {
		return err
	}
	if err := w.AddVolumeSnapshots(refs); err != nil {
		return err
	}
	return ctx.Err()
}

// errMayStand says of a commit that failed that it may be stored.
var errMayStand = errors.New("the volume snapshots stay, in case the commit was stored: the next attempt of the run finds it, or deletes them; without one, verify --orphans lists them")

// commitCut commits the member.
func (c *capture) commitCut(ctx context.Context, w *repository.MemberWriter, report record.Report) (record.Commit, error) {
	reasons := c.job.Rules.Judge(report, c.last)
	commit, err := w.Commit(ctx, report, repository.CommitStatus{Suspect: len(reasons) > 0, Reasons: reasons})
	if err != nil {
		return commit, fmt.Errorf("commit the member: %w; %w", err, errMayStand)
	}
	return commit, nil
}

// held cuts the member's volumes while its server is held still.
func (c *capture) held(ctx context.Context, member Member) (report record.Report, refs []snapshot.Ref, err error) {
	v := c.job.Volumes
	if v.Quiesce == nil {
		return c.crash(ctx, member, "nothing was asked to hold the server still")
	}
	if err = member.Unreachable; err == nil {
		report, refs, err = c.quiesced(ctx, member)
	}
	if err == nil || !v.CrashConsistent || ctx.Err() != nil {
		return report, refs, err
	}
	if undo := c.giveUp(ctx, member, refs); undo != nil {
		return report, nil, errors.Join(err, undo)
	}
	return c.crash(ctx, member, "the server could not be held still: "+err.Error())
}

func (c *capture) quiesced(ctx context.Context, member Member) (record.Report, []snapshot.Ref, error) {
	q, err := c.job.Volumes.Quiesce(member)
	if err != nil {
		return record.Report{}, nil, err
	}
	defer closeEngine(q)
	var refs []snapshot.Ref
	report, err := q.Quiesce(ctx, c.job.Volumes.Hold, func(ctx context.Context) (err error) {
		refs, err = c.job.Volumes.Snapshotter.Cut(ctx, cutName(c.writer.Plan().ID, member.Ordinal, c.job.Attempt), member.volumes)
		return err
	})
	report.Engine = c.job.Plan.Engine // also where another one holds it still
	if err != nil {
		return report, refs, fmt.Errorf("cut the volumes of %s while it is held still: %w", member.Name, err)
	}
	return report, refs, c.job.Volumes.oneMoment(member, refs)
}

// oneMoment refuses volumes of different moments.
func (v *VolumeCuts) oneMoment(member Member, refs []snapshot.Ref) error {
	if len(refs) < 2 || v.Apart || !slices.ContainsFunc(refs, func(r snapshot.Ref) bool { return !r.Together }) {
		return nil
	}
	return fmt.Errorf("%w: the volumes of %s were cut one after the other; %s", ErrConfig, member.Name, apartWarning)
}

const apartWarning = "a database that writes in the background may not come up on volumes of different moments; " +
	"--apart consents, where all but one hold nothing that the others depend on, such as binary logs"

// crash cuts the volumes as they are.
func (c *capture) crash(ctx context.Context, member Member, why string) (record.Report, []snapshot.Ref, error) {
	report := record.Report{
		Engine: c.job.Plan.Engine, Layout: layoutVolumes, Consistency: ConsistencyCrash,
		Warnings: []string{"crash consistent: " + why},
	}
	refs, err := c.job.Volumes.Snapshotter.Cut(ctx, cutName(c.writer.Plan().ID, member.Ordinal, c.job.Attempt)+"-crash", member.volumes)
	if err != nil {
		return report, refs, fmt.Errorf("cut the volumes of %s: %w", member.Name, err)
	}
	report.CapturedAt = slices.MinFunc(refs, func(a, b snapshot.Ref) int { return a.CutAt.Compare(b.CutAt) }).CutAt
	return report, refs, c.job.Volumes.oneMoment(member, refs)
}

// layoutVolumes is the layout of a member whose content is in its volumes.
const layoutVolumes = "volumes/1"

// giveUp deletes what was cut for a member that will not be committed.
func (c *capture) giveUp(ctx context.Context, member Member, refs []snapshot.Ref) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	var failed []error
	for _, r := range refs {
		if err := c.job.Volumes.Snapshotter.Delete(ctx, member.volumes[0].Owner, r); err != nil {
			failed = append(failed, fmt.Errorf("delete snapshot %s, which no backup needs: %w", r.ID, err))
		}
	}
	return errors.Join(failed...)
}

// sweep deletes what other attempts at this member have cut. It is called
// once the member is committed: an attempt that is still alive can only commit
// after it, and of two commits the earlier one counts. The member is good
// whatever becomes of it.
func (c *capture) sweep(ctx context.Context) {
	if err := c.deleteStale(ctx); err != nil {
		c.job.Log.Warn("volume snapshots of a killed attempt stay behind; verify --orphans lists them", "ordinal", c.planned.Ordinal, "error", err)
	}
}

func (c *capture) deleteStale(ctx context.Context) error {
	plan, ordinal := c.writer.Plan(), c.planned.Ordinal
	id := plan.ID
	counts, ok, err := c.writer.Committed(ctx, ordinal)
	if err != nil || !ok {
		return errors.Join(err, ctx.Err())
	}
	keep := cutName(id, ordinal, counts.Attempt)
	owner := snapshot.Owner{Cluster: c.job.Volumes.Cluster, Set: plan.Set}
	var stale []snapshot.Ref
	for r, err := range c.job.Volumes.Snapshotter.List(ctx, owner) {
		if err != nil {
			return err
		}
		if strings.HasPrefix(r.Cut, cutPrefix(id, ordinal)) && !strings.HasPrefix(r.Cut, keep) {
			stale = append(stale, r)
		}
	}
	var failed []error
	for _, r := range stale {
		failed = append(failed, c.job.Volumes.Snapshotter.Delete(ctx, owner, r))
	}
	return errors.Join(failed...)
}
