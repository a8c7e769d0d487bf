package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/statefulset"
)

func newSuspend(a *cli.App) *cobra.Command {
	return switchCommand(a, "suspend", "Suspend the scheduled backups of a set", `Suspend the set's backup CronJobs. They are marked, so that "backup resume" resumes
exactly those and a restore, which suspends and resumes by itself, leaves them off.
A run that is under way goes on. "kubectl patch cronjob NAME -p '{"spec":{"suspend":true}}'"
does the same without the mark.`, true)
}

func newResume(a *cli.App) *cobra.Command {
	return switchCommand(a, "resume", "Resume the scheduled backups of a set", `Resume the backup CronJobs that "backup suspend" suspended. A run that was missed
meanwhile may start at once, bounded by the CronJob's startingDeadlineSeconds.`, false)
}

// switchCommand makes suspend and resume, which differ in one call.
func switchCommand(a *cli.App, use, short, long string, suspend bool) *cobra.Command {
	var set cli.SetFlags
	var dryRun bool
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long,
		Example: "backup " + use + " --set mysql/mysql",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, name, err := set.Cluster(a)
			if err != nil {
				return err
			}
			result := struct {
				CronJobs []string `json:"cronJobs"`
				Action   string   `json:"action"`
				DryRun   bool     `json:"dryRun,omitempty"`
				// StillSuspended says of each CronJob that resume left suspended why.
				StillSuspended []string `json:"stillSuspended,omitempty"`
			}{CronJobs: []string{}, Action: use, DryRun: dryRun}
			jobs, err := client.BackupCronJobs(cmd.Context(), name)
			if err != nil {
				return err
			}
			if len(jobs) == 0 {
				return cli.Usage("set %s/%s has no backup CronJob in its namespace", client.Namespace(), name)
			}
			names, jobs, err := switchBackups(cmd.Context(), client, name, suspend, dryRun)
			if err != nil {
				return err
			}
			result.CronJobs = append(result.CronJobs, names...)
			if !suspend {
				result.CronJobs, result.StillSuspended = resumed(names, jobs)
			}
			err = a.Print(result, func(w io.Writer) error {
				return printSwitched(w, use, result.CronJobs, result.StillSuspended, dryRun)
			})
			if err == nil && len(result.CronJobs) == 0 && len(result.StillSuspended) > 0 {
				return fmt.Errorf("no backup CronJob of set %s/%s was resumed: all of them stay suspended", client.Namespace(), name)
			}
			return err
		},
	}
	set.Add(cmd.Flags())
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would change and stop")
	return cmd
}

// switchBackups suspends or resumes, or with dryRun finds out what that would
// come to, and returns the CronJobs that it concerns, and all as they then are.
func switchBackups(ctx context.Context, c *statefulset.Client, set string, suspend, dryRun bool) (names []string, after []statefulset.CronJob, err error) {
	switch {
	case suspend && dryRun:
		return c.PlanSuspend(ctx, set, statefulset.SuspendUser)
	case dryRun:
		return c.PlanResume(ctx, set, statefulset.SuspendUser)
	case suspend:
		names, err = c.SuspendBackups(ctx, set, statefulset.SuspendUser)
	default:
		names, err = c.ResumeBackups(ctx, set, statefulset.SuspendUser)
	}
	if err != nil {
		return names, nil, err
	}
	after, err = c.BackupCronJobs(ctx, set)
	return names, after, err
}

// resumed takes out of names what is suspended all the same, by a restore or by
// somebody else, and says of each such CronJob what to do.
func resumed(names []string, now []statefulset.CronJob) (running, still []string) {
	running = append([]string{}, names...)
	for _, j := range now {
		if !j.Suspended {
			continue
		}
		running = slices.DeleteFunc(running, func(n string) bool { return n == j.Name })
		why := "not by Keepset: kubectl patch cronjob " + j.Name + ` -p '{"spec":{"suspend":false}}' resumes it`
		if j.SuspendedByRestore != "" {
			why = "by restore run " + j.SuspendedByRestore + ", which resumes it at its end; if that one is dead, restore abort does"
		}
		still = append(still, "cronjob "+j.Name+" stays suspended, "+why)
	}
	return running, still
}

func printSwitched(w io.Writer, use string, names, still []string, dryRun bool) error {
	did := map[string]string{"suspend": "suspended", "resume": "resumed"}[use]
	if dryRun {
		did = "would be " + did
	}
	for _, s := range still {
		if _, err := fmt.Fprintln(w, s); err != nil {
			return err
		}
	}
	if len(names) == 0 && len(still) == 0 {
		_, err := fmt.Fprintln(w, "nothing to "+use)
		return err
	}
	for _, n := range names {
		if _, err := fmt.Fprintf(w, "cronjob %s %s\n", n, did); err != nil {
			return err
		}
	}
	return nil
}
