package clitest

import (
	"encoding/json"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/cli"
)

// Commands declares every command of a program by its path below the root.
type Commands map[string]Command

// Command is what a command promises.
type Command struct {
	// Preview is the flag that shows what would be changed and stops. A command
	// without one leaves the world as it is.
	Preview string
	// Cases are run one after the other, and succeed.
	Cases [][]string
}

// World is what the commands work on.
type World struct {
	Env []string
	// Repository is its directory, which does not exist yet.
	Repository string
	// Cluster that Env names.
	Cluster *Cluster
	// State says how the world is; a command that changes something changes it.
	State func(*testing.T) string
}

// Tree runs every command of the program, in the order given, and compares the
// fields of their documents with testdata/json.golden.
func (p Program) Tree(t *testing.T, w World, order []string, commands Commands) {
	leaves := leavesOf(p.Root(&cli.App{Name: p.Name}))
	names := make([]string, 0, len(leaves))
	for name := range leaves {
		names = append(names, name)
	}
	require.ElementsMatch(t, names, order, "every command is declared here, with cases")
	var shapes strings.Builder
	for _, name := range order {
		declared := commands[name]
		t.Run(name, func(t *testing.T) {
			p.wrongFlag(t, w, name)
			leaf := leaves[name]
			assert.NotEmpty(t, leaf.Example, "--help has no examples")
			if declared.Preview != "" {
				require.NotNil(t, leaf.Flags().Lookup(declared.Preview), "it changes something and has no --%s", declared.Preview)
			}
			require.NotEmpty(t, declared.Cases, "it is not run")
			previewed := false
			for _, args := range declared.Cases {
				preview := declared.Preview != "" && slices.Contains(args, "--"+declared.Preview)
				previewed = previewed || preview
				shapes.WriteString(p.document(t, w, strings.Fields(name), args, preview || declared.Preview == ""))
			}
			assert.Equal(t, declared.Preview != "", previewed, "--%s is not run", declared.Preview)
		})
	}
	if !t.Failed() {
		golden(t, "testdata/json.golden", shapes.String())
	}
}

// document runs one case and returns the fields of what it prints.
func (p Program) document(t *testing.T, w World, path, args []string, unchanged bool) string {
	t.Helper()
	before := w.State(t)
	r := p.run(t, w.Env, slices.Concat(path, w.named(t, args), []string{"--json"}))
	require.Zero(t, r.code, "%v %v\nstdout: %s\nstderr: %s", path, args, r.stdout, r.stderr)
	if unchanged {
		assert.Equal(t, before, w.State(t), "%v %v changed something", path, args)
	}
	return strings.Join(append(append([]string{p.Name}, path...), given(args)...), " ") + "\n" + shapeOf(t, r.stdout)
}

// NewestBackup in a case stands for the ID of the newest backup.
const NewestBackup = "NEWEST"

// named puts the newest backup's ID where it is meant.
func (w World) named(t *testing.T, args []string) []string {
	t.Helper()
	args = slices.Clone(args)
	for i, arg := range args {
		if arg != NewestBackup {
			continue
		}
		plans, err := filepath.Glob(filepath.Join(w.Repository, "sets/*/*/backups/*/plan"))
		require.NoError(t, err)
		require.NotEmpty(t, plans, "there is no backup")
		args[i] = filepath.Base(filepath.Dir(slices.Max(plans)))
	}
	return args
}

// given are the flags of a case without their values, which differ from run to
// run.
func given(args []string) []string {
	var names []string
	for _, a := range args {
		if name, _, _ := strings.Cut(a, "="); strings.HasPrefix(name, "--") {
			names = append(names, name)
		}
	}
	return names
}

// wrongFlag: an error is one document on standard error, wherever --json stands.
func (p Program) wrongFlag(t *testing.T, w World, name string) {
	t.Helper()
	for _, args := range [][]string{{"--json", "--no-such-flag"}, {"--no-such-flag", "--json"}} {
		r := p.run(t, w.Env, append(strings.Fields(name), args...))
		assert.Equal(t, cli.ExitUsage, r.code, name)
		assert.Empty(t, r.stdout, name)
		assert.Equal(t, ".code number\n.error string\n", strings.ReplaceAll(shapeOf(t, r.stderr), "  ", ""), name)
	}
}

// leavesOf lists the commands that have none below them.
func leavesOf(root *cobra.Command) map[string]*cobra.Command {
	leaves := map[string]*cobra.Command{}
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			visit(sub)
		}
		if !c.HasSubCommands() {
			leaves[strings.TrimPrefix(c.CommandPath(), root.Name()+" ")] = c
		}
	}
	visit(root)
	return leaves
}

// shapeOf lists the fields of the one document that text has to be, with their
// kinds, one a line. All elements of a list count as one.
func shapeOf(t *testing.T, text string) string {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	var doc any
	require.NoError(t, d.Decode(&doc), text)
	_, err := d.Token()
	require.ErrorIs(t, err, io.EOF, "more than one document: %s", text)
	fields := map[string]bool{}
	shape(fields, "", doc)
	lines := make([]string, 0, len(fields))
	for f := range fields {
		lines = append(lines, "  "+f+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func shape(fields map[string]bool, path string, value any) {
	switch v := value.(type) {
	case map[string]any:
		for name, inner := range v {
			shape(fields, path+"."+name, inner)
		}
	case []any:
		if len(v) == 0 {
			fields[path+"[]"] = true
		}
		for _, inner := range v {
			shape(fields, path+"[]", inner)
		}
	case string:
		fields[path+" string"] = true
	case float64:
		fields[path+" number"] = true
	case bool:
		fields[path+" bool"] = true
	default:
		fields[path+" null"] = true
	}
}
