package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSummaryCounts(t *testing.T) {
	s := summary{logs: map[string][]string{}, own: map[string][]string{}}
	require.NoError(t, s.read(strings.NewReader(`
{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"--- PASS: TestA\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Test":"TestB","Output":"why\n"}
{"Action":"fail","Package":"p","Test":"TestB"}
{"Action":"skip","Package":"p","Test":"TestC"}
{"Action":"fail","Package":"p"}
{"Action":"build-fail","ImportPath":"q"}
{"Action":"fail","Package":"q","FailedBuild":"q"}
{"Action":"skip","Package":"no tests"}
{"Action":"run","Package":"r","Test":"TestD"}
{"Action":"output","Package":"r","Test":"TestD","Output":"panic: test timed out\n"}
{"Action":"output","Package":"r","Output":"FAIL r 720s\n"}
{"Action":"fail","Package":"r"}
`)))
	require.Equal(t, 1, s.passed)
	require.Equal(t, 3, s.failed, "a failed test, a package that does not build, and one that took too long")
	require.Equal(t, 1, s.skipped)
	require.Equal(t, 3, s.packages)
	require.Equal(t, []string{"p TestB", "q itself\n", "r itself, not ended: TestD\nFAIL r 720s\n"}, s.failures)
	require.Empty(t, s.logs)
}

func TestRunFails(t *testing.T) {
	require.Error(t, run(t.Context(), []string{"./no/such/package"}))
}
