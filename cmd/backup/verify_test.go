package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/cli"
	"keepset/internal/repository"
)

// stored is a whole repository in a directory, with one complete backup of
// shop/mysql, and the variables with which it is read.
type stored struct {
	root string
	id   string
	env  map[string]string
	// writer are the variables that a writer has besides.
	writer []string
	// now is the command's time, by default long after the backup.
	now time.Time
}

// layDown writes a golden repository as it was stored, or as a copy that was
// made some time later.
func layDown(t *testing.T, name string, later time.Duration) *stored {
	t.Helper()
	data, err := os.ReadFile("../../internal/repository/testdata/repository-" + name + ".v1.json")
	require.NoError(t, err)
	var g struct {
		Stored          time.Time
		Restore, Writer []repository.Value
		Objects         map[string][]byte
	}
	require.NoError(t, json.Unmarshal(data, &g))
	s := &stored{root: t.TempDir(), env: map[string]string{}, now: g.Stored.Add(later + 48*time.Hour)}
	for key, object := range g.Objects {
		path := filepath.Join(s.root, key)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, object, 0o600))
		require.NoError(t, os.Chtimes(path, g.Stored.Add(later), g.Stored.Add(later)))
		if below, found := strings.CutPrefix(key, "sets/shop/mysql/backups/"); found {
			s.id, _, _ = strings.Cut(below, "/")
		}
	}
	for _, v := range g.Writer {
		s.writer = append(s.writer, v.Name+"="+v.Value)
	}
	for _, v := range g.Restore {
		s.env[v.Name] = v.Value
	}
	return s
}

// run runs a command and returns its exit code and all that it printed.
func (s *stored) run(t *testing.T, args ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	a := &cli.App{
		Name: "backup", In: strings.NewReader(""), Out: &out, Err: &out, Clock: func() time.Time { return s.now }, Log: slog.New(slog.DiscardHandler),
		Environ: func() []string {
			env := []string{"KEEPSET_REPOSITORY=file://" + s.root}
			for name, value := range s.env {
				env = append(env, name+"="+value)
			}
			return env
		},
	}
	code := a.Run(t.Context(), newRoot(a), args)
	return code, out.String()
}

// path is the first file that a pattern below the set matches.
func (s *stored) path(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.root, "sets/shop/mysql", pattern))
	require.NoError(t, err)
	require.NotEmpty(t, found)
	return found[0]
}

func TestVerifyOfAGoodRepository(t *testing.T) {
	for _, name := range []string{"plain", "encrypted"} {
		s := layDown(t, name, 0)
		code, out := s.run(t, "verify", "--read-data", "100")
		assert.Zero(t, code, out)
		assert.Contains(t, out, "checked 1 backups (1 complete), 1 members")
		assert.Contains(t, out, "0 damaged")
		code, out = s.run(t, "verify", "--set", "shop/mysql", s.id, "--json")
		assert.Zero(t, code, out)
		assert.Contains(t, out, `"complete": 1`)
	}
}

// TestVerifyExitsWithFailure whenever something cannot be restored.
func TestVerifyExitsWithFailure(t *testing.T) {
	for name, c := range map[string]struct {
		harm func(t *testing.T, s *stored)
		says string
	}{
		"bit of a commit": {func(t *testing.T, s *stored) {
			path := s.path(t, "commits/*/*")
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			data[100] ^= 1
			require.NoError(t, os.WriteFile(path, data, 0o600))
		}, "signature does not match"},
		"all commits": {func(t *testing.T, s *stored) {
			require.NoError(t, os.RemoveAll(s.path(t, "commits")))
		}, "commits/"},
		"garbage plan": {func(t *testing.T, s *stored) {
			require.NoError(t, os.WriteFile(s.path(t, "backups/*/plan"), []byte("?\n"), 0o600))
		}, "/plan of shop/mysql"},
		"late plan": {func(t *testing.T, s *stored) {
			require.NoError(t, os.Chtimes(s.path(t, "backups/*/plan"), time.Now(), time.Now().Add(240*time.Hour)))
		}, "--accept-copied-times"},
		"key files": {func(t *testing.T, s *stored) {
			require.NoError(t, os.RemoveAll(filepath.Join(s.root, "keys")))
			delete(s.env, repository.NameRestoreIdentity)
		}, "nobody can open its backups; put it back from KEEPSET_KEY_FILES"},
	} {
		t.Run(name, func(t *testing.T) {
			s := layDown(t, "encrypted", 0)
			c.harm(t, s)
			code, out := s.run(t, "verify")
			assert.Equal(t, cli.ExitFailed, code, out)
			assert.Contains(t, out, "damaged: ")
			assert.Contains(t, out, c.says)
			assert.Contains(t, out, "harms "+s.id+" ordinal 0")
		})
	}
}

