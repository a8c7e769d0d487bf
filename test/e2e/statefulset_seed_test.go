package e2e

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keepset/internal/statefulset"
)

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(text)
}

// A new ordinal is filled before its pod first starts, even though somebody
// scales the set up meanwhile, the seed is deleted, and its Job with it.
func TestSeedScaleUp(t *testing.T) {
	t.Parallel()
	s := newSimulation(t, 3, "OrderedReady")
	guard := s.watch("db-3")
	seed := s.seed(s.client, 3, "run-a", fillWhenOld, false)
	require.NoError(t, seed.Place(t.Context()))
	_, err := seed.WaitRunning(t.Context())
	require.NoError(t, err)

	s.kubectl("scale", "statefulset", "db", "--replicas=4")
	s.kubectl("delete", "pod", "db-3", "--wait=false")
	require.ErrorIs(t, seed.WaitExit(t.Context()), statefulset.ErrSeedFailed, "a seed that somebody deletes has failed")
	s.until(time.Minute, "the deleted seed ends", func() bool {
		pod := s.pod("db-3")
		require.NotNil(t, pod, "its name has fallen free")
		return pod.DeletionTimestamp != nil && len(pod.Status.ContainerStatuses) > 0 && pod.Status.ContainerStatuses[0].State.Terminated != nil
	})
	deleted := s.pod("db-3").UID
	require.Never(t, func() bool { pod := s.pod("db-3"); return pod == nil || pod.UID != deleted }, 4*time.Second, 100*time.Millisecond,
		"its name stays taken, so that the controller, which wants the ordinal by now, starts nothing on the half-loaded claim")
	addresses := s.kubectl("get", "endpointslices", "-o", "jsonpath={.items[*].endpoints[*].targetRef.name}")
	require.NotContains(t, addresses, "db-3", "no Service may send clients to a seed, not even one that publishes all")

	again := s.seed(s.client, 3, "run-b", fillAtOnce, false)
	status, err := again.Inspect(t.Context())
	require.NoError(t, err)
	require.Equal(t, statefulset.SeedHalf, status.State)
	require.Equal(t, "run-a", status.Run)
	require.NoError(t, again.Place(t.Context()))
	require.NoError(t, again.WaitExit(t.Context()))
	require.Error(t, again.Release(t.Context()), "what is not marked as loaded is not released")
	require.NoError(t, again.MarkLoaded(t.Context(), "backup-1"))
	require.Empty(t, guard.seen(), "the real pod must not have been Ready before its release")
	require.NoError(t, again.Release(t.Context()))
	s.requireFilled(3)
	require.NoError(t, s.client.WaitReady(t.Context(), s.discover(), 3, time.Minute))

	claim, err := s.kube.CoreV1().PersistentVolumeClaims(s.ns).Get(t.Context(), "data-db-3", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, "backup-1", claim.Annotations[statefulset.AnnotationSeeded])
	require.Equal(t, "db", claim.Labels["app"], "as the controller would have made it")
	require.Empty(t, claim.OwnerReferences, "deleting the Job must not take the claim along")
}

// 2 -> 3 -> 2 -> 3: the scale-down leaves a claim, which is neither used nor
// deleted without a word.
func TestSeedLeftoverClaim(t *testing.T) {
	t.Parallel()
	s := newSimulation(t, 2, "Parallel")
	require.NoError(t, fill(t.Context(), s.seed(s.client, 2, "run-a", fillAtOnce, false), "backup-1"))
	require.Nil(t, s.pod("db-2"), "nobody has scaled the set yet")
	require.NoError(t, s.client.ScaleTo(t.Context(), "db", 3))
	s.requireFilled(2)
	require.NoError(t, s.client.ScaleTo(t.Context(), "db", 2), "never down")
	require.Equal(t, 3, s.discover().Replicas)

	s.kubectl("scale", "statefulset", "db", "--replicas=2")
	s.until(time.Minute, "db-2 is gone", func() bool { return s.pod("db-2") == nil })
	set := s.discover()
	require.Len(t, set.Beyond, 1)
	require.Equal(t, 2, set.Beyond[0].Ordinal)

	refused := s.seed(s.client, 2, "run-b", fillAtOnce, false)
	err := refused.Place(t.Context())
	require.ErrorIs(t, err, statefulset.ErrClaimInUse)
	require.ErrorContains(t, err, "--replace")
	require.ErrorContains(t, err, "--keep")
	_, err = refused.Plan(t.Context())
	require.ErrorIs(t, err, statefulset.ErrClaimInUse)

	replaced := s.seed(s.client, 2, "run-b", fillAtOnce, true)
	steps, err := replaced.Plan(t.Context())
	require.NoError(t, err)
	require.Contains(t, steps[0], "delete claim data-db-2 (volume pvc-")
	require.NoError(t, fill(t.Context(), replaced, "backup-2"))
	require.NoError(t, s.client.ScaleTo(t.Context(), "db", 3))
	s.requireFilled(2)
}

