package timesten

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/command"
	"keepset/internal/record"
)

// Flavor is what a dump's report calls the server.
const Flavor = "timesten"

// State of a database in replication, by ttRepStateGet.
type State string

// The states that a backup is taken of: the active of a pair, or a database
// that does not replicate.
const (
	Active State = "ACTIVE"
	Idle   State = "IDLE"
)

// ErrState says that the database is not one to take a backup of.
var ErrState = errors.New("not the active database")

// dsnForm is what may stand in a connection string without quoting.
var dsnForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// Engine dumps one TimesTen database. It implements [dbdump.Engine].
type Engine struct {
	opts command.Options
	dsn  string
	// pair is what a load replaces the database of; nil: ttRestore, and no more.
	pair *Pair
}

// New makes an engine. Of the options, Program and Proof are the engine's own to
// fill. The DSN is, under the operator, the name of the TimesTenClassic object.
func New(o command.Options, dsn string) (*Engine, error) {
	if !dsnForm.MatchString(dsn) {
		return nil, fmt.Errorf("%q is no name of a TimesTen database (DSN)", dsn)
	}
	return &Engine{opts: o, dsn: dsn}, nil
}

// connect is the connection string. A direct connection as the instance's
// administrator needs no password; any other would be asked for one. Without
// AutoCreate=0 whoever asks a database that is gone for its state makes an empty
// one in its place (database reference, "AutoCreate").
func (e *Engine) connect() string { return "DSN=" + e.dsn + ";AutoCreate=0" }

// State asks for the state of the database.
func (e *Engine) State(ctx context.Context) (State, error) {
	in, err := e.find(ctx)
	if err != nil {
		return "", err
	}
	return e.state(ctx, in)
}

// Dump implements [dbdump.Engine].
func (e *Engine) Dump(ctx context.Context, w dbdump.Sink) (record.Report, error) {
	in, err := e.find(ctx)
	if err != nil {
		return record.Report{}, err
	}
	state, err := e.state(ctx, in)
	if err != nil {
		return record.Report{}, err
	}
	if state != Active && state != Idle {
		return record.Report{}, fmt.Errorf("database %s: %w: its replication state is %s, and backups are taken of the %s one", e.dsn, ErrState, state, Active)
	}
	version, err := e.version(ctx, in)
	if err != nil {
		return record.Report{}, err
	}
	before, err := e.backupStatus(ctx, in)
	if err != nil {
		return record.Report{}, err
	}
	o := e.opts
	o.Program = in.command("ttBackup", "-type", "streamFull", "-connStr", e.connect())
	o.Proof.Ask = func(ctx context.Context) error {
		after, err := e.backupStatus(ctx, in)
		if err != nil {
			return err
		}
		return after.judge(before)
	}
	engine, err := command.New(o)
	if err != nil {
		return record.Report{}, err
	}
	report, err := engine.Dump(ctx, w)
	report.Flavor, report.Version = Flavor, version.release
	report.Objects[0].Attributes = map[string]string{"dsn": e.dsn, "state": string(state), "platform": version.platform}
	return report, err
}

// Load implements [dbdump.Engine]: `ttRestore -i` into an instance that has no
// database of the name, which ttRestore itself refuses to overwrite. The first
// two numbers of the release and the platform have to be those of the backup
// (installation guide, "Back Up, Restore, and Migrate Data").
func (e *Engine) Load(ctx context.Context, src dbdump.Source) (record.Report, error) {
	report := src.Report()
	in, err := e.find(ctx)
	if err != nil {
		return report, err
	}
	version, err := e.version(ctx, in)
	if err != nil {
		return report, err
	}
	if report.Flavor != Flavor || len(report.Objects) != 1 {
		return report, errors.New("this backup was not taken by the preset timesten")
	}
	if err := version.fits(report.Version, report.Objects[0].Attributes["platform"]); err != nil {
		return report, err
	}
	if e.pair != nil {
		return e.replace(ctx, in, src)
	}
	return e.restore(ctx, in, src)
}

func (e *Engine) restore(ctx context.Context, in instance, src dbdump.Source) (record.Report, error) {
	o := e.opts
	// Without -noconn it connects at the end, which proves that one can.
	o.Program = in.command("ttRestore", "-i", e.dsn)
	engine, err := command.New(o)
	if err != nil {
		return src.Report(), err
	}
	return engine.Load(ctx, src)
}

// isql runs one statement and returns the rows of its result.
func (e *Engine) isql(ctx context.Context, in instance, statement string) ([][]string, error) {
	// -v 1 prints results and errors only. The exit status of a statement that
	// fails is not documented, so that the rows decide.
	argv := in.command("ttIsql", "-v", "1", "-connStr", e.connect(), "-e", statement+"; exit;")
	text, err := e.opts.Ask(ctx, statement, argv)
	if err != nil {
		return nil, err
	}
	rows := parseRows(text)
	if len(rows) != 1 {
		return nil, fmt.Errorf("%s in database %s: %d rows came where one was to be expected; it said: %s", statement, e.dsn, len(rows), oneLine(text))
	}
	return rows, nil
}

func (e *Engine) state(ctx context.Context, in instance) (State, error) {
	rows, err := e.isql(ctx, in, "call ttRepStateGet")
	if err != nil {
		return "", err
	}
	return State(rows[0][0]), nil
}

func (e *Engine) backupStatus(ctx context.Context, in instance) (backupStatus, error) {
	rows, err := e.isql(ctx, in, "call ttBackupStatus")
	if err != nil {
		return backupStatus{}, err
	}
	return parseBackupStatus(rows[0])
}

func (e *Engine) version(ctx context.Context, in instance) (version, error) {
	text, err := e.opts.Ask(ctx, "ttVersion", in.command("ttVersion"))
	if err != nil {
		return version{}, err
	}
	return parseVersion(text)
}

func oneLine(s string) string { return strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ") }
