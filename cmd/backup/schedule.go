package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/repository"
	"keepset/internal/schedule"
)

func newSchedule(a *cli.App) *cobra.Command {
	var zone string
	var count int
	var took time.Duration
	var repo cli.RepositoryFlags
	var set cli.SetFlags
	cmd := &cobra.Command{
		Use:   "schedule EXPRESSION",
		Short: "Explain a CronJob's schedule",
		Long: `Explain a CronJob's schedule: the next runs in a time zone, nights in which the
clocks change and a run is left out or happens twice, and runs that come closer
together than the last backup took. With --repository and --set the duration of
the last backup is looked up; otherwise give it with --took.`,
		Example: `
			backup schedule "30 2 * * *" --time-zone Europe/Berlin
			backup schedule "*/15 * * * *" --took 20m
			backup schedule "0 */6 * * *" --set mysql/mysql --repository s3://backups/prod`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := schedule.Parse(args[0], zone)
			if err != nil {
				return cli.Usage("%w", err)
			}
			unknown := ""
			if took == 0 && set.Name != "" {
				if took, unknown, err = lastTook(cmd.Context(), a, &repo, &set); err != nil {
					return err
				}
			}
			e := s.Explain(a.Clock(), count, took)
			if unknown != "" {
				e.Warnings = append(e.Warnings, unknown+", so that the gaps could not be compared with what a backup takes; --took says it")
			}
			return a.Print(e, func(w io.Writer) error { return printExplanation(w, a, e) })
		},
	}
	cmd.Flags().StringVar(&zone, "time-zone", "", "the CronJob's timeZone (default UTC)")
	cmd.Flags().IntVar(&count, "count", 5, "how many runs to show")
	cmd.Flags().DurationVar(&took, "took", 0, "how long a backup takes")
	repo.AddRead(cmd.Flags())
	set.Add(cmd.Flags())
	return cmd
}

// lastTook is how long the newest complete backup of the set took, or why
// that is unknown.
func lastTook(ctx context.Context, a *cli.App, repo *cli.RepositoryFlags, set *cli.SetFlags) (took time.Duration, unknown string, err error) {
	if repo.Store.URL == "" {
		return 0, "no --repository is given for the set", nil
	}
	r, err := repo.Open(ctx, a)
	if err != nil {
		return 0, "", err
	}
	id, err := set.Find(ctx, a, r)
	if err != nil {
		return 0, "", err
	}
	infos, err := r.Backups(ctx, id)
	if err != nil {
		return 0, "", err
	}
	unchecked := 0
	for _, info := range infos {
		if took := info.Took(); took > 0 {
			return took, "", nil
		}
		if info.Status == repository.StatusUnchecked {
			unchecked++
		}
	}
	if unchecked > 0 {
		return 0, fmt.Sprintf("the signatures of the set's backups (%d) were not checked: set %s", unchecked, repository.NameTrustedWriters), nil
	}
	return 0, "the set has no complete backup", nil
}

func printExplanation(w io.Writer, a *cli.App, e schedule.Explanation) error {
	_, err := fmt.Fprintf(w, "%s in %s\n", e.Schedule, e.TimeZone)
	for _, run := range e.Next {
		if err == nil {
			_, err = fmt.Fprintf(w, "  %s  in %s\n", run.Format("Mon 2006-01-02 15:04:05 MST"), cli.Age(run.Sub(a.Clock())))
		}
	}
	if err == nil && len(e.Next) > 0 {
		_, err = fmt.Fprintf(w, "gaps between runs: %s to %s\n", time.Duration(e.ShortestGap), time.Duration(e.LongestGap))
	}
	for _, warning := range e.Warnings {
		if err == nil {
			_, err = fmt.Fprintf(w, "warning: %s\n", warning)
		}
	}
	return err
}
