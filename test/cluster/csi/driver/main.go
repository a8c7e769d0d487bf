// Command driver is a CSI driver for tests, one process on the node that is
// controller, node service and registration in one.
//
// It has two guises: a plain provider whose volumes are files of this machine
// (--dir), and ebs.csi.aws.com over a fake EC2 (--ec2), whose volumes are that
// one's files. See test/cluster/README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"keepset/test/cluster/csi/driver/internal/driver"
	"keepset/test/cluster/csi/driver/internal/ec2"
	"keepset/test/cluster/csi/driver/internal/freeze"
	"keepset/test/cluster/csi/driver/internal/imagefile"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stderr)
	stop()
	if err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "driver: %v\n", err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	driver       driver.Config
	registration string
	dir          string
	ec2          ec2.Config
	freezer      string
}

func run(ctx context.Context, args []string, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if o.ec2.URL == "" {
		store, err := imagefile.New(o.dir, o.driver.Zone, time.Now)
		if err != nil {
			return err
		}
		return serve(ctx, o, driver.New(o.driver, store, log))
	}
	provider, err := ec2.New(ctx, o.ec2)
	if err != nil {
		return err
	}
	if o.freezer == "" {
		return serve(ctx, o, driver.New(o.driver, provider, log))
	}
	stop, err := serveFreezer(ctx, o.freezer, provider, log)
	if err != nil {
		return err
	}
	return errors.Join(serve(ctx, o, driver.New(o.driver, provider, log)), stop())
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("driver", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.driver.Name, "name", "", "`name` of the CSIDriver object")
	flags.StringVar(&o.driver.NodeID, "node", "", "`ID` of this machine, as the provider names it")
	flags.StringVar(&o.driver.Zone, "zone", "", "`zone` that this machine is in")
	flags.StringVar(&o.driver.ZoneKey, "zone-key", "", "topology `key` of zones")
	flags.StringVar(&o.driver.Endpoint, "endpoint", "", "`socket` to serve CSI on")
	flags.StringVar(&o.registration, "registration", "", "`socket` in the kubelet's plugins_registry to serve the registration on")
	flags.StringVar(&o.dir, "dir", "", "`directory` of the volumes of the plain guise")
	flags.StringVar(&o.ec2.URL, "ec2", "", "`URL` of the fake EC2; the node is the instance then, and --dir is not used")
	flags.StringVar(&o.ec2.Region, "region", "", "`region` of the instance")
	flags.Int64Var(&o.ec2.RootGiB, "root", 8, "size of the instance's boot volume in `GiB`")
	flags.StringVar(&o.freezer, "freezer", "", "`address` on which the fake EC2 can freeze what is mounted on this machine; one driver of a machine has it")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	for name, value := range map[string]string{
		"name": o.driver.Name, "node": o.driver.NodeID, "zone": o.driver.Zone, "zone-key": o.driver.ZoneKey,
		"endpoint": o.driver.Endpoint, "registration": o.registration, "dir or --ec2": o.dir + o.ec2.URL,
	} {
		if value == "" {
			return options{}, fmt.Errorf("--%s is missing", name)
		}
	}
	o.ec2.Instance, o.ec2.Zone = o.driver.NodeID, o.driver.Zone
	return o, nil
}

// freezeLimit is longer than any copy of a test's volumes takes.
const freezeLimit = 30 * time.Second

// serveFreezer serves the freezer on an address and makes it known to the
// fake. stop thaws what is frozen.
func serveFreezer(ctx context.Context, address string, provider *ec2.Provider, log *slog.Logger) (stop func() error, err error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for the fake: %w", err)
	}
	freezer := &freeze.Freezer{Image: provider.Path, Limit: freezeLimit, Log: log}
	server := &http.Server{Handler: freezer, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	stop = func() error {
		err := errors.Join(server.Close(), freezer.Close())
		if served := <-done; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}
	if err := provider.Freezer(ctx, "http://"+listener.Addr().String()+"/"); err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// serve serves the driver on its sockets until ctx ends, then lets the calls
// that run come to their end: none may leave a file system frozen.
func serve(ctx context.Context, o options, d *driver.Driver) error {
	servers := []*grpc.Server{d.Server(), d.RegistrationServer()}
	done := make(chan error, len(servers))
	var errs []error
	for i, socket := range []string{o.driver.Endpoint, o.registration} { // the kubelet calls the first once it sees the second
		if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove an old socket: %w", err))
			break
		}
		var config net.ListenConfig
		listener, err := config.Listen(ctx, "unix", socket)
		if err != nil {
			errs = append(errs, fmt.Errorf("listen: %w", err))
			break
		}
		go func() { done <- servers[i].Serve(listener) }()
	}
	if len(errs) == 0 {
		select {
		case <-ctx.Done():
		case err := <-done:
			errs = append(errs, err)
		}
	}
	for _, server := range servers {
		server.GracefulStop()
	}
	return errors.Join(errs...)
}
