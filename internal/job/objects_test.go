package job_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	core "k8s.io/client-go/testing"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/statefulset"
)

var clusterSet = record.SetID{Namespace: namespace, Name: "db"}

// objectsBackup is a backup of the set shop/db of two replicas, with its objects.
func objectsBackup(t *testing.T, w *world, objects func(context.Context) (statefulset.Objects, error)) {
	t.Helper()
	for _, address := range w.order[1:] {
		w.servers[address].upstream = &record.UpstreamCoordinates{Host: "db-0.db", Port: 3306, Running: true}
	}
	b := w.backup()
	b.Set, b.Objects = clusterSet, objects
	_, err := b.Run(t.Context())
	require.NoError(t, err)
}

// usedCluster is one in which the set and its Service are.
func usedCluster(t *testing.T) *cluster {
	t.Helper()
	c := newCluster(t, 2)
	c.add(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "db", Namespace: namespace}, Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Selector: map[string]string{"app": "db"}}})
	return c
}

func objectsFrom(c *cluster) func(context.Context) (statefulset.Objects, error) {
	return func(ctx context.Context) (statefulset.Objects, error) { return c.client().Objects(ctx, "db", false) }
}

// emptyCluster has nothing of the set.
func emptyCluster(t *testing.T) *cluster {
	t.Helper()
	c := newCluster(t, 0)
	require.NoError(t, c.tracker.Delete(setsResource, namespace, "db"))
	return c
}

// fromNothing restores all of the set into c, objects first, by a run of its own.
func (c *cluster) fromNothing(w *world, q job.Request, run string) (*job.RestoreReport, error) {
	r := c.restore(w, &databases{}, q, run, "pod-"+run)
	r.From, r.Objects, r.Lease.Wait = clusterSet, true, 5*time.Second
	return r.Execute(c.t.Context())
}

// Objects come before the set, the set before its Lease, and it without a
// replica: what comes after is what fills it.
func TestFromNothingSteps(t *testing.T) {
	w := newWorld(t, 3, 3)
	objectsBackup(t, w, objectsFrom(usedCluster(t)))
	c := emptyCluster(t)
	report, err := c.fromNothing(w, job.Request{All: true}, "run-1")
	require.NoError(t, err)
	require.Len(t, report.Members, 2)
	require.Equal(t, []string{"create namespaces shop", "create services db", "create statefulsets db", "create leases keepset-db"}, c.steps[:4])
	require.EqualValues(t, 2, *c.set().Spec.Replicas)
	c.requireDone()
}

// Killed at every write, without a Job to retry it: the same command goes on,
// or says what it needs to hear, and nothing starts without its data.
func TestFromNothingKilledEverywhere(t *testing.T) {
	w := newWorld(t, 3, 3)
	objectsBackup(t, w, objectsFrom(usedCluster(t)))
	whole := emptyCluster(t)
	_, err := whole.fromNothing(w, job.Request{All: true}, "run-0")
	require.NoError(t, err)
	wentOn, asked := 0, 0
	for n := 1; n <= whole.n; n++ {
		synctest.Test(t, func(t *testing.T) {
			c := emptyCluster(t)
			c.fail = func(i int, _ core.Action) error {
				if i >= n {
					return errors.New("killed")
				}
				return nil
			}
			_, err := c.fromNothing(w, job.Request{All: true}, "run-1")
			require.Error(t, err, "write %d", n)
			require.Empty(t, c.wrong, "write %d", n)
			c.fail = nil
			c.bindFilled()
			_, err = c.fromNothing(w, job.Request{All: true}, "run-2")
			switch {
			case err == nil:
				wentOn++
			case errors.Is(err, statefulset.ErrClaimInUse): // filled, and not yet scaled up to
				asked++
				require.ErrorContains(t, err, "--keep", "write %d", n)
				_, err = c.fromNothing(w, job.Request{All: true, Keep: true}, "run-3")
				require.NoError(t, err, "write %d", n)
			default:
				require.ErrorIs(t, err, job.ErrConfig, "write %d", n)
				require.EqualValues(t, 2, *c.set().Spec.Replicas, "write %d: refused only where nothing is left to do: %v", n, err)
				_, err = c.client().Abort(t.Context(), "db", statefulset.Run{ID: "run-4", PodUID: "x"}, statefulset.AbortOptions{Wait: 5 * time.Second, Timeout: time.Second})
				require.NoError(t, err, "write %d", n)
			}
			require.EqualValues(t, 2, *c.set().Spec.Replicas, "write %d", n)
			c.requireDone()
		})
	}
	t.Logf("killed at %d writes: %d times the same command went on, %d times it asked for --keep", whole.n, wentOn, asked)
	assert.Greater(t, wentOn, whole.n/2)
	assert.Positive(t, asked)
}

