package cli

import (
	"context"
	"strings"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/command"
	"keepset/internal/dbdump/command/timesten"
	"keepset/internal/job"
)

// command fills the job for a load by a command, here or in a pod.
func (f *LoadFlags) command(ctx context.Context, a *App) (*job.Load, error) {
	if err := f.checkCommand(); err != nil {
		return nil, err
	}
	o, err := f.Command.options(a, true)
	if err != nil {
		return nil, err
	}
	var pair timesten.Pair
	if pod, ok := strings.CutPrefix(f.Target, "pod/"); ok {
		if err := f.Command.remote(true); err != nil {
			return nil, err
		}
		if f.Container == "" {
			return nil, Usage("--target %s needs --container, the one that the command runs in", f.Target)
		}
		client, set, err := f.Set.Cluster(a)
		if err != nil {
			return nil, err
		}
		if f.TimesTen.Object != "" {
			if pair, err = f.TimesTen.pair(ctx, a, client, set, pod, f.Container); err != nil {
				return nil, err
			}
		}
		o.Exec = inContainer(client, pod, f.Container)
	} else {
		name, err := parseLocal("target", f.Target)
		if err != nil {
			return nil, err
		}
		o.Exec = here(a, f.Ordinal, name)
	}
	l := &job.Load{Ordinal: f.Ordinal, Target: f.Target, Clock: a.Clock, Log: a.Log}
	if l.Choice, err = f.Choice.Choice(); err != nil {
		return nil, err
	}
	l.Choice.Whole = true
	if f.Command.Preset.Name == presetTimesTen {
		l.OneDatabase = true
		if !f.ordinalGiven() {
			l.Ordinal = -1
		}
	} else {
		l.Choice.Ordinals = []int{f.Ordinal}
	}
	l.Open = func() (dbdump.Engine, error) {
		engine, err := f.Command.engine(o, l.Set.Name)
		if e, ok := engine.(*timesten.Engine); ok && pair.Operator != nil {
			e.Replace(pair)
		}
		return engine, err
	}
	return l, nil
}

// checkCommand refuses what a command knows nothing of.
func (f *LoadFlags) checkCommand() error {
	switch {
	case f.Target == "" || f.Target == "pod/":
		return Usage("--target is required (or %s): pod/NAME, or local", EnvName("target"))
	case f.Upstream.Follow != "":
		return Usage("--engine %s knows no replication: --as-follower-of is for its command to do", command.Name)
	case len(f.Objects.Databases)+len(f.Objects.Tables)+len(f.Rename) > 0:
		return Usage("--engine %s knows no databases: --database, --table and --rename are for its command to do", command.Name)
	case f.Replace && f.TimesTen.Object == "" || f.WithUsers || f.SkipBinlog:
		return Usage("--engine %s hands its command the whole backup: --replace, --with-users and --skip-binlog are for the command to do", command.Name)
	}
	return f.TimesTen.check(f.Command.Preset.Name, f.Target, f.Replace)
}
