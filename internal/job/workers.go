package job

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"keepset/internal/record"
	"keepset/internal/statefulset"
)

// FileWorkers have the files of a StatefulSet's claims read by workers, each of
// which runs a backup of its own member of the stored plan, as the pods of a
// fan-out do: there is no protocol between them and the run but the repository.
type FileWorkers struct {
	Cluster *statefulset.Client
	Set     string
	Spec    statefulset.WorkerSpec
	Run     statefulset.Run
	// Fuzzy consents to files of programs that run.
	Fuzzy bool
	// Snapshots have workers read claims made of volume snapshots; nil: the set's own.
	Snapshots *FileSnapshots
	// StartTimeout bounds the wait for a worker's pod to start.
	StartTimeout time.Duration
	// Env is what a worker is told besides what the run itself was. from is nil
	// where it reads the set's own claim.
	Env func(id record.BackupID, ordinal int, from *FromSnapshot) map[string]string
	// Out takes the workers' logs.
	Out io.Writer

	workers *statefulset.Workers
	members map[int]statefulset.Member
}

// Discover is the inventory of the set's claims. Of a set that was scaled to
// zero, all ordinals up to the last one whose claim was left count: how many it had,
// nothing says any more.
func (f *FileWorkers) Discover(ctx context.Context) (Inventory, error) {
	set, err := f.Cluster.Discover(ctx, f.Set, statefulset.DiscoverOptions{NoServer: true})
	if err != nil {
		return Inventory{}, err
	}
	if f.workers, err = f.Cluster.NewWorkers(ctx, set, f.Spec, f.Run, f.StartTimeout); err != nil {
		return Inventory{}, err
	}
	members := set.Members
	if set.Replicas == 0 {
		members = f.left(set)
	}
	inv := Inventory{Replicas: set.Replicas, Start: set.Start}
	f.members = map[int]statefulset.Member{}
	for _, m := range members {
		member := memberOf(m)
		claim := f.workers.Claim(m)
		member.Claims = slices.DeleteFunc(member.Claims, func(c record.Claim) bool { return c.Name != claim.Name })
		member.Unreachable = nil // nobody talks to it
		if member.Problem == nil && claim.Volume == "" {
			member.Problem = fmt.Errorf("claim %s/%s has no volume yet: there is nothing to back up", set.Namespace, claim.Name)
		}
		inv.Members = append(inv.Members, member)
		f.members[m.Ordinal] = m
	}
	return inv, nil
}

// mostLost is how many claims in a row may be missing: data-www-20261128 is somebody's
// copy, and not the last of twenty million.
const mostLost = 1000

// left are the ordinals of a set that was scaled to zero: those whose claims are there,
// and those that have lost theirs, of which another one is left behind them.
func (f *FileWorkers) left(set statefulset.Set) (members []statefulset.Member) {
	next := set.Start
	for _, m := range set.Beyond {
		claim := f.workers.Claim(m)
		if !claim.Exists {
			continue
		}
		if m.Ordinal-next > mostLost {
			next = m.Ordinal
		}
		for ; next < m.Ordinal; next++ {
			lost := statefulset.ClaimName(claim.Template, set.Name, next)
			members = append(members, statefulset.Member{
				Ordinal: next, Pod: statefulset.PodInfo{Name: fmt.Sprintf("%s-%d", set.Name, next)},
				Claims: []statefulset.Claim{{Template: claim.Template, Name: lost}},
				Problems: []statefulset.Problem{{
					Ordinal: next, Object: "claim " + set.Namespace + "/" + lost, Fatal: true, OfContent: true,
					What: "is missing, and those of later ordinals are there; if that is as it should be, choose with --ordinals",
				}},
			})
		}
		members = append(members, m)
		next = max(next, m.Ordinal+1)
	}
	return members
}

// check refuses claims that no worker can mount beside their users, and files that
// are written meanwhile without the user's consent, before anything is begun.
func (f *FileWorkers) check(ctx context.Context, inv Inventory) error {
	if f.Snapshots != nil {
		return f.locate(ctx, inv)
	}
	users, err := f.Cluster.ClaimUsers(ctx)
	if err != nil {
		return err
	}
	var refused []error
	for i := range inv.Members {
		m := &inv.Members[i]
		if m.Problem == nil {
			_, err := f.place(m.Ordinal, users)
			refused = append(refused, err)
		}
	}
	return errors.Join(refused...)
}

