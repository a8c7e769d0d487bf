package job_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/job"
	"keepset/internal/statefulset"
)

// bringUp is a restore of the backup whose servers are started on the files in
// their seed pods.
func (c *cluster) bringUp(w *world, d *databases, q job.Request) *job.Restore {
	r := c.fill(w, nil, q)
	d.c = c
	r.Servers = d
	r.Files.Adopt = &statefulset.Adoption{Script: "prepare"}
	return r
}

// A server comes up in the seed pod on the files that it was filled with, is made
// one of its own, follows, and is shut down before the name is let go.
func TestRestoreOfCopies(t *testing.T) {
	w := copiedWorld(t)
	for name, c := range map[string]struct {
		replicas int32
		request  job.Request
		fills    []string
		steps    []string
	}{
		"a new follower": {2, job.Request{Replicas: 3}, []string{fmt.Sprintf("2 of 1 in /keepset-files/files behind %q", upstream)}, []string{"adopt", "follow", "shutdown"}},
		"the primary":    {2, job.Request{Ordinals: []int{0}, Replace: true, AllowRollback: true}, []string{`0 of 0 in /keepset-files/files behind ""`}, []string{"adopt", "lead", "shutdown"}},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := newCluster(t, c.replicas)
			report, err := cluster.bringUp(w, &databases{}, c.request).Execute(t.Context())
			require.NoError(t, err)
			require.Equal(t, c.fills, cluster.fills())
			did := slices.DeleteFunc(slices.Clone(cluster.steps), func(s string) bool { return !slices.Contains(append(c.steps, "load"), s) })
			require.Equal(t, c.steps, did, "nothing is loaded over the network")
			require.EqualValues(t, 7, report.Members[0].Rows)
			cluster.requireDone()
		})
	}
}

// An upstream that has purged its logs, and files that cannot be prepared, are
// told; the first before anything is touched.
func TestCopiesThatCannotComeUp(t *testing.T) {
	w := copiedWorld(t)
	cluster := newCluster(t, 2)
	_, err := cluster.bringUp(w, &databases{check: fmt.Errorf("%w: purged", dbdump.ErrCoordinates)}, recovery).Execute(t.Context())
	require.ErrorIs(t, err, dbdump.ErrCoordinates)
	require.Empty(t, cluster.fills())
	require.NotContains(t, cluster.steps, "delete persistentvolumeclaims data-db-1")

	cluster = newCluster(t, 2)
	cluster.filler = 1
	_, err = cluster.bringUp(w, &databases{}, recovery).Execute(t.Context())
	require.ErrorIs(t, err, statefulset.ErrSeedFailed)
	require.NotContains(t, cluster.steps, "adopt")
	require.Empty(t, cluster.wrong)

	cluster = newCluster(t, 2)
	_, err = cluster.bringUp(w, &databases{unfit: fmt.Errorf("%w: of another version", dbdump.ErrMismatch)}, recovery).Execute(t.Context())
	require.ErrorIs(t, err, dbdump.ErrMismatch)
	require.NotContains(t, cluster.steps, "adopt")
}
