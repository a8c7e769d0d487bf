package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/record"
	"keepset/internal/repository"
)

func newCopy(a *cli.App) *cobra.Command {
	var f cli.CopyFlags
	cmd := &cobra.Command{
		Use:   "copy [BACKUP...]",
		Short: "Copy backups to a second repository",
		Long: `Copy backups of a set to a second place: those that are named, or all that are complete
or suspect. No key is needed. The copy has the same names, bytes and keys, and is restored
from like the original; the first copy makes the place a repository. The bytes of each
object are compared with its name on the way.

What is there already is not copied again, so that a copy that was killed goes on where it
was, and a daily one costs what is new. The copy is pruned on its own, with rules of its own.

A copy that is made within the longest time that a backup may take (24 hours) counts at once. An
older backup has the times of the copy: it is read with --accept-copied-times, and counts
for runs, prunes and restores once "backup adopt" has been run there.`,
		Example: `
			backup copy --set mysql/mysql --repository s3://backups/prod --to s3://backups-elsewhere/prod
			backup copy --set mysql/mysql 20261120T131730Z-1a2b3c4d --to file:///mnt/usb/backups
			backup copy --set mysql/mysql --to s3://backups-elsewhere/prod --to-profile elsewhere --dry-run`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runCopy(cmd.Context(), a, &f, args)
		},
	}
	f.Add(cmd.Flags())
	return cmd
}

func runCopy(ctx context.Context, a *cli.App, f *cli.CopyFlags, args []string) error {
	ids, err := cli.BackupIDs(args)
	if err != nil {
		return err
	}
	r, set, to, err := f.Open(ctx, a)
	if err != nil {
		return err
	}
	report, err := r.Copy(ctx, to, repository.CopyOptions{
		Set: set, IDs: ids, DryRun: f.DryRun, Creates: strings.HasPrefix(f.To.URL, "file:"),
		Done: func(b repository.CopiedBackup) {
			a.Log.Info("backup is in the copy", "backup", b.ID, "status", b.Status, "before", b.Before)
		},
	})
	if err != nil {
		return err
	}
	result := copied{Set: set.String(), To: f.To.URL, Backups: []copiedBackup{}, Copied: report.Copied, Present: report.Present, DryRun: f.DryRun}
	for _, b := range report.Backups {
		result.Backups = append(result.Backups, copiedBackup{b.ID, b.Before, string(b.Status), b.Problems})
	}
	summary := copySummary(result)
	a.SetMessage(summary)
	return a.Print(result, func(w io.Writer) error { return printCopied(w, result, summary) })
}

// copied is what --json prints.
type copied struct {
	Set     string         `json:"set"`
	To      string         `json:"to"`
	Backups []copiedBackup `json:"backups"`
	// Copied objects, and Present ones, which the copy had.
	Copied  repository.Amount `json:"copied"`
	Present repository.Amount `json:"present"`
	DryRun  bool              `json:"dryRun,omitempty"`
}

type copiedBackup struct {
	Backup record.BackupID `json:"backup"`
	// Before: an earlier copy had brought all of it.
	Before bool `json:"before,omitempty"`
	// Status in the copy.
	Status   string   `json:"status,omitempty"`
	Problems []string `json:"problems,omitempty"`
}

func copySummary(r copied) string {
	before := 0
	for _, b := range r.Backups {
		if b.Before {
			before++
		}
	}
	did := "copied"
	if r.DryRun {
		did = "would copy"
	}
	return fmt.Sprintf("%s %d backups of %s to %s, %d were there: %s in %s objects", did, len(r.Backups)-before, r.Set, r.To, before,
		cli.Bytes(r.Copied.Bytes), cli.Count(int64(r.Copied.Objects)))
}

func printCopied(w io.Writer, r copied, summary string) error {
	rows := make([][]string, 0, len(r.Backups))
	for _, b := range r.Backups {
		before := "new"
		if b.Before {
			before = "there before"
		}
		rows = append(rows, []string{string(b.Backup), before, dash(b.Status), dash(strings.Join(b.Problems, "; "))})
	}
	if len(rows) > 0 {
		if err := cli.Table(w, []string{"BACKUP", "COPY", "STATUS THERE", "PROBLEM"}, rows); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w, summary)
	return err
}
