package cli

import (
	"context"

	"github.com/spf13/pflag"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/command"
	"keepset/internal/dbdump/command/altibase"
	"keepset/internal/dbdump/command/timesten"
	"keepset/internal/job"
)

// The presets of the engine command.
const (
	presetTimesTen         = "timesten"
	presetAltibase         = "altibase"
	presetAltibasePhysical = "altibase-physical"
)

// presetNames are all of them, for people.
const presetNames = presetTimesTen + ", " + presetAltibase + " or " + presetAltibasePhysical

// altibasePrograms are those of the presets for Altibase, by whether they load.
var altibasePrograms = map[string]map[bool]func(altibase.Options) ([]string, error){
	presetAltibase:         {false: altibase.Export, true: altibase.Import},
	presetAltibasePhysical: {false: altibase.Backup, true: altibase.Restore},
}

// PresetFlags choose commands that Keepset knows.
type PresetFlags struct {
	Name     string
	DSN      string
	Altibase altibase.Options
}

// Add declares the flags.
func (f *PresetFlags) Add(fs *pflag.FlagSet) {
	fs.StringVar(&f.Name, "command-preset", "", "in --command's place, what Keepset knows of a product: "+presetNames)
	fs.StringVar(&f.DSN, "timesten-dsn", "", "name of the TimesTen database (default: the set's name)")
	o := &f.Altibase
	fs.StringVar(&o.Environment, "altibase-environment-file", altibase.DefaultEnvironment, "file in the container with Altibase's shell variables; empty: the container has them")
	fs.StringVar(&o.Directory, "altibase-export-directory", altibase.DefaultDirectory, "directory in the container with room for the whole database while it is backed up or restored")
	fs.StringVar(&o.PasswordVariable, "altibase-password-variable", "ALTIBASE_SYS_PASSWORD", "name of the variable in the container with the password of SYS")
	fs.IntVar(&o.Port, "altibase-port", altibase.DefaultPort, "port of Altibase in the container")
}

// engine makes the engine of options that have an Exec, or none to try.
func (f *CommandFlags) engine(o command.Options, set string) (dbdump.Engine, error) {
	if f.Preset.Name == presetTimesTen {
		return timesten.New(o, orDefault(f.Preset.DSN, set))
	}
	return command.New(o)
}

// program is what runs, where it is known beforehand.
func (f *CommandFlags) program(load bool) ([]string, error) {
	if f.Line != "" && f.Preset.Name != "" {
		return nil, Usage("--command and --command-preset %s are one too many", f.Preset.Name)
	}
	switch f.Preset.Name {
	case "":
		if f.Line == "" {
			return nil, Usage("--engine %s needs --command (or %s)", command.Name, EnvName("command"))
		}
		argv, err := command.ParseLine(f.Line)
		if err != nil {
			return nil, Usage("--command: %w", err)
		}
		return argv, nil
	case presetTimesTen:
		return nil, nil
	case presetAltibase, presetAltibasePhysical:
		argv, err := altibasePrograms[f.Preset.Name][load](f.Preset.Altibase)
		if err != nil {
			return nil, Usage("--command-preset %s: %w", f.Preset.Name, err)
		}
		return argv, nil
	default:
		return nil, Usage("--command-preset %q is not %s", f.Preset.Name, presetNames)
	}
}

// choose leaves of the set what the preset backs up.
func (f *CommandFlags) choose(b *job.Backup) (err error) {
	if b.Ordinals.String() != "" {
		return nil
	}
	switch f.Preset.Name {
	case presetTimesTen:
		b.Discover = activeOnly(b.Discover, b.Open)
	case presetAltibase, presetAltibasePhysical: // aku brings the others up from its master, which is pod 0
		b.Ordinals, err = job.ParseOrdinals("0")
	}
	return err
}

// activeOnly leaves the member whose database is the active one.
func activeOnly(discover job.Discover, open func(job.Member) (dbdump.Engine, error)) job.Discover {
	return func(ctx context.Context) (job.Inventory, error) {
		inv, err := discover(ctx)
		if err != nil {
			return inv, err
		}
		answers := make([]timesten.Answer, len(inv.Members))
		for i, m := range inv.Members {
			answers[i] = timesten.Answer{Pod: m.Name, Err: m.Obstacle()}
			if answers[i].Err == nil {
				answers[i].State, answers[i].Err = stateOf(ctx, m, open)
			}
		}
		if ctx.Err() != nil {
			return inv, ctx.Err()
		}
		i, err := timesten.Choose(answers)
		if err != nil {
			return inv, err
		}
		inv.Members = inv.Members[i : i+1]
		inv.Members[0].Role = "active"
		return inv, nil
	}
}

func stateOf(ctx context.Context, m job.Member, open func(job.Member) (dbdump.Engine, error)) (timesten.State, error) {
	engine, err := open(m)
	if err != nil {
		return "", err
	}
	asked, ok := engine.(*timesten.Engine)
	if !ok {
		return "", Usage("--command-preset: this engine has no states")
	}
	return asked.State(ctx)
}
