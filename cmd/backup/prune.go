package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/job"
	"keepset/internal/metrics"
	"keepset/internal/repository"
)

func newPrune(a *cli.App) *cobra.Command {
	var f cli.PruneFlags
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Delete the backups that no rule keeps",
		Long: `Delete the backups that no --keep rule keeps, of one set, or of all without --set, and
print for each backup why it stays or goes. No secret key is needed: a pruner holds the
right to delete, and in a signed repository the writers' public keys.

Only complete backups count. The newest complete one always stays, so do pinned ones and
all that are younger than --min-age. A suspect one stays as long as a complete one of its
time would; an incomplete one until the next is complete. What is forged, quarantined,
unreadable or dated in the future stays, and never makes another one go. Backups by
different methods, or of different databases, paths or ordinals, do not replace each other.

A backup is gone at once. Its data is only condemned: a prune that runs later than the
longest time that a backup may take (26 hours, unless the repository was made with
others) deletes what no backup needs by then. Run it daily; docs/prune.md says more.

It ends with 1 and deletes nothing of a set in which a record cannot be read, with 5 when
another prune condemns other backups, and with 64 when more than half would go at once.`,
		Example: `
			backup prune --set mysql/mysql --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run
			backup prune --keep-last 3 --keep-within 30d --time-zone Europe/Berlin
			backup prune --set mysql/mysql --keep-daily 14 --snapshotter ebs`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.Metrics.Around(cmd.Context(), a, "prune", func(run *metrics.Run) error {
				jobs, err := f.Policy(cmd.Context(), a)
				if err != nil {
					return err
				}
				return runPrunes(cmd.Context(), a, jobs, run)
			})
		},
	}
	f.Add(cmd.Flags())
	f.AddPolicy(cmd.Flags())
	return cmd
}

func newDelete(a *cli.App) *cobra.Command {
	var f cli.PruneFlags
	cmd := &cobra.Command{
		Use:   "delete BACKUP...",
		Short: "Delete backups by their IDs",
		Long: `Delete backups by their IDs, whatever the rules of "backup prune" say. They are gone at
once; their data is condemned, and a later prune deletes what no other backup needs.

The newest complete backup of a set, and one that may still be running, are refused
without --force. A pinned one has to be unpinned first.`,
		Example: `
			backup delete --set mysql/mysql 20261120T131730Z-1a2b3c4d --dry-run
			backup delete --set mysql/mysql 20261120T131730Z-1a2b3c4d --force`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := f.Delete(cmd.Context(), a, args)
			if err != nil {
				return err
			}
			return runPrunes(cmd.Context(), a, []*job.Prune{p}, new(metrics.Run))
		},
	}
	f.Add(cmd.Flags())
	cmd.Flags().BoolVar(&f.Force, "force", false, "also the newest complete backup, and one that may still be running")
	return cmd
}

// runPrunes runs one after the other. One that fails stops no other. A dry run
// has no metrics: they would be taken for those of a prune.
func runPrunes(ctx context.Context, a *cli.App, jobs []*job.Prune, run *metrics.Run) error {
	reports := make([]*job.PruneReport, 0, len(jobs))
	var errs []error
	for _, p := range jobs {
		started := a.Clock()
		report, err := p.Run(ctx)
		if !p.DryRun {
			run.Of(p.Set.String()).Prune(report, started, a.Clock(), cli.ExitCode(err))
		}
		if errors.Is(err, repository.ErrNewest) {
			err = fmt.Errorf("%w; --force deletes it all the same", err)
		}
		reports = append(reports, report)
		errs = append(errs, err)
	}
	a.SetMessage(pruneSummary(reports))
	if err := printPruned(a, reports); err != nil {
		return err
	}
	return errors.Join(errs...)
}
