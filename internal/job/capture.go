package job

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keepset/internal/dbdump"
	"keepset/internal/record"
	"keepset/internal/repository"
)

// capture is the way of one member from its server to its commit.
type capture struct {
	job     *Backup
	writer  *repository.Backup
	planned record.PlannedMember
	last    *record.Commit
	// objects of the set, which every member has.
	objects []byte
	// snapshots that the member needs, once it is committed.
	snapshots []record.VolumeSnapshot
}

// run captures the member and says what became of it. It never returns early
// because another member failed.
func (c *capture) run(ctx context.Context, inv Inventory) MemberResult {
	start := c.job.Clock()
	result := MemberResult{Ordinal: c.planned.Ordinal, Name: c.planned.Name}
	commit, resumed, report, err := c.commit(ctx, inv)
	result.Seconds = c.job.Clock().Sub(start).Seconds()
	log := c.job.Log.With("ordinal", c.planned.Ordinal, "member", c.planned.Name)
	if err != nil {
		result.Status, result.Error, result.err = StatusFailed, err.Error(), err
		log.Error("member failed", "error", err)
		return result
	}
	result.fill(commit, report)
	result.VolumeSnapshots = c.snapshots
	result.Resumed = resumed
	switch {
	case resumed:
		log.Info("member already committed by an earlier attempt", "status", commit.Status)
	case commit.Status == record.StatusSuspect:
		log.Warn("member committed as suspect", "reasons", commit.Reasons)
	default:
		log.Info("member committed", "rows", commit.Rows, "bytes", commit.Bytes, "stored", commit.Stored,
			"seconds", int(result.Seconds), "lockSeconds", report.LockSeconds)
	}
	for _, w := range report.Warnings {
		log.Warn(w)
	}
	return result
}

// commit returns the member's valid commit: the one of an earlier attempt, or
// a new one.
func (c *capture) commit(ctx context.Context, inv Inventory) (commit record.Commit, resumed bool, report record.Report, err error) {
	commit, ok, err := c.writer.Committed(ctx, c.planned.Ordinal)
	if err != nil {
		return commit, false, report, fmt.Errorf("look for an earlier attempt's commit: %w", err)
	}
	if ok {
		if c.job.Volumes != nil {
			c.sweep(ctx) // the attempt that committed may have been killed before it did
		}
		if c.job.Workers != nil {
			c.removeWorker(ctx)
		}
		return commit, true, report, nil
	}
	member, err := c.find(inv)
	if err != nil {
		return commit, false, report, err
	}
	take := c.dump
	switch {
	case c.job.Volumes != nil:
		take = c.cut
	case c.job.Workers != nil:
		take = c.work
	case c.job.Files != nil:
		take = c.files
	case c.job.Plan.Method == record.MethodPhysical:
		take = c.base
	}
	commit, report, err = take(ctx, member)
	return commit, false, report, err
}

// find returns the planned member as it stands now.
func (c *capture) find(inv Inventory) (Member, error) {
	for _, m := range inv.Members {
		if m.Ordinal == c.planned.Ordinal {
			return m, c.problem(m)
		}
	}
	return Member{}, fmt.Errorf("ordinal %d is in the plan and no longer in the set", c.planned.Ordinal)
}

// problem says why the member cannot be captured by the job's method.
func (c *capture) problem(m Member) error {
	if c.job.Volumes != nil && c.job.Volumes.mayBeDown() {
		return m.Problem
	}
	return m.Obstacle()
}

// dump streams the member's rows into the repository and commits it.
func (c *capture) dump(ctx context.Context, member Member) (commit record.Commit, report record.Report, err error) {
	engine, err := c.job.Open(member)
	if err != nil {
		return record.Commit{}, record.Report{}, err
	}
	defer closeEngine(engine)
	return c.into(ctx, member, func(ctx context.Context, w *repository.MemberWriter) (record.Report, error) {
		report, err := engine.Dump(ctx, sink{w})
		if err != nil {
			err = fmt.Errorf("dump %s: %w", member.Address, err)
		}
		return report, err
	})
}

// into commits what a capture writes. Whatever goes wrong before the commit
// leaves unreferenced objects, never a backup.
func (c *capture) into(ctx context.Context, member Member, write func(context.Context, *repository.MemberWriter) (record.Report, error)) (commit record.Commit, report record.Report, err error) {
	w, err := c.writer.Member(ctx, member.Ordinal)
	if err != nil {
		return record.Commit{}, record.Report{}, fmt.Errorf("open the member in the repository: %w", err)
	}
	stop := c.watch(w)
	defer func() { stop(err) }()
	if err = c.writeObjects(ctx, w); err == nil {
		report, err = write(ctx, w)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = c.job.check(ctx)
	}
	if err != nil {
		w.Abort()
		return record.Commit{}, report, err
	}
	reasons := c.job.Rules.Judge(report, c.last)
	commit, err = w.Commit(ctx, report, repository.CommitStatus{Suspect: len(reasons) > 0, Reasons: reasons})
	if err != nil {
		return record.Commit{}, report, fmt.Errorf("commit the member: %w", err)
	}
	return commit, report, nil
}

// watch tells the job's progress how far the member is until stop is called.
func (c *capture) watch(w *repository.MemberWriter) (stop func(error)) {
	if c.job.Progress == nil {
		return func(error) {}
	}
	expected := int64(0)
	if c.last != nil {
		expected = c.last.Bytes
	}
	return every(time.Second, func(done, failed bool) {
		s := w.Stats()
		c.job.Progress(Event{
			Ordinal: c.planned.Ordinal, Name: c.planned.Name, Bytes: s.Read + s.Reused, Stored: s.Stored, Expected: expected, Done: done, Failed: failed,
		})
	})
}

// every calls tell at once, then once an interval and, when it is stopped, for
// the last time with how that came.
func every(interval time.Duration, tell func(done, failed bool)) (stop func(error)) {
	tell(false, false)
	ticker := time.NewTicker(interval)
	quit, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-ticker.C:
				tell(false, false)
			case err := <-quit:
				ticker.Stop()
				tell(true, err != nil)
				return
			}
		}
	}()
	return func(err error) { quit <- err; <-ended }
}

// sink lets an engine write into a member of the repository.
type sink struct{ w *repository.MemberWriter }

func (s sink) Create(ctx context.Context, name string, opts dbdump.StreamOptions) (dbdump.Stream, error) {
	return s.w.Create(ctx, name, repository.StreamOptions{Secret: opts.Secret})
}

// isBusy says whether an error of a member means that the set is held.
func isBusy(err error) bool { return errors.Is(err, ErrBusy) }
