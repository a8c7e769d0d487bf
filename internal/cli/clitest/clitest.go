// Package clitest holds what the command lines of both programs have to pass.
//
// [Program] is the central type: a binary's name and its tree of commands. Its
// methods are tests. [Program.Tree] walks the tree: every command, also one that
// is added tomorrow, has to be declared with cases that are run, has examples,
// with --json prints exactly one JSON document whose fields a golden file
// records, and either changes nothing or has a flag that shows the change and stops.
// [Program.Scripts] runs what a user types, [Program.Reference] holds
// docs/commands to what the program has, and [Terminal] is a real terminal of a
// given width.
//
// What the commands work on is real, a repository in a directory and database
// servers, but for Kubernetes: [Cluster] is an API server that stores objects and
// has no controllers.
package clitest

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"keepset/internal/cli"
)

var update = flag.Bool("update", false, "write the reference page and the golden file anew")

// Program is one binary.
type Program struct {
	Name string
	Root func(*cli.App) *cobra.Command
}

// Scripts runs what a user types and compares what they see. The scripts of
// testdata read like documentation. The test's TestMain puts the program on the PATH.
func (p Program) Scripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata", RequireExplicitExec: true, RequireUniqueNames: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": code},
	})
}

// code runs a command that must end with the given exit code:
// code 64 backup frobnicate.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, want %s (%v)", got, args[0], err)
	}
}

// Reference holds a page to what the program really has.
func (p Program) Reference(t *testing.T, page string) {
	golden(t, page, cli.Reference(p.Root(&cli.App{Name: p.Name})))
}

// golden compares text with a file, or writes it there with -update.
func golden(t *testing.T, file, text string) {
	t.Helper()
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	stored, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(stored), text, "run go test with -update in this directory")
}

// result is how a command ended.
type result struct {
	code           int
	stdout, stderr string
}

// run runs a command in this process.
func (p Program) run(t *testing.T, env, args []string) result {
	t.Helper()
	var out, errs bytes.Buffer
	a := newApp(p.Name, &out, &errs, env)
	return result{a.Run(t.Context(), p.Root(a), args), out.String(), errs.String()}
}

func newApp(name string, out, errs io.Writer, env []string) *cli.App {
	return &cli.App{
		Name: name, In: new(bytes.Buffer), Out: out, Err: errs,
		Environ: func() []string { return env }, Clock: time.Now, Log: slog.New(slog.DiscardHandler),
	}
}

// Backup takes a backup as `backup run` with these arguments does, for the
// tests of the program that has no such command.
func Backup(t *testing.T, env []string, args ...string) {
	t.Helper()
	p := Program{Name: "backup", Root: func(a *cli.App) *cobra.Command {
		var f cli.BackupFlags
		run := &cobra.Command{Use: "run", RunE: func(cmd *cobra.Command, _ []string) error {
			b, done, err := f.Job(cmd.Context(), a)
			if err != nil {
				return err
			}
			defer done()
			_, err = b.Run(cmd.Context())
			return err
		}}
		f.Add(run.Flags())
		return cli.NewRoot(a, "", "", run)
	}}
	r := p.run(t, env, append([]string{"run"}, args...))
	require.Zero(t, r.code, r.stderr)
}