// TestVerifyOfANamedBackup: it has to be there, and complete.
func TestVerifyOfANamedBackup(t *testing.T) {
	s := layDown(t, "plain", 0)
	code, out := s.run(t, "verify", "--set", "shop/mysql", "20200101T000000Z-12345678")
	assert.Equal(t, cli.ExitUsage, code, out)
	assert.Contains(t, out, "no such backup: 20200101T000000Z-12345678")

	// A run that was killed before its first commit.
	killed := "20261120T120100Z-1a2b3c4d"
	plan, err := os.ReadFile(s.path(t, "backups/*/plan"))
	require.NoError(t, err)
	path := filepath.Join(s.root, "sets/shop/mysql/backups", killed, "plan")
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, bytes.ReplaceAll(plan, []byte(s.id), []byte(killed)), 0o600))
	at := time.Date(2026, 11, 20, 12, 1, 0, 0, time.UTC)
	require.NoError(t, os.Chtimes(path, at, at))
	code, out = s.run(t, "verify", "--set", "shop/mysql", killed)
	assert.Equal(t, cli.ExitIncomplete, code, out)
	code, out = s.run(t, "verify")
	assert.Zero(t, code, "one can be restored: %s", out)
	assert.Contains(t, out, "checked 2 backups (1 complete, 1 incomplete)")
	assert.Contains(t, out, "note: "+killed)
}

// TestACopiedRepository is read with consent only.
func TestACopiedRepository(t *testing.T) {
	for _, name := range []string{"plain", "encrypted"} {
		s := layDown(t, name, 7*24*time.Hour)
		_, out := s.run(t, "list")
		assert.Contains(t, out, "invalid")
		_, out = s.run(t, "list", "--accept-copied-times")
		assert.Contains(t, out, "complete")
		code, out := s.run(t, "verify", "--accept-copied-times")
		assert.Zero(t, code, out)
		code, out = s.run(t, "show", "--set", "shop/mysql", "--accept-copied-times")
		assert.Zero(t, code, out)
		code, out = s.run(t, "run", "--set", "shop", "--source", "mysql://root@127.0.0.1:1", "--accept-copied-times")
		assert.Equal(t, cli.ExitUsage, code)
		assert.Contains(t, out, "unknown flag")
	}
}

// TestUncheckedBackups are not shown as complete, and the jq of the help does
// not choose them.
func TestUncheckedBackups(t *testing.T) {
	s := layDown(t, "encrypted", 0)
	delete(s.env, repository.NameTrustedWriters)
	code, out := s.run(t, "list", "--json")
	assert.Zero(t, code)
	var backups []cli.BackupSummary
	require.NoError(t, json.Unmarshal([]byte(out), &backups), out)
	require.Len(t, backups, 1)
	assert.Equal(t, "unchecked", backups[0].Status)
	assert.Equal(t, "unchecked", backups[0].Members[0].Status)
	assert.Equal(t, 1, backups[0].Committed)
	_, out = s.run(t, "list")
	assert.Regexp(t, s.id+" +unchecked", out)
	code, out = s.run(t, "verify")
	assert.Zero(t, code, out)
	assert.Contains(t, out, "(1 unchecked)")
	assert.Contains(t, out, repository.NameTrustedWriters)
	code, out = s.run(t, "verify", "--set", "shop/mysql", s.id)
	assert.Equal(t, cli.ExitIncomplete, code, "it has to be complete, and nobody knows: %s", out)
	assert.Contains(t, out, "set "+repository.NameTrustedWriters)
	code, out = s.run(t, "schedule", "0 3 * * *", "--set", "shop/mysql")
	assert.Zero(t, code, out)
	assert.Contains(t, out, "signatures of the set's backups (1) were not checked: set "+repository.NameTrustedWriters)
	assert.NotContains(t, out, "no complete backup")
}

// TestListTellsOfLostKeyFiles.
func TestListTellsOfLostKeyFiles(t *testing.T) {
	s := layDown(t, "encrypted", 0)
	delete(s.env, repository.NameRestoreIdentity)
	require.NoError(t, os.RemoveAll(filepath.Join(s.root, "keys")))
	code, out := s.run(t, "list")
	assert.Zero(t, code)
	assert.Contains(t, out, "key files are missing")
}
