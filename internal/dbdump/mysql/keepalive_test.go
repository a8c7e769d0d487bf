package mysql

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/test/servers"
)

// The server ends the coordinator when it is idle for longer than a lock may
// be held; counting the rows of a large table takes longer than that.
func TestCountingForLongDoesNotLoseTheCoordinator(t *testing.T) {
	t.Parallel()
	s := servers.MariaDB(t)
	s.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, v CHAR(200))", "INSERT INTO app.t SELECT seq, 'x' FROM app.seq_1_to_3000", "ANALYZE TABLE app.t")
	o := options(t, s)
	o.Workers, o.LockHold, o.ChunkBytes = 1, time.Second, 300<<10
	whole, _ := dumpWith(t, o)
	pieces := 0
	for name := range whole.streams {
		if strings.HasSuffix(name, ".tsv") {
			pieces++
		}
	}
	require.Greater(t, pieces, 1, "a table in one piece is not counted")
	blocker, err := s.DB(t).Conn(t.Context())
	require.NoError(t, err)
	defer blocker.Close() //nolint:errcheck // it is being thrown away
	released := make(chan error, 1)
	sink := newMemSink()
	var left atomic.Int64
	left.Store(int64(pieces))
	sink.onWrite = func(name string, _ []byte) error {
		if strings.HasSuffix(name, ".tsv") && left.Add(-1) == 0 {
			go func() {
				// It waits until the last piece is read; then the count waits for it.
				_, err := blocker.ExecContext(t.Context(), "LOCK TABLES app.t WRITE")
				if err == nil {
					_, err = blocker.ExecContext(t.Context(), fmt.Sprintf("DO SLEEP(%d)", seconds(o.LockHold+lockGrace)+3))
				}
				_, e := blocker.ExecContext(t.Context(), "UNLOCK TABLES")
				released <- errors.Join(err, e)
			}()
			// Time to get in line before the worker goes on.
			waitFor(t, "the lock to be asked for", func() bool {
				return s.Value(t, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE LIKE 'Waiting for table metadata lock%'") != "0"
			})
		}
		return nil
	}
	start := time.Now()
	_, err = tryDump(t, o, sink)
	require.NoError(t, err)
	require.NoError(t, <-released)
	require.Greater(t, time.Since(start), o.LockHold+lockGrace, "the count waited")
}
