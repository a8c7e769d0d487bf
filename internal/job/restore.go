package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"keepset/internal/dbdump"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/snapshot"
	"keepset/internal/statefulset"
)

// Servers opens the engines of a restore. Addresses are host:port.
type Servers interface {
	// Target makes an engine for a server that is to be filled, prepared for
	// what becomes of it.
	Target(address string, follower bool) (dbdump.Engine, error)
	// Ready asks once whether the server accepts our account.
	Ready(ctx context.Context, address string) error
	// Upstream completes an address with the replication account.
	Upstream(address string) (dbdump.Upstream, error)
}

// Restore brings back new or lost ordinals of a StatefulSet, or a whole set.
type Restore struct {
	Repository *repository.Repository
	Cluster    *statefulset.Client
	// Set is the StatefulSet's name, From the set's name in the repository.
	Set     string
	From    record.SetID
	Choice  Choice
	Request Request
	Run     statefulset.Run
	// Seed is the form of every seed; its ordinal and consent are filled in.
	Seed    statefulset.SeedSpec
	Servers Servers
	// Volumes is how claims are made of volume snapshots; nil where the backup
	// is of another method.
	Volumes *VolumeRestore
	// Files is set where claims are filled with files.
	Files *FilesRestore
	Lease statefulset.LeaseOptions
	// Objects makes what is missing of the set and its objects first, as the
	// backup has them. Prepared, if not nil, is called once they are there.
	Objects  bool
	Prepared func(context.Context) error
	// BackupWait bounds the wait for a running backup, ServerWait that for a
	// seed's database to accept connections, ReadyWait that for the real pod.
	BackupWait, ServerWait, ReadyWait time.Duration
	Clock                             func() time.Time
	Log                               *slog.Logger
	Progress                          Progress

	// made are snapshots of the repository's blocks, by the ID of the one that
	// they stand for.
	made map[string]snapshot.Ref
}

// RestoreReport is what a Restore did.
type RestoreReport struct {
	Plan    RestorePlan     `json:"plan"`
	Members []RestoreResult `json:"members"`
	Seconds float64         `json:"seconds"`
}

// RestoreResult is what became of one ordinal.
type RestoreResult struct {
	Ordinal int `json:"ordinal"`
	// Action is "seeded", "released" (an earlier attempt had loaded it),
	// "kept", or "done before".
	Action  string `json:"action"`
	Rows    int64  `json:"rows"`
	Follows string `json:"follows,omitempty"`
	// Unasked is what the restored server could not be asked, and why.
	Unasked string  `json:"unasked,omitempty"`
	Seconds float64 `json:"seconds"`
}

// Execute runs the restore: hold the set, freeze the plan, stop its backups,
// fill one ordinal after the other, and give everything back. A retry of the
// same Job continues the frozen plan, whatever has changed since.
func (r *Restore) Execute(ctx context.Context) (report *RestoreReport, err error) {
	start := r.Clock()
	if r.Files != nil && r.Run.Local {
		return nil, errFillOutside
	}
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	lease := r.Lease
	lease.Waiting = true
	hold, err := r.Cluster.Acquire(ctx, r.Set, r.Run, lease)
	if err != nil {
		if errors.Is(err, statefulset.ErrBusy) {
			return nil, fmt.Errorf("%w: %w", ErrBusy, err)
		}
		return nil, err
	}
	defer func() { err = errors.Join(err, hold.Release(context.WithoutCancel(ctx))) }()
	ctx, cancel := whileHeld(ctx, hold)
	defer cancel(nil)
	plan, err := r.frozenPlan(ctx)
	if err != nil {
		return nil, err
	}
	defer r.forgetPlan(ctx)
	report = &RestoreReport{Plan: *plan, Members: []RestoreResult{}}
	err = r.withoutBackups(ctx, hold, func(ctx context.Context) error {
		for _, item := range plan.Items {
			result, err := r.item(ctx, hold, plan, item)
			if err != nil {
				return fmt.Errorf("restore ordinal %d of %s: %w", item.Ordinal, plan.Set, err)
			}
			report.Members = append(report.Members, result)
		}
		r.deleteMade(ctx, plan)
		return nil
	})
	report.Seconds = r.Clock().Sub(start).Seconds()
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return report, err
}

// whileHeld gives a context that ends when the Lease is lost: from then on
// another run may touch the set.
func whileHeld(ctx context.Context, hold *statefulset.Hold) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-hold.Lost():
			cancel(statefulset.ErrLeaseLost)
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// frozenPlan returns the plan that an earlier pod of this Job stored, or
// resolves and stores one.
func (r *Restore) frozenPlan(ctx context.Context) (*RestorePlan, error) {
	stored, existed, err := r.Cluster.FrozenPlan(ctx, r.Run)
	if err != nil {
		return nil, err
	}
	if !existed {
		plan, err := r.resolve(ctx, false)
		if err != nil {
			return nil, err
		}
		for _, note := range plan.Notes {
			r.Log.Warn("restore plan", "note", note)
		}
		data, err := json.Marshal(plan)
		if err != nil {
			return nil, fmt.Errorf("encode the restore plan: %w", err)
		}
		if stored, existed, err = r.Cluster.FreezePlan(ctx, r.Set, r.Run, data); err != nil {
			return nil, err
		}
	}
	plan, err := parseRestorePlan(stored, r.Run.ID)
	if err != nil {
		return nil, err
	}
	if existed {
		r.Log.Info("continuing the stored restore plan", "run", r.Run.ID, "backup", plan.Backup)
	}
	return plan, nil
}

// forgetPlan removes the stored plan of a run outside of a Job: nothing retries
// it. What it did stands by itself, so a plan that stays is only a warning.
func (r *Restore) forgetPlan(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := r.Cluster.ForgetPlan(ctx, r.Run); err != nil {
		r.Log.Warn("the stored plan stays behind; delete it by hand", "run", r.Run.ID, "error", err)
	}
}

// withoutBackups runs work while the set's backup CronJobs are suspended and
// none of their Jobs is running. They are resumed whatever happens; what a
// killed process leaves suspended, the next restore or abort resumes.
func (r *Restore) withoutBackups(ctx context.Context, hold *statefulset.Hold, work func(context.Context) error) (err error) {
	if err := hold.Check(ctx); err != nil {
		return err
	}
	names, err := r.Cluster.SuspendBackups(ctx, r.Set, r.Run.ID)
	if len(names) > 0 {
		r.Log.Info("backups suspended for the time of the restore", "cronjobs", strings.Join(names, ","))
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		resumed, resumeErr := r.Cluster.ResumeBackups(ctx, r.Set, r.Run.ID)
		if len(resumed) > 0 {
			r.Log.Info("backups resumed", "cronjobs", strings.Join(resumed, ","))
		}
		err = errors.Join(err, resumeErr)
	}()
	if err != nil {
		return err
	}
	if err := r.Cluster.WaitBackups(ctx, r.Set, r.BackupWait); err != nil {
		if errors.Is(err, statefulset.ErrTimeout) {
			return fmt.Errorf("%w: %w", ErrBusy, err)
		}
		return err
	}
	if err := hold.Begin(ctx); err != nil {
		return err
	}
	return work(ctx)
}

// discover reads the set as it stands now.
func (r *Restore) discover(ctx context.Context) (statefulset.Set, error) {
	return r.Cluster.Discover(ctx, r.Set, r.Seed.DiscoverOptions)
}
