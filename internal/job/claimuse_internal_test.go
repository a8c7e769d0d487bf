package job

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/statefulset"
)

// TestUseThatComesAndGoes: a pod that used the claim for a while is seen, too, and an
// answer that did not come is asked for again, but for the last one.
func TestUseThatComesAndGoes(t *testing.T) {
	down := errors.New("the API server is away")
	asked, enough := 0, make(chan struct{})
	users := func(context.Context) (map[string][]statefulset.ClaimUser, error) {
		switch asked++; asked {
		case 2:
			return nil, down
		case 3:
			return map[string][]statefulset.ClaimUser{"data-www-0": {{Pod: "cleaner", Node: "node-1"}}, "data-www-1": {{Pod: "other"}}}, nil
		case 5:
			close(enough)
		}
		return nil, nil
	}
	u := &claimUse{users: users, claim: "data-www-0", pods: map[string]bool{}}
	require.NoError(t, u.refuse(t.Context()))
	doubts, err := u.during(t.Context(), time.Millisecond, func() error { <-enough; return nil })
	require.NoError(t, err)
	require.Equal(t, []string{"claim data-www-0 was in use by pod cleaner while its files were read: they are not of one moment"}, doubts)

	require.NoError(t, (*claimUse)(nil).refuse(t.Context()))
}

// TestNoAnswerAtTheEnd: an API server that restarts when all has been read does not
// spoil that, and one that stays away does: nobody knows who used the claim.
func TestNoAnswerAtTheEnd(t *testing.T) {
	down := errors.New("the API server is away")
	for _, c := range []struct {
		away time.Duration
		want error
	}{{0, nil}, {40 * time.Second, nil}, {time.Hour, down}} {
		synctest.Test(t, func(t *testing.T) {
			var since time.Time // it has been read
			users := func(context.Context) (map[string][]statefulset.ClaimUser, error) {
				if !since.IsZero() && time.Since(since) < c.away {
					return nil, down
				}
				if since.IsZero() {
					return nil, nil
				}
				return map[string][]statefulset.ClaimUser{"data-www-0": {{Pod: "www-0"}}}, nil
			}
			u := &claimUse{users: users, claim: "data-www-0", pods: map[string]bool{}}
			doubts, err := u.during(t.Context(), time.Hour, func() error { since = time.Now(); return nil })
			require.ErrorIs(t, err, c.want)
			if c.want == nil {
				require.Len(t, doubts, 1, "and what is answered then counts")
			}
		})
	}
	u := &claimUse{users: func(context.Context) (map[string][]statefulset.ClaimUser, error) { return nil, down }, claim: "data-www-0"}
	require.ErrorIs(t, u.refuse(t.Context()), down)
}
