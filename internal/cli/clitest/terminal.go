package clitest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Terminal is a terminal on which a program runs.
type Terminal struct {
	t       *testing.T
	cmd     *exec.Cmd
	screen  *os.File // what the terminal's user reads and types
	program *os.File // what the program has
	before  unix.Termios
	ended   chan struct{}
	copied  chan struct{}

	mu   sync.Mutex
	text bytes.Buffer
}

// OnTerminal starts a program that is on the PATH, on a terminal so many
// columns wide.
func OnTerminal(t *testing.T, columns uint16, env []string, name string, args ...string) *Terminal {
	t.Helper()
	screen, program, err := pty.Open()
	require.NoError(t, err)
	term := &Terminal{t: t, screen: screen, program: program, ended: make(chan struct{}), copied: make(chan struct{})}
	require.NoError(t, pty.Setsize(screen, &pty.Winsize{Rows: 24, Cols: columns}))
	term.before = term.settings()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	term.cmd = exec.CommandContext(ctx, name, args...)
	term.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TERM=xterm"}, env...)
	term.cmd.Stdin, term.cmd.Stdout, term.cmd.Stderr = program, program, program
	// The terminal's Ctrl-C goes to the session that it controls.
	term.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, term.cmd.Start())
	go term.copy()
	t.Cleanup(func() {
		cancel()
		<-term.ended
		require.NoError(t, errors.Join(program.Close(), screen.Close()))
		<-term.copied
	})
	go func() {
		_ = term.cmd.Wait() // ProcessState tells how it ended
		close(term.ended)
	}()
	return term
}

// copy reads the screen until it is closed.
func (x *Terminal) copy() {
	defer close(x.copied)
	buf := make([]byte, 4096)
	for {
		n, err := x.screen.Read(buf)
		x.mu.Lock()
		x.text.Write(buf[:n])
		x.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (x *Terminal) settings() unix.Termios {
	x.t.Helper()
	s, err := unix.IoctlGetTermios(int(x.program.Fd()), unix.TCGETS)
	require.NoError(x.t, err)
	return *s
}

// Type types on the terminal.
func (x *Terminal) Type(keys string) {
	x.t.Helper()
	_, err := io.WriteString(x.screen, keys)
	require.NoError(x.t, err)
}

// Await waits until the screen has shown what matches.
func (x *Terminal) Await(pattern string) {
	x.t.Helper()
	re := regexp.MustCompile(pattern)
	require.Eventually(x.t, func() bool { return re.MatchString(x.Text()) }, time.Minute, 20*time.Millisecond,
		"%s is not on the screen", pattern)
}

// Text is everything that has been written to the screen.
func (x *Terminal) Text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.text.String()
}

// drawn are the sequences that a progress display may use: up so many lines,
// and clear to the end of the screen.
var drawn = regexp.MustCompile(`\x1b\[[0-9]+A\x1b\[J`)

// End waits for the program's end and returns its exit code and what stands on
// the screen from the last drawing on. It fails when the program has left the
// terminal in another state than it was in, or has ever written a line that the
// terminal had to break.
func (x *Terminal) End(columns int) (code int, last string) {
	x.t.Helper()
	<-x.ended
	require.Equal(x.t, x.before, x.settings(), "the terminal's settings")
	var text string
	require.Eventually(x.t, func() bool { // what was written may be on its way
		before := text
		text = x.Text()
		return text != "" && before == text
	}, 2*time.Minute, 50*time.Millisecond)
	require.True(x.t, strings.HasSuffix(text, "\n"), "the cursor is left within a line: %q", text)
	frames := drawn.Split(text, -1)
	for _, frame := range frames {
		require.NotContains(x.t, frame, "\x1b", "other sequences, which nobody takes back")
		for line := range strings.Lines(frame) {
			if strings.HasPrefix(line, "ordinal ") {
				require.LessOrEqual(x.t, len([]rune(strings.TrimRight(line, "\r\n"))), columns, line)
			}
		}
	}
	return x.cmd.ProcessState.ExitCode(), strings.ReplaceAll(frames[len(frames)-1], "\r\n", "\n")
}
