package faults

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rounds is how many of all rounds a run takes, and the seed of the first one.
func rounds(t *testing.T, sample, all int) (n int, seed uint64) {
	t.Helper()
	n, seed = sample, uint64(time.Now().UnixNano())%1_000_000
	if given := os.Getenv("KEEPSET_SEED"); given != "" {
		var err error
		seed, err = strconv.ParseUint(given, 10, 64)
		require.NoError(t, err, "KEEPSET_SEED")
	}
	if os.Getenv("KEEPSET_SOAK") != "" {
		n = all
	}
	if given := os.Getenv("KEEPSET_ROUNDS"); given != "" {
		var err error
		n, err = strconv.Atoi(given)
		require.NoError(t, err, "KEEPSET_ROUNDS")
	}
	t.Logf("measured: KEEPSET_SEED=%d, %d of %d rounds", seed, n, all)
	return n, seed
}
