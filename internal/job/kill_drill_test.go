package job_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/dbdumptest"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/statefulset"
)

// This file: what is killed of a drill.

// killedDrill is a drill of a backup in a signed repository. Its server lives as long as the claim that it is on.
type killedDrill struct {
	*yard
	backup record.BackupID
	// wanting: the server loses rows after each load, so that no drill may pass.
	wanting bool
	// nextJob has the second pod be that of another Job, to which the first one's objects are a dead drill's.
	nextJob bool
	// kept is what there was of the set before.
	kept    []string
	servers map[types.UID]*dbdumptest.MemoryServer
	// pods there were, and how many of them came to the end of all checks.
	pods, through int
}

func newKilledDrill(change func(*killedDrill)) func(*testing.T) killing {
	return func(t *testing.T) killing {
		set, err := repository.Keygen(nil)
		require.NoError(t, err)
		k := &killedDrill{yard: newLockedYard(t, keysFrom(t, slices.Concat(set.Writer, set.Restore))), servers: map[types.UID]*dbdumptest.MemoryServer{}}
		k.backup = k.take()
		k.kept = k.objects()
		if change != nil {
			change(k)
		}
		return k
	}
}

// objects are the pods and claims that there are.
func (k *killedDrill) objects() (names []string) {
	k.t.Helper()
	for _, kind := range []schema.GroupVersionKind{corev1.SchemeGroupVersion.WithKind("Pod"), corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim")} {
		resource := map[string]schema.GroupVersionResource{"Pod": podsResource, "PersistentVolumeClaim": claimsResource}[kind.Kind]
		list, err := k.cluster.tracker.List(resource, kind, namespace)
		require.NoError(k.t, err)
		switch list := list.(type) {
		case *corev1.PodList:
			for i := range list.Items {
				names = append(names, "pod "+list.Items[i].Name+" "+string(list.Items[i].UID))
			}
		case *corev1.PersistentVolumeClaimList:
			for i := range list.Items {
				names = append(names, "claim "+list.Items[i].Name+" "+string(list.Items[i].UID))
			}
		}
	}
	slices.Sort(names)
	return names
}

func (k *killedDrill) pod(p *process) error {
	r, err := k.open(k.store, p)
	if err != nil {
		return err
	}
	k.pods++
	run := statefulset.Run{ID: "run-1", JobName: "j", JobUID: "run-1", PodUID: fmt.Sprintf("pod-%d", k.pods), Index: -1, Completions: 1}
	if k.nextJob && k.pods > 1 {
		run.ID, run.JobName, run.JobUID = "run-2", "j2", "run-2"
		time.Sleep(time.Minute) // longer than a dead drill keeps the next one away
	}
	k.cluster.pods(p)
	defer k.cluster.pods(nil)
	ready := func(context.Context, string) error {
		return p.call("database", "ready", func() error { return nil })
	}
	d := &job.Drill{
		Repository: r, Set: killedSet, Ordinal: job.PrimaryOrdinal, Engine: "memory", AllowNoCoordinates: true, Queries: []string{"how many orders"},
		Place: &job.DrillCluster{
			Cluster: k.cluster.client(), Set: "db", Run: run, Lease: statefulset.LeaseOptions{Duration: time.Second},
			Spec:  statefulset.DrillSpec{DiscoverOptions: statefulset.DiscoverOptions{DefaultPort: 3306}, StartTimeout: 2 * time.Second},
			Ready: ready, ServerWait: time.Second, Clock: k.clock.Now, Note: func(string) {},
		},
		Open:  func(string) (dbdump.Engine, error) { return k.server(p), nil },
		Ready: ready,
		Command: func(context.Context, string) error { // the last of all checks
			return p.call("database", "command", func() error { k.through++; return nil })
		},
		Clock: k.clock.Now, Log: slog.New(slog.DiscardHandler),
	}
	report, err := d.Run(p.ctx)
	if k.wanting && errors.Is(err, job.ErrDrill) {
		require.False(k.t, report.Passed)
		return nil // that is how this one ends well
	}
	if err == nil {
		require.False(k.t, k.wanting, "a drill of a bad backup has passed")
		require.True(k.t, report.Passed && report.Proven)
	}
	return err
}

