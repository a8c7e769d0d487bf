package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"keepset/internal/cli"
	"keepset/internal/job"
	"keepset/internal/metrics"
)

func newLoad(a *cli.App) *cobra.Command {
	var f cli.LoadFlags
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "load",
		Short: "Load one member of a backup into a running server",
		Long: `Load one member of a backup into a running server, anywhere. The server must be empty,
unless --replace says that what the backup holds may be replaced. Row counts are
compared with those of the backup. With --as-follower-of the server is then made to
follow another from the recorded coordinates, and the command ends when it has caught up.

Files (--method files) go into a directory, which must be new or empty. Nothing outside
of it is touched. Owners, devices and extended attributes that cannot be set are an
error, unless a flag such as --no-owner leaves them out.`,
		Example: `
			export KEEPSET_REPOSITORY=s3://backups/prod KEEPSET_TARGET_PASSWORD=...
			restore load --set mysql/mysql --ordinal 0 --target mysql://root@127.0.0.1:3306
			restore load --set mysql/mysql --ordinal 0 --target mysql://root@127.0.0.1:3306 --table shop.orders --rename shop=shop_yesterday
			restore load --set orders --ordinal 2 --target mysql://root@db2:3306 --as-follower-of db0:3306 --replication-user repl
			restore load --set ldap/openldap --engine command --target pod/openldap-0 --container openldap --command 'slapadd -n 1'
			restore load --set www --ordinal 0 --target file:///srv/www-restored --include-path uploads`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dryRun {
				return runLoad(cmd.Context(), a, &f, nil)
			}
			return f.Metrics.Around(cmd.Context(), a, "restore", func(run *metrics.Run) error {
				return runLoad(cmd.Context(), a, &f, run)
			})
		},
	}
	f.Add(cmd.Flags())
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "find the backup, ask the upstream, and stop before the target is touched")
	return cmd
}

// runLoad loads; without run it only finds out whether it could.
func runLoad(ctx context.Context, a *cli.App, f *cli.LoadFlags, run *metrics.Run) error {
	l, done, err := f.Job(ctx, a)
	if err != nil {
		return err
	}
	defer done()
	var report *job.LoadReport
	if run == nil {
		report, err = l.DryRun(ctx)
	} else {
		group := run.Of(l.Of().String())
		if report, err = l.Run(ctx); err == nil {
			group.Load(report)
		}
	}
	done()
	if err != nil {
		return err
	}
	a.SetMessage(loadSummary(report))
	return a.Print(report, func(w io.Writer) error { return printLoad(w, report) })
}

func loadSummary(r *job.LoadReport) string {
	verb := "loaded"
	if r.DryRun {
		verb = "would load"
	}
	what := fmt.Sprintf("%s rows, %s, %d objects", cli.Count(r.Rows), cli.Bytes(r.Bytes), r.Objects)
	if r.Entries > 0 {
		what = fmt.Sprintf("%s files, directories and links, %s", cli.Count(r.Entries), cli.Bytes(r.Bytes))
	}
	s := fmt.Sprintf("%s ordinal %d of backup %s (%s) into %s: %s", verb, r.Ordinal, r.Backup, cli.Time(r.CapturedAt), r.Target, what)
	if !r.DryRun {
		s += fmt.Sprintf(", in %s", time.Duration(r.Seconds*float64(time.Second)).Round(100*time.Millisecond))
	}
	if r.Follows != "" {
		s += "; follows " + r.Follows
	}
	return s
}

func printLoad(w io.Writer, r *job.LoadReport) error {
	if _, err := fmt.Fprintln(w, loadSummary(r)); err != nil {
		return err
	}
	// Warnings have been in the log already.
	particular, always := cli.Omissions(r.Omitted)
	for _, o := range particular {
		if _, err := fmt.Fprintln(w, "not in the backup:", o); err != nil {
			return err
		}
	}
	if always == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "not in any backup: %d classes of objects, such as the server's configuration; --json lists them\n", always)
	return err
}
