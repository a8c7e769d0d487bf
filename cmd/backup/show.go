package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/repository"
)

func newShow(a *cli.App) *cobra.Command {
	var repo cli.RepositoryFlags
	var set cli.SetFlags
	cmd := &cobra.Command{
		Use:   "show [BACKUP]",
		Short: "Show one backup with its members",
		Long: `Show one backup with its members: an ID, "latest", or a time, which means the newest
backup all of which was captured by then. Incomplete and suspect backups are shown by their ID.`,
		Example: `
			backup show --set mysql/mysql
			backup show --set mysql/mysql 20261120T131730Z-1a2b3c4d
			backup show --set mysql/mysql "2026-11-20 13:00"`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			// What can be looked at is wider than what is restored without a word.
			selector, err := repository.ParseSelector(strings.Join(args, ""))
			if err != nil {
				return cli.Usage("%w", err)
			}
			selector.Allow = true
			r, err := repo.Open(cmd.Context(), a)
			if err != nil {
				return err
			}
			id, err := set.Find(cmd.Context(), a, r)
			if err != nil {
				return err
			}
			info, err := r.Resolve(cmd.Context(), id, selector)
			if err != nil {
				return err
			}
			s := cli.Summarize(info)
			return a.Print(s, func(w io.Writer) error { return printBackup(w, s) })
		},
	}
	repo.AddRead(cmd.Flags())
	set.Add(cmd.Flags())
	return cmd
}

func printBackup(w io.Writer, s cli.BackupSummary) error {
	databases := "all"
	if len(s.Databases) > 0 {
		databases = strings.Join(s.Databases, ", ")
	}
	facts := [][]string{
		{"set", s.Set},
		{"backup", string(s.Backup)},
		{"status", s.Status},
		{"started", cli.Time(s.CreatedAt)},
		{"finished", cli.Time(s.FinishedAt)},
		{"method", strings.TrimSpace(s.Method + " " + s.Engine)},
		{"databases", databases},
		{"members", fmt.Sprintf("%d of %d committed", s.Committed, s.Planned)},
	}
	if len(s.Paths) > 0 {
		facts = append(facts, []string{"paths", strings.Join(s.Paths, ", ")})
	}
	if len(s.Labels) > 0 {
		facts = append(facts, []string{"labels", s.Labels.String()})
	}
	if s.Narrowed != "" {
		facts = append(facts, []string{"narrowed", s.Narrowed})
	}
	for _, p := range s.Problems {
		facts = append(facts, []string{"problem", p})
	}
	if err := cli.Table(w, facts[0], facts[1:]); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	rows := make([][]string, 0, len(s.Members))
	for _, m := range s.Members {
		rows = append(rows, []string{
			strconv.Itoa(m.Ordinal), m.Name, m.Status, dash(m.Node), cli.Time(m.CapturedAt), cli.Count(m.Rows), cli.Count(m.Objects),
			cli.Bytes(m.Bytes), cli.Bytes(m.Stored), dash(strings.Join(m.Claims, ",")), dash(strings.Join(m.Reasons, "; ")),
		})
	}
	return cli.Table(w, []string{"ORDINAL", "MEMBER", "STATUS", "NODE", "CAPTURED", "ROWS", "OBJECTS", "BYTES", "STORED", "CLAIMS", "REASON"}, rows)
}
