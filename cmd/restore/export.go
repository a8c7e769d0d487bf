package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/job"
)

func newExport(a *cli.App) *cobra.Command {
	var f cli.ExportFlags
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write a member's SQL and rows as files",
		Long: `Write what one member of a backup holds as files: SQL that the mysql client runs, and
tab-separated rows that LOAD DATA reads. --to names a directory, in which no file is
replaced; "--to -" writes a tar archive to standard output, or with --stream the bytes
of one stream. A member by the method files is one tar archive. Streams with password
hashes are left out unless --with-users is given.`,
		Example: `
			restore export --set mysql/mysql --ordinal 0 --list
			restore export --set mysql/mysql --ordinal 0 --to /tmp/backup
			restore export --set mysql/mysql --ordinal 0 --table shop.orders --to /tmp/orders
			restore export --set mysql/mysql --ordinal 0 --to - | tar -t
			restore export --set www --ordinal 0 --to - | tar --extract --to-stdout uploads/logo.png
			restore export --set mysql/mysql --ordinal 0 --stream schemas/shop/tables/orders.sql --to -`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := f.Job(cmd.Context(), a)
			if err != nil {
				return err
			}
			run := e.Run
			if f.List {
				run = e.List
			}
			report, err := run(cmd.Context())
			if err != nil {
				return err
			}
			if f.To == "-" && !f.List {
				return nil // standard output is the result
			}
			return a.Print(report, func(w io.Writer) error { return printExport(w, &f, report) })
		},
	}
	f.Add(cmd.Flags())
	return cmd
}

func printExport(w io.Writer, f *cli.ExportFlags, r *job.ExportReport) error {
	if !f.List {
		_, err := fmt.Fprintf(w, "wrote %d files, %s, of ordinal %d of backup %s to %s\n", len(r.Streams), cli.Bytes(r.Bytes), r.Ordinal, r.Backup, f.To)
		return err
	}
	rows := make([][]string, 0, len(r.Streams))
	for _, s := range r.Streams {
		secret := "-"
		if s.Secret {
			secret = "secret"
		}
		rows = append(rows, []string{s.Name, cli.Count(s.Bytes), secret})
	}
	return cli.Table(w, []string{"STREAM", "BYTES", "NOTE"}, rows)
}
