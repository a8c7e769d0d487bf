package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/job"
	"keepset/internal/repository"
	"keepset/internal/statefulset"
	"keepset/internal/storage"
)

// app is an App whose streams are buffers, and its standard error.
func app(env ...string) (*App, *bytes.Buffer) {
	var out, errs bytes.Buffer
	return &App{
		Name: "backup", In: strings.NewReader(""), Out: &out, Err: &errs,
		Environ: func() []string { return env }, Clock: time.Now, Log: slog.New(slog.DiscardHandler),
	}, &errs
}

func TestExitCodes(t *testing.T) {
	for want, errs := range map[int][]error{
		0:  {nil},
		1:  {errors.New("anything"), storage.ErrDenied, storage.ErrCredentials, storage.ErrFull, job.ErrFailed, statefulset.ErrForbidden, context.Canceled},
		3:  {job.ErrIncomplete, fmt.Errorf("%w: %w", job.ErrIncomplete, storage.ErrNoContainer)},
		4:  {job.ErrSuspect},
		5:  {job.ErrBusy, statefulset.ErrBusy},
		64: {Usage("x"), job.ErrConfig, job.ErrNeedsConsent, storage.ErrNoContainer, repository.ErrNotRepository, repository.ErrNoEligible, repository.ErrWrongKey, statefulset.ErrNotFound, statefulset.ErrAmbiguous, statefulset.ErrClaimInUse, statefulset.ErrExclusive, dbdump.ErrNotEmpty, dbdump.ErrForeign, dbdump.ErrSelection, dbdump.ErrCoordinates},
	} {
		for _, err := range errs {
			assert.Equal(t, want, ExitCode(err), "%v", err)
			if err != nil {
				assert.Equal(t, want, ExitCode(fmt.Errorf("wrapped: %w", err)), "%v", err)
			}
		}
	}
	for code, want := range map[int]int{0: 1, 2: 1, 137: 1, 3: 3, 4: 4, 5: 5, 64: 64} {
		assert.Equal(t, want, ExitCode(jobOutcome("x", statefulset.JobResult{ExitCode: code})), "a Job that ended with %d", code)
	}
	require.NoError(t, jobOutcome("x", statefulset.JobResult{Succeeded: true}))
}

// TestExitHelpNamesEveryCode holds the text to the constants.
func TestExitHelpNamesEveryCode(t *testing.T) {
	for _, code := range []int{ExitComplete, ExitFailed, ExitIncomplete, ExitSuspect, ExitBusy, ExitUsage} {
		assert.Contains(t, ExitHelp, fmt.Sprintf("\n  %d ", code))
	}
}

func TestErrorIsOneLine(t *testing.T) {
	a, errs := app()
	code := a.Run(t.Context(), oneCommand(func(*cobra.Command) error { return errors.Join(errors.New("one"), errors.New("two")) }), []string{"do"})
	assert.Equal(t, 1, code)
	assert.Equal(t, "backup: one; two\n", errs.String())

	a, errs = app()
	code = a.Run(t.Context(), oneCommand(func(*cobra.Command) error { return job.ErrBusy }), []string{"do", "--json"})
	assert.Equal(t, 5, code)
	var doc struct {
		Error string
		Code  int
	}
	require.NoError(t, json.Unmarshal(errs.Bytes(), &doc))
	assert.Equal(t, 5, doc.Code)

	ctx, cancel := context.WithCancel(t.Context())
	a, errs = app()
	a.Run(ctx, oneCommand(func(*cobra.Command) error { cancel(); return ctx.Err() }), []string{"do"})
	assert.Equal(t, "backup: interrupted: context canceled\n", errs.String())
}

// oneCommand is a root with one command below it.
func oneCommand(run func(*cobra.Command) error) *cobra.Command {
	root := &cobra.Command{Use: "backup"}
	do := &cobra.Command{Use: "do", RunE: func(c *cobra.Command, _ []string) error { return run(c) }}
	do.Flags().Int("lock-timeout", 1, "")
	do.Flags().StringSlice("source", nil, "")
	root.AddCommand(do)
	return root
}

func TestEnvironment(t *testing.T) {
	values := func(args []string, env ...string) (int, []string, int, string) {
		a, errs := app(env...)
		var timeout int
		var sources []string
		code := a.Run(t.Context(), oneCommand(func(c *cobra.Command) error {
			var err error
			timeout, err = c.Flags().GetInt("lock-timeout")
			require.NoError(t, err)
			sources, err = c.Flags().GetStringSlice("source")
			return err
		}), append([]string{"do"}, args...))
		return timeout, sources, code, errs.String()
	}
	timeout, sources, code, _ := values(nil, "KEEPSET_LOCK_TIMEOUT=7", "KEEPSET_SOURCE=a,b")
	assert.Equal(t, 7, timeout)
	assert.Equal(t, []string{"a", "b"}, sources)
	assert.Zero(t, code)
	timeout, _, _, _ = values([]string{"--lock-timeout", "9"}, "KEEPSET_LOCK_TIMEOUT=7")
	assert.Equal(t, 9, timeout, "the flag wins")
	timeout, _, _, _ = values(nil, "KEEPSET_LOCK_TIMEOUT=")
	assert.Equal(t, 1, timeout, "empty is not set")
	_, _, code, text := values(nil, "KEEPSET_LOCK_TIMEOUT=soon")
	assert.Equal(t, ExitUsage, code)
	assert.Contains(t, text, "KEEPSET_LOCK_TIMEOUT")
	_, _, _, text = values(nil, "KEEPSET_LOCK_TIMEOT=7", "KEEPSET_SOURCE_PASSWORD=x", "KEEPSET_PORT_3306_TCP=x")
	assert.Contains(t, text, "variable=KEEPSET_LOCK_TIMEOT known=KEEPSET_LOCK_TIMEOUT")
	assert.Equal(t, 1, strings.Count(text, "variable="), text)
}

