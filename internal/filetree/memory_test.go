package filetree

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// discard takes streams, keeps nothing, and looks at the heap from time to time.
type discard struct {
	mu     sync.Mutex
	writes int
	most   uint64
}

type discardStream struct{ d *discard }

func (d *discard) Create(context.Context, string) (Stream, error) { return discardStream{d}, nil }

func (s discardStream) Write(p []byte) (int, error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	if s.d.writes++; s.d.writes%64 == 0 {
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		metrics.Read(sample)
		s.d.most = max(s.d.most, sample[0].Value.Uint64())
	}
	return len(p), nil
}

func (discardStream) Section(string, []byte) error        { return nil }
func (discardStream) Reuse(string, []byte) (int64, error) { return 0, nil }
func (discardStream) Forget()                             {}
func (discardStream) Cut() error                          { return nil }
func (discardStream) Close() error                        { return nil }
func (discardStream) Abort(error)                         {}

// TestMemoryOfSave pins the bound: it does not grow with the files of a
// directory, and is a few MiB for two workers.
func TestMemoryOfSave(t *testing.T) {
	files := 4_000
	if os.Getenv("KEEPSET_SOAK") != "" {
		files = 200_000
	}
	defer debug.SetGCPercent(debug.SetGCPercent(10))
	root := t.TempDir()
	for i := range files {
		require.NoError(t, os.WriteFile(fmt.Sprintf("%s/a file in a directory of many files, number %d", root, i), []byte("content"), 0o600))
	}
	d := &discard{}
	debug.FreeOSMemory()
	report, err := Save(t.Context(), d, SaveOptions{Path: root, Workers: 2, Clock: func() time.Time { return time.Now().Add(time.Hour) }})
	require.NoError(t, err)
	require.EqualValues(t, files+1, report.Rows)
	t.Logf("measured: %d files in one directory, %d KiB of heap at most", files, d.most>>10)
	require.NotZero(t, d.most)
	require.Less(t, d.most, uint64(12<<20))
}
