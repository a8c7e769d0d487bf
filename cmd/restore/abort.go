package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/statefulset"
)

func newAbort(a *cli.App) *cobra.Command {
	var set cli.SetFlags
	var o statefulset.AbortOptions
	var volumes cli.VolumeFlags
	var ordinals []int
	var drills string
	cmd := &cobra.Command{
		Use:   "abort",
		Short: "Clear away what a dead restore left behind",
		Long: `Clear away what a dead restore left behind: a seed that is loaded is released, one that
is half loaded is wiped, suspended CronJobs are resumed, finalizers dropped, volumes that
were prepared of snapshots and that no claim has got are removed, and so are pods and
claims of a dead drill. While a
restore is alive nothing is done (exit code 5). An ordinal that the set asks for and that
is half loaded stays held, unless --release-empty consents to an empty replica.`,
		Example: `
			restore abort --set mysql/mysql --dry-run
			restore abort --set mysql/mysql`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, name, err := set.Cluster(a)
			if err != nil {
				return err
			}
			run, err := client.Self(cmd.Context(), a.Getenv)
			if err != nil {
				return err
			}
			abort, err := volumes.Abort(cmd.Context(), a, client)
			if err != nil {
				return err
			}
			abort.Set, abort.Run, abort.Options, abort.Ordinals, abort.DrillNamespace = name, run, o, ordinals, drills
			steps, runErr := abort.Execute(cmd.Context())
			result := struct {
				Steps  []string `json:"steps"`
				DryRun bool     `json:"dryRun,omitempty"`
			}{append([]string{}, steps...), o.DryRun}
			err = a.Print(result, func(w io.Writer) error { return printSteps(w, steps, o.DryRun, runErr) })
			return errors.Join(runErr, err)
		},
	}
	set.Add(cmd.Flags())
	volumes.AddScrap(cmd.Flags())
	cmd.Flags().IntSliceVar(&ordinals, "ordinal", nil, "with --snapshotter, look for prepared volumes of this ordinal, too, which the set does not have yet; repeatable")
	cmd.Flags().StringVar(&drills, "drill-namespace", "", "where drills of the set are made (default: its own namespace)")
	cmd.Flags().BoolVar(&o.ReleaseEmpty, "release-empty", false, "let a half-loaded ordinal go, although its pod then starts empty")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "print the steps and stop")
	cmd.Flags().DurationVar(&o.Wait, "lease-wait", 0, "how long to wait for the Lease of a killed restore to expire")
	cmd.Flags().DurationVar(&o.Timeout, "timeout", 10*time.Minute, "how long each pod and claim may take to go")
	return cmd
}

func printSteps(w io.Writer, steps []string, dryRun bool, runErr error) error {
	if len(steps) == 0 && runErr == nil {
		_, err := fmt.Fprintln(w, "nothing to clear away")
		return err
	}
	verb := "did"
	if dryRun {
		verb = "would"
	}
	for _, s := range steps {
		if _, err := fmt.Fprintf(w, "%s: %s\n", verb, s); err != nil {
			return err
		}
	}
	return nil
}