func TestTerminationMessage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	a, _ := app("TERMINATION_LOG=" + path)
	a.Run(t.Context(), oneCommand(func(*cobra.Command) error { a.SetMessage("all is well"); return nil }), []string{"do"})
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "all is well", string(content))
	a.Run(t.Context(), oneCommand(func(*cobra.Command) error { return errors.New(strings.Repeat("x", 9000)) }), []string{"do"})
	content, err = os.ReadFile(path)
	require.NoError(t, err)
	assert.Len(t, content, terminationLimit)
	a.Run(t.Context(), oneCommand(func(*cobra.Command) error { return errors.New("x" + strings.Repeat("é", 3000)) }), []string{"do"})
	content, err = os.ReadFile(path)
	require.NoError(t, err)
	assert.True(t, utf8.Valid(content), "a letter is not cut in half")
}

func TestEventOfAShare(t *testing.T) {
	whole := &job.BackupReport{Status: job.StatusComplete, Planned: 1, Members: make([]job.MemberResult, 1)}
	assert.Equal(t, "BackupComplete", eventReason(whole))
	share := &job.BackupReport{Status: job.StatusComplete, Planned: 5, Members: make([]job.MemberResult, 2)}
	assert.Equal(t, "BackupShareComplete", eventReason(share))
}

func TestSecret(t *testing.T) {
	a, _ := app("KEEPSET_SOURCE_PASSWORD=from-env")
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte("from file \n"), 0o600))
	s, err := a.Secret("", "KEEPSET_SOURCE_PASSWORD")
	require.NoError(t, err)
	assert.Equal(t, "from-env", s)
	s, err = a.Secret(file, "KEEPSET_SOURCE_PASSWORD")
	require.NoError(t, err)
	assert.Equal(t, "from file ", s, "only the line's end is dropped")
	require.NoError(t, os.WriteFile(file, []byte("\n"), 0o600))
	_, err = a.Secret(file, "KEEPSET_SOURCE_PASSWORD")
	assert.Equal(t, ExitUsage, ExitCode(err))
}

func TestMemoryLimit(t *testing.T) {
	for text, want := range map[string]int64{"268435456\n": 268435456, "max\n": 0, "9223372036854771712": 0, "": 0, "-1": 0} {
		limit, ok := parseMemoryLimit(text)
		assert.Equal(t, want, limit, text)
		assert.Equal(t, want != 0, ok, text)
	}
}

// A large node's processors would each take their share of a small container's
// memory.
func TestProcessors(t *testing.T) {
	const mib = 1 << 20
	for _, tc := range []struct {
		n     int
		limit int64
		want  int
	}{{64, 256 * mib, 4}, {64, 1024 * mib, 16}, {2, 256 * mib, 2}, {1, 256 * mib, 1}, {8, 64 * mib, 2}} {
		assert.Equal(t, tc.want, processors(tc.n, tc.limit), "%d processors, %d MiB", tc.n, tc.limit/mib)
	}
}

func TestHumanForms(t *testing.T) {
	assert.Equal(t, "0 B", Bytes(0))
	assert.Equal(t, "1023 B", Bytes(1023))
	assert.Equal(t, "1.5 KiB", Bytes(1536))
	assert.Equal(t, "2.0 TiB", Bytes(2<<40))
	assert.Equal(t, "0", Count(0))
	assert.Equal(t, "999", Count(999))
	assert.Equal(t, "1,000", Count(1000))
	assert.Equal(t, "-1,234,567", Count(-1234567))
	assert.Equal(t, "5s", Age(5*time.Second))
	assert.Equal(t, "2h5m", Age(125*time.Minute))
	assert.Equal(t, "3d1h", Age(73*time.Hour))
}

func TestSplitHostPort(t *testing.T) {
	for text, want := range map[string]string{"db:3307": "db 3307", "db": "db 3306", "[::1]:3307": "::1 3307", "::1": "::1 3306", "10.0.0.1:1": "10.0.0.1 1"} {
		host, port, err := SplitHostPort("x", text, 3306)
		require.NoError(t, err, text)
		assert.Equal(t, want, fmt.Sprintf("%s %d", host, port), text)
	}
	for _, text := range []string{"db:", "db:port", "db:0", "db:99999", ":3306", "db:33x"} {
		_, _, err := SplitHostPort("x", text, 3306)
		assert.Equal(t, ExitUsage, ExitCode(err), text)
	}
}

func TestServerURL(t *testing.T) {
	f := ServerFlags{side: "source", User: "backup"}
	for text, want := range map[string]Server{
		"mysql://db":             {"mysql", "db:3306", "backup"},
		"mysql://root@db:3307/":  {"mysql", "db:3307", "root"},
		"mysql://a%40b@[::1]:33": {"mysql", "[::1]:33", "a@b"},
	} {
		s, err := f.ParseServerURL("source", text)
		require.NoError(t, err, text)
		assert.Equal(t, want, s, text)
	}
	for _, text := range []string{"db:3306", "mysql://", "mysql://db/shop", "mysql://db?x=1", "http://db", "mysql://u:secret@db", "mysql://u:sec%ret@db"} {
		_, err := f.ParseServerURL("source", text)
		assert.Equal(t, ExitUsage, ExitCode(err), text)
		assert.NotContains(t, err.Error(), "sec", text)
	}
}
