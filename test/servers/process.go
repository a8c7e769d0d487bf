package servers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Patience of the package: how long a server may take to answer its first connection and to stop when asked. Both are
// far beyond what an idle machine needs, because tests also run on busy ones.
const (
	startTimeout = 2 * time.Minute
	stopTimeout  = 2 * time.Minute
	pollInterval = 20 * time.Millisecond
)

// process is one run of a server program.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the program has ended and err is set
	err  error
}

// underUs is how the programs of the package run: the kernel kills them when this process dies.
func underUs() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// startProcess starts the program with its output appended to the file log.
func startProcess(ctx context.Context, attr *syscall.SysProcAttr, log string, env []string, program string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(program), err)
	}
	defer out.Close() //nolint:errcheck // the program holds its own copy
	// The server outlives the call that starts it: cancelling ctx gives up waiting for it, it does not kill it later.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(program), err)
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// waitReady calls ready until it returns nil. It fails when the program ends first, or takes longer than startTimeout.
func (p *process) waitReady(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("the server ended before it was ready: %w", errors.Join(p.err, err))
		case <-ctx.Done():
			return fmt.Errorf("the server is not ready: %w", errors.Join(ctx.Err(), err))
		case <-ticker.C:
		}
	}
}

// stop ends the program with a signal and waits for it. A program that does not end in stopTimeout is killed, which is an error.
func (p *process) stop(signal syscall.Signal) error {
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal process %d: %w", p.cmd.Process.Pid, err)
	}
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
	}
	err := fmt.Errorf("process %d ignored %v for %v", p.cmd.Process.Pid, signal, stopTimeout)
	if kill := p.cmd.Process.Kill(); kill != nil {
		return errors.Join(err, kill)
	}
	<-p.done
	return err
}

// running reports whether the program has not ended.
func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// freePort returns a TCP port of the loopback interface on which nobody listens. It is below the range from which the
// kernel takes the ports of outgoing connections, so that a server that is stopped finds its port free when it starts again.
func freePort(ctx context.Context) (int, error) {
	var last error
	for range 100 {
		port := 12000 + rand.IntN(20000)
		var config net.ListenConfig
		listener, err := config.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			last = err
			continue
		}
		if err := listener.Close(); err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}
		return port, nil
	}
	return 0, fmt.Errorf("find a free port: %w", last)
}

// tail returns the end of a log file, for an error message.
func tail(path string) string {
	const limit = 4 << 10
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if len(data) > limit {
		data = data[len(data)-limit:]
	}
	return string(data)
}
