package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Reference writes the page docs/commands/<binary>.md: every command with its
// flags and their variables. A test compares the page with the binary.
func Reference(root *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s.\n\nWritten by the program itself (`go test ./cmd/%s -update`). What all commands share, "+
		"the environment and the exit codes, is in [commands.md](../commands.md).\n", root.Name(), root.Short, root.Name())
	for _, c := range root.Commands() {
		if !c.Hidden && c.Name() != "help" {
			referenceOf(&b, c)
		}
	}
	fmt.Fprintf(&b, "\n## Flags of every command\n\n")
	shared := pflag.NewFlagSet(root.Name(), pflag.ContinueOnError)
	new(globalFlags).add(shared) // the root gets them when it runs
	flagTable(&b, shared)
	return b.String()
}

func referenceOf(b *strings.Builder, c *cobra.Command) {
	long, _, _ := strings.Cut(c.Long, "\n\nExit codes:")
	fmt.Fprintf(b, "\n## %s\n\n%s\n\n```\n%s\n```\n", c.CommandPath(), strings.TrimSpace(long), c.UseLine())
	if c.Example != "" {
		fmt.Fprintf(b, "\nExamples:\n\n```sh\n%s\n```\n", unindent(c.Example))
	}
	if c.Flags().HasFlags() {
		b.WriteString("\n")
		flagTable(b, c.LocalNonPersistentFlags())
	}
	for _, sub := range c.Commands() {
		referenceOf(b, sub)
	}
}

func unindent(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], "  ")
	}
	return strings.Join(lines, "\n")
}

func flagTable(b *strings.Builder, flags *pflag.FlagSet) {
	b.WriteString("| flag | variable | meaning | default |\n|---|---|---|---|\n")
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		value := f.DefValue
		switch value {
		case "", "[]", "false":
			value = ""
		default:
			value = "`" + value + "`"
		}
		_, usage := pflag.UnquoteUsage(f)
		fmt.Fprintf(b, "| `%s` | `%s` | %s | %s |\n", name, EnvName(f.Name), strings.ReplaceAll(usage, "|", "\\|"), value)
	})
}
