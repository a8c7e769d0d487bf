// Command ebsfake runs the fake of Amazon EC2 and of the EBS direct API, package
// ebstest, as a process of the test cluster: the backup and restore pods take
// it for AWS, and the CSI driver of the tests mounts the image files that are
// its volumes. It speaks plain HTTP and keeps its state in a directory, so that
// it may be ended and started again; rules, rights and the log of calls do not
// outlive it. When it listens it says on standard output at which address.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"keepset/internal/snapshot/ebstest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "ebsfake:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, listen, freezer, err := parse(args, stderr)
	if err != nil {
		return err
	}
	s, err := ebstest.New(o)
	if err != nil {
		return err
	}
	if freezer != "" {
		if err := s.SetFreezer(freezer); err != nil {
			return err
		}
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	if _, err := fmt.Fprintf(stdout, "http://%s\n", l.Addr()); err != nil {
		return errors.Join(err, server.Close(), <-done)
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	err = server.Close()
	if served := <-done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// parse reads the flags.
func parse(args []string, stderr io.Writer) (o ebstest.Options, listen, freezer string, err error) {
	o.Regions, o.Accounts = map[string][]string{}, map[string]string{}
	f := flag.NewFlagSet("ebsfake", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.Dir, "dir", "", "directory of the image files and the state")
	f.StringVar(&listen, "listen", "127.0.0.1:0", "address to listen at")
	f.StringVar(&o.Region, "region", "us-east-1", "region that the control interface means where none is named")
	zones := f.String("zones", "", "the region's zones, separated by commas (default: the region's name with a, b and c)")
	f.Func("other-region", "a further region and its zones, as `region=zone,zone`; repeatable", func(v string) error {
		name, zones, ok := strings.Cut(v, "=")
		if !ok {
			return errors.New("want region=zone,zone")
		}
		o.Regions[name] = strings.Split(zones, ",")
		return nil
	})
	f.Func("account", "an access key ID and its account, as `key=account`; repeatable. Other keys belong to "+ebstest.DefaultAccount,
		func(v string) error {
			key, account, ok := strings.Cut(v, "=")
			if !ok {
				return errors.New("want key=account")
			}
			o.Accounts[key] = account
			return nil
		})
	f.BoolVar(&o.Strict, "strict", false, "refuse access keys that no --account names")
	f.DurationVar(&o.SnapshotTime, "snapshot-time", 0, "how long a snapshot is pending")
	f.DurationVar(&o.VolumeTime, "volume-time", 0, "how long a volume is creating")
	f.DurationVar(&o.SnapshotInterval, "snapshot-interval", 0, "least time between concurrent snapshots of a volume (default: AWS's 15s)")
	f.IntVar(&o.PageLimit, "page-limit", 0, "the most that a page of a listing holds (default: no limit)")
	f.StringVar(&freezer, "freezer", "", "URL that is asked to freeze and thaw the file systems of volumes")
	if err := f.Parse(args); err != nil {
		return o, "", "", err
	}
	if f.NArg() > 0 {
		return o, "", "", fmt.Errorf("argument %q is not expected", f.Arg(0))
	}
	o.Regions[o.Region] = []string{o.Region + "a", o.Region + "b", o.Region + "c"}
	if *zones != "" {
		o.Regions[o.Region] = strings.Split(*zones, ",")
	}
	return o, listen, freezer, nil
}
