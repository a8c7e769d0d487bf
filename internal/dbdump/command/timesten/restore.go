package timesten

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"regexp"
	"slices"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/command"
	"keepset/internal/record"
)

// Operator is what manages the pair. It would take a database that is destroyed
// for a failure, and fail over to the other or duplicate it.
type Operator interface {
	// Suspend makes it leave both pods alone, and returns once it does. One that
	// does already is left as it is.
	Suspend(ctx context.Context) error
	// HandBack makes it look at the pair again, and returns once it says that
	// all is well: then the other database is a copy of the restored one.
	HandBack(ctx context.Context) error
}

// Pair is what a restore under the operator has to know beyond its target.
type Pair struct {
	Operator Operator
	// Others run programs in the set's other pods, by their names.
	Others map[string]command.Exec
	Log    *slog.Logger
}

// Replace makes Load replace the database of a pair: suspend the operator, take
// both databases down, destroy the target's, restore it, and hand it back
// ("Bringing Up One Database" in the operator's guide). The other pod's database
// is left until the operator replaces it, and is the way back until then. An
// attempt that was killed anywhere is repeated from its beginning.
func (e *Engine) Replace(p Pair) { e.pair = &p }

// replace is Load for a pair.
func (e *Engine) replace(ctx context.Context, in instance, src dbdump.Source) (record.Report, error) {
	report := src.Report()
	// What comes next cannot be undone: read all of the backup before it.
	if err := readWhole(ctx, src); err != nil {
		return report, fmt.Errorf("verify the backup before the database is destroyed: %w; nothing was changed", err)
	}
	// A pod that does not answer now, on a lost node say, would be found when the
	// operator is suspended, and the pair were left to nobody.
	others, err := e.findOthers(ctx)
	if err != nil {
		return report, fmt.Errorf("%w; the operator was not suspended and nothing was changed", err)
	}
	e.pair.Log.Info("the backup is verified; the operator is asked to let go", "database", e.dsn)
	if err := e.pair.Operator.Suspend(ctx); err != nil {
		return report, fmt.Errorf("suspend the operator: %w; no database was touched", err)
	}
	report, err = e.exchange(ctx, in, others, src)
	if err != nil {
		return report, fmt.Errorf("%w; the operator stays suspended: run the restore again, or bring one database up and set .spec.ttspec.reexamine", err)
	}
	e.pair.Log.Info("restored; the operator is asked to take over", "database", e.dsn)
	if err := e.pair.Operator.HandBack(ctx); err != nil {
		return report, fmt.Errorf("the database is restored and loaded, and the operator has not taken it over: %w", err)
	}
	return report, nil
}

// other is the database of another pod of the pair.
type other struct {
	pod    string
	engine *Engine
	in     instance
}

func (e *Engine) findOthers(ctx context.Context) (others []other, err error) {
	for _, pod := range slices.Sorted(maps.Keys(e.pair.Others)) {
		o := other{pod: pod, engine: new(*e)}
		o.engine.opts.Exec = e.pair.Others[pod]
		if o.in, err = o.engine.find(ctx); err != nil {
			return nil, fmt.Errorf("look for the database of pod %s, which has to be taken down: %w", pod, err)
		}
		others = append(others, o)
	}
	return others, nil
}

// exchange puts the backup in the database's place, with the operator suspended.
func (e *Engine) exchange(ctx context.Context, in instance, others []other, src dbdump.Source) (record.Report, error) {
	for _, o := range others {
		if _, err := o.engine.down(ctx, o.in); err != nil {
			return src.Report(), fmt.Errorf("take the database of pod %s down: %w", o.pod, err)
		}
	}
	said, err := e.down(ctx, in)
	if err != nil {
		return src.Report(), fmt.Errorf("take the database down: %w", err)
	}
	// A database that is not there cannot be destroyed, and one that is there
	// ttRestore does not overwrite: so that its word is the one that counts.
	destroyErr := e.tell(ctx, in, "ttDestroy", "-wait", "-timeout", "60", e.dsn)
	report, err := e.restore(ctx, in, src)
	if err != nil {
		return report, errors.Join(err, destroyErr, said)
	}
	if err := e.up(ctx, in); err != nil {
		return report, fmt.Errorf("bring the restored database up: %w", err)
	}
	return report, nil
}

// connections is how ttStatus tells that a database is in memory and used.
var connections = regexp.MustCompile(`There (?:are|is) \d+ connections?`)

// down stops the agents and unloads the database. Each of these programs fails
// for what is down already (12027, say) or not there at all, so that their
// complaints, said, are kept for later and ttStatus decides.
func (e *Engine) down(ctx context.Context, in instance) (said, err error) {
	for _, order := range [][]string{
		{"-repStop"}, {"-cacheStop"}, {"-close"}, {"-disconnect", "-immediate"}, {"-ramPolicy", "manual"}, {"-ramUnload"},
	} {
		said = errors.Join(said, e.tell(ctx, in, append(append([]string{"ttAdmin"}, order...), e.dsn)...))
		if ctx.Err() != nil {
			return said, ctx.Err()
		}
	}
	status, err := e.opts.Ask(ctx, "ttStatus", in.command("ttStatus"))
	if err != nil {
		return said, errors.Join(err, said)
	}
	if used := connections.FindString(status); used != "" {
		return said, errors.Join(fmt.Errorf("ttStatus says of database %s: %s", e.dsn, used), said)
	}
	return said, nil
}

// up loads and opens the database, and takes it out of the pair that it was in
// when it was backed up: the operator takes over what replicates with nobody.
func (e *Engine) up(ctx context.Context, in instance) error {
	if err := e.tell(ctx, in, "ttAdmin", "-ramPolicy", "manual", e.dsn); err != nil {
		return err
	}
	if err := e.tell(ctx, in, "ttAdmin", "-ramLoad", e.dsn); err != nil {
		return err
	}
	// 18.1 knows no closed databases; there this is no option.
	openErr := e.tell(ctx, in, "ttAdmin", "-open", e.dsn)
	// The agent may be stopped already. How ttIsql ends after a failure is not
	// documented; the state, and then the operator, tell what became of it.
	var said error
	for _, statement := range []string{"call ttRepStop", "drop active standby pair"} {
		said = errors.Join(said, e.tell(ctx, in, "ttIsql", "-v", "1", "-connStr", e.connect(), "-e", statement+"; exit;"))
	}
	state, err := e.state(ctx, in)
	if err != nil {
		return errors.Join(err, openErr, said)
	}
	if state != Idle {
		return errors.Join(fmt.Errorf("its replication state is %s where %s is wanted", state, Idle), openErr, said)
	}
	return nil
}

// tell runs a program of the instance whose output does not matter.
func (e *Engine) tell(ctx context.Context, in instance, argv ...string) error {
	_, err := e.opts.Ask(ctx, argv[0]+" "+argv[1], in.command(argv...))
	return err
}

// readWhole reads the backup's stream to its end; every piece is compared with
// its name on the way.
func readWhole(ctx context.Context, src dbdump.Source) error {
	body, err := src.Open(ctx, command.Output)
	if err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, body)
	if err := errors.Join(err, body.Close()); err != nil {
		return err
	}
	if want := src.Report().Bytes; n != want {
		return fmt.Errorf("%w: %d bytes of the stream were read, %d were recorded", dbdump.ErrMismatch, n, want)
	}
	return nil
}
