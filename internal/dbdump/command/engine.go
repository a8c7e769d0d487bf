package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

const (
	// Name of the engine.
	Name = "command"
	// Layout of its dumps: one stream, Output, with what the program printed.
	Layout = "command/1"
	// Output is the name of that stream.
	Output = "output"
)

// Exec runs a program where the database is. Nil means that it has ended with
// status 0, and that stdout and stderr have got all that it wrote. A nil stdin
// is empty; when reading it fails, the program is ended before its input is, as
// far as that can be done from here. It gives up when ctx ends; even then it
// may use the reader and the writers a little longer.
type Exec func(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) error

// Options of an engine.
type Options struct {
	Exec Exec
	// Program is the dump or load, and its arguments.
	Program []string
	// Unmarked runs the program without the shell around it, for containers that
	// have no sh, tee and wc. Over a connection it needs a Proof.
	Unmarked bool
	Proof    Proof
	// Timeout bounds the program, Silence the time in which it neither reads
	// nor writes. 0: no bound.
	Timeout, Silence time.Duration
	Clock            func() time.Time
}

// Engine dumps and loads by a program. It implements [dbdump.Engine].
type Engine struct {
	opts Options
	// shell runs the scripts that mark an end.
	shell string
}

// New makes an engine. Nothing is run yet.
func New(o Options) (*Engine, error) {
	if len(o.Program) == 0 || o.Program[0] == "" {
		return nil, errors.New("no command is given")
	}
	if o.Timeout < 0 || o.Silence < 0 || o.Proof.MinBytes < 0 {
		return nil, errors.New("a bound of a command is negative")
	}
	return &Engine{opts: o, shell: "sh"}, nil
}

// Dump implements [dbdump.Engine]: what the program prints is the one stream.
func (e *Engine) Dump(ctx context.Context, w dbdump.Sink) (record.Report, error) {
	report := record.Report{
		Engine: Name, Layout: Layout, Consistency: Name, CapturedAt: e.opts.Clock().UTC(),
		Objects: []record.Object{{Kind: record.KindStream, Name: Output, Data: []string{Output}, Rows: -1}},
	}
	if err := ctx.Err(); err != nil {
		return report, err
	}
	stream, err := w.Create(ctx, Output, dbdump.StreamOptions{})
	if err != nil {
		return report, fmt.Errorf("open the stream for the command's output: %w", err)
	}
	if report.Bytes, err = e.dump(ctx, stream); err != nil {
		stream.Abort(err)
		return report, err
	}
	if err := stream.Close(); err != nil {
		return report, fmt.Errorf("end the stream of the command's output: %w", err)
	}
	return report, nil
}

// dump runs the program and returns how many bytes it printed. They have been
// written, and their end is proven, when the error is nil.
func (e *Engine) dump(ctx context.Context, w io.Writer) (int64, error) {
	r := e.begin(ctx, "dump")
	defer r.end()
	out := newEnding(w)
	err := r.program(e.opts.Program, nil, out)
	if err == nil {
		err = e.opts.Proof.judge(out)
	}
	if err != nil {
		return out.n, r.explain(err)
	}
	return out.n, e.check(ctx)
}

// Load implements [dbdump.Engine]: the program reads the stream. What it makes
// of it is its own affair; that it was handed all of it is ours.
func (e *Engine) Load(ctx context.Context, src dbdump.Source) (record.Report, error) {
	report := src.Report()
	if err := ctx.Err(); err != nil {
		return report, err
	}
	if report.Layout != Layout {
		return report, fmt.Errorf("%w: %s wrote it, whose streams (%s) no command reads: load it with --engine %s", dbdump.ErrForeign, report.Engine, report.Layout, report.Engine)
	}
	r := e.begin(ctx, "load")
	defer r.end()
	body, err := src.Open(r.ctx, Output)
	if err != nil {
		return report, fmt.Errorf("open the backup's stream: %w", err)
	}
	in := &input{run: r, r: body, size: report.Bytes}
	err = r.program(e.opts.Program, in, &r.said)
	if closeErr := body.Close(); closeErr != nil {
		err = errors.Join(err, fmt.Errorf("end the backup's stream: %w", closeErr))
	}
	if err != nil {
		return report, r.explain(err)
	}
	return report, e.check(ctx)
}

// check runs the user's check, if there is one.
func (e *Engine) check(ctx context.Context) error {
	if ask := e.opts.Proof.Ask; ask != nil {
		if err := ask(ctx); err != nil {
			return err
		}
	}
	if len(e.opts.Proof.Check) == 0 {
		return nil
	}
	r := e.begin(ctx, "check")
	defer r.end()
	return r.explain(r.program(e.opts.Proof.Check, nil, &r.said))
}
