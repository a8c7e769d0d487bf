package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
)

func newAdopt(a *cli.App) *cobra.Command {
	var f cli.AcceptFlags
	var origin string
	var force, retired bool
	cmd := &cobra.Command{
		Use:   "adopt",
		Short: "Make a set's backups ours: of another cluster, or of a copied bucket",
		Long: `Make a set's backups ours.

Those of another cluster whose place this one takes: the set's origin becomes this cluster's,
or the one that --origin names, and the writers of the former one are refused from then on.
If that one has taken a backup within the longest time that a backup may take, it may well
live, and it takes --force.

Those of a copied bucket: a backup whose objects have the times of the copy does not count.
Each one of which every object is there is adopted, by a small signed object beside it.
"--accept-copied-times" reads such backups without; runs and prunes want them adopted.

In a signed repository it takes the writer's key.`,
		Example: `
			backup adopt --set mysql/mysql --dry-run
			backup adopt --set mysql/mysql --reason "moved to the new cluster"
			backup adopt --set mysql/mysql --origin eu-west --repository s3://backups-copy/prod`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, set, err := f.Open(cmd.Context(), a)
			if err != nil {
				return err
			}
			to, err := f.Origin(a, set, origin)
			if err != nil {
				return err
			}
			result, err := adopt(cmd.Context(), a, r, set, to, &f, force, retired)
			if err != nil {
				return err
			}
			return a.Print(result, func(w io.Writer) error { return printAdopted(w, result) })
		},
	}
	f.Add(cmd.Flags())
	cmd.Flags().StringVar(&origin, "origin", "", "name of the cluster whose the set becomes (default: made from the cluster's certificate authority; none for plain servers)")
	cmd.Flags().BoolVar(&retired, "retired-writers", false, "also copies of what a writer has signed that is retired: if its key was stolen, look at the original first")
	cmd.Flags().BoolVar(&force, "force", false, "also when the former cluster has taken a backup just now")
	return cmd
}

// adopt adopts the origin, if there is one to adopt for, and what was copied.
func adopt(ctx context.Context, a *cli.App, r *repository.Repository, set record.SetID, origin string, f *cli.AcceptFlags, force, retired bool) (adopted, error) {
	result := adopted{Set: set.String(), Backups: []adoptedBackup{}, DryRun: f.DryRun}
	if origin != "" {
		planned, err := r.AdoptOrigin(ctx, set, origin, true)
		if err != nil {
			return result, err
		}
		if planned != nil {
			if err := mayAdopt(a.Clock(), r, planned, force || f.DryRun); err != nil {
				return result, err
			}
			if !f.DryRun {
				if _, err := r.AdoptOrigin(ctx, set, origin, false); err != nil {
					return result, err
				}
			}
			result.From, result.Origin = planned.From, planned.To
		}
	}
	list, err := r.AdoptCopies(ctx, set, repository.AdoptOptions{Reason: f.Reason, Retired: retired, DryRun: f.DryRun})
	for _, b := range list {
		result.Backups = append(result.Backups, adoptedBackup{b.Backup, b.Why})
	}
	return result, err
}

// mayAdopt asks for consent where the former cluster seems to be alive.
func mayAdopt(now time.Time, r *repository.Repository, o *repository.AdoptedOrigin, consent bool) error {
	if age := now.Sub(o.At); o.Newest != "" && age <= r.Config().LongestBackup.Duration() && !consent {
		return fmt.Errorf("%w: origin %q has taken backup %s %s ago, and its next one would be refused; if that cluster is gone, or its backups are off, give --force",
			job.ErrNeedsConsent, o.From, o.Newest, cli.Age(age))
	}
	return nil
}

// adopted is what --json prints.
type adopted struct {
	Set string `json:"set"`
	// From and Origin are whose the set was and is; both empty when that is as before.
	From    string          `json:"from,omitempty"`
	Origin  string          `json:"origin,omitempty"`
	Backups []adoptedBackup `json:"backups"`
	DryRun  bool            `json:"dryRun,omitempty"`
}

type adoptedBackup struct {
	Backup record.BackupID `json:"backup"`
	// Left says why it was not adopted.
	Left string `json:"left,omitempty"`
}

func printAdopted(w io.Writer, r adopted) error {
	would := ""
	if r.DryRun {
		would = "would be "
	}
	var lines []string
	if r.Origin != "" {
		lines = append(lines, fmt.Sprintf("set %s of origin %q %sadopted by %q", r.Set, r.From, would, r.Origin))
	}
	for _, b := range r.Backups {
		if b.Left != "" {
			lines = append(lines, fmt.Sprintf("backup %s left as it is: %s", b.Backup, b.Left))
			continue
		}
		lines = append(lines, fmt.Sprintf("backup %s %sadopted", b.Backup, would))
	}
	if len(lines) == 0 {
		lines = append(lines, "nothing to adopt")
	}
	for _, line := range lines {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}
