package job

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"keepset/internal/dbdump"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/statefulset"
)

// What became of an ordinal.
const (
	ActionSeeded   = "seeded"
	ActionReleased = "released"
	ActionKept     = "kept"
	ActionBefore   = "done before"
)

// item brings one ordinal to a Ready replica. Every step may be repeated: a
// retry finds by the seed's state where an earlier attempt stopped.
func (r *Restore) item(ctx context.Context, hold *statefulset.Hold, plan *RestorePlan, item RestoreItem) (RestoreResult, error) {
	start := r.Clock()
	result := RestoreResult{Ordinal: item.Ordinal, Follows: item.Follow}
	set, err := r.discover(ctx)
	if err != nil {
		return result, err
	}
	if set.UID != plan.SetUID {
		return result, fmt.Errorf("%w: the StatefulSet was deleted and made anew since this restore was planned; start a new restore", ErrConfig)
	}
	spec, err := r.spec(ctx, set, plan, item)
	if err != nil {
		return result, err
	}
	seed, err := r.Cluster.NewSeed(set, spec, r.Run, hold.Check)
	if err != nil {
		return result, err
	}
	if result.Action, result.Rows, err = r.fill(ctx, seed, plan, item); err != nil {
		return result, err
	}
	if err := hold.Check(ctx); err != nil {
		return result, err
	}
	if err := r.Cluster.ScaleTo(ctx, r.Set, item.Ordinal+1-set.Start); err != nil {
		return result, err
	}
	if err := r.Cluster.WaitReady(ctx, set, item.Ordinal, r.ReadyWait); err != nil {
		return result, err
	}
	if result.Action != ActionKept {
		if result.Unasked, err = r.ask(ctx, item); err != nil {
			return result, err
		}
		// Not for what was there: it may be empty, and the volume before the last one with the ordinal's data.
		r.returnVolumes(ctx, item.Ordinal)
	}
	if err := r.scrapVolumes(ctx, seed, plan, item); err != nil { // of an ordinal that is ready without it
		r.Log.Warn("something stays behind; restore abort --snapshotter removes it", "ordinal", item.Ordinal, "error", err)
	}
	result.Seconds = r.Clock().Sub(start).Seconds()
	r.Log.Info("ordinal is ready", "ordinal", item.Ordinal, "action", result.Action, "seconds", int(result.Seconds))
	return result, nil
}

func (r *Restore) spec(ctx context.Context, set statefulset.Set, plan *RestorePlan, item RestoreItem) (statefulset.SeedSpec, error) {
	spec := r.Seed
	spec.Ordinal, spec.Replace = item.Ordinal, item.Replace
	if r.Files != nil {
		return r.fillsClaims(ctx, spec, set, plan, item)
	}
	if plan.Method == record.MethodSnapshot {
		return r.volumeSpec(spec, plan, item)
	}
	return spec, nil
}

// returnVolumes lets go of the volume that the ordinal had before. The replica
// is Ready without it, so that a volume that stays is only a warning.
func (r *Restore) returnVolumes(ctx context.Context, ordinal int) {
	names, err := r.Cluster.ReturnVolumes(ctx, r.Set, ordinal)
	if err != nil {
		r.Log.Warn("a volume that the ordinal had before stays kept; restore status names it", "ordinal", ordinal, "error", err)
	}
	if len(names) > 0 {
		r.Log.Info("volumes that the ordinal had before go by their reclaim policies", "ordinal", ordinal, "volumes", strings.Join(names, ","))
	}
}

