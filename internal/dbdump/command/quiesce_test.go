package command_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/command"
)

// shell runs a script here, as exec would in a container.
func shell(script, folder string) command.Runner {
	return func(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
		cmd := exec.CommandContext(ctx, "/bin/sh", "-ec", script)
		cmd.Dir, cmd.Stdout, cmd.Stderr = folder, stdout, stderr
		cmd.WaitDelay = 100 * time.Millisecond // a child of the shell may hold its output open
		input, err := cmd.StdinPipe()          // whose end Wait does not wait for
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(input, stdin)
			_ = input.Close()
		}()
		return cmd.Wait()
	}
}

func quiesce(t *testing.T, script string, bound time.Duration, cut func(context.Context) error) (folder string, err error) {
	t.Helper()
	folder = t.TempDir()
	q := &command.Quiescer{Run: shell(script, folder), Wait: 2 * time.Second, Thaw: 2 * time.Second, Clock: time.Now}
	report, err := q.Quiesce(t.Context(), bound, cut)
	require.Equal(t, "command", report.Consistency)
	return folder, err
}

func exists(folder, name string) bool {
	_, err := os.Stat(filepath.Join(folder, name))
	return err == nil
}

const holds = `echo working >&2; touch frozen; echo preparing; echo held; cat >/dev/null; rm frozen; touch thawed`

func TestCutHappensWhileHeld(t *testing.T) {
	folder := ""
	script := `pwd >where; ` + holds
	got, err := quiesce(t, script, 10*time.Second, func(ctx context.Context) error {
		require.NoError(t, ctx.Err())
		return nil
	})
	require.NoError(t, err)
	folder = got
	require.False(t, exists(folder, "frozen"))
	require.True(t, exists(folder, "thawed"))
}

func TestServerIsLetGoWhateverTheCutSays(t *testing.T) {
	broken := errors.New("the disk is on fire")
	folder, err := quiesce(t, holds, 10*time.Second, func(context.Context) error { return broken })
	require.ErrorIs(t, err, broken)
	require.ErrorContains(t, err, "it said: working")
	require.True(t, exists(folder, "thawed"))
}

func TestHoldIsBounded(t *testing.T) {
	folder, err := quiesce(t, holds, 50*time.Millisecond, func(ctx context.Context) error {
		<-ctx.Done()
		return nil
	})
	require.ErrorIs(t, err, dbdump.ErrLockTimeout)
	require.True(t, exists(folder, "thawed"))
}

func TestProgramsThatFail(t *testing.T) {
	for name, tc := range map[string]struct{ script, want string }{
		"before it holds":        {`echo no right >&2; exit 3`, "it said: no right"},
		"without a word":         {`exit 0`, `without the line "held"`},
		"while it holds":         {`touch frozen; echo held; exit 0`, "ended before it was told to"},
		"when it lets go":        {`echo held; cat >/dev/null; echo still frozen >&2; exit 1`, "it said: still frozen"},
		"by never holding":       {`exec sleep 60`, "did not print"},
		"by never letting go":    {`echo held; cat >/dev/null; exec sleep 60`, "look whether the server stands still"},
		"with another line only": {`echo not held; cat >/dev/null`, "did not print"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := quiesce(t, tc.script, 10*time.Second, func(ctx context.Context) error {
				if name == "while it holds" {
					<-ctx.Done()
				}
				return nil
			})
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestEndOfTheRunLetsTheServerGo(t *testing.T) {
	folder := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	q := &command.Quiescer{Run: shell(holds, folder), Clock: time.Now}
	_, err := q.Quiesce(ctx, 10*time.Second, func(held context.Context) error {
		cancel()
		<-held.Done()
		return held.Err()
	})
	require.ErrorIs(t, err, context.Canceled)
	require.True(t, exists(folder, "thawed"))
}
