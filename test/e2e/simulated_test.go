package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"keepset/internal/statefulset"
)

// simulated is a set whose "database" is a file: /data/content. A pod that
// starts without it is a replica that came up empty, and says so for good by
// /data/born-empty. Its Role is the one that Keepset ships.
const simulated = `
apiVersion: v1
kind: Service
metadata: {name: db}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {app: db}
  ports: [{port: 3306}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: %d
  podManagementPolicy: %s
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: db
          image: keepset-test/mariadb:10.11
          imagePullPolicy: Never
          command: [bash, -c, "cd /data; [ -f content ] || touch born-empty; [ ! -f half ] || touch born-half; exec sleep infinity"]
          ports: [{containerPort: 3306}]
          env:
            - name: INDEX
              valueFrom: {fieldRef: {fieldPath: "metadata.labels['apps.kubernetes.io/pod-index']"}}
          volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
    - metadata: {name: data}
      spec:
        accessModes: [ReadWriteOnce]
        resources: {requests: {storage: 1Mi}}%s
`

// fillAt once, or when told to by a file, as a load would, and ends like a
// database that was shut down.
const seedPatch = `
spec:
  containers:
    - name: db
      command: [bash, -c, 'cd /data; [ -z "$(ls -A)" ] || { ls -A; exit 9; }; touch half; %s; echo "filled as $INDEX on $HOSTNAME" > content; rm -f half go']
`

const (
	fillAtOnce  = "true"
	fillWhenOld = "while [ ! -f go ]; do sleep 0.1; done"
)

// simulation is a simulated set with the shipped Role beside it.
type simulation struct {
	*cluster
	client *statefulset.Client
}

// newSimulation makes one, on volumes of a class or of the cluster's default.
func newSimulation(t *testing.T, replicas int, policy string, class ...string) *simulation {
	t.Helper()
	s := &simulation{cluster: newCluster(t)}
	s.applyRoles("db")
	storage := ""
	if len(class) > 0 {
		storage = "\n        storageClassName: " + class[0]
	}
	s.apply(fmt.Sprintf(simulated, replicas, policy, storage))
	s.until(5*time.Minute, "the set comes up", func() bool {
		for i := range replicas {
			if !ready(s.pod(fmt.Sprintf("db-%d", i))) {
				return false
			}
		}
		return true
	})
	for i := range replicas {
		s.kubectl("exec", fmt.Sprintf("db-%d", i), "--", "bash", "-c", "cd /data; rm -f born-empty; echo original > content")
	}
	s.client = s.clientOf(s.as("keepset-restore"))
	return s
}

// applyRoles installs the service accounts and Roles of deploy/cronjob as they
// are shipped, for the set of the test.
func (c *cluster) applyRoles(set string) {
	c.t.Helper()
	for _, file := range []string{"serviceaccounts", "rbac-backup", "rbac-restore"} {
		text := readFile(c.t, "../../deploy/cronjob/base/"+file+".yaml")
		c.apply(strings.ReplaceAll(text, "resourceNames: [mysql]", "resourceNames: ["+set+"]"))
	}
}

func (s *simulation) clientOf(config *rest.Config) *statefulset.Client {
	s.t.Helper()
	kube, err := kubernetes.NewForConfig(config)
	require.NoError(s.t, err)
	return statefulset.New(kube, s.ns, nil)
}

func (s *simulation) discover() statefulset.Set {
	s.t.Helper()
	set, err := s.client.Discover(s.t.Context(), "db", statefulset.DiscoverOptions{DefaultPort: 3306})
	require.NoError(s.t, err)
	return set
}

func runOf(id string) statefulset.Run {
	return statefulset.Run{ID: id, PodUID: "pod-of-" + id, Index: -1, Completions: 1}
}

func noFence(context.Context) error { return nil }

func (s *simulation) seed(client *statefulset.Client, ordinal int, run, how string, replace bool) *statefulset.Seed {
	s.t.Helper()
	seed, err := client.NewSeed(s.discover(), statefulset.SeedSpec{
		Ordinal: ordinal, Patch: fmt.Appendf(nil, seedPatch, how), Replace: replace, StartTimeout: time.Minute,
		DiscoverOptions: statefulset.DiscoverOptions{DefaultPort: 3306},
	}, runOf(run), noFence)
	require.NoError(s.t, err)
	return seed
}

// fill goes through all steps of a seed, as a restore does.
func fill(ctx context.Context, seed *statefulset.Seed, backup string) error {
	status, err := seed.Inspect(ctx)
	if err != nil {
		return err
	}
	if status.State != statefulset.SeedLoaded && status.State != statefulset.SeedReleased {
		if err := seed.Place(ctx); err != nil {
			return err
		}
		if err := seed.WaitExit(ctx); err != nil {
			return err
		}
		if err := seed.MarkLoaded(ctx, backup); err != nil {
			return err
		}
	}
	return seed.Release(ctx)
}

// content is what a member's volume holds.
func (s *simulation) content(pod string) string {
	s.t.Helper()
	return s.kubectl("exec", pod, "--", "bash", "-c", "cd /data; ls; cat content")
}

// requireFilled: the ordinal's own pod runs on what its seed has filled, and
// no pod has ever run on anything less.
func (s *simulation) requireFilled(ordinal int) {
	s.t.Helper()
	pod := fmt.Sprintf("db-%d", ordinal)
	s.until(3*time.Minute, pod+" is Ready", func() bool { return ready(s.pod(pod)) })
	require.Equal(s.t, fmt.Sprintf("content\nfilled as %d on %s", ordinal, pod), s.content(pod))
}

// sentry watches one pod name and remembers whether the set's own pod was ever
// Ready under it.
type sentry struct {
	mu    sync.Mutex
	ready []string
}

func (s *simulation) watch(name string) *sentry {
	s.t.Helper()
	w, err := s.kube.CoreV1().Pods(s.ns).Watch(s.t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	require.NoError(s.t, err)
	s.t.Cleanup(w.Stop)
	g := &sentry{}
	go func() {
		for event := range w.ResultChan() {
			if pod, ok := event.Object.(*corev1.Pod); ok && ready(pod) {
				g.mu.Lock()
				g.ready = append(g.ready, string(pod.UID))
				g.mu.Unlock()
			}
		}
	}()
	return g
}

func (g *sentry) seen() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.ready...)
}