// fill brings the ordinal's claims to a loaded database, as far as an earlier
// attempt has not done so, and releases its name.
func (r *Restore) fill(ctx context.Context, seed *statefulset.Seed, plan *RestorePlan, item RestoreItem) (action string, rows int64, err error) {
	status, err := seed.Inspect(ctx)
	if err != nil {
		return "", 0, err
	}
	r.Log.Info("ordinal inspected", "ordinal", item.Ordinal, "state", status.State.String(), "text", status.Text)
	ours := status.Backup == string(plan.Backup) && status.Run == r.Run.ID
	switch {
	case status.State == statefulset.SeedReleased:
		return ActionBefore, 0, seed.Release(ctx)
	case status.State == statefulset.SeedClaimsExist && item.Keep:
		return ActionKept, 0, nil
	case status.State == statefulset.SeedLoaded && ours:
		return ActionReleased, 0, seed.Release(ctx)
	}
	if err := r.prepareVolumes(ctx, seed, plan, item); err != nil {
		err = fmt.Errorf("%w; nothing of ordinal %d was touched by this attempt", err, item.Ordinal)
		return "", 0, errors.Join(err, r.scrapVolumes(ctx, seed, plan, item))
	}
	if r.Files != nil {
		err = r.patiently(ctx, item, func() error {
			rows, err = r.entries(ctx, plan, item)
			return err
		})
		if err != nil {
			return "", 0, fmt.Errorf("%w; nothing of ordinal %d was touched by this attempt", err, item.Ordinal)
		}
	}
	if err := r.place(ctx, seed, plan, item, status.State == statefulset.SeedLoaded); err != nil {
		return "", 0, errors.Join(err, r.scrapVolumes(ctx, seed, plan, item))
	}
	for _, note := range seed.Notes() {
		r.Log.Info("seed pod", "ordinal", item.Ordinal, "note", note)
	}
	if r.filesAlone() {
		if err = seed.WaitFilled(ctx); err == nil {
			err = seed.MarkLoaded(ctx, string(plan.Backup))
		}
	} else {
		var loaded int64
		if loaded, err = r.loadSeed(ctx, seed, plan, item); r.Files == nil {
			rows = loaded
		}
	}
	if err != nil {
		return "", 0, err
	}
	return ActionSeeded, rows, seed.Release(ctx)
}

// placer is the part of a Seed that takes an ordinal's claims away.
type placer interface {
	Place(ctx context.Context) error
	PlaceAnew(ctx context.Context) error
}

// place puts the seed in the ordinal's place, which deletes its claims. The
// upstream is asked just before, although the plan did so: that may have been
// hours and several ordinals ago, or in an earlier pod of the Job.
func (r *Restore) place(ctx context.Context, seed placer, plan *RestorePlan, item RestoreItem, anew bool) error {
	if err := r.askUpstream(ctx, plan, item); err != nil {
		return fmt.Errorf("%w; nothing of ordinal %d was touched by this attempt", err, item.Ordinal)
	}
	if anew {
		return seed.PlaceAnew(ctx)
	}
	return seed.Place(ctx)
}

// askUpstream makes sure that the item's upstream can still be continued from.
// That of files has been asked when they were looked at.
func (r *Restore) askUpstream(ctx context.Context, plan *RestorePlan, item RestoreItem) error {
	if item.Follow == "" || r.filesAlone() {
		return nil
	}
	load, err := r.load(plan, item, item.Follow) // nothing is loaded: only the upstream is asked
	if err != nil {
		return err
	}
	return r.patiently(ctx, item, func() error {
		_, err := load.DryRun(ctx)
		return err
	})
}

