package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/job"
	"keepset/internal/metrics"
)

func newDrill(a *cli.App) *cobra.Command {
	var f cli.DrillFlags
	var launch cli.LaunchFlags
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "drill",
		Short: "Prove that a backup can be restored",
		Long: `Prove that a backup can be restored: restore one member into a server that nobody uses,
compare rows, objects, checksums and definitions with those that were recorded when it was
dumped, ask what you want to know of it (--check-sql, --check-command), throw it away, and
store a signed proof. Prunes keep the newest backup that has one, and "backup status
--drill-days" alerts when there was none for long.

In Kubernetes the server is a pod like the set's, on claims of its own, which no Service
selects; pod and claims are deleted however the drill ends, and what a killed one leaves is
deleted by the next, or by "restore abort". The set's own pods, claims and CronJobs are not
touched, and its backups go on. With --target the server is one that you have made, empty,
and throw away yourself.

Backups of the engine mysql and the method dump can be drilled. Exit code 4 says that the
backup is wanting, 5 that another drill of the set is under way.`,
		Example: `
			restore drill --set mysql/mysql
			restore drill --set mysql/mysql --check-sql 'SELECT COUNT(*) > 1000 FROM shop.orders'
			restore drill --set shop --target mysql://root@127.0.0.1:3307
			kubectl create job drill-1 --from=cronjob/keepset-drill`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !dryRun && f.InCluster() && launch.Outside(a) {
				return launch.Launch(cmd.Context(), a, cmd, &f.Set)
			}
			if dryRun {
				return runDrill(cmd.Context(), a, &f, nil)
			}
			return f.Metrics.Around(cmd.Context(), a, "drill", func(run *metrics.Run) error {
				return runDrill(cmd.Context(), a, &f, run)
			})
		},
	}
	f.Add(cmd.Flags())
	launch.Add(cmd.Flags(), "drill")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "find and open the backup, say what would be done, and stop")
	return cmd
}

// runDrill drills; without run it only says what it would do.
func runDrill(ctx context.Context, a *cli.App, f *cli.DrillFlags, run *metrics.Run) error {
	d, done, err := f.Job(ctx, a)
	if err != nil {
		return err
	}
	defer done()
	if run == nil {
		report, err := d.DryRun(ctx)
		done()
		if err != nil {
			return err
		}
		return a.Print(report, func(w io.Writer) error { return printDrill(w, report) })
	}
	group := run.Of(d.Of().String())
	report, err := d.Run(ctx)
	done()
	group.Drill(report)
	if err != nil {
		f.Event(ctx, a, d, true, "DrillFailed", err.Error())
		if report == nil || !errors.Is(err, job.ErrDrill) {
			return err
		}
		return errors.Join(err, a.Print(report, func(w io.Writer) error { return printDrill(w, report) }))
	}
	a.SetMessage(drillSummary(report))
	f.Event(ctx, a, d, false, "DrillPassed", drillSummary(report))
	return a.Print(report, func(w io.Writer) error { return printDrill(w, report) })
}

func drillSummary(r *job.DrillReport) string {
	what := fmt.Sprintf("ordinal %d of backup %s of %s (%s)", r.Ordinal, r.Backup, r.Set, cli.Time(r.CapturedAt))
	switch {
	case r.DryRun:
		return "would drill " + what
	case r.Passed:
		return fmt.Sprintf("%s was restored in %s: %s rows, %d objects", what, seconds(r.RestoreSeconds), cli.Count(r.Rows), r.Objects)
	default:
		return what + " did not pass the drill"
	}
}

func printDrill(w io.Writer, r *job.DrillReport) error {
	for _, c := range r.Checks {
		if _, err := fmt.Fprintf(w, "%s: %s: %s\n", c.Check, c.State, c.What); err != nil {
			return err
		}
	}
	for _, step := range r.Steps {
		if _, err := fmt.Fprintln(w, "would:", step); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w, drillSummary(r))
	return err
}
