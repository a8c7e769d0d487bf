package faults

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
)

// story is a town, and what its people were told.
type story struct {
	*town
	sum *figures
	// begun is the latest backup that was begun and not reported complete, good are those that were.
	begun record.BackupID
	good  map[record.BackupID]bool
	// since is when a backup was begun, pinned are those that stay, and let those that somebody was allowed to delete.
	since  map[record.BackupID]time.Time
	pinned map[record.BackupID]bool
	let    map[record.BackupID]bool
	// copied are complete in the copy.
	copied map[record.BackupID]bool
}

func newStory(t *testing.T, seed uint64, sum *figures) *story {
	t.Helper()
	return &story{
		town: newTown(t, seed), sum: sum, good: map[record.BackupID]bool{}, since: map[record.BackupID]time.Time{},
		pinned: map[record.BackupID]bool{}, let: map[record.BackupID]bool{}, copied: map[record.BackupID]bool{},
	}
}

// steps are what may happen; backups and prunes more often than other things.
var steps = []struct {
	name string
	do   func(*story, context.Context) error
}{
	{"backups", (*story).backup},
	{"backups", (*story).backup},
	{"backups", (*story).backup},
	{"attempts to resume", (*story).resume},
	{"attempts to resume", (*story).resume},
	{"lists", (*story).list},
	{"verifications", (*story).verify},
	{"restores", (*story).restore},
	{"prunes", (*story).prune},
	{"prunes", (*story).prune},
	{"deletions", (*story).remove},
	{"copies", (*story).copy},
	{"pins", (*story).pin},
	{"unpins", (*story).unpin},
}

// tell has so many things happen, each in a weather and by a clock of its own.
func (s *story) tell(length int) {
	for n := range length {
		step := steps[s.rng.IntN(len(steps))]
		if n == 0 {
			step = steps[0]
		}
		s.home.weather.turn(fronts[s.rng.IntN(len(fronts))])
		s.far.weather.turn(fronts[s.rng.IntN(len(fronts))])
		s.skew = time.Duration(s.rng.IntN(11)-5) * time.Hour
		ctx, cancel := context.WithCancel(s.t.Context())
		if s.rng.IntN(4) == 0 { // the pod is killed
			s.home.weather.kill, s.home.weather.left = cancel, s.rng.IntN(60)
		}
		err := step.do(s, ctx)
		cancel()
		s.sum.steps[step.name]++
		if err != nil {
			s.sum.failed[step.name]++
		}
		s.check(fmt.Sprintf("step %d, %s in %s", n, step.name, s.home.weather.front))
		// Longer than lists lag: what somebody does is seen by whoever comes next.
		s.clock.Add(time.Hour + time.Duration(s.rng.IntN([]int{3, 30}[s.rng.IntN(2)]))*time.Hour)
		if s.rng.IntN(3) > 0 {
			s.trade()
		}
	}
	for _, p := range []*place{s.home, s.far} {
		for front, n := range p.weather.met {
			s.sum.met[front] += n
		}
	}
	s.requireTidy()
}

// check holds the stores to what was said of them.
func (s *story) check(what string) {
	s.t.Helper()
	complete := s.requireWhole(s.home, what)
	for id := range s.good {
		require.True(s.t, complete[id] || s.let[id], "%s: backup %s was good, and is lost", what, id)
	}
	if len(s.copied) == 0 {
		return
	}
	complete = s.requireWhole(s.far, what+", in the copy")
	for id := range s.copied {
		require.True(s.t, complete[id], "%s: backup %s was copied, and is lost", what, id)
	}
}

// any is one of them, or none.
func (s *story) any(ids map[record.BackupID]bool) record.BackupID {
	all := append(slices.Sorted(maps.Keys(ids)), "")
	return all[s.rng.IntN(len(all))]
}
