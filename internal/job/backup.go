package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"keepset/internal/dbdump"
	"keepset/internal/filetree"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/statefulset"
)

// Guard asks whether somebody else holds the set at this moment.
type Guard interface {
	// Check returns an error wrapping ErrBusy when another run holds the set.
	Check(ctx context.Context) error
}

// Backup takes one backup of one set.
type Backup struct {
	Repository *repository.Repository
	Set        record.SetID
	// ID names the backup. All attempts of one Job have the same, which is
	// what makes a retried pod continue what a killed one began.
	ID      record.BackupID
	Attempt record.AttemptID
	// Plan carries what the plan records besides the members: method,
	// engine, filters, tool.
	Plan     record.Plan
	Discover Discover
	Ordinals Ordinals
	Share    Share
	// Open makes the engine that dumps one member, or holds it still.
	Open func(Member) (dbdump.Engine, error)
	// Volumes is set for the method snapshot.
	Volumes *VolumeCuts
	// Files is set for the method files: members are directories, whose paths
	// are their addresses.
	Files *filetree.SaveOptions
	// Workers is set where others read the files: those of a StatefulSet's claims.
	Workers *FileWorkers
	// FromSnapshot is set for a worker whose directory is a claim made of a volume
	// snapshot.
	FromSnapshot *FromSnapshot
	// Users is set for a worker whose claim nobody may use while it is read.
	Users ClaimUsers
	// Role tells whether a member replicates from another; nil when roles do
	// not matter. With FollowersOnly, members that do not are left out.
	Role          func(context.Context, Member) (string, error)
	FollowersOnly bool
	// Objects reads the set's Kubernetes objects, which travel with its data;
	// nil where there are none.
	Objects func(context.Context) (statefulset.Objects, error)
	// Guard is nil where nothing can hold the set.
	Guard Guard
	Rules SuspectRules
	// Parallel is how many members are captured at once; at least one.
	Parallel int
	Clock    func() time.Time
	Log      *slog.Logger
	Progress Progress
}

// Run takes the backup. The report is valid even when the error is not nil,
// unless the run failed before a plan existed.
func (b *Backup) Run(ctx context.Context) (*BackupReport, error) {
	report := &BackupReport{Backup: b.ID, Set: b.Set.String(), Attempt: b.Attempt, StartedAt: b.Clock().UTC()}
	if b.Workers != nil && b.Workers.Run.Local {
		return report, errOutside
	}
	if err := b.check(ctx); err != nil {
		return report, err
	}
	inv, err := b.inventory(ctx)
	if err != nil {
		return report, err
	}
	if inv.objects, err = b.readObjects(ctx); err != nil {
		return report, err
	}
	b.Workers.removeLeft(ctx, b.Log)
	writer, err := b.Repository.Begin(ctx, b.planOf(inv), b.Attempt)
	if err != nil {
		return report, fmt.Errorf("begin backup %s of %s: %w", b.ID, b.Set, err)
	}
	last, err := b.lastGood(ctx)
	if err != nil {
		return report, errors.Join(fmt.Errorf("backup %s: %w", b.ID, err), writer.Close())
	}
	plan := writer.Plan()
	report.Planned = len(plan.Members)
	mine := b.Share.take(plan.Members)
	b.Log.Info("backup started", "backup", plan.ID, "set", b.Set.String(), "members", len(mine), "planned", len(plan.Members))
	report.Members = b.capture(ctx, writer, mine, inv, last)
	report.finish(b.Clock())
	err = report.outcome()
	// The report is for people; a backup that is complete stays so without it.
	if reportErr := writer.Report(context.WithoutCancel(ctx), report); reportErr != nil {
		b.Log.Warn("report not written to the repository", "backup", plan.ID, "error", reportErr)
	}
	return report, errors.Join(err, writer.Close())
}

// DryRun returns the plan that Run would write, and asks for the rights that a
// cut of volumes takes.
func (b *Backup) DryRun(ctx context.Context) (record.Plan, Inventory, error) {
	inv, err := b.inventory(ctx)
	if err != nil {
		return record.Plan{}, inv, err
	}
	if b.Volumes != nil {
		if err := b.Volumes.checkRights(ctx, inv); err != nil {
			return record.Plan{}, inv, err
		}
	}
	return b.planOf(inv), inv, nil
}

func (b *Backup) check(ctx context.Context) error {
	if b.Guard == nil {
		return nil
	}
	return b.Guard.Check(ctx)
}