// work has a worker capture the member. What counts is the commit that it leaves,
// not how it ended: one that was killed a moment after has done its work, and one
// that ended well without it has not.
func (c *capture) work(ctx context.Context, member Member) (record.Commit, record.Report, error) {
	result, report, err := c.worked(ctx, member)
	commit, ok, lookErr := c.writer.Committed(ctx, member.Ordinal)
	switch {
	case lookErr != nil:
		return commit, report, errors.Join(err, fmt.Errorf("look for the worker's commit: %w", lookErr))
	case ok && err != nil:
		c.job.Log.Warn("the member is committed, and what it was read by stays behind; it goes with the run's Job", "ordinal", member.Ordinal, "error", err)
		return commit, report, nil
	case ok || err != nil:
		return commit, report, err
	default:
		return commit, report, workerError(result)
	}
}

// worked has a worker do its work. The report is what is known of it here.
func (c *capture) worked(ctx context.Context, member Member) (statefulset.JobResult, record.Report, error) {
	f := c.job.Workers
	if f.Snapshots != nil {
		return c.workedFromSnapshot(ctx, member)
	}
	// Others came before this one, for hours perhaps.
	users, err := f.Cluster.ClaimUsers(ctx)
	if err != nil {
		return statefulset.JobResult{}, record.Report{}, err
	}
	node, err := f.place(member.Ordinal, users)
	if err != nil { // and no worker of an earlier attempt goes on
		return statefulset.JobResult{}, record.Report{}, errors.Join(err, f.workers.Remove(ctx, member.Ordinal))
	}
	result, err := f.workers.Work(ctx, f.members[member.Ordinal], node, f.Env(c.writer.Plan().ID, member.Ordinal, nil), f.Out)
	return result, record.Report{}, err
}

// workerError says why a worker has not committed its member.
func workerError(r statefulset.JobResult) error {
	why := strings.TrimSpace(r.Message)
	if why == "" {
		why = "its pod left no message"
	}
	if r.Reason != "" {
		why += " (" + r.Reason + ")"
	}
	switch {
	case r.Succeeded:
		return fmt.Errorf("the worker ended well and did not commit the member: %s", why)
	case r.ExitCode == exitBusy:
		return fmt.Errorf("%w: the worker found the set held: %s", ErrBusy, why)
	case r.ExitCode == exitUsage:
		return fmt.Errorf("%w: the worker could not begin: %s", ErrConfig, why)
	default:
		return fmt.Errorf("the worker ended with exit code %d: %s", r.ExitCode, why)
	}
}

// The exit codes of a worker, which is this program.
const (
	exitBusy  = 5
	exitUsage = 64
)

// removeWorker takes away what an attempt that was killed has left of a member
// that is committed.
func (c *capture) removeWorker(ctx context.Context) {
	remove := c.job.Workers.workers.Remove
	if c.job.Workers.Snapshots != nil {
		remove = c.job.Workers.removeTemporary
	}
	if err := remove(ctx, c.planned.Ordinal); err != nil {
		c.job.Log.Warn("a worker of a killed attempt stays behind; it goes with the run's Job", "ordinal", c.planned.Ordinal, "error", err)
	}
}

// errOutside refuses workers without a Job that they could belong to.
var errOutside = fmt.Errorf("%w: the files of a StatefulSet are read by workers, which are made of the backup's own Job and go with it: "+
	"kubectl create job NAME --from=cronjob/keepset-backup makes one; here, --dry-run shows the plan, and --source file:///dir backs up a directory", ErrConfig)

// WorkFor makes the backup that of one member of a plan that is stored already,
// whose files are in a directory here. A plan that is gone is an error: one of
// this member alone would look like a whole backup.
func (b *Backup) WorkFor(ordinal int, dir string) {
	b.Discover = func(ctx context.Context) (Inventory, error) {
		info, err := b.Repository.Backup(ctx, b.Set, b.ID)
		if err != nil {
			return Inventory{}, fmt.Errorf("read the plan that this worker works for: %w", err)
		}
		i := slices.IndexFunc(info.Plan.Members, func(m record.PlannedMember) bool { return m.Ordinal == ordinal })
		if i < 0 || info.Plan.Method != record.MethodFiles {
			return Inventory{}, fmt.Errorf("%w: backup %s is not one of files that has ordinal %d", ErrConfig, b.ID, ordinal)
		}
		b.Plan, b.Ordinals, b.Share = info.Plan, Ordinals{}, Share{Index: i, Of: len(info.Plan.Members)}
		return Inventory{
			Replicas: info.Plan.Replicas, Start: info.Plan.Start,
			Members: []Member{{PlannedMember: info.Plan.Members[i], Address: dir}},
		}, nil
	}
}
