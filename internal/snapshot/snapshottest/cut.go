package snapshottest

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/snapshot"
)

var cutTests = []namedTest{
	{"cut says what it cut", testCut},
	{"cut of the same name is the same cut", testCutAgain},
	{"cut of another name is another cut", testCutAnother},
	{"cut is of the moment, not of later", testCutMoment},
	{"cut of two claims is of one moment", testCutTwoClaims},
	{"cut of a lost volume fails and leaves nothing unfound", testCutLost},
	{"concurrent cuts of one name are one cut", testCutConcurrent},
	{"cancelled cut cuts nothing", testCutCancelled},
	{"snapshot that fails is reported", testWaitFailed},
	{"snapshot that is gone is reported", testWaitGone},
	{"wait follows its context", testWaitCancelled},
}

func testCut(t *testing.T, s *suite) {
	volumes := s.located(t, "data-mysql-0", "log-mysql-0")
	refs, err := s.snap.Cut(t.Context(), cutName, volumes)
	require.NoError(t, err)
	require.Len(t, refs, 2)
	for i, r := range refs {
		require.Equal(t, volumes[i].Claim, r.Claim, "in order")
		require.Equal(t, volumes[i].Handle, r.Volume)
		require.Equal(t, volumes[i].Driver, r.Driver)
		require.Equal(t, volumes[i].Template, r.Template)
		require.Equal(t, volumes[i].Zone, r.Zone)
		require.Equal(t, volumes[i].FSType, r.FSType)
		require.Equal(t, volumes[i].Size, r.Size)
		require.NotEmpty(t, r.ID)
		require.Equal(t, cutName, r.Cut)
		require.Equal(t, s.OneMoment, r.Together)
		require.NotEmpty(t, r.Provider)
		require.WithinDuration(t, time.Now(), r.CutAt, time.Hour)
		require.NoError(t, s.snap.WaitReady(t.Context(), r))
	}
	require.NotEqual(t, refs[0].ID, refs[1].ID)
	require.Len(t, s.list(t, s.owner), 2)
}

func testCutAgain(t *testing.T, s *suite) {
	volumes := s.located(t, "data-mysql-0", "log-mysql-0")
	first, err := s.snap.Cut(t.Context(), cutName, volumes)
	require.NoError(t, err)
	inventory := s.Inventory(t)
	second, err := s.snap.Cut(t.Context(), cutName, volumes)
	require.NoError(t, err)
	require.Equal(t, first, second)
	require.ElementsMatch(t, inventory, s.Inventory(t))
}

func testCutAnother(t *testing.T, s *suite) {
	volumes := s.located(t, "data-mysql-0")
	first, err := s.snap.Cut(t.Context(), cutName, volumes)
	require.NoError(t, err)
	second, err := s.snap.Cut(t.Context(), "20261121T131730Z-1a2b3c4d-0", volumes)
	require.NoError(t, err)
	require.NotEqual(t, first[0].ID, second[0].ID)
	require.Len(t, s.list(t, s.owner), 2)
}

func testCutMoment(t *testing.T, s *suite) {
	volumes := s.located(t, "data-mysql-0")
	refs, err := s.snap.Cut(t.Context(), cutName, volumes)
	require.NoError(t, err)
	s.Write(t, s.Namespace, "data-mysql-0", "written after the cut")
	require.NoError(t, s.snap.WaitReady(t.Context(), refs[0]))
	require.NoError(t, s.snap.Provision(t.Context(), refs[0], s.target("data-mysql-2")))
	require.Equal(t, "data-mysql-0", s.Read(t, s.Namespace, "data-mysql-2"))
}

// testCutTwoClaims writes a number to the first volume and then to the second,
// all the time: at any moment the first one holds what the second does, or one more.
func testCutTwoClaims(t *testing.T, s *suite) {
	volumes := s.located(t, "data-mysql-0", "log-mysql-0")
	begun, stop := make(chan struct{}), make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for n := 1; ; n++ {
			for _, v := range volumes {
				s.Write(t, s.Namespace, v.Claim, strconv.Itoa(n))
			}
			if n == 1 {
				close(begun)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	<-begun
	refs, err := s.snap.Cut(t.Context(), cutName, volumes)
	close(stop)
	writer.Wait()
	require.NoError(t, err)
	numbers := make([]int, 0, 2)
	for _, r := range refs {
		require.NoError(t, s.snap.WaitReady(t.Context(), r))
		target := s.target("new-" + r.Claim)
		require.NoError(t, s.snap.Provision(t.Context(), r, target))
		n, err := strconv.Atoi(s.Read(t, s.Namespace, target.Claim.Name))
		require.NoError(t, err)
		numbers = append(numbers, n)
	}
	if s.OneMoment {
		require.Contains(t, []int{0, 1}, numbers[0]-numbers[1], "%v: the two volumes are not of one moment", numbers)
	}
}

func testCutLost(t *testing.T, s *suite) {
	volumes := s.located(t, "data-mysql-0", "log-mysql-0")
	s.Lose(t, s.Namespace, "log-mysql-0")
	before := s.Inventory(t)
	_, err := s.snap.Cut(t.Context(), cutName, volumes)
	require.Error(t, err)
	require.ErrorContains(t, err, "log-mysql-0")
	for _, r := range s.list(t, s.owner) {
		require.NoError(t, s.snap.Delete(t.Context(), s.owner, r))
	}
	s.requireInventory(t, before)
}

func testCutConcurrent(t *testing.T, s *suite) {
	volumes := s.located(t, "data-mysql-0", "log-mysql-0")
	const cutters = 8
	var group sync.WaitGroup
	refs, errs := make([][]snapshot.Ref, cutters), make([]error, cutters)
	for i := range cutters {
		group.Go(func() { refs[i], errs[i] = s.snap.Cut(t.Context(), cutName, volumes) })
	}
	group.Wait()
	for i := range cutters {
		require.NoError(t, errs[i])
		require.Equal(t, refs[0], refs[i])
	}
	require.Len(t, s.list(t, s.owner), 2)
}

func testCutCancelled(t *testing.T, s *suite) {
	volumes := s.located(t, "data-mysql-0")
	before := s.Inventory(t)
	_, err := s.snap.Cut(cancelled(t), cutName, volumes)
	require.ErrorIs(t, err, context.Canceled)
	require.ElementsMatch(t, before, s.Inventory(t))
}

func testWaitFailed(t *testing.T, s *suite) {
	volumes := s.located(t, "data-mysql-0")
	s.FailSnapshots(t, "the disk is on fire")
	refs, err := s.snap.Cut(t.Context(), cutName, volumes)
	if err == nil {
		err = s.snap.WaitReady(t.Context(), refs[0])
	}
	require.ErrorIs(t, err, snapshot.ErrFailed)
	require.ErrorContains(t, err, "the disk is on fire")
}

func testWaitGone(t *testing.T, s *suite) {
	ref := s.cut(t)
	require.NoError(t, s.snap.Delete(t.Context(), s.owner, ref))
	require.ErrorIs(t, s.snap.WaitReady(t.Context(), ref), snapshot.ErrNotFound)
}

func testWaitCancelled(t *testing.T, s *suite) {
	ref := s.cut(t)
	require.ErrorIs(t, s.snap.WaitReady(cancelled(t), ref), context.Canceled)
}
