package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"keepset/test/cluster/internal/testimages"
)

func (a *app) up(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	images := flags.Bool("images", true, "load the test images, building them if necessary")
	if err := parse(flags, args, 0); err != nil {
		return err
	}
	if err := a.linkKubectl(); err != nil {
		return err
	}
	pause, err := a.builder().Pause(ctx)
	if err != nil {
		return err
	}
	if err := a.toolchain.EBSFake(ctx, a.node.Tools); err != nil {
		return err
	}
	if err := a.node.Up(ctx, pause.Path); err != nil {
		return err
	}
	if *images {
		archives, err := a.buildTestImages(ctx)
		if err != nil {
			return err
		}
		if err := a.loadTestImages(ctx, archives); err != nil {
			return err
		}
	}
	return a.print("%s\n", a.node.Kubeconfig())
}

// addNode adds the second node. Images that are loaded later go to both.
func (a *app) addNode(ctx context.Context, args []string) error {
	if err := parse(flag.NewFlagSet("add-node", flag.ContinueOnError), args, 0); err != nil {
		return err
	}
	pause, err := a.builder().Pause(ctx)
	if err != nil {
		return err
	}
	return a.node.AddNode(ctx, pause.Path)
}

// loseNode lets it die.
func (a *app) loseNode(ctx context.Context, args []string) error {
	if err := parse(flag.NewFlagSet("lose-node", flag.ContinueOnError), args, 0); err != nil {
		return err
	}
	return a.node.LoseNode(ctx)
}

// removeNode takes it away.
func (a *app) removeNode(ctx context.Context, args []string) error {
	if err := parse(flag.NewFlagSet("remove-node", flag.ContinueOnError), args, 0); err != nil {
		return err
	}
	return a.node.RemoveNode(ctx)
}

func (a *app) loadTestImages(ctx context.Context, archives []testimages.Archive) error {
	for _, archive := range archives {
		loaded, err := a.node.LoadOnce(ctx, archive.Path)
		if err != nil {
			return err
		}
		if loaded {
			a.log.Info("loaded", "image", archive.Name)
		}
	}
	return nil
}

func (a *app) buildTestImages(ctx context.Context) ([]testimages.Archive, error) {
	release, err := a.lockCache(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	return a.builder().All(ctx)
}

func (a *app) down(ctx context.Context, args []string) error {
	if err := parse(flag.NewFlagSet("down", flag.ContinueOnError), args, 0); err != nil {
		return err
	}
	return a.node.Down(ctx)
}

func (a *app) status(ctx context.Context, args []string) error {
	if err := parse(flag.NewFlagSet("status", flag.ContinueOnError), args, 0); err != nil {
		return err
	}
	lines, err := a.node.Status(ctx)
	for _, line := range lines {
		if err := a.print("%s\n", line); err != nil {
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("the cluster is not healthy: %w; start it with `cluster up`", err)
	}
	return a.print("healthy: KUBECONFIG=%s\n", a.node.Kubeconfig())
}

func (a *app) kubeconfig(_ context.Context, args []string) error {
	if err := parse(flag.NewFlagSet("kubeconfig", flag.ContinueOnError), args, 0); err != nil {
		return err
	}
	if _, err := os.Stat(a.node.Kubeconfig()); err != nil {
		return fmt.Errorf("find the kubeconfig: %w; start the cluster with `cluster up`", err)
	}
	return a.print("%s\n", a.node.Kubeconfig())
}

// tools has little left to do: every command gets the programs first.
func (a *app) tools(ctx context.Context, args []string) error {
	if err := parse(flag.NewFlagSet("tools", flag.ContinueOnError), args, 0); err != nil {
		return err
	}
	if err := a.linkKubectl(); err != nil {
		return err
	}
	return a.toolchain.EBSFake(ctx, a.node.Tools)
}

// linkKubectl makes kubectl known under a path that does not change: CACHE/bin/kubectl.
func (a *app) linkKubectl() error {
	bin := filepath.Join(a.toolchain.Cache, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return fmt.Errorf("link kubectl: %w", err)
	}
	link, temp := filepath.Join(bin, "kubectl"), filepath.Join(bin, fmt.Sprintf(".kubectl.%d", os.Getpid()))
	if err := os.Symlink(a.node.Tools.Path("kubectl"), temp); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("link kubectl: %w", err)
	}
	return os.Rename(temp, link)
}

func (a *app) images(ctx context.Context, args []string) error {
	if err := parse(flag.NewFlagSet("images", flag.ContinueOnError), args, 0); err != nil {
		return err
	}
	archives, err := a.buildTestImages(ctx)
	if err != nil {
		return err
	}
	if a.node.Running(ctx) {
		if err := a.loadTestImages(ctx, archives); err != nil {
			return err
		}
	}
	for _, archive := range archives {
		if err := a.print("%s\t%s\n", archive.Name, archive.Path); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) loadImage(ctx context.Context, args []string) error {
	if err := parse(flag.NewFlagSet("load-image", flag.ContinueOnError), args, -1); err != nil {
		return err
	}
	for _, archive := range args {
		if err := a.node.Load(ctx, archive); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) image(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	load := flags.Bool("load", false, "put it into the cluster")
	architectures := flags.String("arch", runtime.GOARCH, "architectures, separated by commas; several make one multi-platform archive")
	name := flags.String("name", "keepset:dev", "name of the image")
	output := flags.String("output", filepath.Join(a.toolchain.Cache, "images", "keepset-dev.tar"), "archive to write")
	if err := parse(flags, args, 0); err != nil {
		return err
	}
	archive, err := a.builder().Keepset(ctx, *name, *output, strings.Split(*architectures, ",")...)
	if err != nil {
		return err
	}
	if *load {
		if err := a.node.Load(ctx, archive.Path); err != nil {
			return err
		}
	}
	return a.print("%s\t%s\n", archive.Name, archive.Path)
}

// print writes what the caller of the command reads.
func (a *app) print(format string, args ...any) error {
	if _, err := fmt.Fprintf(a.out, format, args...); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}
