package repository

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestParallelMembersShareChunks: replicas that are captured at the same time
// store what they have in common once, also while it is still on its way.
func TestParallelMembersShareChunks(t *testing.T) {
	for _, m := range modes(t) {
		t.Run(m.name, func(t *testing.T) {
			store := initStore(t, m)
			want := content{}
			for i := range 8 {
				want[fmt.Sprintf("data/%d", i)] = randomBytes(uint64(i), 3<<20/raceScale)
			}
			o := small()
			o.Checkpoint = 5 * time.Millisecond // parts are sealed all the time
			b, err := open(t, store, m.writer, o).Begin(t.Context(), testPlan(0, 0, 1, 2), "attempt-1")
			require.NoError(t, err)
			var wg sync.WaitGroup
			var stored [3]int64
			for ordinal := range stored {
				w, err := b.Member(t.Context(), ordinal)
				require.NoError(t, err)
				wg.Go(func() {
					commit, err := writeContent(t.Context(), w, want)
					if err != nil {
						t.Error(err)
					}
					stored[ordinal] = commit.Stored
				})
			}
			wg.Wait()
			require.NoError(t, b.Close())
			require.Less(t, stored[0]+stored[1]+stored[2], int64(25<<20/raceScale), "three times 24 MiB of the same")
			for ordinal := range stored {
				got, err := readMember(t.Context(), open(t, store, m.restore, Options{}), b.Plan().ID, ordinal)
				require.NoError(t, err)
				requireContent(t, want, got)
			}
		})
	}
}
