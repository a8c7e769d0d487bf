package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/record"
	"keepset/internal/repository"
)

func newPin(a *cli.App) *cobra.Command {
	var f pinFlags
	var reason string
	cmd := &cobra.Command{
		Use:   "pin BACKUP",
		Short: "Keep a backup from every prune",
		Long: `Keep a backup from every prune, until "backup unpin". The pin is a small object beside the
backup: nothing that is stored is ever changed. It takes the rights of "backup prune".`,
		Example: `
			backup pin --set mysql/mysql 20261120T131730Z-1a2b3c4d --reason "before the migration"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd, a, args[0], "pinned", func(r *repository.Repository, set record.SetID, id record.BackupID) error {
				return r.Pin(cmd.Context(), set, id, reason)
			})
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who find it")
	return cmd
}

func newUnpin(a *cli.App) *cobra.Command {
	var f pinFlags
	cmd := &cobra.Command{
		Use:   "unpin BACKUP",
		Short: "Let prunes decide on a backup again",
		Long: `Let prunes decide on a backup again. One that is not pinned is no error. It takes the
rights of "backup prune".`,
		Example: `
			backup unpin --set mysql/mysql 20261120T131730Z-1a2b3c4d`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd, a, args[0], "unpinned", func(r *repository.Repository, set record.SetID, id record.BackupID) error {
				return r.Unpin(cmd.Context(), set, id)
			})
		},
	}
	f.add(cmd)
	return cmd
}

// pinFlags are those of pin and unpin.
type pinFlags struct {
	repo   cli.RepositoryFlags
	set    cli.SetFlags
	dryRun bool
}

func (f *pinFlags) add(cmd *cobra.Command) {
	f.repo.AddPrune(cmd.Flags())
	f.set.Add(cmd.Flags())
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "look whether the backup is there, and stop")
}

func (f *pinFlags) run(cmd *cobra.Command, a *cli.App, arg, did string, do func(*repository.Repository, record.SetID, record.BackupID) error) error {
	ids, err := cli.BackupIDs([]string{arg})
	if err != nil {
		return err
	}
	r, err := f.repo.Open(cmd.Context(), a)
	if err != nil {
		return err
	}
	set, err := f.set.Find(cmd.Context(), a, r)
	if err != nil {
		return err
	}
	if _, err := r.Backup(cmd.Context(), set, ids[0]); err != nil {
		return err
	}
	if !f.dryRun {
		if err := do(r, set, ids[0]); err != nil {
			return err
		}
	}
	result := struct {
		Set    string          `json:"set"`
		Backup record.BackupID `json:"backup"`
		Action string          `json:"action"`
		DryRun bool            `json:"dryRun,omitempty"`
	}{set.String(), ids[0], did, f.dryRun}
	return a.Print(result, func(w io.Writer) error {
		if f.dryRun {
			did = "would be " + did
		}
		_, err := fmt.Fprintf(w, "backup %s of %s %s\n", ids[0], set, did)
		return err
	})
}
