package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/job"
	"keepset/internal/metrics"
)

func newRun(a *cli.App) *cobra.Command {
	var f cli.BackupFlags
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Take a backup of a set",
		Long: `Take a backup of a set: of every replica of a StatefulSet, or of the servers, or with
--method files the directories, given by --source, ordinal 0 first. The files of a
StatefulSet's claims are read by worker Jobs, which the backup's own Job makes. The inventory is
written before a byte is read; an error in one member does not stop the others. In a
Job's pod the backup's ID comes from the Job, so that a retried pod continues the same
backup and skips what is already committed.

A member that is empty, that has shrunk against the last good backup, or whose
replication is broken is committed as suspect, and the run ends with exit code 4. So
is a directory of which files could not be read, or changed while they were, unless
--fuzzy accepts that.`,
		Example: `
			export KEEPSET_REPOSITORY=s3://backups/prod KEEPSET_SOURCE_USER=backup KEEPSET_SOURCE_PASSWORD=...
			backup run --set mysql/mysql
			backup run --set mysql/mysql --ordinals 1-2
			backup run --set orders --repository file:///srv/backups --source mysql://backup@db0:3306 --source mysql://backup@db1:3306
			backup run --set ldap/openldap --engine command --container openldap --command 'slapcat -n 1'
			backup run --set www --repository file:///srv/backups --method files --source file:///var/www --exclude-path '*.tmp'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dryRun {
				return dryRunBackup(cmd.Context(), a, &f)
			}
			return f.Metrics.Around(cmd.Context(), a, "backup", func(run *metrics.Run) error {
				return runBackup(cmd.Context(), a, &f, run)
			})
		},
	}
	f.Add(cmd.Flags())
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print the plan and stop")
	return cmd
}

func runBackup(ctx context.Context, a *cli.App, f *cli.BackupFlags, run *metrics.Run) error {
	if set, ok := f.Named(a); ok {
		run.Of(set.String())
	}
	b, done, err := f.Job(ctx, a)
	if err != nil {
		f.Failed(ctx, a, err)
		return err
	}
	defer done()
	report, err := b.Run(ctx)
	done()
	run.Of(b.Set.String()).Backup(report, b.Share)
	return f.Finish(ctx, a, report, err, printReport)
}

func dryRunBackup(ctx context.Context, a *cli.App, f *cli.BackupFlags) error {
	b, done, err := f.Job(ctx, a)
	if err != nil {
		return err
	}
	defer done()
	plan, inv, err := b.DryRun(ctx)
	if err != nil {
		return err
	}
	return a.Print(plan, func(w io.Writer) error { return printPlan(w, b, inv) })
}

func printPlan(w io.Writer, b *job.Backup, inv job.Inventory) error {
	if _, err := fmt.Fprintf(w, "backup %s of %s would hold %d of %d members\n", b.ID, b.Set, len(inv.Members), inv.Replicas); err != nil {
		return err
	}
	rows := make([][]string, 0, len(inv.Members))
	for _, m := range inv.Members {
		problem := "-"
		if err := m.Obstacle(); err != nil {
			problem = err.Error()
		}
		rows = append(rows, []string{strconv.Itoa(m.Ordinal), m.Name, dash(m.Address), dash(m.Role), dash(m.Node), problem})
	}
	return cli.Table(w, []string{"ORDINAL", "MEMBER", "ADDRESS", "ROLE", "NODE", "PROBLEM"}, rows)
}

func printReport(w io.Writer, r *job.BackupReport) error {
	_, err := fmt.Fprintf(w, "%s: %s in %s\n", r.Title(), r.Status, r.FinishedAt.Sub(r.StartedAt).Round(100*time.Millisecond))
	if err != nil || len(r.Members) == 0 {
		return err
	}
	rows := make([][]string, 0, len(r.Members))
	for _, m := range r.Members {
		status := m.Status
		if m.Resumed {
			status += " (earlier attempt)"
		}
		rows = append(rows, []string{
			strconv.Itoa(m.Ordinal), m.Name, status, cli.Count(m.Rows), cli.Bytes(m.Bytes), cli.Bytes(m.Stored),
			fmt.Sprintf("%.1fs", m.Seconds), fmt.Sprintf("%.3fs", m.LockSeconds),
		})
	}
	return cli.Table(w, []string{"ORDINAL", "MEMBER", "STATUS", "ROWS", "BYTES", "STORED", "TOOK", "LOCKED"}, rows)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
