package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/statefulset"
)

func newStatus(a *cli.App) *cobra.Command {
	var set cli.SetFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what a running or dead restore has put on a set",
		Long: `Show what a running or dead restore has put on a set: the Lease, seed pods, claims that
are held or half loaded, suspended CronJobs. A restore that died is continued by its
Job's retry, or cleared away by "restore abort".`,
		Example: "restore status --set mysql/mysql",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, name, err := set.Cluster(a)
			if err != nil {
				return err
			}
			l, err := client.Leftovers(cmd.Context(), name)
			if err != nil {
				return err
			}
			return a.Print(l, func(w io.Writer) error { return printLeftovers(w, client.Namespace()+"/"+name, l) })
		},
	}
	set.Add(cmd.Flags())
	return cmd
}

func printLeftovers(w io.Writer, set string, l statefulset.Leftovers) error {
	var b strings.Builder
	switch {
	case l.Lease.Live:
		fmt.Fprintf(&b, "%s: restore run %s is under way (its Lease expires %s unless renewed)\n", set, l.Lease.Run(), cli.Time(l.Lease.Expires))
	case l.Empty():
		fmt.Fprintf(&b, "%s: no restore is running and none has left anything\n", set)
	default:
		fmt.Fprintf(&b, "%s: no restore is running, and a dead one has left this behind:\n", set)
	}
	for _, r := range l.Runs {
		fmt.Fprintf(&b, "run %s, job %s, finished: %v\n", r.ID, r.Job, r.Finished)
	}
	for _, s := range l.Seeds {
		state := "half loaded"
		if s.LoadedBackup != "" {
			state = "loaded with backup " + s.LoadedBackup
		}
		fmt.Fprintf(&b, "seed pod %s (%s), ordinal %d, %s, run %s\n", s.Pod, s.Phase, s.Ordinal, state, s.Run)
	}
	for _, c := range l.Claims {
		fmt.Fprintf(&b, "claim %s, ordinal %d, held: %v, being filled by run %s\n", c.Name, c.Ordinal, c.Held, c.Seeding)
	}
	for _, j := range l.CronJobs {
		fmt.Fprintf(&b, "cronjob %s, suspended by run %s\n", j.Name, j.SuspendedByRestore)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
