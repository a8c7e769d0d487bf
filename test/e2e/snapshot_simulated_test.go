package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"keepset/internal/snapshot"
	"keepset/internal/snapshot/ebs"
	"keepset/internal/statefulset"
)

// newVolumeSimulation is a simulated set on volumes of the fake EC2, with the
// rights on PersistentVolumes that Keepset ships.
func newVolumeSimulation(t *testing.T, replicas int, policy string) *simulation {
	t.Helper()
	s := newSimulation(t, replicas, policy, "gp3")
	for _, file := range []string{"snapshot-backup", "volume-restore"} {
		text := readFile(t, "../../deploy/cronjob/components/volume-rights/"+file+".yaml")
		s.apply(strings.NewReplacer(":default", ":"+s.ns, "  - kind: ServiceAccount\n", "  - kind: ServiceAccount\n    namespace: "+s.ns+"\n").Replace(text))
	}
	(&shopSet{cluster: s.cluster}).forgetCluster()
	s.forgetSnapshots("db")
	return s
}

// adoptPatch has the seed's database start only on what the snapshot held, and
// leave a mark, as a server that adopts its files.
const adoptPatch = `
spec:
  containers:
    - name: db
      command: [bash, -c, 'cd /data; [ "$(cat content)" = original ] || exit 9; echo "adopted on $HOSTNAME" > content']
`

// cutOf snapshots one ordinal's volume, as it is.
func (s *simulation) cutOf(name string, ordinal int) snapshot.Ref {
	s.t.Helper()
	account := s.ebs("cutter")
	volumes, err := account.Locate(s.t.Context(), []snapshot.Volume{{
		Owner: s.owner("db"), Ordinal: ordinal, Namespace: s.ns, Claim: fmt.Sprintf("data-db-%d", ordinal), Template: "data",
	}})
	require.NoError(s.t, err)
	refs, err := account.Cut(s.t.Context(), name, volumes)
	require.NoError(s.t, err)
	require.NoError(s.t, account.WaitReady(s.t.Context(), refs[0]))
	return refs[0]
}

// handOver is a restore of one ordinal from a volume snapshot, as internal/job
// does it: what cannot fit is refused first; the old volume is kept until the
// end.
type handOver struct {
	s       *simulation
	client  *statefulset.Client
	volumes *ebs.Snapshotter
	ref     snapshot.Ref
	run     string
	ordinal int
}

func (h *handOver) target(claim *corev1.PersistentVolumeClaim) snapshot.Target {
	return snapshot.Target{Owner: h.s.owner("db"), Ordinal: h.ordinal, Run: h.run, Claim: claim, Zone: "us-east-1a"}
}

func (h *handOver) seed(ctx context.Context) (*statefulset.Seed, error) {
	set, err := h.client.Discover(ctx, "db", statefulset.DiscoverOptions{DefaultPort: 3306})
	if err != nil {
		return nil, err
	}
	return h.client.NewSeed(set, statefulset.SeedSpec{
		Ordinal: h.ordinal, Patch: []byte(adoptPatch), Replace: true, StartTimeout: time.Minute,
		DiscoverOptions: statefulset.DiscoverOptions{DefaultPort: 3306},
		Adopt:           &statefulset.Adoption{Script: `[ -f "$1/content" ]`},
		MakeClaim: func(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
			return asClaimInUse(h.volumes.Provision(ctx, h.ref, h.target(claim)))
		},
	}, runOf(h.run), noFence)
}

func (h *handOver) do(ctx context.Context) error {
	seed, err := h.seed(ctx)
	if err != nil {
		return err
	}
	status, err := seed.Inspect(ctx)
	if err != nil {
		return err
	}
	if status.State != statefulset.SeedReleased && (status.State != statefulset.SeedLoaded || status.Run != h.run) {
		for _, claim := range seed.Claims() {
			if err := h.volumes.Prepare(ctx, h.ref, h.target(claim)); err != nil {
				return err
			}
		}
		place := seed.Place
		if status.State == statefulset.SeedLoaded {
			place = seed.PlaceAnew
		}
		if err := place(ctx); err != nil {
			return err
		}
		if err := seed.WaitExit(ctx); err != nil {
			return err
		}
		if err := seed.MarkLoaded(ctx, "backup"); err != nil {
			return err
		}
	}
	if err := seed.Release(ctx); err != nil {
		return err
	}
	set, err := h.client.Discover(ctx, "db", statefulset.DiscoverOptions{DefaultPort: 3306})
	if err != nil {
		return err
	}
	if err := h.client.WaitReady(ctx, set, h.ordinal, time.Minute); err != nil {
		return err
	}
	_, err = h.client.ReturnVolumes(ctx, "db", h.ordinal)
	return err
}