// bindFilled gives the claims that were filled the volumes that they were filled in.
func (c *cluster) bindFilled() {
	c.t.Helper()
	claims, err := c.kube.CoreV1().PersistentVolumeClaims(namespace).List(c.t.Context(), metav1.ListOptions{})
	require.NoError(c.t, err)
	for _, claim := range claims.Items {
		if claim.Annotations[statefulset.AnnotationSeeded] != "" {
			claim.Spec.VolumeName, claim.Status.Phase = "pv-of-"+claim.Name, corev1.ClaimBound
			require.NoError(c.t, c.tracker.Update(claimsResource, &claim, namespace))
		}
	}
}

// An object that may not be read is no reason to have no backup; an API server
// that fails is, before anything is written.
func TestBackupWithoutObjects(t *testing.T) {
	w := newWorld(t, 3, 3)
	objectsBackup(t, w, nil)
	c := emptyCluster(t)
	_, err := c.fromNothing(w, job.Request{All: true}, "run-1")
	require.ErrorIs(t, err, job.ErrConfig)
	require.ErrorContains(t, err, "holds no Kubernetes objects")
	require.Empty(t, c.steps)

	b := w.backup()
	b.Set = clusterSet
	b.Objects = func(context.Context) (statefulset.Objects, error) {
		return statefulset.Objects{}, apierrors.NewInternalError(errors.New("etcd is away"))
	}
	before := len(w.listOf(clusterSet))
	_, err = b.Run(t.Context())
	require.ErrorContains(t, err, "etcd is away")
	require.Len(t, w.listOf(clusterSet), before)
}

// Objects of another set are none of this backup's, whatever it says itself.
func TestObjectsOfAnotherSet(t *testing.T) {
	w := newWorld(t, 3, 3)
	used := usedCluster(t)
	objectsBackup(t, w, func(ctx context.Context) (statefulset.Objects, error) {
		objects, err := objectsFrom(used)(ctx)
		objects.Set.Namespace = "kube-system"
		return objects, err
	})
	c := emptyCluster(t)
	_, err := c.fromNothing(w, job.Request{All: true}, "run-1")
	require.ErrorIs(t, err, statefulset.ErrObjects)
	require.Empty(t, c.steps)
}

// Any one member brings the objects back; the store sees them only encrypted or
// not at all, and never twice under a hash that gives a Secret away.
func TestObjectsAreASecretStream(t *testing.T) {
	w := newWorld(t, 3, 3)
	objectsBackup(t, w, objectsFrom(usedCluster(t)))
	info := w.listOf(clusterSet)[0]
	for ordinal := range 2 {
		m, err := w.repo.OpenMember(t.Context(), info, ordinal)
		require.NoError(t, err)
		i := slices.IndexFunc(m.Map().Streams, func(s record.Stream) bool { return s.Name == "kubernetes/objects.json" })
		require.GreaterOrEqual(t, i, 0, "ordinal %d", ordinal)
		require.True(t, m.Map().Streams[i].Secret)
		require.NoError(t, m.Close())
	}
}
