package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/record"
)

func newList(a *cli.App) *cobra.Command {
	var repo cli.RepositoryFlags
	var set cli.SetFlags
	var labels []string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the backups of a set, or of all sets",
		Long: `List the backups of a set, newest first; of all sets without --set. A backup is
complete when every member of its plan has a valid commit; others are shown as what
they are: suspect, incomplete, invalid, or unchecked when the repository is signed and
no trusted writer key was given.`,
		Example: `
			backup list --repository s3://backups/prod
			backup list --set mysql/mysql --label release=2026.11
			backup list --set mysql/mysql --json | jq -r '.[] | select(.status == "complete") | .backup'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			selectors, err := record.ParseLabelSelectors(labels)
			if err != nil {
				return cli.Usage("--label: %w", err)
			}
			r, err := repo.Open(cmd.Context(), a)
			if err != nil {
				return err
			}
			missing, err := r.MissingKeyFiles(cmd.Context())
			if err != nil {
				return err
			}
			if len(missing) > 0 {
				a.Log.Warn("key files are missing: who holds their keys cannot restore; backup verify says more", "keys", missing)
			}
			backups, err := cli.Summaries(cmd.Context(), a, r, &set)
			if err != nil {
				return err
			}
			backups = slices.DeleteFunc(backups, func(b cli.BackupSummary) bool {
				return slices.ContainsFunc(selectors, func(s record.LabelSelector) bool { return !s.Selects(b.Labels) })
			})
			return a.Print(backups, func(w io.Writer) error { return printBackups(w, a, backups) })
		},
	}
	repo.AddRead(cmd.Flags())
	set.Add(cmd.Flags())
	cmd.Flags().StringSliceVar(&labels, "label", nil, "only backups with this label, key=value, or key for any value; repeatable, for those with all of them")
	return cmd
}

func printBackups(w io.Writer, a *cli.App, backups []cli.BackupSummary) error {
	if len(backups) == 0 {
		_, err := fmt.Fprintln(w, "no backups")
		return err
	}
	rows := make([][]string, 0, len(backups))
	for _, b := range backups {
		rows = append(rows, []string{
			b.Set, string(b.Backup), b.Status, cli.Age(a.Clock().Sub(b.Backup.Time())), fmt.Sprintf("%d/%d", b.Committed, b.Planned),
			cli.Count(b.Rows), cli.Bytes(b.Bytes), cli.Bytes(b.Stored), dash(strings.Join(b.Problems, "; ")),
		})
	}
	return cli.Table(w, []string{"SET", "BACKUP", "STATUS", "AGE", "MEMBERS", "ROWS", "BYTES", "STORED", "PROBLEM"}, rows)
}
