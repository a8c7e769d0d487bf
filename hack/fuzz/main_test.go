package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// module is one of one package, with one target that crashes soon, and one that does not.
func module(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	write("go.mod", "module parsers\n\ngo 1.26\n")
	write("a.go", "package parsers\n")
	write("a_test.go", `package parsers

import "testing"

func FuzzWell(f *testing.F) {
	f.Add("a")
	f.Fuzz(func(*testing.T, string) {})
}
`)
	write("b_test.go", `package parsers_test

import "testing"

func FuzzBadly(f *testing.F) {
	f.Add("seed")
	f.Fuzz(func(t *testing.T, s string) {
		if s != "seed" {
			t.Fatal("found")
		}
	})
}
`)
	return dir
}

// All targets run, also after one that crashes, whose input is kept; and it fails the run. What go test fuzzes it builds anew,
// with most of the standard library, so that without KEEPSET_SOAK they are only found.
func TestFindsWhatCrashes(t *testing.T) {
	dir := module(t)
	var out bytes.Buffer
	f := &fuzz{dir: dir, each: time.Second, out: &out}
	targets, err := f.find(t.Context(), []string{"./..."})
	require.NoError(t, err)
	require.Equal(t, []target{{"parsers", "FuzzWell"}, {"parsers", "FuzzBadly"}}, targets)
	if os.Getenv("KEEPSET_SOAK") == "" {
		return
	}
	err = f.run(t.Context(), []string{"./..."})
	require.ErrorContains(t, err, "parsers FuzzBadly: ")
	require.ErrorContains(t, err, "Failing input written to testdata/fuzz/FuzzBadly")
	require.NotContains(t, err.Error(), "FuzzWell")
	require.Regexp(t, `parsers FuzzWell: [1-9]\d* executions\n`, out.String())
	require.Regexp(t, `2 fuzz targets, 1s each: [1-9]\d* executions, 1 failed\n`, out.String())
	require.NoError(t, os.Remove(filepath.Join(dir, "b_test.go")))
	require.NoError(t, f.run(t.Context(), []string{"./..."}))
}

func TestNothingToFuzz(t *testing.T) {
	require.ErrorContains(t, (&fuzz{dir: ".", each: time.Second}).run(t.Context(), []string{"."}), "no fuzz target in .")
}

func TestExecutions(t *testing.T) {
	require.Equal(t, 1234, executionsIn([]byte("fuzz: elapsed: 0s, gathering baseline coverage: 0/7 completed\nfuzz: elapsed: 3s, execs: 17 (5/sec), new interesting: 0 (total: 7)\nfuzz: elapsed: 6s, execs: 1234 (405/sec), new interesting: 2 (total: 9)\nPASS\n")))
	require.Zero(t, executionsIn([]byte("PASS\n")))
	require.True(t, outOfTime([]byte("--- FAIL: FuzzA (20.03s)\n    context deadline exceeded\nFAIL\n")))
	require.False(t, outOfTime([]byte("--- FAIL: FuzzA (20.03s)\n    a_test.go:9: context deadline exceeded\n    Failing input written to testdata/fuzz/FuzzA/1\n")))
}
