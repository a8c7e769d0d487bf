package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/schedule"
	"keepset/internal/statefulset"
)

// StatusFlags are the flags of `backup status`.
type StatusFlags struct {
	Repository RepositoryFlags
	Set        SetFlags
	Metrics    MetricsFlags
	Schedule   string
	Zone       string
	Grace      time.Duration
	DrillDays  int
}

// Add declares the flags.
func (f *StatusFlags) Add(fs *pflag.FlagSet) {
	f.Repository.AddRead(fs)
	f.Repository.addProvers(fs)
	f.Set.Add(fs)
	f.Metrics.Add(fs)
	fs.IntVar(&f.DrillDays, "drill-days", 0, "alert when no restore was proven for so many days; 0: only when the last drill has failed")
	fs.StringVar(&f.Schedule, "schedule", "", "when backups run, as in a CronJob (default: the CronJobs of the set are asked)")
	fs.StringVar(&f.Zone, "time-zone", "", "time zone of --schedule (default UTC)")
	fs.DurationVar(&f.Grace, "grace", 0, "how long after its time a backup may be complete (default: twice what the last one took, and at least 1h)")
}

// Jobs makes a look at each set that is meant: the one that is named, which need
// not have a backup yet, or all that the repository has.
func (f *StatusFlags) Jobs(ctx context.Context, a *App) ([]*job.Status, error) {
	var given *schedule.Schedule
	switch {
	case f.Schedule != "":
		s, err := schedule.Parse(f.Schedule, f.Zone)
		if err != nil {
			return nil, Usage("--schedule: %w", err)
		}
		given = &s
	case f.Zone != "":
		// It may be that of a prune, in a ConfigMap that both read.
		a.Log.Warn("--time-zone is that of --schedule, which is not given; each CronJob has its own")
	}
	if f.DrillDays < 0 {
		return nil, Usage("--drill-days %d: want 0 or more", f.DrillDays)
	}
	if f.Grace < 0 {
		return nil, Usage("--grace %s: want 0 or more", f.Grace)
	}
	r, err := f.Repository.Open(ctx, a)
	if err != nil {
		return nil, err
	}
	sets, err := r.Sets(ctx)
	if err != nil {
		return nil, err
	}
	if f.Set.Name != "" {
		one, err := f.Set.among(a, sets)
		if err != nil {
			return nil, err
		}
		sets = []record.SetID{one}
	}
	jobs := make([]*job.Status, 0, len(sets))
	for _, set := range sets {
		s, err := f.look(a, r, set, given)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, s)
	}
	return jobs, nil
}

// look is the job for one set.
func (f *StatusFlags) look(a *App, r *repository.Repository, set record.SetID, given *schedule.Schedule) (*job.Status, error) {
	s := &job.Status{Repository: r, Set: set, Schedule: given, Grace: f.Grace, DrillWithin: time.Duration(f.DrillDays) * 24 * time.Hour, Clock: a.Clock}
	switch {
	case set.Namespace == record.NoNamespace:
		s.NoCluster = "the set is one of plain servers"
		return s, nil
	case given != nil:
		s.NoCluster = "the schedule was given, so no cluster was asked"
		return s, nil
	}
	client, err := statefulset.Connect(statefulset.Options{
		Kubeconfig: f.Set.Kubeconfig, Context: f.Set.Context, Namespace: set.Namespace, Log: a.Log,
	})
	if isAny(err, statefulset.ErrNoCluster) {
		s.NoCluster = err.Error()
		return s, nil
	}
	if err != nil {
		return nil, Usage("connect to the cluster: %w", err)
	}
	s.Cluster = client
	return s, nil
}

// among is Find for a set that need not be there.
func (f *SetFlags) among(a *App, sets []record.SetID) (record.SetID, error) {
	id, err := f.ID(a)
	if err != nil || strings.Contains(f.Name, "/") || f.Namespace != "" {
		return id, err
	}
	var same []record.SetID
	for _, s := range sets {
		if s == id {
			return id, nil
		}
		if s.Name == id.Name {
			same = append(same, s)
		}
	}
	switch len(same) {
	case 0:
		return id, nil
	case 1:
		return same[0], nil
	default:
		return id, Usage("--set %s: the repository has several sets of that name; write one of %s", f.Name, joinSets(same))
	}
}

// StatusLine is a check in one line, as a log or a pager has it.
func StatusLine(set string, c job.Check) string {
	line := fmt.Sprintf("%s: %s: %s", set, c.Check, c.What)
	if c.Remedy != "" {
		line += "; " + c.Remedy
	}
	return line
}
