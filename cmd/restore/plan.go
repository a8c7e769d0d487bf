package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/job"
)

func newPlan(a *cli.App) *cobra.Command {
	var f cli.RestoreFlags
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Say what a restore would do",
		Long: `Say what a restore would do: which backup and member, whom each ordinal will follow,
what is created, deleted and scaled. Nothing is changed. What "restore run" would
refuse is refused here.`,
		Example: `
			restore plan --set mysql/mysql --replicas 4
			restore plan --set mysql/mysql --ordinal 2 --replace`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := f.Job(cmd.Context(), a)
			if err != nil {
				return err
			}
			return resolve(cmd.Context(), a, r)
		},
	}
	f.Add(cmd.Flags())
	return cmd
}

// resolve prints the plan and stops. Where the set itself is still to be made,
// that is the plan: what comes after it cannot be asked of a set that is not
// there.
func resolve(ctx context.Context, a *cli.App, r *job.Restore) error {
	missing, err := r.Missing(ctx)
	if err != nil {
		return err
	}
	if missing != nil {
		return a.Print(missing, func(w io.Writer) error { return printObjects(w, missing) })
	}
	plan, err := r.Resolve(ctx)
	if err != nil {
		return err
	}
	return a.Print(plan, func(w io.Writer) error { return printPlan(w, plan) })
}

func printPlan(w io.Writer, p *job.RestorePlan) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s of %s from backup %s of %s, captured %s\n", p.Mode, p.Set, p.Backup, p.From, cli.Time(p.CapturedAt))
	if p.ReplicasNow != p.ReplicasThen {
		fmt.Fprintf(&b, "replicas: %d now, %d then\n", p.ReplicasNow, p.ReplicasThen)
	}
	for _, item := range p.Items {
		follows := "follows nobody"
		if item.Follow != "" {
			follows = "follows " + item.Follow
		}
		if item.Slot != "" {
			follows += " by its slot " + item.Slot
		}
		fmt.Fprintf(&b, "ordinal %s: loads member %d, %s\n", strconv.Itoa(item.Ordinal), item.Base, follows)
		for _, step := range item.Steps {
			fmt.Fprintf(&b, "  - %s\n", step)
		}
	}
	for _, note := range p.Notes {
		fmt.Fprintf(&b, "note: %s\n", note)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
