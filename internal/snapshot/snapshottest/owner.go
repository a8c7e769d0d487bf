package snapshottest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/snapshot"
)

var ownerTests = []namedTest{
	{"list yields exactly the owner's", testListOwner},
	{"list of nobody's is empty", testListNobody},
	{"list stops when told", testListStops},
	{"list follows its context", testListCancelled},
	{"delete", testDelete},
	{"delete of a foreign snapshot is refused", testDeleteForeign},
	{"cancelled delete deletes nothing", testDeleteCancelled},
}

// neighbours are owners that differ from ours in one part each.
func (s *suite) neighbours() []snapshot.Owner {
	cluster, namespace, name := s.owner, s.owner, s.owner
	cluster.Cluster = "decade"
	namespace.Set.Namespace = s.OtherNamespace
	name.Set.Name = "mysql-2"
	return []snapshot.Owner{cluster, namespace, name}
}

// cutFor cuts the volumes for somebody else.
func (s *suite) cutFor(t *testing.T, o snapshot.Owner, name string, volumes []snapshot.Volume) snapshot.Ref {
	t.Helper()
	theirs := append([]snapshot.Volume{}, volumes...)
	for i := range theirs {
		theirs[i].Owner = o
	}
	refs, err := s.snap.Cut(t.Context(), name, theirs)
	require.NoError(t, err)
	return refs[0]
}

func testListOwner(t *testing.T, s *suite) {
	volumes := s.located(t, "data-mysql-0")
	ours := []snapshot.Ref{
		s.cutFor(t, s.owner, cutName, volumes),
		s.cutFor(t, s.owner, "20261121T131730Z-1a2b3c4d-0", volumes),
	}
	for i, o := range s.neighbours() {
		volumes := volumes
		if o.Set.Namespace != s.Namespace {
			volumes = s.locatedIn(t, o.Set.Namespace, "data-mysql-0")
		}
		theirs := s.cutFor(t, o, "20261122T131730Z-1a2b3c4d-"+string(rune('0'+i)), volumes)
		listed := s.list(t, o)
		require.Len(t, listed, 1)
		require.Equal(t, theirs.ID, listed[0].ID)
	}
	listed := s.list(t, s.owner)
	require.Len(t, listed, 2)
	for _, l := range listed {
		i := 0
		if l.ID != ours[0].ID {
			i = 1
		}
		require.Equal(t, ours[i].ID, l.ID)
		require.Equal(t, ours[i].Cut, l.Cut)
		require.Equal(t, ours[i].Name, l.Name)
		require.Equal(t, ours[i].Namespace, l.Namespace)
		require.Equal(t, ours[i].Provider, l.Provider)
		require.Equal(t, ours[i].Claim, l.Claim)
	}
}

func testListNobody(t *testing.T, s *suite) {
	s.cut(t)
	for _, o := range s.neighbours() {
		require.Empty(t, s.list(t, o))
	}
}

func testListStops(t *testing.T, s *suite) {
	_, err := s.snap.Cut(t.Context(), cutName, s.located(t, "data-mysql-0", "log-mysql-0"))
	require.NoError(t, err)
	seen := 0
	for _, err := range s.snap.List(t.Context(), s.owner) {
		require.NoError(t, err)
		seen++
		break
	}
	require.Equal(t, 1, seen)
}

func testListCancelled(t *testing.T, s *suite) {
	s.cut(t)
	var last error
	for _, err := range s.snap.List(cancelled(t), s.owner) {
		last = err
	}
	require.ErrorIs(t, last, context.Canceled)
}

func testDelete(t *testing.T, s *suite) {
	volumes := s.located(t, "data-mysql-0", "log-mysql-0")
	before := s.Inventory(t)
	refs, err := s.snap.Cut(t.Context(), cutName, volumes)
	require.NoError(t, err)
	for _, r := range refs {
		require.NoError(t, s.snap.WaitReady(t.Context(), r))
		require.NoError(t, s.snap.Delete(t.Context(), s.owner, r))
	}
	s.requireInventory(t, before)
	require.Empty(t, s.list(t, s.owner))
	require.NoError(t, s.snap.Delete(t.Context(), s.owner, refs[0]), "what is absent is deleted")
}

func testDeleteForeign(t *testing.T, s *suite) {
	ref := s.cut(t)
	before := s.Inventory(t)
	for _, o := range s.neighbours() {
		require.Error(t, s.snap.Delete(t.Context(), o, ref))
	}
	require.ElementsMatch(t, before, s.Inventory(t))
	require.NoError(t, s.snap.WaitReady(t.Context(), ref))
}

func testDeleteCancelled(t *testing.T, s *suite) {
	ref := s.cut(t)
	require.ErrorIs(t, s.snap.Delete(cancelled(t), s.owner, ref), context.Canceled)
	require.NoError(t, s.snap.WaitReady(t.Context(), ref))
}
