package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"keepset/test/servers"
)

// setName is what the set is called in the repository.
const setName = "shop"

// demo is one telling of the story.
type demo struct {
	bin, dir   string
	repository string // URL
	rows       int
	replicas   []*servers.MySQL // by ordinal; 0 is the primary
}

// story runs the chapters in order; the first one that fails ends it.
func (d *demo) story(ctx context.Context) error {
	for _, chapter := range []struct {
		title string
		run   func(context.Context) error
	}{
		{"Three MariaDB servers replicate: ordinal 0 is the primary, 1 and 2 follow it", d.startSet},
		{"Every replica is backed up into a directory", d.backUp},
		{"What is there, and is it whole?", d.inspect},
		{"Life goes on: rows are written after the backup", d.writeMore},
		{"Disaster: replica 2 is killed, and its data are gone", d.destroy},
		{"Replica 2 comes back from the backup, as a follower of the primary", d.bringBack},
		{"It has caught up with what was written after the backup", d.compare},
	} {
		fmt.Printf("\n## %s\n\n", chapter.title)
		if err := chapter.run(ctx); err != nil {
			return err
		}
	}
	return nil
}

// backUp makes a repository and one backup of the set.
func (d *demo) backUp(ctx context.Context) error {
	if err := d.command(ctx, "backup", nil, "init", "--repository", d.repository); err != nil {
		return err
	}
	args := []string{"run", "--repository", d.repository, "--set", setName}
	for _, s := range d.replicas {
		args = append(args, "--source", "mysql://"+backupUser+"@"+s.Addr)
	}
	return d.command(ctx, "backup", []string{"KEEPSET_SOURCE_PASSWORD=" + password}, args...)
}

func (d *demo) inspect(ctx context.Context) error {
	if err := d.command(ctx, "backup", nil, "list", "--repository", d.repository, "--set", setName); err != nil {
		return err
	}
	return d.command(ctx, "backup", nil, "verify", "--repository", d.repository, "--set", setName, "--read-data", "100")
}

// destroy does to replica 2 what the loss of its volume does, and puts an empty server in its place.
func (d *demo) destroy(ctx context.Context) error {
	s := d.replicas[2]
	fmt.Printf("$ kill -9 $(pidof mariadbd)   # the one at %s\n$ rm -r %s\n", s.Addr, s.DataDir)
	if err := s.KillServer(); err != nil {
		return err
	}
	if err := s.Empty(ctx); err != nil {
		return err
	}
	if err := s.Start(ctx); err != nil {
		return err
	}
	databases, err := value(ctx, s, "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'shop'")
	if err != nil {
		return err
	}
	if databases != "0" {
		return fmt.Errorf("destroy replica 2: its database is still there")
	}
	fmt.Println("an empty server has taken its place")
	return nil
}

func (d *demo) bringBack(ctx context.Context) error {
	s := d.replicas[2]
	env := []string{"KEEPSET_TARGET_PASSWORD=" + s.Password, "KEEPSET_REPLICATION_PASSWORD=" + password}
	return d.command(ctx, "restore", env, "load", "--repository", d.repository, "--set", setName, "--ordinal", "2",
		"--target", "mysql://"+s.User+"@"+s.Addr,
		"--as-follower-of", d.replicas[0].Addr, "--replication-user", replicationUser)
}

// command prints one of our commands as one would type it, without what is secret, and runs it.
func (d *demo) command(ctx context.Context, program string, secrets []string, args ...string) error {
	path := filepath.Join(d.bin, program)
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("find our binaries: %w: run 'make build'", err)
	}
	var line strings.Builder
	line.WriteString("$ ")
	for _, secret := range secrets {
		name, _, _ := strings.Cut(secret, "=")
		line.WriteString(name + "=... ")
	}
	line.WriteString(program)
	for _, arg := range args {
		if strings.HasPrefix(arg, "--") {
			line.WriteString(" \\\n   ")
		}
		line.WriteString(" " + arg)
	}
	fmt.Println(line.String())
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), secrets...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s %s: %w", program, args[0], err)
	}
	fmt.Println()
	return nil
}
