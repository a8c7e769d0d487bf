package job

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/retention"
	"keepset/internal/snapshot"
)

// Prune deletes what retention lets go, or what the user names, and what
// earlier prunes have condemned. One at a time changes a set: [ErrBusy] when
// two of different minds meet.
type Prune struct {
	Repository *repository.Repository
	Set        record.SetID
	// Policy of the backups that stay; its Longest and Slack are the repository's.
	Policy retention.Policy
	// IDs that go, in place of what the policy says.
	IDs []record.BackupID
	// Force is the user's word for the loss of most backups at once, of the newest
	// complete one, or of one that may still be running.
	Force bool
	// DryRun changes nothing.
	DryRun bool
	// Snapshotter deletes the volume snapshots that no backup needs any more; nil
	// leaves them. Provider is whose snapshots it keeps.
	Snapshotter snapshot.Snapshotter
	Provider    string
}

// PruneReport is what a Prune did, or in a dry run would do.
type PruneReport struct {
	Set    string `json:"set"`
	DryRun bool   `json:"dryRun,omitempty"`
	// Now is the store's clock; in a dry run the newest time that it is known to
	// have reached.
	Now time.Time `json:"now"`
	// Decisions on all backups, the newest first; of a deletion by ID those on the named ones.
	Decisions []retention.Decision `json:"decisions"`
	// Condemned by this run, and Finished of what an earlier one had begun.
	Condemned []record.BackupID `json:"condemned"`
	Finished  []record.BackupID `json:"finished"`
	// Marked by this run, to be deleted after Due; Deletable were marked earlier and are due; Waiting are not yet.
	Marked    repository.Amount `json:"marked"`
	Due       time.Time         `json:"due"`
	Deletable repository.Amount `json:"deletable"`
	Waiting   repository.Amount `json:"waiting"`
	// Freed is what this run has deleted. Hidden is deleted as well, and the store keeps its
	// bytes as older versions, so that it costs as before.
	Freed  repository.Amount `json:"freed"`
	Hidden repository.Amount `json:"hidden"`
	// Needed by the backups that stay; HalfDead of it are packs of backups that are gone.
	Needed   repository.Amount `json:"needed"`
	HalfDead repository.Amount `json:"halfDead"`
	// Released volume snapshots are needed by no backup any more; Deleted of them are gone.
	Released []ReleasedSnapshot `json:"releasedVolumeSnapshots"`
	Deleted  []string           `json:"deletedVolumeSnapshots"`
	// Error says why nothing, or not everything, was done.
	Error string `json:"error,omitempty"`
}

// ReleasedSnapshot is a volume snapshot, or a copy of one in another region, that
// no backup needs any more.
type ReleasedSnapshot struct {
	Backup   record.BackupID       `json:"backup"`
	Ordinal  int                   `json:"ordinal"`
	Snapshot record.VolumeSnapshot `json:"snapshot"`
}

// Run prunes. The report is there also when the error is not nil.
// ErrNeedsConsent when most backups would go at once.
func (p *Prune) Run(ctx context.Context) (*PruneReport, error) {
	report := &PruneReport{
		Set: p.Set.String(), DryRun: p.DryRun, Decisions: []retention.Decision{},
		Condemned: []record.BackupID{}, Finished: []record.BackupID{}, Released: []ReleasedSnapshot{}, Deleted: []string{},
	}
	err := p.run(ctx, report)
	if errors.Is(err, repository.ErrConcurrentPrune) {
		err = fmt.Errorf("%w: %w", ErrBusy, err)
	}
	if err != nil {
		report.Error = err.Error()
	}
	return report, err
}

func (p *Prune) run(ctx context.Context, report *PruneReport) error {
	config := p.Repository.Config()
	p.Policy.Longest, p.Policy.Slack = config.LongestBackup.Duration(), config.Slack.Duration()
	if len(p.IDs) == 0 {
		if err := p.Policy.Validate(); err != nil {
			return err
		}
	}
	owner := snapshot.Owner{Set: p.Set}
	o := repository.PruneOptions{
		Set: p.Set, Force: p.Force, DryRun: p.DryRun,
		Choose: func(v repository.PruneView) ([]record.BackupID, error) {
			owner.Cluster = originOf(v.Backups)
			return p.choose(v, report)
		},
	}
	if p.Snapshotter != nil {
		o.Release = func(ctx context.Context, now time.Time, list []repository.NeededSnapshot) error {
			return p.release(ctx, now, owner, list, report)
		}
	}
	pruned, err := p.Repository.Prune(ctx, o)
	report.Now, report.Due = pruned.Now.UTC(), pruned.Due.UTC()
	report.Condemned = append(report.Condemned, pruned.Condemned...)
	report.Finished = append(report.Finished, pruned.Finished...)
	report.Marked, report.Deletable, report.Waiting = pruned.Marked, pruned.Deletable, pruned.Waiting
	report.Freed, report.Hidden, report.Needed, report.HalfDead = pruned.Freed, pruned.Hidden, pruned.Needed, pruned.HalfDead
	for _, s := range pruned.VolumeSnapshots {
		for _, one := range s.Snapshot.Whole() {
			report.Released = append(report.Released, ReleasedSnapshot{Backup: s.Backup, Ordinal: s.Ordinal, Snapshot: one})
		}
	}
	return err
}

