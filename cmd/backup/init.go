package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/storage"
)

func newInit(a *cli.App) *cobra.Command {
	var repo cli.RepositoryFlags
	var longest time.Duration
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a repository",
		Long: `Make a repository in a bucket that exists, or in a directory, which is created. With
the keys that "backup keygen" prints, backups are encrypted and signed; without any
they are stored as plain zstd, for anyone who can read the store.`,
		Example: `
			backup init --repository file:///srv/backups
			backup keygen --format env --out keys && set -a && . keys/writer.env && set +a
			backup init --repository s3://backups/prod`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			keys, err := repo.Keys(a)
			if err != nil {
				return err
			}
			repo.Store.Make = !dryRun
			store, err := repo.Store.Open(cmd.Context(), a)
			if err != nil {
				return err
			}
			if dryRun {
				if err := vacant(cmd.Context(), repo.Store.URL, store); err != nil {
					return fmt.Errorf("make a repository at %s: %w", repo.Store.URL, err)
				}
				return a.Print(initReport{Repository: repo.Store.URL, Encrypted: keys.Data != nil, Signed: keys.Writer != nil, DryRun: true}, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "would make a repository at %s, %s\n", repo.Store.URL, protection(keys.Data != nil, keys.Writer != nil))
					return err
				})
			}
			config, err := repository.Init(cmd.Context(), store, repository.InitOptions{Keys: keys, Tool: cli.Version(), LongestBackup: longest, Clock: a.Clock})
			if err != nil {
				return fmt.Errorf("make a repository at %s: %w", repo.Store.URL, err)
			}
			guarantee, err := repository.WriteGuarantee(cmd.Context(), store)
			if err != nil {
				a.Log.Warn("the repository is made, but what the store's writes guarantee could not be found out", "error", err)
			}
			if guarantee == storage.GuaranteeChecked {
				a.Log.Warn("the store has no conditional writes: read docs/storage.md, and unless it refuses them openly give --s3-look-before-put to every command")
			}
			return printInit(a, repo.Store.URL, config, guarantee)
		},
	}
	repo.AddInit(cmd.Flags())
	cmd.Flags().DurationVar(&longest, "longest-backup", 24*time.Hour, "a backup that takes longer does not count")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be made and stop")
	return cmd
}

// vacant looks whether a repository could be made. A directory would be
// created, a bucket has to be there.
func vacant(ctx context.Context, url string, store storage.Store) error {
	err := repository.CheckVacant(ctx, store)
	if errors.Is(err, storage.ErrNoContainer) && strings.HasPrefix(url, "file:") {
		return nil
	}
	return err
}

type initReport struct {
	Repository string `json:"repository"`
	ID         string `json:"id,omitempty"`
	Encrypted  bool   `json:"encrypted"`
	Signed     bool   `json:"signed"`
	Writes     string `json:"writes,omitempty"`
	DryRun     bool   `json:"dryRun,omitempty"`
}

func printInit(a *cli.App, url string, c record.Config, writes storage.Guarantee) error {
	r := initReport{Repository: url, ID: c.Repository, Encrypted: c.Encrypted(), Signed: len(c.Writers) > 0, Writes: writes.String()}
	return a.Print(r, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "made repository %s at %s, %s\nwrites of the store: %s\n", r.ID, r.Repository, protection(r.Encrypted, r.Signed), r.Writes)
		return err
	})
}

func protection(encrypted, signed bool) string {
	switch {
	case encrypted:
		return "encrypted and signed"
	case signed:
		return "signed, not encrypted: who can read the store can read the backups"
	default:
		return "neither encrypted nor signed: who can read the store can read the backups, who can write to it can forge them"
	}
}