// patiently asks a server again that cannot be reached. One that this restore has
// itself brought up a moment ago may have a name that is not known everywhere yet,
// or may still be replaying its log although its pod is ready.
func (r *Restore) patiently(ctx context.Context, item RestoreItem, ask func() error) error {
	patience := time.Minute
	if item.Beginning {
		patience = max(patience, r.ServerWait)
	}
	start := r.Clock()
	for {
		err := ask()
		if !errors.Is(err, dbdump.ErrUnreachable) || r.Clock().Sub(start) >= patience {
			return err
		}
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

// loadSeed loads the database in the seed pod, makes it follow where it shall,
// shuts it down cleanly, and marks it as loaded once it has ended well.
func (r *Restore) loadSeed(ctx context.Context, seed *statefulset.Seed, plan *RestorePlan, item RestoreItem) (int64, error) {
	address, err := seed.WaitRunning(ctx)
	if err != nil {
		return 0, err
	}
	if err := r.waitServer(ctx, seed, plan, address); err != nil {
		return 0, err
	}
	load, err := r.load(plan, item, address)
	if err != nil {
		return 0, err
	}
	report, err := load.Run(ctx)
	if err != nil {
		return 0, err
	}
	if err := r.shutdown(ctx, address); err != nil {
		return 0, err
	}
	if err := seed.WaitExit(ctx); err != nil {
		return 0, err
	}
	return report.Rows, seed.MarkLoaded(ctx, string(plan.Backup))
}

// load makes the Load of one item.
func (r *Restore) load(plan *RestorePlan, item RestoreItem, address string) (*Load, error) {
	l := &Load{
		Repository: r.Repository, Set: plan.From, Ordinal: item.Base, Target: address,
		// The plan has been frozen: its backup was allowed when it was chosen.
		Choice:    Choice{Selector: repository.Selector{ID: plan.Backup}, AllowIncomplete: plan.Incomplete, AllowSuspect: plan.Suspect},
		Open:      func() (dbdump.Engine, error) { return r.Servers.Target(address, item.Follow != "") },
		Beginning: item.Beginning, Lead: item.Follow == "", Adopt: plan.Method == record.MethodSnapshot || r.Files != nil,
		Clock: r.Clock, Log: r.Log, Progress: r.Progress,
	}
	if item.Follow != "" {
		up, err := r.Servers.Upstream(item.Follow)
		if err != nil {
			return nil, err
		}
		l.Upstream = &up
	}
	return l, nil
}

// waitServer waits until the database accepts our account.
func (r *Restore) waitServer(ctx context.Context, seed *statefulset.Seed, plan *RestorePlan, address string) error {
	ready := func(ctx context.Context) error { return r.Servers.Ready(ctx, address) }
	err := waitReady(ctx, r.Clock, ready, seed.Alive, r.ServerWait)
	switch {
	case errors.Is(err, statefulset.ErrSeedFailed):
		return err
	case errors.Is(err, dbdump.ErrAccess) && r.Files != nil:
		return fmt.Errorf("log in to the seed's database: %w; its files have the accounts and passwords of the server that was backed up, so --target-user must be one of those", err)
	case errors.Is(err, dbdump.ErrAccess) && plan.Method == record.MethodSnapshot:
		return fmt.Errorf("log in to the seed's database: %w; the volume has the accounts and passwords of the time when it was cut, so --target-user must be one of those", err)
	case errors.Is(err, dbdump.ErrAccess):
		return fmt.Errorf("log in to the seed's database: %w; a fresh volume has the accounts that the image makes, so --target-user must be one of those (root)", err)
	case err != nil && ctx.Err() == nil:
		return fmt.Errorf("wait for the seed's database: %w", err)
	}
	return err
}

// waitReady waits until a database that is starting accepts our account. While
// an image initialises its database nothing listens; a refused password may be
// the image's doing for a moment as well, but not for long.
func waitReady(ctx context.Context, clock func() time.Time, ready, alive func(context.Context) error, patience time.Duration) error {
	const refusedFor = 30 * time.Second
	start := clock()
	for {
		err := ready(ctx)
		if err != nil {
			// A pod that has crashed says why; its silence on the network does not.
			if dead := alive(ctx); dead != nil {
				return dead
			}
		}
		waited := clock().Sub(start)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, dbdump.ErrAccess) && waited < refusedFor:
		case (errors.Is(err, dbdump.ErrUnreachable) || errors.Is(err, dbdump.ErrNotFollowing)) && waited < patience:
		default:
			return err
		}
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

func (r *Restore) shutdown(ctx context.Context, address string) error {
	engine, err := r.Servers.Target(address, false)
	if err != nil {
		return err
	}
	defer closeEngine(engine)
	f, ok := engine.(dbdump.Follower)
	if !ok {
		return fmt.Errorf("%w: this engine cannot shut its server down", ErrConfig)
	}
	if err := f.Shutdown(ctx); err != nil {
		return fmt.Errorf("shut down the seed's database: %w", err)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
