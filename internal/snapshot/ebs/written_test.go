package ebs

import (
	"crypto/sha256"
	"encoding/base64"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLinearSum writes more blocks than the window holds, in about their order as
// concurrent writers do, and compares with the checksum over all in order.
func TestLinearSum(t *testing.T) {
	const blocks = 3*windowSize + 17
	w := &written{window: map[int64][sha256.Size]byte{}}
	all := sha256.New()
	order := make([]int64, blocks)
	for i := range order {
		order[i] = int64(3 * i)
		sum := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
		all.Write(sum[:])
	}
	random := rand.New(rand.NewPCG(1, 2))
	for at := 0; at < blocks; at += 64 { // 64 of them at a time
		part := order[at:min(at+64, blocks)]
		random.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
	}
	for _, index := range order {
		i := index / 3
		w.add(index, sha256.Sum256([]byte{byte(i), byte(i >> 8)}))
		require.Less(t, len(w.window), 2*windowSize, "memory is bounded")
	}
	again := order[blocks-1]
	w.add(again, sha256.Sum256([]byte{byte(again / 3), byte((again / 3) >> 8)}))
	for range 2 {
		count, sum := w.sum()
		require.EqualValues(t, blocks, count)
		require.Equal(t, base64.StdEncoding.EncodeToString(all.Sum(nil)), sum)
	}
	w.add(0, sha256.Sum256(nil))
	_, sum := w.sum()
	require.Empty(t, sum, "a block that comes when its turn is over")
}
