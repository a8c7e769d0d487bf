package ebs_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/snapshot"
	"keepset/internal/snapshot/ebs"
	"keepset/internal/snapshot/ebstest"
)

// copied is a world with a snapshot that has a copy.
func copied(t *testing.T) (*world, snapshot.Ref) {
	t.Helper()
	w := newWorld(t, func(_ *ebstest.Options, o *ebs.Options) { o.Copies = []string{otherRegion} })
	ref := w.cut(t, w.located(t, "data-mysql-0"))[0]
	ref, err := w.snap.Copy(t.Context(), ref, owner, otherRegion)
	require.NoError(t, err)
	require.Len(t, w.aws.Snapshots(), 2)
	return w, ref
}

// TestDeleteFindsCopiesThatNobodyKnowsOf: the reply to their CopySnapshot was
// lost with the process that had asked for them.
func TestDeleteFindsCopiesThatNobodyKnowsOf(t *testing.T) {
	t.Parallel()
	w, ref := copied(t)
	ref.Copies = nil
	require.NoError(t, w.snap.Delete(t.Context(), owner, ref))
	require.Empty(t, w.aws.Snapshots())
}

func TestNearIsInTheRegionOfTheZone(t *testing.T) {
	t.Parallel()
	w, ref := copied(t)
	for zone, want := range map[string]string{"": ref.ID, zoneB: ref.ID, "rack-7": ref.ID, "eu-west-1a": ref.Copies[0].ID} {
		near, err := w.snap.Near(ref, zone)
		require.NoError(t, err)
		require.Equal(t, want, near.ID, zone)
		require.NoError(t, w.snap.WaitReady(t.Context(), near), zone)
	}
	_, err := w.snap.Near(ref, "ap-south-1a")
	require.ErrorIs(t, err, snapshot.ErrNotFound)
	require.ErrorContains(t, err, "no copy in ap-south-1")
}

// TestListInOneRegion whether or not copies go there now.
func TestListInOneRegion(t *testing.T) {
	t.Parallel()
	w, ref := copied(t)
	s := w.open(t, w.options())
	for region, want := range map[string]string{region: ref.ID, otherRegion: ref.Copies[0].ID} {
		var ids []string
		for r, err := range s.ListIn(t.Context(), owner, region) {
			require.NoError(t, err)
			require.Equal(t, region, r.Region)
			ids = append(ids, r.ID)
		}
		require.Equal(t, []string{want}, ids)
	}
}

// TestWithoutACluster: who prunes, or looks for orphans, needs none.
func TestWithoutACluster(t *testing.T) {
	t.Parallel()
	w, ref := copied(t)
	o := w.options()
	o.Kube = nil
	s := w.open(t, o)
	for r, err := range s.List(t.Context(), owner) {
		require.NoError(t, err)
		require.Equal(t, ref.ID, r.ID)
	}
	_, err := s.Locate(t.Context(), []snapshot.Volume{{Owner: owner, Namespace: namespace, Claim: "data-mysql-0"}})
	require.ErrorContains(t, err, "no Kubernetes cluster")
	require.ErrorContains(t, s.Provision(t.Context(), ref, target("data-mysql-2")), "no Kubernetes cluster")
	require.ErrorContains(t, s.Scrap(t.Context(), target("data-mysql-2")), "no Kubernetes cluster")
	require.NoError(t, s.Delete(t.Context(), owner, ref))
	require.Empty(t, w.aws.Snapshots())
}