// originOf is the origin of the newest backup that names one.
func originOf(infos []repository.BackupInfo) string {
	for i := range infos {
		if origin := infos[i].Plan.Origin; origin != "" {
			return origin
		}
	}
	return ""
}

func (p *Prune) choose(v repository.PruneView, report *PruneReport) ([]record.BackupID, error) {
	if len(p.IDs) > 0 {
		return p.IDs, p.chooseNamed(v, report)
	}
	report.Decisions = retention.Decide(judged(v.Backups), p.Policy, v.Now)
	deleted, of, mass := retention.Mass(report.Decisions)
	if mass && !p.Force {
		return nil, fmt.Errorf("%w: %d of the %d backups of %s would be deleted at once, which is more than half; look at --dry-run, and if that is what you want, give --force once",
			ErrNeedsConsent, deleted, of, p.Set)
	}
	var ids []record.BackupID
	for _, d := range slices.Backward(report.Decisions) {
		if !d.Keep {
			ids = append(ids, d.Backup)
		}
	}
	return ids, nil
}

// chooseNamed looks at the backups that the user names.
func (p *Prune) chooseNamed(v repository.PruneView, report *PruneReport) error {
	for _, id := range p.IDs {
		at := slices.IndexFunc(v.Backups, func(info repository.BackupInfo) bool { return info.ID == id })
		if at < 0 {
			return fmt.Errorf("%w: %s of %s", repository.ErrNoBackup, id, p.Set)
		}
		info := &v.Backups[at]
		running := p.Policy.Longest + p.Policy.Slack
		if info.Status == repository.StatusIncomplete && v.Now.Sub(info.PlanTime) <= running && !p.Force {
			return fmt.Errorf("%w: backup %s may still be running, as it is younger than %s; stop its Job and give --force", ErrNeedsConsent, id, running)
		}
		b := judge(info)
		report.Decisions = append(report.Decisions, retention.Decision{
			Backup: id, Group: b.Group, State: b.State, CapturedAt: b.CapturedAt, StoredAt: b.StoredAt, Reasons: []string{"named by the user"},
		})
	}
	return nil
}

func judged(infos []repository.BackupInfo) []retention.Backup {
	list := make([]retention.Backup, 0, len(infos))
	for i := range infos {
		list = append(list, judge(&infos[i]))
	}
	return list
}

// judge says what retention has to know of a backup. What no restore would
// take for good by itself is in doubt.
func judge(info *repository.BackupInfo) retention.Backup {
	b := retention.Backup{
		ID: info.ID, Group: kindOf(&info.Plan), CapturedAt: info.CapturedAt().UTC(), StoredAt: info.PlanTime.UTC(),
		Pinned: info.Pinned, Labels: info.Plan.Labels, Condemned: info.Condemned, Copied: info.Copied(), Drilled: info.Drilled(),
	}
	if b.Why = info.InDoubt(); b.Why != "" {
		b.State = retention.Doubtful
		return b
	}
	switch info.Status {
	case repository.StatusComplete:
		b.State = retention.Complete
	case repository.StatusSuspect:
		b.State = retention.Suspect
	case repository.StatusIncomplete:
		b.State = retention.Incomplete
	default:
		b.State, b.Why = retention.Doubtful, string(info.Status)
	}
	return b
}

// kindOf names what a backup holds: one of a single database or directory, or of some
// of the members, takes the place of no whole one, nor does one by another method.
func kindOf(plan *record.Plan) string {
	parts := []string{plan.Method}
	if len(plan.Databases) > 0 {
		databases := slices.Clone(plan.Databases)
		slices.Sort(databases)
		parts = append(parts, "databases "+strings.Join(databases, ","))
	}
	if len(plan.Paths) > 0 {
		paths := slices.Clone(plan.Paths)
		slices.Sort(paths)
		parts = append(parts, "paths "+strings.Join(paths, ","))
	}
	if plan.Ordinals != "" {
		parts = append(parts, "ordinals "+plan.Ordinals)
	}
	if plan.FollowersOnly {
		parts = append(parts, "followers")
	}
	return strings.Join(parts, ", ")
}

// release deletes volume snapshots and their copies. The list comes from records
// that anybody who writes to the bucket could have forged: only what the provider
// keeps for this set, and what no running backup can have cut, is touched.
func (p *Prune) release(ctx context.Context, now time.Time, owner snapshot.Owner, list []repository.NeededSnapshot, report *PruneReport) error {
	var released []record.VolumeSnapshot
	for _, s := range list {
		if s.Snapshot.Provider == p.Provider {
			released = append(released, s.Snapshot)
		}
	}
	kept, err := keptWith(ctx, p.Snapshotter, owner, released)
	if err != nil {
		return err
	}
	young := now.Add(-p.Policy.Longest - p.Policy.Slack)
	for i := range released {
		for _, one := range slices.Backward(released[i].Whole()) { // copies first
			ref, have := kept[identity(&one)]
			if !have || ref.CutAt.After(young) {
				continue
			}
			if err := p.Snapshotter.Delete(ctx, owner, one); err != nil {
				return fmt.Errorf("delete volume snapshot %s of cut %s: %w", one.ID, one.Cut, err)
			}
			report.Deleted = append(report.Deleted, one.ID)
		}
	}
	return nil
}
