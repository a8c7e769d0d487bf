package job_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/snapshot"
)

func TestOrphansInBothDirections(t *testing.T) {
	c := newCutter(t, 2)
	report, err := c.backup().Run(t.Context())
	require.NoError(t, err)
	owner := snapshot.Owner{Cluster: "here", Set: volumesSet}
	cut := func(name string) string {
		refs, err := c.volumes.Cut(t.Context(), name, []snapshot.Volume{{Owner: owner, Claim: "data-mysql-0", Handle: "vol", Size: 1}})
		require.NoError(t, err)
		return refs[0].ID
	}
	old := cut("nobody's")
	c.clock.Add(48 * time.Hour)
	young := cut("of a run that may go on")
	lost := report.Members[1].VolumeSnapshots[0]
	require.NoError(t, c.volumes.Delete(t.Context(), owner, lost))

	found, err := (&job.Orphans{
		Repository: c.repo, Set: volumesSet, Snapshotter: c.volumes, Provider: record.ProviderEBS, Cluster: "here", Clock: c.clock.Now,
	}).Run(t.Context())
	require.NoError(t, err)
	require.Equal(t, 4, found.Needed)
	require.Len(t, found.Orphans, 1)
	require.Equal(t, old, found.Orphans[0].ID)
	require.Len(t, found.Young, 1)
	require.Equal(t, young, found.Young[0].ID)
	require.Len(t, found.Missing, 1)
	require.Equal(t, 1, found.Missing[0].Ordinal)
	require.Equal(t, lost.ID, found.Missing[0].Snapshot.ID)

	another, err := (&job.Orphans{
		Repository: c.repo, Set: volumesSet, Snapshotter: c.volumes, Provider: record.ProviderCSI, Cluster: "elsewhere", Clock: c.clock.Now,
	}).Run(t.Context())
	require.NoError(t, err)
	require.Equal(t, &job.OrphansReport{
		Set: "shop/mysql", Missing: []job.MissingSnapshot{}, Orphans: []record.VolumeSnapshot{}, Young: []record.VolumeSnapshot{},
	}, another)
}