// server is that of the drill's pod, on the pod's claim.
func (k *killedDrill) server(p *process) *drilledServer {
	list, err := k.cluster.tracker.List(claimsResource, corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"), namespace)
	require.NoError(k.t, err)
	var at types.UID
	for _, claim := range list.(*corev1.PersistentVolumeClaimList).Items { //nolint:errcheck,forcetypeassert // what is asked for
		if strings.Contains(claim.Name, "-drill-") {
			require.Empty(k.t, at, "two drills have claims")
			at = claim.UID
		}
	}
	require.NotEmpty(k.t, at, "a drill has a server without a claim")
	if k.servers[at] == nil {
		k.servers[at] = dbdumptest.NewMemoryServer(k.clock.Now)
	}
	k.servers[at].Call = func(what string, do func() error) error { return p.call("database", what, do) }
	return &drilledServer{k.servers[at], k.wanting}
}

// drilledServer can be asked, and may lose rows.
type drilledServer struct {
	*dbdumptest.MemoryServer
	wanting bool
}

// Load loses rows when nobody looks any more.
func (s *drilledServer) Load(ctx context.Context, src dbdump.Source) (record.Report, error) {
	r, err := s.MemoryServer.Load(ctx, src)
	if err == nil && s.wanting {
		s.Set("orders", nil)
	}
	return r, err
}

// Ask implements [dbdump.Asker].
func (s *drilledServer) Ask(context.Context, string) (answer string, null bool, err error) {
	return "40", false, s.Call("ask", func() error { return nil })
}

// killed: what a proof says was found out to the end, and the set has not been touched.
func (k *killedDrill) killed(what string) {
	k.requireTrue(k.store, what, k.backup)
	proofs := k.proofs(what)
	require.LessOrEqual(k.t, len(proofs), k.through, "%s: a drill that was not made to its end is proven", what)
	for _, proof := range proofs {
		require.NotEqual(k.t, k.wanting, proof.Passed, "%s: the proof is not what was found: %+v", what, proof.Checks)
		for _, c := range proof.Checks {
			require.Equal(k.t, k.wanting && c.Check == job.DrillObjects, c.State == record.ProofFailed, "%s: the check %s is said to be %s", what, c.Check, c.State)
		}
	}
	require.Subset(k.t, k.objects(), k.kept, "%s: something of the set is gone", what)
	for _, step := range k.cluster.steps {
		require.Contains(k.t, step, "drill", "%s: a drill has written what is not its own", what)
	}
}

// proofs of the backup, all of which count.
func (k *killedDrill) proofs(what string) []repository.Drill {
	k.t.Helper()
	r := k.sure(k.store)
	info, err := r.Backup(k.t.Context(), killedSet, k.backup)
	require.NoError(k.t, err, what)
	infos := []repository.BackupInfo{info}
	require.NoError(k.t, r.ReadDrills(k.t.Context(), killedSet, infos), what)
	require.Empty(k.t, infos[0].Problems, what)
	return infos[0].Drills
}

// ended: it is proven, and there is nothing that was not there before.
func (k *killedDrill) ended(what string) {
	k.killed(what)
	require.NotEmpty(k.t, k.proofs(what), what)
	require.Equal(k.t, k.kept, k.objects(), "%s: the drill has left something", what)
	leases, err := k.cluster.tracker.List(coordinationv1.SchemeGroupVersion.WithResource("leases"), coordinationv1.SchemeGroupVersion.WithKind("Lease"), namespace)
	require.NoError(k.t, err)
	for _, lease := range leases.(*coordinationv1.LeaseList).Items { //nolint:errcheck,forcetypeassert // what is asked for
		require.True(k.t, metav1.HasLabel(lease.ObjectMeta, statefulset.LabelSet) && (lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == ""), "%s: lease %s is still held", what, lease.Name)
	}
	k.requireTidy(what, k.backup)
}
