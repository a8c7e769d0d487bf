package cli

import (
	"context"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/command"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/statefulset"
)

// CommandFlags say which program dumps or loads, for --engine command.
type CommandFlags struct {
	Preset   PresetFlags
	Line     string
	EndsWith string
	MinBytes int64
	Check    string
	EndMark  bool
	Timeout  time.Duration
	Silence  time.Duration
}

// Add declares the flags of both directions. usage is what the program does.
func (f *CommandFlags) Add(fs *pflag.FlagSet, usage string) {
	fs.StringVar(&f.Line, "command", "", usage+": a line for sh, or a JSON list of a program and its arguments")
	fs.StringVar(&f.Check, "command-check", "", "command that is run in the same place once --command has ended well, and has to end with status 0")
	fs.BoolVar(&f.EndMark, "command-end-mark", true, "run the command under a shell that proves the end of its data; a container without sh, tee and wc needs false, and another proof")
	fs.DurationVar(&f.Timeout, "command-timeout", 0, "how long the command may take; 0: any time")
	fs.DurationVar(&f.Silence, "command-silence", 30*time.Minute, "how long the command may neither read nor write before it is given up; 0: any time")
}

// AddDump declares what proves a whole output.
func (f *CommandFlags) AddDump(fs *pflag.FlagSet) {
	fs.StringVar(&f.EndsWith, "command-ends-with", "", `regular expression that the last 4 KiB of the command's output have to match, for example 'dump completed\s*\z'`)
	fs.Int64Var(&f.MinBytes, "command-min-bytes", 0, "bytes that the command has to print at least")
	f.Preset.Add(fs)
}

// options of the engine, but for what runs the programs.
func (f *CommandFlags) options(a *App, load bool) (command.Options, error) {
	o := command.Options{Unmarked: !f.EndMark, Timeout: f.Timeout, Silence: f.Silence, Clock: a.Clock}
	o.Proof.MinBytes = f.MinBytes
	var err error
	if o.Program, err = f.program(load); err != nil {
		return o, err
	}
	if f.Check != "" {
		if o.Proof.Check, err = command.ParseLine(f.Check); err != nil {
			return o, Usage("--command-check: %w", err)
		}
	}
	if f.EndsWith != "" {
		if o.Proof.EndsWith, err = regexp.Compile(f.EndsWith); err != nil {
			return o, Usage("--command-ends-with: %w", err)
		}
	}
	if f.Timeout < 0 || f.Silence < 0 || f.MinBytes < 0 {
		return o, Usage("--command-timeout, --command-silence and --command-min-bytes want 0 or more")
	}
	return o, nil
}

// remote checks that the end of what goes through a connection is proven.
func (f *CommandFlags) remote(load bool) error {
	if f.EndMark || f.Check != "" || !load && f.EndsWith != "" {
		return nil
	}
	other := "--command-ends-with or --command-check"
	if load {
		other = "--command-check"
	}
	return Usage("--command-end-mark=false leaves nothing that tells the end of the data from a connection that is cut: give %s", other)
}

// unused refuses flags of commands for another engine.
func (f *CommandFlags) unused(engine string) error {
	if f.Line != "" || f.Preset.Name != "" {
		return Usage("--command and --command-preset go with --engine %s, and this is %s", command.Name, engine)
	}
	return nil
}

// inContainer runs programs in a container of a pod.
func inContainer(client *statefulset.Client, pod, container string) command.Exec {
	return func(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) error {
		return client.Exec(ctx, statefulset.Exec{Pod: pod, Container: container, Command: argv, Stdin: stdin, Stdout: stdout, Stderr: stderr})
	}
}

// here runs programs on this machine. Keepset's own variables, the keys of the
// repository among them, are not for them; they get two of theirs.
func here(a *App, ordinal int, name string) command.Exec {
	var env []string
	for _, kv := range a.Environ() {
		if !strings.HasPrefix(kv, Prefix) {
			env = append(env, kv)
		}
	}
	return command.Local(append(env, Prefix+"ORDINAL="+strconv.Itoa(ordinal), Prefix+"MEMBER="+name))
}

// parseLocal reads local or local:NAME, a server whose programs run here.
func parseLocal(flag, text string) (name string, err error) {
	name, named := strings.CutPrefix(text, "local:")
	switch {
	case text == "local":
		return text, nil
	case !named || name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return "", Usage("--%s %q: with --engine %s want local or local:NAME, for a command that is run on this machine", flag, text, command.Name)
	}
	return name, nil
}

// checkCommand refuses what a command knows nothing of.
func (f *BackupFlags) checkCommand(a *App) error {
	switch {
	case f.Method != record.MethodDump:
		return Usage("--engine %s goes with --method %s", command.Name, record.MethodDump)
	case len(f.Server.patterns()) > 0:
		return Usage("--engine %s knows no databases: --database and --exclude are for its command to do", command.Name)
	case f.Role != "any":
		return Usage("--engine %s knows no roles: choose members with --ordinals", command.Name)
	}
	_, err := f.Command.options(a, false)
	return err
}

// plainCommand fills the job for commands that run on this machine.
func (f *BackupFlags) plainCommand(a *App, b *job.Backup) (err error) {
	if b.Set, err = f.Set.ID(a); err != nil {
		return err
	}
	var names []string
	seen := map[string]bool{}
	for _, text := range f.Sources {
		name, err := parseLocal("source", text)
		if err != nil {
			return err
		}
		if seen[name] {
			return Usage("--source %s is given twice; local:NAME tells them apart", text)
		}
		seen[name] = true
		names = append(names, name)
	}
	b.ID, b.Attempt = record.NewBackupID(a.Clock(), ""), record.NewAttemptID()
	b.Discover = job.Sources(names)
	b.Open = f.openCommand(a, func(m job.Member) command.Exec { return here(a, m.Ordinal, m.Name) })
	return nil
}

// openCommand makes the engine of a member.
func (f *BackupFlags) openCommand(a *App, where func(job.Member) command.Exec) func(job.Member) (dbdump.Engine, error) {
	return func(m job.Member) (dbdump.Engine, error) {
		o, err := f.Command.options(a, false)
		if err != nil {
			return nil, err
		}
		o.Exec = where(m)
		return f.Command.engine(o, f.Set.Name[strings.LastIndexByte(f.Set.Name, '/')+1:])
	}
}
