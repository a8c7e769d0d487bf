package pains

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	core "k8s.io/client-go/testing"

	"keepset/internal/statefulset"
)

// This file: what stood in the way for ever.

// cloudnative-pg #10385: one failure of the store, long over, kept every later backup from starting.
func TestPain12OneFailure(t *testing.T) {
	t.Parallel()
	server := newShop(t)
	s := newSite(t, server.Addr)
	running, release := s.stuck(server)
	require.NoError(t, os.Rename(s.repository, s.repository+".away"))
	release()
	require.Error(t, running.Wait())
	require.NotZero(t, running.ProcessState.ExitCode())

	require.NoError(t, os.Rename(s.repository+".away", s.repository))
	s.backUp(0)
	require.Equal(t, []string{"complete", "incomplete"}, s.statuses(), "nobody has cleaned up")
	s.run(0, "backup", "verify", "--read-data", "100")
}

// cloudnative-pg #6470: a restored cluster could not be backed up to where its backups were: "Expected empty archive".
func TestPain13SamePlace(t *testing.T) {
	t.Parallel()
	restored := newServer(t)
	s := newSite(t, shop(t).Addr)
	s.backUp(0, "--origin", "old-cluster")
	s.load(0, restored)

	// Where two sets would be mixed it is said, together with the way on.
	s.sources = []string{restored.Addr}
	said := s.backUp(64, "--origin", "new-cluster")
	require.Contains(t, said, "if this cluster has taken the other's place")
	require.Contains(t, said, "give --origin old-cluster")
	s.backUp(0, "--origin", "old-cluster")

	// Each backup stands for itself, whatever server it is of.
	list := s.list()
	require.Len(t, list, 2)
	for _, b := range list {
		require.Equal(t, "complete", b.Status)
		s.load(0, restored, "--replace", "--backup", b.Backup)
		require.Equal(t, shop(t).Value(t, orders), restored.Value(t, orders))
	}
}

// volsync #1042, stash #838 and k8up #456: a pod died, and its lock on the repository stayed until somebody removed it.
func TestPain22DeadPod(t *testing.T) {
	t.Parallel()
	server := newShop(t)
	s := newSite(t, server.Addr)
	running, release := s.stuck(server)
	require.NoError(t, running.Process.Kill())
	require.Error(t, running.Wait())
	release()
	s.backUp(0)
	s.run(0, "backup", "verify", "--read-data", "100")
	s.run(0, "backup", "prune", "--keep-last", "1")
	s.load(0, server, "--rename", "shop=copy")
	require.Equal(t, "3000", server.Value(t, "SELECT COUNT(*) FROM copy.orders"))
}

// The same of the one lock that there is, which keeps restores of a set apart: it expires with its holder, who finds out.
func TestPain22DeadRestore(t *testing.T) {
	t.Parallel()
	kube := fake.NewClientset()
	versions := 0
	kube.PrependReactor("*", "leases", func(a core.Action) (bool, runtime.Object, error) {
		if write, ok := a.(core.CreateAction); ok { // an update is one, too
			lease, ok := write.GetObject().(*coordinationv1.Lease)
			require.True(t, ok)
			versions++
			lease.ResourceVersion = strconv.Itoa(versions) // as the API server does
		}
		return false, nil, nil
	})
	client := statefulset.New(kube, "shop", nil)
	lock := func(run string) (*statefulset.Hold, error) {
		return client.Acquire(t.Context(), "db", statefulset.Run{ID: run, PodUID: "pod-of-" + run}, statefulset.LeaseOptions{})
	}
	dead, err := lock("run-1")
	require.NoError(t, err)
	_, err = lock("run-2")
	require.ErrorIs(t, err, statefulset.ErrBusy, "it is alive")

	leases := kube.CoordinationV1().Leases("shop")
	lease, err := leases.Get(t.Context(), statefulset.LeaseName("db"), metav1.GetOptions{})
	require.NoError(t, err)
	*lease.Spec.RenewTime = metav1.NewMicroTime(time.Now().Add(-time.Hour)) // its node is gone
	_, err = leases.Update(t.Context(), lease, metav1.UpdateOptions{})
	require.NoError(t, err)

	hold, err := lock("run-2")
	require.NoError(t, err)
	require.ErrorIs(t, dead.Check(t.Context()), statefulset.ErrLeaseLost, "should its node come back")
	require.NoError(t, dead.Release(t.Context()))
	require.NoError(t, hold.Check(t.Context()))
	require.NoError(t, hold.Release(t.Context()))
}
