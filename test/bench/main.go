// Command bench compares Keepset with the vendors' tools on one machine, in one run: dumps of a MariaDB server that
// sysbench filled, loads into an empty one, backups of the server's files among many small ones, and the same of a
// PostgreSQL server, whose files are also taken as base backups.
//
// The runs of the contenders take turns, so that a slow minute of the machine meets all of them; minimum, median and
// maximum of each are printed, with the peak resident memory and the size of what was written. The source is read
// once before the first run, so that every contender reads it from memory, and the disk is synced between two runs
// and never within one. Each load is compared with the source, table by table, before its time counts.
//
// Absolute times hold for the machine and the day. What counts is the last column, a contender's median over that of
// the first.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// settings are the flags.
type settings struct {
	tables, rows, runs, threads int
	dir, bin                    string
	peersOnly, slow, dumpOnly   bool
	filesOnly, postgresOnly     bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A reader that goes away, as in `| head`, ends a run with an error and not in the middle of the clean-up.
	signal.Ignore(syscall.SIGPIPE)
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	var s settings
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&s.tables, "tables", 4, "sysbench tables")
	flags.IntVar(&s.rows, "rows", 1_500_000, "rows in each table")
	flags.IntVar(&s.runs, "runs", 3, "runs of each contender")
	flags.IntVar(&s.threads, "threads", 2, "connections of each contender that takes a number")
	flags.StringVar(&s.dir, "dir", os.TempDir(), "folder for the servers and the dumps, removed at the end; needs about 8 GB at full size")
	flags.StringVar(&s.bin, "bin", "bin", "folder of our binaries, backup and restore")
	flags.BoolVar(&s.peersOnly, "peers-only", false, "leave our binaries out")
	flags.BoolVar(&s.dumpOnly, "dump-only", false, "leave the loads out")
	flags.BoolVar(&s.filesOnly, "files-only", false, "compare the file tree alone")
	flags.BoolVar(&s.postgresOnly, "postgres-only", false, "compare PostgreSQL alone")
	flags.BoolVar(&s.slow, "slow", false, "add the mariadb client, which loads one statement after the other")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if s.bin, err = filepath.Abs(s.bin); err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp(s.dir, "keepset-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()

	b := &bench{settings: s}
	if s.postgresOnly {
		return b.postgres(ctx)
	}
	if err := b.start(ctx); err != nil {
		return err
	}
	if !s.filesOnly {
		err = b.databases(ctx)
	}
	if err == nil && !s.peersOnly && !s.dumpOnly {
		err = b.shrinkLog(ctx)
	}
	if err = errors.Join(err, b.source.Close()); err != nil || s.peersOnly || s.dumpOnly {
		return err
	}
	if err := b.files(ctx); err != nil || s.filesOnly {
		return err
	}
	return b.postgres(ctx)
}

// databases compares dumps, and loads if they are asked for.
func (b *bench) databases(ctx context.Context) error {
	if err := b.dumps(ctx); err != nil || b.dumpOnly {
		return err
	}
	return b.loads(ctx)
}
