package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// outputDelay is how long what a program leaves behind may hold its output open.
const outputDelay = 5 * time.Second

// Local runs programs on this machine, with the given environment, each with
// its children as a process group that is killed as one.
func Local(env []string) Exec {
	return func(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Env, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = env, stdout, stderr, outputDelay
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return killGroup(cmd) }
		feed, err := feeder(cmd, stdin)
		if err != nil {
			return fmt.Errorf("start %s: %w", argv[0], err)
		}
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("start %s: %w", argv[0], err)
		}
		fed := make(chan error, 1)
		go func() { fed <- feed() }()
		err = cmd.Wait()
		fedErr := <-fed
		switch {
		case errors.Is(err, exec.ErrWaitDelay):
			return fmt.Errorf("%s ended, and something that it started held its output open: %w", argv[0], err)
		case err != nil:
			return fmt.Errorf("run %s: %w", argv[0], err)
		}
		return fedErr
	}
}

// feeder returns what hands stdin to the program, once that is started. A read
// that fails kills the program first: it must not see an end of its input.
func feeder(cmd *exec.Cmd, stdin io.Reader) (func() error, error) {
	if stdin == nil {
		return func() error { return nil }, nil
	}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	return func() error {
		source := &failing{r: stdin}
		_, err := io.Copy(pipe, source)
		if source.err != nil {
			return errors.Join(source.err, killGroup(cmd), ignoreClosed(pipe.Close()))
		}
		closeErr := ignoreClosed(pipe.Close())
		if err != nil {
			return fmt.Errorf("%w (%w)", errUnread, err)
		}
		return closeErr
	}, nil
}

// failing notes an error of a reader, which io.Copy does not tell from one of
// the writer.
type failing struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (f *failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}

func killGroup(cmd *exec.Cmd) error {
	err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return nil // it has ended by itself
	}
	return err
}

// ignoreClosed drops the error of closing what Wait has closed already.
func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
