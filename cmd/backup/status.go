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

func newStatus(a *cli.App) *cobra.Command {
	var f cli.StatusFlags
	var prometheus bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say whether somebody has to look at the backups",
		Long: `Say whether somebody has to look at the backups of a set, or of all sets, with one line
for each finding and what to do about it. No secret key is needed, and nothing is changed.

  age      the newest complete backup is older than the schedule promises. Those of single
           databases or ordinals count only where the set has no others.
  newest   the newest run that has ended left a suspect, incomplete or invalid backup
  cronjob  a backup CronJob is suspended, does not succeed, or is not there
  prune    what was condemned is not deleted, a record stops every prune, or the CronJob
           of the prune is suspended or does not succeed
  verify   the CronJob that verifies the backups is suspended, or does not find them whole
  drill    the last drill has failed, or with --drill-days no restore was proven for long

The schedule is that of the set's CronJobs, or --schedule, with which no cluster is asked.
A check that cannot be made here is shown as unchecked and is no finding.

It ends with 0 when there is no finding, with 4 when there is any, and with 1 when it could
not look (Nagios: 0 is OK, 4 CRITICAL, all others UNKNOWN).`,
		Example: `
			backup status --repository s3://backups/prod
			backup status --set mysql/mysql --json | jq -r '.[].checks[] | select(.state == "alert") | .what'
			backup status --set shop --schedule "0 2 * * *" --time-zone Europe/Berlin
			backup status --prometheus > /var/lib/node_exporter/keepset-status.prom`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if prometheus && a.JSON() {
				return cli.Usage("--prometheus and --json are two forms of one output: give one of them")
			}
			return f.Metrics.Around(cmd.Context(), a, "status", func(run *metrics.Run) error {
				return runStatus(cmd.Context(), a, &f, run, prometheus)
			})
		},
	}
	f.Add(cmd.Flags())
	cmd.Flags().BoolVar(&prometheus, "prometheus", false, "print the findings as metrics in Prometheus' text format")
	return cmd
}

func runStatus(ctx context.Context, a *cli.App, f *cli.StatusFlags, run *metrics.Run, prometheus bool) error {
	jobs, err := f.Jobs(ctx, a)
	if err != nil {
		return err
	}
	reports := make([]*job.StatusReport, 0, len(jobs))
	var failed error
	for _, s := range jobs {
		started := a.Clock()
		report, err := s.Run(ctx)
		group := run.Of(s.Set.String())
		failed = errors.Join(failed, err)
		if report != nil {
			reports = append(reports, report)
			group.Status(report)
		}
		group.End(started, a.Clock(), cli.ExitCode(err))
	}
	if failed != nil && len(reports) == 0 {
		return failed
	}
	a.SetMessage(statusSummary(reports))
	if prometheus {
		err = run.WriteText(a.Out)
	} else {
		err = a.Print(reports, func(w io.Writer) error { return printStatus(w, reports) })
	}
	return errors.Join(failed, err)
}

// printStatus is a table of what was checked, and a line for each finding.
func printStatus(w io.Writer, reports []*job.StatusReport) error {
	if len(reports) == 0 {
		_, err := fmt.Fprintln(w, "no backups")
		return err
	}
	var rows [][]string
	for _, r := range reports {
		for _, c := range r.Checks {
			rows = append(rows, []string{r.Set, c.Check, c.State, c.What})
		}
	}
	if err := cli.Table(w, []string{"SET", "CHECK", "STATE", "WHAT"}, rows); err != nil {
		return err
	}
	for _, r := range reports {
		for _, c := range r.Alerts() {
			if _, err := fmt.Fprintf(w, "alert: %s\n", cli.StatusLine(r.Set, c)); err != nil {
				return err
			}
		}
	}
	_, err := fmt.Fprintln(w, statusSummary(reports))
	return err
}

func statusSummary(reports []*job.StatusReport) string {
	alerts, unchecked := 0, 0
	for _, r := range reports {
		alerts += len(r.Alerts())
		for _, c := range r.Checks {
			if c.State != job.CheckOK && c.State != job.CheckAlert {
				unchecked++
			}
		}
	}
	return fmt.Sprintf("%d sets: %d findings, %d checks not made", len(reports), alerts, unchecked)
}