// inventory discovers the set and keeps the members that were asked for.
func (b *Backup) inventory(ctx context.Context) (Inventory, error) {
	inv, err := b.Discover(ctx)
	if err != nil {
		return inv, fmt.Errorf("discover set %s: %w", b.Set, err)
	}
	if inv.Members, err = b.Ordinals.filter(inv.Members); err != nil {
		return inv, err
	}
	if b.Role != nil {
		if err := b.assignRoles(ctx, &inv); err != nil {
			return inv, err
		}
	}
	if len(inv.Members) == 0 {
		return inv, fmt.Errorf("%w: set %s has no member to back up", ErrConfig, b.Set)
	}
	if b.Volumes != nil {
		return inv, b.Volumes.locate(ctx, b.Set, &inv)
	}
	if b.Workers != nil {
		return inv, b.Workers.check(ctx, inv)
	}
	return inv, nil
}

// assignRoles asks each member for its role. A member that cannot be asked
// stays in the plan, where it will fail by itself: leaving it out would make
// the plan smaller than the set.
func (b *Backup) assignRoles(ctx context.Context, inv *Inventory) error {
	for i := range inv.Members {
		m := &inv.Members[i]
		if m.Obstacle() != nil {
			continue
		}
		role, err := b.Role(ctx, *m)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			m.Unreachable = fmt.Errorf("ask for the member's role: %w", err)
			continue
		}
		m.Role = role
	}
	if b.FollowersOnly {
		return b.leaveOutLeaders(inv)
	}
	return nil
}

// leaveOutLeaders keeps the followers, and the members that could not be asked.
func (b *Backup) leaveOutLeaders(inv *Inventory) error {
	var kept []Member
	for _, m := range inv.Members {
		if m.Obstacle() == nil && m.Role != RoleFollower {
			b.Log.Info("member left out: it follows no other", "ordinal", m.Ordinal, "member", m.Name, "role", m.Role)
			continue
		}
		kept = append(kept, m)
	}
	if len(kept) == 0 && len(inv.Members) > 0 {
		return fmt.Errorf("%w: no member of set %s follows another; back it up with --role any", ErrConfig, b.Set)
	}
	inv.Members = kept
	return nil
}

// The roles of a member.
const (
	RolePrimary  = "primary"
	RoleFollower = "follower"
)

func (b *Backup) planOf(inv Inventory) record.Plan {
	plan := b.Plan
	plan.ID, plan.Set, plan.CreatedAt = b.ID, b.Set, b.Clock().UTC()
	plan.Replicas, plan.Start = inv.Replicas, inv.Start
	plan.Ordinals, plan.FollowersOnly = b.Ordinals.String(), b.FollowersOnly
	plan.Members = nil
	for _, m := range inv.Members {
		plan.Members = append(plan.Members, m.PlannedMember)
	}
	return plan
}

// lastGood finds, for each ordinal, the newest complete commit before this
// backup, against which shrinking is judged.
func (b *Backup) lastGood(ctx context.Context) (map[int]record.Commit, error) {
	last := map[int]record.Commit{}
	if b.Rules.ShrinkPercent <= 0 {
		return last, nil
	}
	infos, err := b.Repository.Backups(ctx, b.Set)
	if err != nil {
		return nil, fmt.Errorf("look for the last good backup of %s: %w", b.Set, err)
	}
	for _, info := range infos {
		if info.ID == b.ID || info.Plan.Method != b.Plan.Method || info.Plan.Engine != b.Plan.Engine ||
			!slices.Equal(info.Plan.Databases, b.Plan.Databases) || !slices.Equal(info.Plan.Paths, b.Plan.Paths) {
			continue
		}
		for ordinal, m := range info.Members {
			if _, have := last[ordinal]; !have && m.Valid && !m.Suspect() {
				last[ordinal] = m.Commit
			}
		}
	}
	return last, nil
}

// capture runs the members of the share, a bounded number at once. It returns
// when all have ended, whatever became of each.
func (b *Backup) capture(ctx context.Context, w *repository.Backup, mine []record.PlannedMember, inv Inventory, last map[int]record.Commit) []MemberResult {
	results := make([]MemberResult, len(mine))
	slots := make(chan struct{}, max(1, b.Parallel))
	var wg sync.WaitGroup
	for i, planned := range mine {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			c := capture{job: b, writer: w, planned: planned, objects: inv.objects}
			if commit, ok := last[planned.Ordinal]; ok {
				c.last = &commit
			}
			results[i] = c.run(ctx, inv)
		})
	}
	wg.Wait()
	return results
}
