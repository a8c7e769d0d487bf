package cli

import (
	"context"
	"time"

	"github.com/spf13/pflag"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/retention"
)

// PruneFlags say what goes: by a policy, or by name.
type PruneFlags struct {
	Repository RepositoryFlags
	Set        SetFlags
	Volumes    VolumeFlags
	Metrics    MetricsFlags
	Force      bool
	DryRun     bool

	policy         retention.Policy
	within, minAge string
	zone           string
	labels         []string
}

// AddPrune declares what a pruner needs of the repository: no secret key.
func (f *RepositoryFlags) AddPrune(fs *pflag.FlagSet) {
	f.keys = map[string]*string{}
	f.Store.Add(fs)
	f.Store.AddWrite(fs)
	f.key(fs, "trusted-writers", repository.NameTrustedWriters, "public keys of the writers whose backups count")
	f.addProvers(fs)
}

// AddRelease declares what is needed to delete volume snapshots.
func (f *VolumeFlags) AddRelease(fs *pflag.FlagSet) {
	fs.StringVar(&f.Snapshotter, "snapshotter", "", "also delete the volume snapshots that no backup needs any more: ebs or csi (default: leave them)")
	fs.StringSliceVar(&f.CopyRegions, "copy-to-region", nil, "AWS region in which copies of EBS snapshots are looked for, beside those that the backups name; repeatable")
	f.addRegion(fs)
}

// Add declares what both prune and delete need.
func (f *PruneFlags) Add(fs *pflag.FlagSet) {
	f.Repository.AddPrune(fs)
	f.Set.Add(fs)
	f.Volumes.AddRelease(fs)
	fs.BoolVar(&f.DryRun, "dry-run", false, "say what would be deleted, and why, and stop")
}

// AddPolicy declares the rules, and where the metrics of a prune by them go.
func (f *PruneFlags) AddPolicy(fs *pflag.FlagSet) {
	f.Metrics.Add(fs)
	p := &f.policy
	fs.IntVar(&p.Last, "keep-last", 0, "keep the newest n backups")
	fs.IntVar(&p.Hourly, "keep-hourly", 0, "keep the newest backup of each of the last n hours that have one")
	fs.IntVar(&p.Daily, "keep-daily", 0, "the same for days")
	fs.IntVar(&p.Weekly, "keep-weekly", 0, "the same for weeks, which begin on Monday")
	fs.IntVar(&p.Monthly, "keep-monthly", 0, "the same for months")
	fs.IntVar(&p.Yearly, "keep-yearly", 0, "the same for years")
	fs.StringVar(&f.within, "keep-within", "", "keep all that were captured so long before the newest one: 30d12h, 1y6m")
	fs.StringSliceVar(&f.labels, "keep-label", nil, "keep all with this label, key=value, or key for any value; repeatable")
	fs.StringVar(&f.minAge, "min-age", "3d", "nothing goes that is younger")
	fs.StringVar(&f.zone, "time-zone", "UTC", "time zone in which days begin")
	fs.BoolVar(&f.Force, "force", false, "also when more than half of the backups would go at once, and more than 3")
}

// readPolicy completes the policy.
func (f *PruneFlags) readPolicy() error {
	var err error
	if f.within != "" {
		if f.policy.Within, err = retention.ParseSpan(f.within); err != nil {
			return Usage("--keep-within: %w", err)
		}
	}
	if f.policy.Labels, err = record.ParseLabelSelectors(f.labels); err != nil {
		return Usage("--keep-label: %w", err)
	}
	age, err := retention.ParseSpan(f.minAge)
	if err != nil {
		return Usage("--min-age: %w", err)
	}
	f.policy.MinAge = age.Duration()
	if f.policy.Zone, err = time.LoadLocation(f.zone); err != nil {
		return Usage("--time-zone: %w", err)
	}
	return nil
}

// Policy makes a prune of each set that is meant: the one that is named, or all.
func (f *PruneFlags) Policy(ctx context.Context, a *App) ([]*job.Prune, error) {
	if err := f.readPolicy(); err != nil {
		return nil, err
	}
	p := f.policy // checked before anything is asked, but for what only the repository knows
	p.Longest, p.Slack = 0, 0
	if err := p.Validate(); err != nil {
		return nil, Usage("%w: give --keep-daily or another --keep flag", err)
	}
	if f.Volumes.Snapshotter != "" && f.Set.Name == "" {
		return nil, Usage("--set is required with --snapshotter: volume snapshots are those of a set")
	}
	r, err := f.Repository.Open(ctx, a)
	if err != nil {
		return nil, err
	}
	if f.Set.Name != "" {
		one, err := f.one(ctx, a, r)
		return []*job.Prune{one}, err
	}
	sets, err := r.Sets(ctx)
	if err != nil {
		return nil, err
	}
	jobs := make([]*job.Prune, 0, len(sets))
	for _, set := range sets {
		jobs = append(jobs, &job.Prune{Repository: r, Set: set, Policy: f.policy, Force: f.Force, DryRun: f.DryRun})
	}
	return jobs, nil
}

// Delete makes the job that deletes backups by name.
func (f *PruneFlags) Delete(ctx context.Context, a *App, ids []string) (*job.Prune, error) {
	parsed, err := BackupIDs(ids)
	if err != nil {
		return nil, err
	}
	if _, _, err := f.Set.split(); err != nil {
		return nil, err
	}
	r, err := f.Repository.Open(ctx, a)
	if err != nil {
		return nil, err
	}
	p, err := f.one(ctx, a, r)
	if err != nil {
		return nil, err
	}
	p.IDs = parsed
	return p, nil
}

// BackupIDs reads the IDs of backups.
func BackupIDs(args []string) ([]record.BackupID, error) {
	ids := make([]record.BackupID, 0, len(args))
	for _, arg := range args {
		id, err := record.ParseBackupID(arg)
		if err != nil {
			return nil, Usage("%w", err)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func (f *PruneFlags) one(ctx context.Context, a *App, r *repository.Repository) (*job.Prune, error) {
	set, err := f.Set.Find(ctx, a, r)
	if err != nil {
		return nil, err
	}
	p := &job.Prune{Repository: r, Set: set, Policy: f.policy, Force: f.Force, DryRun: f.DryRun}
	if f.Volumes.Snapshotter == "" {
		return p, nil
	}
	if err := f.Volumes.checkSnapshotter(); err != nil {
		return nil, err
	}
	client, _, err := f.Set.Cluster(a)
	if err != nil && f.Volumes.Snapshotter != record.ProviderEBS {
		return nil, err
	}
	p.Provider = f.Volumes.Snapshotter
	p.Snapshotter, err = f.Volumes.Open(ctx, a, client, f.Volumes.Snapshotter)
	return p, err
}
