package repository

import (
	"fmt"
	"os"
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

// TestMembersThatEndTogether: members of equal small content commit while
// others are still handing the same chunks in. Whoever refers to a chunk that
// another member has announced must find it stored.
func TestMembersThatEndTogether(t *testing.T) {
	rounds := 400 / raceScale
	if os.Getenv("KEEPSET_SOAK") != "" {
		rounds = 10_000 / raceScale
	}
	const together = 3
	m := plainMode()
	ordinals := make([]int, together*50)
	for i := range ordinals {
		ordinals[i] = i
	}
	for done := 0; done < rounds; {
		// In a store of its own, whose listings stay short.
		b := begin(t, initStore(t, m), m, testPlan(done, ordinals...), "attempt-1")
		for first := 0; first < len(ordinals) && done < rounds; first, done = first+together, done+1 {
			same := content{}
			for i := range 20 {
				same[fmt.Sprintf("data/%02d", i)] = fmt.Appendf(nil, "round %d, table %d", done, i)
			}
			var wg sync.WaitGroup
			for ordinal := first; ordinal < first+together; ordinal++ {
				w, err := b.Member(t.Context(), ordinal)
				require.NoError(t, err)
				wg.Go(func() {
					if _, err := writeContent(t.Context(), w, same); err != nil {
						t.Errorf("round %d: %v", done, err)
					}
				})
			}
			wg.Wait()
		}
		require.NoError(t, b.Close())
	}
}
