package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func sh(script string) command { return command{program: "/bin/sh", args: []string{"-c", script}} }

func TestMeasurePassesBytesOn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out")
	m, err := measure(t.Context(), pipeline{sh("printf hello"), sh("tr a-z A-Z"), sh("cat > " + file)})
	require.NoError(t, err)
	require.Positive(t, m.seconds)
	require.Positive(t, m.rss)
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "HELLO", string(data))
}

// A dump that fails half-way must not count as a fast one, whatever the compressor behind it says.
func TestMeasureFailsWithAnyProgram(t *testing.T) {
	for name, p := range map[string]pipeline{
		"first":   {sh("printf half; exit 3"), sh("cat >/dev/null")},
		"last":    {sh("printf whole"), sh("cat >/dev/null; exit 3")},
		"only":    {sh("echo what went wrong >&2; exit 3")},
		"missing": {sh("printf whole"), command{program: "/no/such/program"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := measure(t.Context(), p)
			require.Error(t, err)
			if name == "only" {
				require.ErrorContains(t, err, "what went wrong")
			}
		})
	}
}

func TestMedian(t *testing.T) {
	require.InDelta(t, 2.0, median([]float64{1, 2, 9}), 0)
	require.InDelta(t, 2.5, median([]float64{1, 2, 3, 9}), 0)
	require.InDelta(t, 1.0, median([]float64{1}), 0)
}
