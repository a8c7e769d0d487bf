package faults

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestStorm tells random stories of a repository in all kinds of weather: backups with a base and without, killed and
// resumed, lists, verifications, restores, prunes, deletions by name, pins and copies, by pods whose clocks are hours off.
// After every step everything that was called good is restored.
func TestStorm(t *testing.T) {
	n, seed := rounds(t, 8, 1000)
	sum := &figures{steps: map[string]int{}, failed: map[string]int{}, met: map[front]int{}}
	for i := range n {
		ok := t.Run(fmt.Sprint(seed+uint64(i)), func(t *testing.T) {
			newStory(t, seed+uint64(i), sum).tell(14)
		})
		require.True(t, ok, "KEEPSET_SEED=%d KEEPSET_ROUNDS=1 tells this story again", seed+uint64(i))
	}
	t.Logf("measured: %d stories: %s; faults: %s; %d backups were reported complete", n, sum, sum.weathers(), sum.complete)
	if n < 100 {
		return // too few to meet with everything
	}
	for _, front := range fronts[1 : len(fronts)-1] {
		require.Positive(t, sum.met[front], "no %s: the test has lost its grip on the store", front)
	}
}

// figures are what a run counts.
type figures struct {
	steps, failed map[string]int
	met           map[front]int
	complete      int
}

func (f *figures) String() string {
	var parts []string
	for _, step := range slices.Sorted(maps.Keys(f.steps)) {
		parts = append(parts, fmt.Sprintf("%d %s (%d failed)", f.steps[step], step, f.failed[step]))
	}
	return strings.Join(parts, ", ")
}

func (f *figures) weathers() string {
	var parts []string
	for _, front := range fronts[1 : len(fronts)-1] {
		parts = append(parts, fmt.Sprintf("%d %s", f.met[front], front))
	}
	return strings.Join(parts, ", ")
}
