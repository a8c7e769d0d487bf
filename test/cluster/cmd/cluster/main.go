// Command cluster runs a real Kubernetes of one node on this machine, for
// tests: built from source, without Docker, without a registry, without
// installing anything. See README.md of this module.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"keepset/test/cluster/internal/lock"
	"keepset/test/cluster/internal/node"
	"keepset/test/cluster/internal/testimages"
	"keepset/test/cluster/internal/toolchain"
)

const usage = `usage: cluster COMMAND

  up [--images=false]       start the cluster unless it is healthy; print the path of its kubeconfig
  add-node                  add a second node, in another zone, to a cluster that runs
  lose-node                 let it die, as by a power cut; remove-node clears up
  remove-node               take it away again, with what runs on it
  down                      stop it, and take back what it did to the machine
  status                    print its processes; fail unless it is healthy
  kubeconfig                print the path of the administrator's kubeconfig
  tools                     build and download all programs, and link kubectl into the cache
  images                    build the test images, and load them if the cluster runs
  load-image ARCHIVE...     put images of tar archives into the cluster
  image [--load] [--arch LIST] [--name NAME] [--output FILE]
                            build Keepset's own image

environment: KEEPSET_CACHE (what is built and downloaded; default ~/.cache/keepset),
KEEPSET_CLUSTER_DIR (state of the cluster; default KEEPSET_CACHE/cluster)
`

// errUsage makes the exit status 64, as for the product's own commands.
var errUsage = errors.New("wrong usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(report(os.Stderr, err))
}

// report says what went wrong, and returns the exit status for it.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintf(stderr, "cluster: %v\n", err)
	if errors.Is(err, errUsage) {
		_, _ = fmt.Fprint(stderr, usage)
		return 64
	}
	return 1
}

// app is what the commands share.
type app struct {
	node      *node.Node
	toolchain toolchain.Toolchain
	log       *slog.Logger
	out       io.Writer
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: no command", errUsage)
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	a := &app{log: log, out: stdout}
	commands := map[string]func(context.Context, []string) error{
		"up": a.up, "add-node": a.addNode, "lose-node": a.loseNode, "remove-node": a.removeNode, "down": a.down, "status": a.status, "kubeconfig": a.kubeconfig, "tools": a.tools,
		"images": a.images, "load-image": a.loadImage, "image": a.image,
		"open-volumes": func(ctx context.Context, args []string) error { return node.OpenVolumes(ctx, args[0]) }, // started by up
	}
	command, ok := commands[args[0]]
	if !ok {
		return fmt.Errorf("%w: no command %q", errUsage, args[0])
	}
	if args[0] != "open-volumes" {
		if err := a.open(ctx); err != nil {
			return err
		}
	}
	return command(ctx, args[1:])
}

// open finds the directories and gets the programs, from the cache if they are there.
func (a *app) open(ctx context.Context) error {
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	source, err := findSource()
	if err != nil {
		return err
	}
	a.toolchain = toolchain.Toolchain{Cache: cache, Source: source, Log: a.log}
	release, err := a.lockCache(ctx)
	if err != nil {
		return err
	}
	defer release()
	tools, err := a.toolchain.Prepare(ctx)
	if err != nil {
		return err
	}
	dir := os.Getenv("KEEPSET_CLUSTER_DIR")
	if dir == "" {
		dir = filepath.Join(cache, "cluster")
	}
	a.node, err = node.New(dir, tools, a.log)
	return err
}

// lockCache keeps two commands from building the same things at once.
func (a *app) lockCache(ctx context.Context) (release func(), err error) {
	return lock.Acquire(ctx, filepath.Join(a.toolchain.Cache, "cluster-build.lock"), func() {
		a.log.Info("waiting for another command to fill the cache", "cache", a.toolchain.Cache)
	})
}

// cacheDir is where what takes long to make is kept.
func cacheDir() (string, error) {
	if dir := os.Getenv("KEEPSET_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir() // honours XDG_CACHE_HOME
	if err != nil {
		return "", fmt.Errorf("find cache directory: %w; set KEEPSET_CACHE", err)
	}
	return filepath.Join(dir, "keepset"), nil
}

// findSource returns the directory of this module: the working directory, the
// directory test/cluster below it, or the same of one of its parents.
func findSource() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		for _, candidate := range []string{dir, filepath.Join(dir, "test", "cluster")} {
			data, err := os.ReadFile(filepath.Join(candidate, "go.mod"))
			if err == nil && strings.HasPrefix(string(data), "module keepset/test/cluster\n") {
				return candidate, nil
			}
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find the module keepset/test/cluster from %s: run this inside a checkout of Keepset", start)
		}
	}
}

func (a *app) builder() testimages.Builder {
	return testimages.Builder{Toolchain: a.toolchain, Tools: a.node.Tools, Log: a.log}
}

// parse reads the flags of a command; want is how many arguments must follow, -1 any but none.
func parse(flags *flag.FlagSet, args []string, want int) error {
	flags.SetOutput(io.Discard)
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if got := flags.NArg(); (want >= 0 && got != want) || (want < 0 && got == 0) {
		return fmt.Errorf("%w: %s does not take %d arguments", errUsage, flags.Name(), got)
	}
	return nil
}
