package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/job"
	"keepset/internal/metrics"
)

func newRun(a *cli.App) *cobra.Command {
	var f cli.RestoreFlags
	var launch cli.LaunchFlags
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Restore replicas of a StatefulSet, or a whole set",
		Long: `Restore replicas of a StatefulSet. With --replicas the set is scaled up and each new
ordinal is seeded before its pod first starts; with --ordinal a lost or corrupt ordinal
is recovered in place; with --all a set that stands at zero replicas is filled, also
from the backup of another namespace (--from-set).

The set's backups are suspended meanwhile, and a Lease keeps other restores away. A
replica is never Ready with an empty or half-loaded database: its name is held by a seed
pod until the load has been checked, the follower has caught up and the database has
shut down cleanly. A retry of the same Job continues the same plan.

With --method files claims are filled with files, by seed pods of Keepset's own image.

With --with-objects the set itself comes out of the backup, with its Services, ConfigMaps,
ServiceAccount and, if they are in it, Secrets: what is missing of them is created first,
and the namespace, too. With --all that brings a set back where there is nothing.

Outside of the cluster the Job is made from a CronJob and followed; --local works from
here, and with --port-forward also where the pods' network does not reach.`,
		Example: `
			restore run --set mysql/mysql --replicas 4
			restore run --set mysql/mysql --ordinal 2 --replace
			restore run --set staging/mysql --from-set mysql/mysql --all
			restore run --set mysql/mysql --all --with-objects --local --port-forward
			kubectl create job restore-2 --from=cronjob/keepset-restore`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.FromNothing.PortForward && !launch.Local {
				return cli.Usage("--port-forward goes with --local: a Job reaches the pods by itself")
			}
			if !dryRun && launch.Outside(a) {
				return launch.Launch(cmd.Context(), a, cmd, &f.Set)
			}
			if dryRun {
				r, err := f.Job(cmd.Context(), a)
				if err != nil {
					return err
				}
				return resolve(cmd.Context(), a, r)
			}
			return f.Metrics.Around(cmd.Context(), a, "restore", func(run *metrics.Run) error {
				return runRestore(cmd.Context(), a, &f, run)
			})
		},
	}
	f.Add(cmd.Flags())
	launch.Add(cmd.Flags(), "restore")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print the plan and stop")
	return cmd
}

func runRestore(ctx context.Context, a *cli.App, f *cli.RestoreFlags, run *metrics.Run) error {
	r, err := f.Job(ctx, a)
	if err != nil {
		f.Event(ctx, a, true, "RestoreFailed", err.Error())
		return err
	}
	group := run.Of(r.Cluster.Namespace() + "/" + r.Set)
	progress, end := a.StartProgress()
	r.Progress = progress
	report, err := r.Execute(ctx)
	end()
	group.Restore(report)
	if err != nil {
		f.Event(ctx, a, true, "RestoreFailed", err.Error())
		if report != nil { // what was done before
			err = errors.Join(err, a.Print(report, func(w io.Writer) error { return printRestore(w, report, restoreSummary(report)) }))
		}
		return err
	}
	summary := restoreSummary(report)
	a.SetMessage(summary)
	f.Event(ctx, a, false, "RestoreComplete", summary)
	return a.Print(report, func(w io.Writer) error { return printRestore(w, report, summary) })
}

func restoreSummary(r *job.RestoreReport) string {
	return fmt.Sprintf("%s of %s from backup %s: %d ordinals ready in %s", r.Plan.Mode, r.Plan.Set, r.Plan.Backup, len(r.Members), seconds(r.Seconds))
}

func printRestore(w io.Writer, r *job.RestoreReport, summary string) error {
	for _, m := range r.Members {
		follows := ""
		if m.Follows != "" {
			follows = ", follows " + m.Follows
		}
		if m.Unasked != "" {
			follows += ", not asked what it is (" + m.Unasked + ")"
		}
		if _, err := fmt.Fprintf(w, "ordinal %d: %s, %s rows%s, %s\n", m.Ordinal, m.Action, cli.Count(m.Rows), follows, seconds(m.Seconds)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w, summary)
	return err
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(100 * time.Millisecond)
}
