package main

import (
	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/record"
	"keepset/internal/repository"
)

func newVerify(a *cli.App) *cobra.Command {
	var repo cli.RepositoryFlags
	var set cli.SetFlags
	var percent float64
	cmd := &cobra.Command{
		Use:   "verify [BACKUP...]",
		Short: "Check that backups are whole",
		Long: `Check that every object that a backup needs is there in its right size, and with
--read-data that its bytes are unchanged. No key is needed: the names of objects are
the hashes of their content. Harmed backups and members are named.

A plan or commit that is unreadable, forged, too late or quarantined is damage too, as
is a plan that is gone, a lost key file, and a set without any backup to restore, unless
its first one may still be running. Members without a commit are notes, and the summary
counts what the backups are; a backup that is named has to be complete, and in a signed
repository that takes the writers' public keys.`,
		Example: `
			backup verify --repository s3://backups/prod
			backup verify --set mysql/mysql --read-data 100
			backup verify --set mysql/mysql 20261120T131730Z-1a2b3c4d`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o := repository.VerifyOptions{ReadData: percent}
			if percent < 0 || percent > 100 {
				return cli.Usage("--read-data %v is not a percentage", percent)
			}
			for _, arg := range args {
				id, err := record.ParseBackupID(arg)
				if err != nil {
					return cli.Usage("%w", err)
				}
				o.IDs = append(o.IDs, id)
			}
			if len(o.IDs) > 0 && set.Name == "" {
				return cli.Usage("--set is required when backups are named")
			}
			r, err := repo.Open(cmd.Context(), a)
			if err != nil {
				return err
			}
			if set.Name != "" {
				if o.Set, err = set.Find(cmd.Context(), a, r); err != nil {
					return err
				}
			}
			report, err := r.Verify(cmd.Context(), o)
			if err != nil {
				return err
			}
			return finishVerify(a, report, len(o.IDs) > 0)
		},
	}
	repo.AddRead(cmd.Flags())
	set.Add(cmd.Flags())
	cmd.Flags().Float64Var(&percent, "read-data", 0, "percentage of the objects whose bytes are read and compared")
	return cmd
}
