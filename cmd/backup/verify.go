package main

import (
	"context"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/job"
	"keepset/internal/metrics"
	"keepset/internal/repository"
)

// findOrphans compares the set's volume snapshots with what its backups need.
func findOrphans(ctx context.Context, a *cli.App, r *repository.Repository, set *cli.SetFlags, volumes *cli.VolumeFlags) (*job.OrphansReport, error) {
	o, err := volumes.Orphans(ctx, a, r, set)
	if err != nil {
		return nil, err
	}
	return o.Run(ctx)
}

func newVerify(a *cli.App) *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify [BACKUP...]",
		Short: "Check that backups are whole",
		Long: `Check that every object that a backup needs is there in its right size, and with
--read-data that its bytes are unchanged. No key is needed: the names of objects are
the hashes of their content. Harmed backups and members are named.

A plan or commit that is unreadable, forged, too late or quarantined is damage too, as
is a plan that is gone, a lost key file, and a set without any backup to restore, unless
its first one may still be running. Members without a commit are notes, and the summary
counts what the backups are; a backup that is named has to be complete, and in a signed
repository that takes the writers' public keys.

--orphans asks whoever keeps the set's volume snapshots for them: one that a backup needs
and that is gone is damage, one that no backup needs is named.`,
		Example: `
			backup verify --repository s3://backups/prod
			backup verify --set mysql/mysql --read-data 100
			backup verify --set mysql/mysql --orphans --snapshotter ebs
			backup verify --set mysql/mysql 20261120T131730Z-1a2b3c4d`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := f.options(args)
			if err != nil {
				return err
			}
			return f.metrics.Around(cmd.Context(), a, "verify", func(run *metrics.Run) error {
				return f.run(cmd.Context(), a, o, run)
			})
		},
	}
	f.repo.AddRead(cmd.Flags())
	f.set.Add(cmd.Flags())
	f.volumes.AddList(cmd.Flags())
	f.metrics.Add(cmd.Flags())
	cmd.Flags().BoolVar(&f.orphans, "orphans", false, "also compare the volume snapshots that are kept with those that the backups need")
	cmd.Flags().Float64Var(&f.percent, "read-data", 0, "percentage of the objects whose bytes are read and compared")
	return cmd
}

type verifyFlags struct {
	repo    cli.RepositoryFlags
	set     cli.SetFlags
	volumes cli.VolumeFlags
	metrics cli.MetricsFlags
	percent float64
	orphans bool
}

// options reads the flags and the IDs.
func (f *verifyFlags) options(args []string) (o repository.VerifyOptions, err error) {
	o.ReadData = f.percent
	if f.percent < 0 || f.percent > 100 {
		return o, cli.Usage("--read-data %v is not a percentage", f.percent)
	}
	if o.IDs, err = cli.BackupIDs(args); err != nil {
		return o, err
	}
	if len(o.IDs) > 0 && f.set.Name == "" {
		return o, cli.Usage("--set is required when backups are named")
	}
	if f.orphans && f.set.Name == "" {
		return o, cli.Usage("--set is required with --orphans: volume snapshots are those of a set")
	}
	return o, nil
}

func (f *verifyFlags) run(ctx context.Context, a *cli.App, o repository.VerifyOptions, run *metrics.Run) error {
	named := len(o.IDs) > 0
	group := new(metrics.Group) // of single backups: it says nothing of the others
	if f.set.Name == "" {
		group = run.Of("")
	}
	r, err := f.repo.Open(ctx, a)
	if err != nil {
		return err
	}
	if f.set.Name != "" {
		if o.Set, err = f.set.Find(ctx, a, r); err != nil {
			return err
		}
		if !named {
			group = run.Of(o.Set.String())
		}
	}
	report, err := r.Verify(ctx, o)
	if err != nil {
		return err
	}
	var compared *job.OrphansReport
	gone := 0
	if f.orphans {
		if compared, err = findOrphans(ctx, a, r, &f.set, &f.volumes); err != nil {
			return err
		}
		gone = len(compared.Missing)
	}
	group.Verify(report, gone)
	return finishVerify(a, report, compared, named)
}
