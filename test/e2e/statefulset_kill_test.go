package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"

	"keepset/internal/statefulset"
)

// errKilled is what everything answers after the process is as good as dead.
var errKilled = errors.New("killed by the test")

// mortal lets a number of changes through to the API server, and nothing after
// them: neither changes nor questions. That is a process killed between two
// requests.
type mortal struct {
	next  http.RoundTripper
	left  *atomic.Int64
	after bool // die after the request has had its effect, before its answer
}

func (m mortal) RoundTrip(r *http.Request) (*http.Response, error) {
	if m.left.Load() < 0 {
		return nil, errKilled
	}
	if r.Method != http.MethodGet && m.left.Add(-1) < 0 {
		if !m.after {
			return nil, errKilled
		}
		response, err := m.next.RoundTrip(r)
		if err == nil {
			_ = response.Body.Close()
		}
		return nil, errKilled
	}
	return m.next.RoundTrip(r)
}

// killedAfter is a client that dies at its n+1st change.
func (s *simulation) killedAfter(n int, after bool) (*statefulset.Client, *atomic.Int64) {
	left := &atomic.Int64{}
	left.Store(int64(n))
	config := rest.CopyConfig(s.as("keepset-restore"))
	config.WrapTransport = func(next http.RoundTripper) http.RoundTripper { return mortal{next: next, left: left, after: after} }
	return s.clientOf(config), left
}

// Killed between every two steps of a recovery, and run again by another Job:
// the ordinal ends up filled, and at no time was a pod Ready with less.
func TestSeedKilledBetweenSteps(t *testing.T) {
	t.Parallel()
	const changes = 18 // a recovery makes fewer: the last round is not killed at all
	points := make([]int, changes)
	for i := range points {
		points[i] = i
	}
	if !soak() {
		rand.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
		points = points[:4]
		slices.Sort(points)
	}
	t.Logf("killed after %v changes", points)
	s := newSimulation(t, 2, "Parallel")
	for round, n := range points {
		after := round%2 == 1
		before := s.kubectl("get", "pod", "db-1", "-o", "jsonpath={.metadata.uid}")
		guard := s.watch("db-1")
		client, left := s.killedAfter(n, after)
		err := fill(t.Context(), s.seed(client, 1, fmt.Sprintf("run-%d-a", n), fillAtOnce, true), "backup-a")
		if left.Load() < 0 {
			require.ErrorIs(t, err, errKilled, "killed after %d changes", n)
			require.Less(t, n, changes-1, "a recovery makes more changes than are tried here")
		}
		// A new Job knows nothing but what it finds.
		again := s.seed(s.client, 1, fmt.Sprintf("run-%d-b", n), fillAtOnce, true)
		status, err := again.Inspect(t.Context())
		require.NoError(t, err)
		t.Logf("killed after %d changes (effect of the last one: %v): %s", n, after, status.Text)
		if status.State == statefulset.SeedLoaded {
			require.Equal(t, "backup-a", status.Backup)
		}
		require.NoError(t, fill(t.Context(), again, "backup-b"), "killed after %d changes: %s", n, status.Text)
		s.requireFilled(1)
		for _, uid := range guard.seen() {
			if uid != before {
				pod := s.pod("db-1")
				require.Equal(t, string(pod.UID), uid, "killed after %d changes: a pod was Ready before the ordinal was filled", n)
			}
		}
	}
}

// The same for an ordinal that the set does not have yet.
func TestSeedScaleUpKilledBetweenSteps(t *testing.T) {
	t.Parallel()
	s := newSimulation(t, 1, "OrderedReady")
	ordinals := 2
	if soak() {
		ordinals = 8
	}
	for ordinal := 1; ordinal <= ordinals; ordinal++ {
		n := rand.IntN(8)
		client, _ := s.killedAfter(n, ordinal%2 == 0)
		err := fill(t.Context(), s.seed(client, ordinal, "run-a", fillAtOnce, false), "backup-a")
		require.Nil(t, s.pod(fmt.Sprintf("db-%d", ordinal+1)))
		t.Logf("ordinal %d killed after %d changes: %v", ordinal, n, err)
		require.NoError(t, fill(t.Context(), s.seed(s.client, ordinal, "run-a", fillAtOnce, false), "backup-a"))
		require.NoError(t, s.client.ScaleTo(t.Context(), "db", ordinal+1))
		s.requireFilled(ordinal)
	}
}