// An ordinal in the middle is recovered while its neighbours go on, with the
// rights of the shipped Role and none on volumes.
func TestSeedRecoversMiddleOrdinal(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"OrderedReady", "Parallel"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			s := newSimulation(t, 3, policy)
			before := map[string]string{"db-0": string(s.pod("db-0").UID), "db-2": string(s.pod("db-2").UID)}
			old := s.kubectl("get", "pvc", "data-db-1", "-o", "jsonpath={.metadata.uid}")
			require.ErrorIs(t, fill(t.Context(), s.seed(s.client, 1, "run-a", fillAtOnce, false), "b"), statefulset.ErrClaimInUse)
			require.NoError(t, fill(t.Context(), s.seed(s.client, 1, "run-a", fillAtOnce, true), "backup-1"))
			s.requireFilled(1)
			require.NotEqual(t, old, s.kubectl("get", "pvc", "data-db-1", "-o", "jsonpath={.metadata.uid}"))
			for name, uid := range before {
				require.Equal(t, uid, string(s.pod(name).UID), "%s was left alone", name)
			}
		})
	}
}

// With OrderedReady and ordinal 0 broken the controller does nothing for the
// others. The lowest is recovered first, and each all the same.
func TestSeedRecoversBrokenFirstOrdinal(t *testing.T) {
	t.Parallel()
	s := newSimulation(t, 2, "OrderedReady")
	require.NoError(t, fill(t.Context(), s.seed(s.client, 1, "run-a", fillAtOnce, true), "backup-1"))
	s.requireFilled(1)
	// Both pods and volumes are lost at once.
	seed0, seed1 := s.seed(s.client, 0, "run-b", fillWhenOld, true), s.seed(s.client, 1, "run-b", fillAtOnce, true)
	require.NoError(t, seed0.Place(t.Context()))
	require.NoError(t, seed1.Place(t.Context()), "the controller is stuck at ordinal 0, so the claim is ours to make")
	require.NoError(t, seed1.WaitExit(t.Context()))
	require.NoError(t, seed1.MarkLoaded(t.Context(), "backup-2"))
	require.NoError(t, seed1.Release(t.Context()))
	blocking := s.discover().Blocking([]int{1})
	require.Len(t, blocking, 1)
	_, err := seed0.WaitRunning(t.Context())
	require.NoError(t, err)
	s.kubectl("exec", "db-0", "--", "touch", "/data/go")
	require.NoError(t, seed0.WaitExit(t.Context()))
	require.NoError(t, seed0.MarkLoaded(t.Context(), "backup-2"))
	require.NoError(t, seed0.Release(t.Context()))
	s.requireFilled(0)
	s.requireFilled(1)
}

// A seed that cannot start says why, in one error.
func TestSeedFailures(t *testing.T) {
	t.Parallel()
	s := newSimulation(t, 1, "OrderedReady")
	for name, c := range map[string]struct{ patch, says string }{
		"crash":    {`{spec: {containers: [{name: db, command: [bash, -c, "echo no space left; exit 3"]}]}}`, "container db ended with exit code 3; its last lines:\nno space left"},
		"no image": {`{spec: {containers: [{name: db, image: "keepset-test/absent:1"}]}}`, "ErrImageNeverPull"},
		"nowhere":  {`{spec: {nodeSelector: {disk: gold}}}`, "didn't match Pod's node affinity/selector"},
	} {
		timeout := time.Minute
		if name == "nowhere" {
			timeout = 20 * time.Second // its claim is bound by then
		}
		seed, err := s.client.NewSeed(s.discover(), statefulset.SeedSpec{
			Ordinal: 1, Patch: []byte(c.patch), StartTimeout: timeout, DiscoverOptions: statefulset.DiscoverOptions{DefaultPort: 3306},
		}, runOf("run-"+name[:2]), noFence)
		require.NoError(t, err)
		require.NoError(t, seed.Place(t.Context()), name)
		_, err = seed.WaitRunning(t.Context())
		if err == nil { // seen in the moment in which it ran
			s.until(time.Minute, name+" is noticed", func() bool {
				err = seed.Alive(t.Context())
				return err != nil
			})
		}
		require.ErrorIs(t, err, statefulset.ErrSeedFailed, name)
		require.ErrorContains(t, err, c.says, name)
	}
}
