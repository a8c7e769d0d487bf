package cli

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/statefulset"
)

// TestLineWriter: a line comes whole, whoever writes beside it.
func TestLineWriter(t *testing.T) {
	var out bytes.Buffer
	w := &lineWriter{to: &out}
	for _, part := range []string{"one\ntw", "o\nthr", "ee"} {
		n, err := w.Write([]byte(part))
		require.NoError(t, err)
		require.Equal(t, len(part), n)
		require.True(t, out.Len() == 0 || out.Bytes()[out.Len()-1] == '\n')
	}
	require.Equal(t, "one\ntwo\n", out.String())
}

// TestWorkerFlags: who is root is no other user besides.
func TestWorkerFlags(t *testing.T) {
	f := WorkerFlags{UID: 33, GID: 34}
	spec, err := f.spec("data")
	require.NoError(t, err)
	require.Equal(t, statefulset.WorkerSpec{Template: "data", UID: 33, GID: 34}, spec)
	for _, wrong := range []WorkerFlags{{UID: -1}, {GID: -1}, {Root: true, UID: 33}, {Root: true, GID: 33}} {
		_, err := wrong.spec("")
		require.Error(t, err)
	}
}
