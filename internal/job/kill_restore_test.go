package job_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	core "k8s.io/client-go/testing"

	"keepset/internal/dbdump"
	"keepset/internal/dbdump/dbdumptest"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/statefulset"
)

// This file: what is killed of a restore.

var (
	scaleUp  = job.Request{Replicas: 3, Base: -1}
	wholeSet = job.Request{All: true, Base: -1}
)

// pods has all requests be those of a process; with nil of nobody who could be killed.
func (c *cluster) pods(p *process) {
	if c.process == nil {
		c.process = new(*process)
		c.kube.PrependReactor("*", "*", func(a core.Action) (bool, runtime.Object, error) {
			if *c.process == nil {
				return false, nil, nil
			}
			var object runtime.Object
			err := (*c.process).call("Kubernetes", a.GetVerb()+" "+a.GetResource().Resource+" "+nameOf(a), func() (err error) {
				_, object, err = c.react(a)
				return err
			})
			return true, object, err
		})
	}
	*c.process = p
}

// killedSeeds is a restore of some ordinals. What a database holds outlives its pod in its claim.
type killedSeeds struct {
	*yard
	request job.Request
	backup  record.BackupID
	claims  map[types.UID]*dbdumptest.MemoryServer
	p       *process
	pods    int
}

func killedRestore(q job.Request, replicas int32) func(*testing.T) killing {
	return func(t *testing.T) killing {
		k := &killedSeeds{yard: newYard(t), request: q, claims: map[types.UID]*dbdumptest.MemoryServer{}}
		k.backup = k.take()
		k.cluster = newCluster(t, replicas)
		return k
	}
}

func (k *killedSeeds) pod(p *process) error {
	r, err := k.open(k.store, p)
	if err != nil {
		return err
	}
	k.p = p
	k.pods++
	k.cluster.pods(p)
	defer k.cluster.pods(nil)
	_, err = (&job.Restore{
		Repository: r, Cluster: k.cluster.client(), Set: "db", From: killedSet, Request: k.request, Servers: k,
		Run:   statefulset.Run{ID: "run-1", JobName: "j", JobUID: "run-1", PodUID: fmt.Sprintf("pod-%d", k.pods), Index: -1, Completions: 1},
		Seed:  statefulset.SeedSpec{DiscoverOptions: statefulset.DiscoverOptions{DefaultPort: 3306}, StartTimeout: 2 * time.Second},
		Lease: statefulset.LeaseOptions{Duration: time.Second}, ReadyWait: time.Second, ServerWait: time.Second,
		Clock: k.clock.Now, Log: slog.New(slog.DiscardHandler),
	}).Execute(p.ctx)
	return err
}

func (k *killedSeeds) killed(what string) {
	require.Empty(k.t, k.cluster.wrong, what)
	k.requireTrue(k.store, what, k.backup)
}

// ended: every ordinal that was asked for is up on a claim that holds what was backed up.
func (k *killedSeeds) ended(what string) {
	k.cluster.requireDone()
	ordinals := []int{1}
	switch {
	case k.request.Replicas > 0:
		ordinals = []int{2}
	case k.request.All:
		ordinals = []int{0, 1}
	}
	for _, ordinal := range ordinals {
		o, err := k.cluster.tracker.Get(podsResource, namespace, fmt.Sprintf("db-%d", ordinal))
		require.NoError(k.t, err, what)
		pod, ok := o.(*corev1.Pod)
		require.True(k.t, ok && len(pod.OwnerReferences) > 0, "%s: db-%d is no pod of the set's", what, ordinal)
		server := k.claims[k.claimOf(ordinal)]
		require.NotNil(k.t, server, "%s: nothing was loaded into ordinal %d", what, ordinal)
		ok = false
		for _, held := range k.held[k.backup] {
			ok = ok || maps.EqualFunc(held, server.Tables(), bytes.Equal)
		}
		require.True(k.t, ok, "%s: ordinal %d does not hold what was backed up", what, ordinal)
	}
	k.requireTrue(k.store, what, k.backup)
}

func (k *killedSeeds) claimOf(ordinal int) types.UID {
	k.t.Helper()
	o, err := k.cluster.tracker.Get(claimsResource, namespace, fmt.Sprintf("data-db-%d", ordinal))
	require.NoError(k.t, err)
	claim, ok := o.(*corev1.PersistentVolumeClaim)
	require.True(k.t, ok)
	return claim.UID
}

// killedServer is the server of a seed pod, or the upstream.
type killedServer struct {
	*dbdumptest.MemoryServer
	k *killedSeeds
}

// Target implements [job.Servers]. Of a seed's server what a killed load has left does not count.
func (k *killedSeeds) Target(address string, _ bool) (dbdump.Engine, error) {
	if address != "10.0.0.7:3306" { // only the upstream is asked
		return &killedServer{dbdumptest.NewMemoryServer(k.clock.Now), k}, nil
	}
	uid := k.claimOf((&databases{c: k.cluster}).seeded())
	if k.claims[uid] == nil {
		k.claims[uid] = dbdumptest.NewMemoryServer(k.clock.Now)
	}
	p := k.p
	k.claims[uid].Call = func(what string, do func() error) error { return p.call("database", what, do) }
	return &killedServer{k.claims[uid], k}, nil
}

// Ready implements [job.Servers].
func (k *killedSeeds) Ready(context.Context, string) error { return k.ask("ready") }

// Upstream implements [job.Servers].
func (k *killedSeeds) Upstream(string) (dbdump.Upstream, error) {
	return dbdump.Upstream{Host: "db-0.db", Port: 3306}, nil
}

func (k *killedSeeds) ask(what string) error {
	return k.p.call("database", what, func() error { return nil })
}

// Load replaces what there is.
func (s *killedServer) Load(ctx context.Context, src dbdump.Source) (record.Report, error) {
	if err := s.k.p.call("database", "drop", func() error { s.Clear(); return nil }); err != nil {
		return record.Report{}, err
	}
	return s.MemoryServer.Load(ctx, src)
}

func (s *killedServer) Check(context.Context, record.Coordinates, dbdump.Upstream) error {
	return s.k.ask("check")
}

func (s *killedServer) Admits(context.Context, dbdump.Upstream) error {
	return s.k.ask("admits")
}

func (s *killedServer) Lead(context.Context, record.Coordinates) error { return s.k.ask("lead") }

func (s *killedServer) Origin(_ context.Context, c record.Coordinates, _ dbdump.Upstream) (record.Coordinates, error) {
	return c, s.k.ask("origin")
}

func (s *killedServer) Follow(context.Context, record.Coordinates, dbdump.Upstream) error {
	return s.k.ask("follow")
}

func (s *killedServer) Shutdown(context.Context) error {
	return s.k.p.call("database", "shutdown", func() error {
		s.k.cluster.ended((&databases{c: s.k.cluster}).seeded(), 0)
		return nil
	})
}