// life is how many changes a run may still make, at the API server and at EC2
// together.
type life struct {
	left  atomic.Int64
	after bool // the last request has its effect, and its answer is lost
}

// spend returns whether a request gets through, and whether its answer does.
func (l *life) spend(change bool) (request, answer bool) {
	if l.left.Load() < 0 {
		return false, false
	}
	if change && l.left.Add(-1) < 0 {
		return l.after, false
	}
	return true, true
}

// mortalRun is a client and a snapshotter that die together at their n+1st change.
func (s *simulation) mortalRun(n int, after bool) (*statefulset.Client, *ebs.Snapshotter, *life) {
	s.t.Helper()
	l := &life{after: after}
	l.left.Store(int64(n))
	config := rest.CopyConfig(s.as("keepset-restore"))
	config.WrapTransport = func(next http.RoundTripper) http.RoundTripper { return mortalAPI{next, l} }
	kube, err := kubernetes.NewForConfig(config)
	require.NoError(s.t, err)
	volumes, err := ebs.New(s.t.Context(), ebs.Options{
		Kube: kube, Region: "us-east-1", EC2Endpoint: s.mortalEC2(l),
		Credentials: ebs.Credentials{AccessKeyID: s.allowed("restore-"+s.ns, "restore"), SecretAccessKey: "secret"},
		Patience:    snapshot.Patience{Call: 2 * time.Second, Poll: 100 * time.Millisecond},
	})
	require.NoError(s.t, err)
	s.t.Cleanup(volumes.Close)
	return s.clientOf(config), volumes, l
}

type mortalAPI struct {
	next http.RoundTripper
	life *life
}

func (m mortalAPI) RoundTrip(r *http.Request) (*http.Response, error) {
	request, answer := m.life.spend(r.Method != http.MethodGet)
	if !request {
		return nil, errKilled
	}
	response, err := m.next.RoundTrip(r)
	if err == nil && !answer {
		_ = response.Body.Close()
		return nil, errKilled
	}
	return response, err
}

// mortalEC2 is the fake, as long as there is life.
func (s *simulation) mortalEC2(l *life) string {
	to, err := url.Parse(ec2URL)
	require.NoError(s.t, err)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, readErr := io.ReadAll(r.Body)
		form, err := url.ParseQuery(string(body))
		request, answer := l.spend(!strings.HasPrefix(form.Get("Action"), "Describe"))
		if readErr != nil || err != nil || !request {
			hangUp(w)
			return
		}
		again := r.Clone(r.Context())
		again.RequestURI, again.URL.Scheme, again.URL.Host = "", to.Scheme, to.Host
		again.Body = io.NopCloser(bytes.NewReader(body))
		response, err := http.DefaultTransport.RoundTrip(again)
		if err != nil {
			hangUp(w)
			return
		}
		defer func() { _ = response.Body.Close() }()
		if !answer {
			hangUp(w)
			return
		}
		maps.Copy(w.Header(), response.Header)
		w.WriteHeader(response.StatusCode)
		_, _ = io.Copy(w, response.Body)
	}))
	s.t.Cleanup(server.Close)
	return server.URL
}

// hangUp closes a connection without a word.
func hangUp(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = conn.Close()
	}
}

// immortal is who comes after.
func (s *simulation) immortal(run string, ref snapshot.Ref, ordinal int) *handOver {
	client, volumes, _ := s.mortalRun(1<<30, false)
	return &handOver{s: s, client: client, volumes: volumes, ref: ref, run: run, ordinal: ordinal}
}
