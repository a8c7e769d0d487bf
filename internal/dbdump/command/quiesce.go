package command

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"keepset/internal/dbdump"
	"keepset/internal/record"
)

// Runner runs the program once and returns nil only when it has ended with
// status 0. It ends the program, or at least its standard input, when ctx ends.
type Runner func(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error

// Held is the line that the program prints once the server stands still.
const Held = "held"

// Quiescer holds a server still by a program, which
//
//  1. makes it stand still,
//  2. prints the line "held" on standard output,
//  3. waits for the end of its standard input, lets the server go, and ends
//     with status 0.
//
// The hold ends with the connection to the program, since that ends its standard
// input. In a container it keeps its standard output open until then: containerd
// ends the input of a program whose output has ended. A program that should not trust
// the connection, say of a frozen file system, bounds its wait by itself (timeout).
type Quiescer struct {
	Run Runner
	// Wait bounds the time until the server is held; default 30 seconds.
	Wait time.Duration
	// Thaw bounds the time from the end of the input to that of the program;
	// default 30 seconds.
	Thaw  time.Duration
	Clock func() time.Time
}

const defaultWait = 30 * time.Second

var errEnded = errors.New("the quiesce command ended before it was told to")

// Quiesce implements [dbdump.Quiescer]. The coordinates and the content of the
// server are not known to it.
func (q *Quiescer) Quiesce(ctx context.Context, bound time.Duration, cut func(context.Context) error) (record.Report, error) {
	report := record.Report{Engine: "command", Layout: "volumes/1", Consistency: dbdump.ConsistencyCommand, Objects: []record.Object{}}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := q.start(ctx)
	if err := p.waitHeld(ctx, orDefault(q.Wait)); err != nil {
		cancel(err)
		return report, p.explain(errors.Join(err, p.end(orDefault(q.Thaw))))
	}
	begin := q.Clock()
	report.CapturedAt = begin.UTC()
	held, release := context.WithTimeoutCause(ctx, bound, fmt.Errorf("%w: held for %s", dbdump.ErrLockTimeout, bound))
	defer release()
	go func() {
		select {
		case <-p.done:
			cancel(errEnded)
		case <-held.Done():
		}
	}()
	err := cut(held)
	select {
	case <-p.done: // its news may be here, and not yet in the context
		cancel(errEnded)
	default:
	}
	if cause := context.Cause(held); cause != nil {
		err = errors.Join(cause, err)
	}
	// Writers go on from here, whatever the program does after it.
	endErr := p.end(orDefault(q.Thaw))
	report.LockSeconds = q.Clock().Sub(begin).Seconds()
	return report, p.explain(errors.Join(err, endErr))
}

func orDefault(d time.Duration) time.Duration {
	if d <= 0 {
		return defaultWait
	}
	return d
}

// program is one run of the program.
type program struct {
	stdin  *io.PipeWriter
	held   chan struct{}
	done   chan struct{} // closed when it has ended
	err    error         // how, once done is closed
	kill   context.CancelFunc
	stderr dbdump.LastWords
}

func (q *Quiescer) start(ctx context.Context) *program {
	ctx, kill := context.WithCancel(context.WithoutCancel(ctx)) // it is told to let go, not cut off
	stdinReader, stdin := io.Pipe()
	stdoutReader, stdout := io.Pipe()
	p := &program{stdin: stdin, held: make(chan struct{}), done: make(chan struct{}), kill: kill}
	go func() {
		lines := bufio.NewScanner(stdoutReader)
		for seen := false; lines.Scan(); {
			if !seen && strings.TrimSpace(lines.Text()) == Held {
				seen = true
				close(p.held)
			}
		}
		// What follows an overlong line is of no interest, but must not block the program.
		_, _ = io.Copy(io.Discard, stdoutReader)
	}()
	go func() {
		p.err = q.Run(ctx, stdinReader, stdout, &p.stderr)
		_ = stdout.Close()      // a pipe's end: always nil
		_ = stdinReader.Close() // likewise
		close(p.done)
	}()
	return p
}

// waitHeld waits for the line.
func (p *program) waitHeld(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-p.held:
		return nil
	case <-p.done:
		return fmt.Errorf("%w, without the line %q on its standard output", errEnded, Held)
	case <-timer.C:
		return fmt.Errorf("%w: the quiesce command did not print the line %q within %s", dbdump.ErrLockTimeout, Held, wait)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// end tells the program to let go and waits for its end.
func (p *program) end(wait time.Duration) error {
	defer p.kill()
	_ = p.stdin.Close() // a pipe's end: always nil
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.kill()
		<-p.done
		return fmt.Errorf("the quiesce command did not end within %s of being told to: look whether the server stands still", wait)
	}
	if p.err != nil {
		return fmt.Errorf("quiesce command: %w", p.err)
	}
	return nil
}

// explain adds the program's last words.
func (p *program) explain(err error) error {
	if words := p.stderr.String(); err != nil && words != "" {
		return fmt.Errorf("%w; it said: %s", err, words)
	}
	return err
}
