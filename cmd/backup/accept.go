package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/record"
)

func newAccept(a *cli.App) *cobra.Command {
	var f cli.AcceptFlags
	cmd := &cobra.Command{
		Use:   "accept BACKUP",
		Short: "Say that a suspect backup is good",
		Long: `Say that a suspect backup is good as it is: the table was meant to be emptied, the
follower to be stopped. From then on it counts as complete: restores take it, rules of
"backup prune" count it, and the next run is compared with it.

It is a small signed object beside the backup, which names the very commits that are there
now: nothing that is stored is changed, and no other backup is covered. In a signed
repository it takes the writer's key.`,
		Example: `
			backup accept --set mysql/mysql 20261120T131730Z-1a2b3c4d --reason "orders of 2019 were archived"
			backup accept --set mysql/mysql 20261120T131730Z-1a2b3c4d --dry-run`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := cli.BackupIDs(args)
			if err != nil {
				return err
			}
			r, set, err := f.Open(cmd.Context(), a)
			if err != nil {
				return err
			}
			info, err := r.Backup(cmd.Context(), set, ids[0])
			if err != nil {
				return err
			}
			rec, err := r.Accept(cmd.Context(), set, ids[0], f.Reason, f.DryRun)
			if err != nil {
				return err
			}
			result := accepted{Set: set.String(), Backup: ids[0], Accepted: []string{}, DryRun: f.DryRun}
			for _, planned := range info.Plan.Members {
				if m := info.Members[planned.Ordinal]; rec != nil && m.Valid && m.Suspect() {
					result.Accepted = append(result.Accepted, fmt.Sprintf("ordinal %d: %s", planned.Ordinal, strings.Join(m.Commit.Reasons, ", ")))
				}
			}
			return a.Print(result, func(w io.Writer) error { return printAccepted(w, result) })
		},
	}
	f.Add(cmd.Flags())
	return cmd
}

// accepted is what --json prints.
type accepted struct {
	Set    string          `json:"set"`
	Backup record.BackupID `json:"backup"`
	// Accepted are the doubts that are set aside, none when there were none.
	Accepted []string `json:"accepted"`
	DryRun   bool     `json:"dryRun,omitempty"`
}

func printAccepted(w io.Writer, r accepted) error {
	did := "accepted"
	if r.DryRun {
		did = "would accept"
	}
	for _, doubt := range r.Accepted {
		if _, err := fmt.Fprintf(w, "%s: %s\n", did, doubt); err != nil {
			return err
		}
	}
	text := "counts as complete"
	if r.DryRun && len(r.Accepted) > 0 {
		text = "would count as complete"
	}
	if len(r.Accepted) == 0 {
		text = "is complete, there is nothing to accept"
	}
	_, err := fmt.Fprintf(w, "backup %s of %s %s\n", r.Backup, r.Set, text)
	return err
}
