package cli

import (
	"bytes"
	"io"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
)

// NewRoot makes the command that is the binary itself.
func NewRoot(a *App, short, long string, commands ...*cobra.Command) *cobra.Command {
	root := &cobra.Command{
		Use:   a.Name,
		Short: short,
		Long:  long + "\n\n" + environmentHelp + "\n\n" + ExitHelp,
	}
	root.AddCommand(commands...)
	root.AddCommand(newVersion(a), newCompletion(a))
	for _, c := range root.Commands() {
		describe(c)
	}
	return root
}

const environmentHelp = `Every flag can also be given as an environment variable: --lock-timeout is
KEEPSET_LOCK_TIMEOUT. The flag wins; a repeatable flag takes commas; an empty
variable counts as not set. Passwords and keys have no flag of their own, only
a variable or a flag that names a file.`

// describe ends the help of c and of what is below it with the exit codes.
func describe(c *cobra.Command) {
	if c.Long == "" {
		c.Long = c.Short + "."
	}
	if !strings.Contains(c.Long, ExitHelp) {
		c.Long = strings.TrimSpace(c.Long) + "\n\n" + ExitHelp
	}
	c.Example = indent(c.Example)
	for _, sub := range c.Commands() {
		describe(sub)
	}
}

// indent sets examples off by two spaces, as kubectl does.
func indent(s string) string {
	s = strings.Trim(s, "\n")
	if s == "" {
		return ""
	}
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if l = strings.TrimSpace(l); l != "" {
			lines[i] = "  " + l
		}
	}
	return strings.Join(lines, "\n")
}

func newVersion(a *App) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Example: a.Name + " version --json",
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version string `json:"version"`
				Go      string `json:"go"`
			}{Version(), runtime.Version()}
			return a.Print(v, func(w io.Writer) error {
				_, err := io.WriteString(w, a.Name+" "+v.Version+" ("+v.Go+")\n")
				return err
			})
		},
	}
}

func newCompletion(a *App) *cobra.Command {
	return &cobra.Command{
		Use: "completion bash|zsh|fish|powershell", Short: "Print a shell completion script",
		Example:   "source <(" + a.Name + " completion bash)",
		Args:      cobra.ExactArgs(1),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(cmd *cobra.Command, args []string) error {
			script, err := completionScript(cmd.Root(), args[0])
			if err != nil {
				return err
			}
			c := struct {
				Shell  string `json:"shell"`
				Script string `json:"script"`
			}{args[0], script}
			return a.Print(c, func(w io.Writer) error {
				_, err := io.WriteString(w, script)
				return err
			})
		},
	}
}

func completionScript(root *cobra.Command, shell string) (string, error) {
	var script bytes.Buffer
	var err error
	switch shell {
	case "bash":
		err = root.GenBashCompletionV2(&script, true)
	case "zsh":
		err = root.GenZshCompletion(&script)
	case "fish":
		err = root.GenFishCompletion(&script, true)
	case "powershell":
		err = root.GenPowerShellCompletionWithDesc(&script)
	default:
		err = Usage("completion for %q is not known: want bash, zsh, fish or powershell", shell)
	}
	return script.String(), err
}
