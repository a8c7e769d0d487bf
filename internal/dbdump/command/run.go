package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"keepset/internal/dbdump"
)

// run is one run of one program, and what may end it early.
type run struct {
	engine *Engine
	// what the program is for: dump, load, check.
	what   string
	ctx    context.Context //nolint:containedctx // the run's own, which is what it is there for
	cancel context.CancelCauseFunc
	stop   context.CancelFunc
	// said is the end of what it wrote that is not the backup.
	said dbdump.LastWords
	// silence runs out when the program does nothing; busy is how many reads and
	// writes wait for the store, which is not the program's fault.
	silence *time.Timer
	busy    atomic.Int32
}

func (e *Engine) begin(ctx context.Context, what string) *run {
	r := &run{engine: e, what: what}
	r.stop = func() {}
	if limit := e.opts.Timeout; limit > 0 {
		ctx, r.stop = context.WithTimeoutCause(ctx, limit, fmt.Errorf("it had not ended after %s", limit))
	}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	if limit := e.opts.Silence; limit > 0 {
		set := make(chan struct{})
		defer close(set)
		r.silence = time.AfterFunc(limit, func() {
			<-set
			if r.busy.Load() > 0 {
				r.silence.Reset(limit)
				return
			}
			r.cancel(fmt.Errorf("it neither read nor wrote anything for %s", limit))
		})
	}
	return r
}

func (r *run) end() {
	if r.silence != nil {
		r.silence.Stop()
	}
	r.cancel(nil)
	r.stop()
}

// alive notes that the program does something.
func (r *run) alive() {
	if r.silence != nil {
		r.silence.Reset(r.engine.opts.Silence)
	}
}

// program runs argv to its proven end. in is nil for a program that reads
// nothing; out takes what it prints.
func (r *run) program(argv []string, in *input, out io.Writer) error {
	var mark *marked
	if !r.engine.opts.Unmarked {
		mark = newMarked(out)
		out = mark
		argv = mark.argv(r.engine.shell, argv, in)
	}
	gate := &output{run: r, w: out}
	var stdin io.Reader
	if in != nil {
		stdin = in
	}
	err := r.engine.opts.Exec(r.ctx, argv, stdin, gate, &output{run: r, w: &r.said})
	cause := context.Cause(r.ctx)
	gate.close()
	if in != nil {
		in.close()
	}
	switch {
	case cause != nil: // what ended it says more than how it ended
		return cause
	case err != nil && mark != nil && errors.Is(mark.verdict(), errUnread):
		return errUnread
	case err != nil && mark != nil && mark.noShell(err):
		return fmt.Errorf("%w; is there no sh in the container? Without it the end of the data needs another proof: see --command-end-mark", err)
	case err != nil:
		return err
	case mark != nil:
		if err := mark.verdict(); err != nil {
			return err
		}
	}
	if in != nil && !in.whole.Load() {
		return errUnread
	}
	return nil
}

// explain says which program an error is of, and adds its last words.
func (r *run) explain(err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s command: %w", r.what, err)
	if words := r.said.String(); words != "" {
		err = fmt.Errorf("%w; it said: %s", err, words)
	}
	return err
}

var (
	errAfterEnd = errors.New("the run of the command has ended")
	errUnread   = errors.New("it ended with status 0 before it had read the whole backup; a program that stops reading on its own has to be followed by one that reads the rest, such as `cat >/dev/null`")
)

// output is a writer that may fail: then the program is ended.
type output struct {
	run    *run
	mu     sync.Mutex
	w      io.Writer
	closed bool
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return 0, errAfterEnd
	}
	o.run.busy.Add(1)
	n, err := o.w.Write(p)
	o.run.busy.Add(-1)
	o.run.alive()
	if err != nil {
		o.run.cancel(fmt.Errorf("store its output: %w", err))
	}
	return n, err
}

// close waits for a write that is under way. None gets through after it.
func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
}
