package snapshottest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/snapshot"
)

var locateTests = []namedTest{
	{"locate fills in the volume", testLocate},
	{"locate names all claims that are missing", testLocateMissing},
	{"locate refuses a claim that is not bound", testLocateUnbound},
	{"locate refuses a volume of another kind", testLocateStrange},
	{"locate follows its context", testLocateCancelled},
}

func testLocate(t *testing.T, s *suite) {
	before := s.located(t, "data-mysql-0", "log-mysql-0")
	inventory := s.Inventory(t)
	located, err := s.snap.Locate(t.Context(), []snapshot.Volume{s.volume("log-mysql-0"), s.volume("data-mysql-0")})
	require.NoError(t, err)
	require.Len(t, located, 2, "one for each that was asked for, in order")
	require.Equal(t, before[1], located[0])
	require.Equal(t, before[0], located[1])
	for _, v := range located {
		require.Equal(t, s.owner, v.Owner)
		require.Equal(t, s.Namespace, v.Namespace)
		require.Equal(t, s.get(t, s.Namespace, v.Claim).Spec.VolumeName, v.PersistentVolume)
		require.NotEmpty(t, v.Handle)
		require.NotEmpty(t, v.Driver)
		require.GreaterOrEqual(t, v.Size, s.Size)
		require.False(t, v.Block)
	}
	require.NotEqual(t, located[0].Handle, located[1].Handle)
	require.ElementsMatch(t, inventory, s.Inventory(t), "looking changes nothing")
}

func testLocateMissing(t *testing.T, s *suite) {
	s.located(t, "data-mysql-0")
	_, err := s.snap.Locate(t.Context(), []snapshot.Volume{s.volume("data-mysql-8"), s.volume("data-mysql-0"), s.volume("data-mysql-9")})
	require.ErrorIs(t, err, snapshot.ErrNotFound)
	require.ErrorContains(t, err, "data-mysql-8")
	require.ErrorContains(t, err, "data-mysql-9")
	require.NotContains(t, err.Error(), "data-mysql-0")
}

func testLocateUnbound(t *testing.T, s *suite) {
	claim := s.claim(s.Namespace, "data-mysql-0")
	claim.Spec.VolumeName = "no-such-volume"
	_, err := s.Kube.CoreV1().PersistentVolumeClaims(s.Namespace).Create(t.Context(), claim, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = s.snap.Locate(t.Context(), []snapshot.Volume{s.volume("data-mysql-0")})
	require.ErrorIs(t, err, snapshot.ErrNotFound)
	require.ErrorContains(t, err, "data-mysql-0")
}

func testLocateStrange(t *testing.T, s *suite) {
	s.BindStrange(t, s.claim(s.Namespace, "data-mysql-0"))
	_, err := s.snap.Locate(t.Context(), []snapshot.Volume{s.volume("data-mysql-0")})
	require.ErrorIs(t, err, snapshot.ErrUnsupported)
	require.ErrorContains(t, err, "data-mysql-0")
}

func testLocateCancelled(t *testing.T, s *suite) {
	volumes := s.located(t, "data-mysql-0")
	_, err := s.snap.Locate(cancelled(t), volumes)
	require.ErrorIs(t, err, context.Canceled)
}
