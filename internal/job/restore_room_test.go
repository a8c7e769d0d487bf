package job_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"keepset/internal/dbdump"
	"keepset/internal/job"
	"keepset/internal/record"
)

// TestClaimTooSmall: files that cannot fit into the claim that the set's template makes
// are refused while the old claim is there, by the plan already, unless the storage is
// known to give more, or the user knows.
func TestClaimTooSmall(t *testing.T) {
	w := copiedWorld(t) // its files are 9 bytes, of nobody knows what claims
	from := func(size string) *world {
		w := newWorld(t, 3, 3)
		w.servers[w.order[1]].upstream = &record.UpstreamCoordinates{Host: "db-0.db", Port: 5432, Running: true}
		b := w.backup()
		b.Plan.Method = record.MethodPhysical
		b.Open = func(m job.Member) (dbdump.Engine, error) { return copied{w.servers[m.Address]}, nil }
		discover := b.Discover
		b.Discover = func(ctx context.Context) (job.Inventory, error) {
			inv, err := discover(ctx)
			for i := range inv.Members {
				inv.Members[i].Claims = []record.Claim{{Name: "logs", Template: "logs", Size: "1"}, {Name: "data", Template: "data", Size: size}}
			}
			return inv, err
		}
		_, err := b.Run(t.Context())
		require.NoError(t, err)
		return w
	}
	for name, c := range map[string]struct {
		asks, has string
		request   job.Request
		refused   bool
		world     *world
	}{
		"too small":                 {"8", "", recovery, true, w},
		"large enough":              {"9", "", recovery, false, w},
		"nobody says":               {"", "", recovery, false, w},
		"its storage gives more":    {"8", "4Ki", recovery, false, w},
		"it did not fit before":     {"8", "", recovery, false, from("7")},
		"it did fit before":         {"8", "", recovery, true, from("9")},
		"a new ordinal":             {"8", "", job.Request{Replicas: 3}, true, w},
		"the claim stays":           {"8", "", job.Request{Ordinals: recovery.Ordinals, Keep: true}, false, w},
		"the user says that it may": {"8", "", job.Request{Ordinals: recovery.Ordinals, Replace: true, AllowSmallClaim: true}, false, w},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := newCluster(t, 2)
			cluster.sized(c.asks, c.has)
			r := cluster.fill(c.world, nil, c.request)
			_, err := r.Resolve(t.Context())
			if !c.refused {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, job.ErrNeedsConsent)
			require.ErrorContains(t, err, "have 9 bytes")
			require.ErrorContains(t, err, "template data, which asks for 8")
			require.ErrorContains(t, err, "--allow-small-claim")
			_, err = r.Execute(t.Context())
			require.ErrorIs(t, err, job.ErrNeedsConsent)
			require.Equal(t, []string{"create leases keepset-db", "update leases keepset-db"}, cluster.steps, "nothing else was touched")
		})
	}
}

// sized has the set's template ask for so much, and its claims have got so much.
func (c *cluster) sized(asks, has string) {
	c.t.Helper()
	if asks == "" {
		return
	}
	want := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(asks)}
	sets, claims := appsv1.SchemeGroupVersion.WithResource("statefulsets"), corev1.SchemeGroupVersion.WithResource("persistentvolumeclaims")
	object, err := c.tracker.Get(sets, namespace, "db")
	require.NoError(c.t, err)
	set := object.(*appsv1.StatefulSet) //nolint:errcheck // the tracker holds one
	set.Spec.VolumeClaimTemplates[0].Spec.Resources.Requests = want
	require.NoError(c.t, c.tracker.Update(sets, set, namespace))
	for i := range 2 {
		claim := c.claim(i, "pv-of-users")
		claim.Spec.Resources.Requests = want
		if has != "" {
			claim.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(has)}
		}
		require.NoError(c.t, c.tracker.Update(claims, claim, namespace))
	}
}
