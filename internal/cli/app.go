package cli

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// App is the process as its commands see it. Tests build one with buffers and
// a map in place of the real streams and environment.
type App struct {
	// Name is the binary's name, "backup" or "restore".
	Name     string
	In       io.Reader
	Out, Err io.Writer
	// Environ lists the environment as "KEY=value".
	Environ func() []string
	// Clock is the one place where the time comes from.
	Clock func() time.Time
	// Log is ready once a command runs; before that it discards.
	Log *slog.Logger

	global globalFlags
	// logs is where log lines go: to Err, or above the progress bars.
	logs *switchWriter
	// message is what the pod leaves as its termination message.
	message string
}

// globalFlags are the flags that every command has.
type globalFlags struct {
	json       bool
	verbose    bool
	logFormat  string
	noProgress bool
}

func (f *globalFlags) add(flags *pflag.FlagSet) {
	flags.BoolVar(&f.json, "json", false, "print one JSON document on standard output, and errors as JSON on standard error")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log details")
	flags.StringVar(&f.logFormat, "log-format", "auto", "log lines as `auto`, text or json")
	flags.BoolVar(&f.noProgress, "no-progress", false, "no progress bars on a terminal")
}

// Main runs the binary called name with the commands that build returns and
// gives back its exit code. The first SIGINT or SIGTERM cancels the context,
// so that a job can end in good order; the second kills the process.
func Main(name string, build func(*App) *cobra.Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the default action is back for the second signal
	app := &App{
		Name: name, In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		Environ: os.Environ,
		Clock:   time.Now,
		Log:     slog.New(slog.DiscardHandler),
	}
	app.limitMemory()
	return app.Run(ctx, build(app), os.Args[1:])
}

// Run executes root with args, reports an error in the form that the user
// asked for, writes the termination message, and returns the exit code.
func (a *App) Run(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	a.prepare(root)
	a.global.json = a.wantsJSON(args) // an error of the flags themselves is printed in this form, too
	err := root.ExecuteContext(ctx)
	if err != nil && ctx.Err() != nil {
		err = interrupted(err)
	}
	code := ExitCode(err)
	if err != nil {
		a.printError(err, code)
	}
	a.writeTermination(err)
	return code
}

// prepare gives root what every command shares: the global flags, values from
// the environment, the logger, and errors that carry exit code 64.
func (a *App) prepare(root *cobra.Command) {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.DisableDefaultCmd = true
	a.global.add(root.PersistentFlags())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return Usage("%w", err) })
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		typos, err := a.applyEnvironment(cmd)
		if err != nil {
			return err
		}
		if err := a.setLogger(); err != nil {
			return err
		}
		for _, t := range typos {
			a.Log.Warn("unknown environment variable, is it misspelt?", "variable", t.variable, "known", t.known)
		}
		return nil
	}
	wrapUsage(root)
}

// wrapUsage makes wrong arguments of any command, and an unknown command, a
// usage error.
func wrapUsage(cmd *cobra.Command) {
	switch check := cmd.Args; {
	case cmd.HasSubCommands():
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = helpOrUnknown
	case check != nil:
		cmd.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return Usage("%w", err)
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		wrapUsage(sub)
	}
}

// helpOrUnknown is what a command does that only has commands below it.
func helpOrUnknown(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	return Usage("unknown command %q; `%s --help` lists the commands", args[0], cmd.CommandPath())
}

// wantsJSON looks for --json where the flags have not been parsed, or cannot be.
func (a *App) wantsJSON(args []string) bool {
	wants, _ := strconv.ParseBool(a.Getenv(EnvName("json")))
	for _, arg := range args {
		name, value, given := strings.Cut(arg, "=")
		switch {
		case arg == "--":
			return wants
		case name == "--json" && given:
			wants, _ = strconv.ParseBool(value)
		case name == "--json":
			wants = true
		}
	}
	return wants
}

// JSON says whether the user asked for one JSON document.
func (a *App) JSON() bool { return a.global.json }

// Progress says whether to draw progress bars: only on a terminal.
func (a *App) Progress() bool { return !a.global.noProgress && !a.global.json && isTerminal(a.Err) }

// InPod says whether the process runs in a pod.
func (a *App) InPod() bool { return a.Getenv("KUBERNETES_SERVICE_HOST") != "" }

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
