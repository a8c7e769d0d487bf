package repository

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
	"keepset/internal/storage"
)

// shards are the rows of a set whose members have nothing in common.
func shards(n int) map[int]content {
	all := make(map[int]content)
	for ordinal := range n {
		c := content{}
		for db := range 4 {
			c[fmt.Sprintf("data/db%d", db)] = text(uint64(100*ordinal+db), 2<<20/raceScale)
		}
		all[ordinal] = c
	}
	return all
}

// backUp takes a backup of some members, and returns what it stored.
func backUp(t *testing.T, store storage.Store, m mode, n int, members map[int]content, change func(*record.Plan)) int64 {
	t.Helper()
	plan := testPlan(n, sortedOrdinals(members)...)
	change(&plan)
	b := begin(t, store, m, plan, "attempt-1")
	var stored int64
	for _, ordinal := range sortedOrdinals(members) {
		stored += writeMember(t, b, ordinal, members[ordinal]).Stored
	}
	require.NoError(t, b.Close())
	return stored
}

func sortedOrdinals(members map[int]content) []int {
	var ordinals []int
	for ordinal := range 100 {
		if _, ok := members[ordinal]; ok {
			ordinals = append(ordinals, ordinal)
		}
	}
	return ordinals
}

// TestBackupByHandCostsTheNextOneNothing: a run over some databases or ordinals
// becomes the newest complete backup. The next run over everything finds what
// the last whole one has stored nevertheless.
func TestBackupByHandCostsTheNextOneNothing(t *testing.T) {
	whole := func(*record.Plan) {}
	for _, m := range modes(t) {
		t.Run(m.name, func(t *testing.T) {
			store := initStore(t, m)
			members := shards(3)
			first := backUp(t, store, m, 0, members, whole)
			oneDatabase := map[int]content{}
			for ordinal, c := range members {
				oneDatabase[ordinal] = content{"data/db0": c["data/db0"]}
			}
			only := func(p *record.Plan) { p.Databases = []string{"db0"} }
			hand := backUp(t, store, m, 1, oneDatabase, only)
			nightly := backUp(t, store, m, 2, members, whole)
			t.Logf("measured: %d bytes stored first, %d by one database, %d by the next of everything", first, hand, nightly)
			require.Less(t, hand, first/100, "it is all there")
			require.Less(t, nightly, first/100)

			// Several by hand, and among them all databases of one ordinal.
			backUp(t, store, m, 3, oneDatabase, only)
			backUp(t, store, m, 4, map[int]content{1: members[1]}, func(p *record.Plan) { p.Ordinals = "1" })
			backUp(t, store, m, 5, oneDatabase, only)
			nightly = backUp(t, store, m, 6, members, whole)
			t.Logf("measured: %d bytes stored after one ordinal by hand", nightly)
			require.Less(t, nightly, first/100)

			// A new ordinal is in no backup; what it has in common is found.
			members[3] = content{"data/db0": members[0]["data/db0"]}
			backUp(t, store, m, 7, oneDatabase, only)
			nightly = backUp(t, store, m, 8, members, whole)
			require.Less(t, nightly, first/100)
		})
	}
}

// TestBasesAreBounded: a set whose new ordinal no backup has does not have all
// its history read.
func TestBasesAreBounded(t *testing.T) {
	plan := testPlan(0, 0, 1)
	w := newWanted(&plan)
	old := testPlan(0, 0)
	looked := 0
	for ; w.more(); looked++ {
		require.Equal(t, looked == 0, w.take(&old), "one of those is enough")
	}
	require.Equal(t, baseLimit, looked)
	w = newWanted(&plan)
	require.True(t, w.take(&plan))
	require.False(t, w.more())
	other := plan
	other.Method = record.MethodSnapshot
	w = newWanted(&plan)
	for looked = 0; w.more(); looked++ {
		require.Equal(t, looked == 0, w.take(&other), "the newest may have something in common")
	}
	require.Equal(t, otherLimit, looked)
}

// TestBaseOfTheSameMethod: dumps that are taken between two copies of the same
// volumes do not keep the second from finding the first.
func TestBaseOfTheSameMethod(t *testing.T) {
	const dumps = baseLimit + 4
	m := plainMode()
	store := initStore(t, m)
	members := shards(2)
	copied := func(p *record.Plan) { p.Method = record.MethodSnapshot }
	first := backUp(t, store, m, 0, members, copied)
	for n := range dumps {
		backUp(t, store, m, 1+n, map[int]content{0: {"dump": text(uint64(n), 100)}, 1: {"dump": text(uint64(n), 100)}}, func(*record.Plan) {})
	}
	require.Less(t, backUp(t, store, m, 1+dumps, members, copied), first/100)
}
