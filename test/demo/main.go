// Command demo tells Keepset's story on one machine, without Kubernetes: three replicating MariaDB servers are a set;
// every replica is backed up into a directory; a replica is destroyed and brought back as a follower, which catches up
// with what was written after the backup.
//
// It shows each command that it runs, as one would type it, and what the command said. It ends by comparing the data
// of all three servers, and leaves nothing behind.
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
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A reader that goes away, as in `| head`, ends a run with an error and not in the middle of the clean-up.
	signal.Ignore(syscall.SIGPIPE)
	begin := time.Now()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	fmt.Printf("\nmake demo: PASS in %.0f s\n", time.Since(begin).Seconds())
}

func run(ctx context.Context, args []string) (err error) {
	var bin string
	var rows int
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.StringVar(&bin, "bin", "bin", "folder of our binaries, backup and restore")
	flags.IntVar(&rows, "rows", 400_000, "rows in the larger table")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "keepset-demo-")
	if err != nil {
		return err
	}
	d := &demo{bin: bin, dir: dir, rows: rows, repository: "file://" + filepath.Join(dir, "repository")}
	// The servers go first, for they write into the folder.
	defer func() { err = errors.Join(err, d.close(), os.RemoveAll(dir)) }()
	return d.story(ctx)
}
