package job_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	core "k8s.io/client-go/testing"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/statefulset"
)

// backedUp is a world with one backup: ordinal 0 leads, ordinal 1 follows.
func backedUp(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, 3, 3)
	for _, address := range w.order[1:] {
		w.servers[address].upstream = &record.UpstreamCoordinates{Host: "db-0.db", Port: 3306, Running: true}
	}
	_, err := w.backup().Run(t.Context())
	require.NoError(t, err)
	return w
}

var recovery = job.Request{Ordinals: []int{1}, Replace: true, Base: -1}

// The steps of a restore and their order: nothing is touched before the set is
// held, the plan stored and the backups stopped; no claim goes before it is
// held, and no name before the database has ended well.
func TestRestoreSteps(t *testing.T) {
	w := backedUp(t)
	take := []string{"create leases keepset-db", "create leases keepset-restore-run-1", "patch cronjobs nightly"}
	give := []string{"patch cronjobs nightly", "update leases keepset-db"}
	fill := func(ordinal int, made string, then ...string) []string {
		pod, claim := fmt.Sprintf("pods db-%d", ordinal), fmt.Sprintf("persistentvolumeclaims data-db-%d", ordinal)
		steps := []string{"create " + pod, "create " + claim}
		if made == "controller" {
			steps = []string{"create " + pod, "patch " + claim, "patch statefulsets db"}
		}
		steps = append(append(steps, "patch "+claim, "load"), then...)
		return append(steps, "shutdown", "patch "+claim, "patch "+pod, "delete "+pod, "patch "+pod, "patch statefulsets db")
	}
	gone := []string{"patch persistentvolumeclaims data-db-1", "delete persistentvolumeclaims data-db-1", "delete pods db-1"}
	for name, c := range map[string]struct {
		replicas int32
		request  job.Request
		steps    [][]string
	}{
		"a lost ordinal":  {2, recovery, [][]string{take, gone, fill(1, "controller", "follow"), give}},
		"a new ordinal":   {2, job.Request{Replicas: 3}, [][]string{take, fill(2, "create", "follow"), {"patch statefulsets db"}, give}},
		"the whole set":   {0, job.Request{All: true}, [][]string{take, fill(0, "create", "lead"), {"patch statefulsets db"}, fill(1, "create", "follow"), {"patch statefulsets db"}, give}},
		"nobody followed": {2, job.Request{Ordinals: []int{1}, Replace: true, Follow: "none", AllowRollback: true}, [][]string{take, gone, fill(1, "controller", "lead"), give}},
		"what is there":   {2, job.Request{Ordinals: []int{1}, Keep: true}, [][]string{take, give}},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := newCluster(t, c.replicas)
			_, err := cluster.restore(w, &databases{}, c.request, "run-1", "pod-1").Execute(t.Context())
			require.NoError(t, err)
			require.Equal(t, slices.Concat(c.steps...), cluster.steps)
			cluster.requireDone()
		})
	}
}

// requireDone: what restores leave behind is gone, and backups run again.
func (c *cluster) requireDone() {
	c.t.Helper()
	left, err := c.client().Leftovers(c.t.Context(), "db")
	require.NoError(c.t, err)
	require.True(c.t, left.Empty(), "%+v", left)
	require.Empty(c.t, left.Lease.Holder)
	require.Empty(c.t, c.wrong)
	job, err := c.kube.BatchV1().CronJobs(namespace).Get(c.t.Context(), "nightly", metav1.GetOptions{})
	require.NoError(c.t, err)
	require.False(c.t, *job.Spec.Suspend)
}

// refusals are the answers of an API server that fail one request.
var refusals = map[string]func(a core.Action) error{
	"forbidden": func(a core.Action) error {
		return apierrors.NewForbidden(a.GetResource().GroupResource(), nameOf(a), fmt.Errorf(
			`User "system:serviceaccount:shop:keepset-restore" cannot %s resource %q in API group %q in the namespace "shop"`,
			a.GetVerb(), a.GetResource().Resource, a.GetResource().Group))
	},
	"conflict": func(a core.Action) error {
		return apierrors.NewConflict(a.GetResource().GroupResource(), nameOf(a), errors.New("it was changed"))
	},
	"timeout": func(a core.Action) error {
		return apierrors.NewServerTimeout(a.GetResource().GroupResource(), a.GetVerb(), 1)
	},
	"not found": func(a core.Action) error { return apierrors.NewNotFound(a.GetResource().GroupResource(), nameOf(a)) },
}

// Whichever request the API server refuses, and however: the restore does not
// say that it is complete, no replica was started without its data, and both
// ways on are open: the Job's next pod finishes it, and abort clears it away.
func TestRestoreSurvivesEveryRefusal(t *testing.T) {
	w := backedUp(t)
	for mode, q := range map[string]job.Request{"recovery": recovery, "scale-up": {Replicas: 3}} {
		whole := newCluster(t, 2)
		_, err := whole.restore(w, &databases{}, q, "run-1", "pod-1").Execute(t.Context())
		require.NoError(t, err)
		for name, refuse := range refusals {
			t.Run(mode+", "+name, func(t *testing.T) {
				t.Parallel()
				for n := 1; n <= whole.n; n++ {
					synctest.Test(t, func(t *testing.T) { requireWaysOn(t, w, q, n, name, refuse) })
				}
			})
		}
	}
}

func requireWaysOn(t *testing.T, w *world, q job.Request, n int, name string, refuse func(core.Action) error) {
	c, action, err := refusedOnce(t, w, q, n, refuse)
	what := fmt.Sprintf("request %d, %s", n, action)
	if err == nil { // asked again, or it did not matter
		require.Contains(t, []string{"conflict", "not found"}, name, what)
		c.requireDone()
		return
	}
	require.Empty(t, c.wrong, what)
	if name == "forbidden" {
		require.ErrorIs(t, err, statefulset.ErrForbidden, what)
		require.ErrorContains(t, err, "rbac-restore.yaml", what)
	}
	_, err = c.restore(w, &databases{}, q, "run-1", "pod-2").Execute(t.Context())
	require.NoError(t, err, what)
	c.requireDone()

	c, _, _ = refusedOnce(t, w, q, n, refuse)
	run := statefulset.Run{ID: "run-2", PodUID: "pod-3"}
	_, err = c.client().Abort(t.Context(), "db", run, statefulset.AbortOptions{Wait: 5 * time.Second, Timeout: time.Second})
	if errors.Is(err, statefulset.ErrHeld) { // and only with consent it becomes an empty replica
		require.Empty(t, c.wrong, what)
		_, err = c.client().Abort(t.Context(), "db", run, statefulset.AbortOptions{ReleaseEmpty: true, Timeout: time.Second})
		c.wrong = nil
	}
	require.NoError(t, err, what)
	c.requireDone()
}

// refusedOnce runs a restore whose write number n is refused.
func refusedOnce(t *testing.T, w *world, q job.Request, n int, refuse func(core.Action) error) (c *cluster, action string, err error) {
	t.Helper()
	c = newCluster(t, 2)
	c.fail = func(i int, a core.Action) error {
		if i != n {
			return nil
		}
		action = a.GetVerb() + " " + a.GetResource().Resource + " " + nameOf(a)
		return refuse(a)
	}
	_, err = c.restore(w, &databases{}, q, "run-1", "pod-1").Execute(t.Context())
	return c, action, err
}

// A Job's second pod goes on with the plan of the first, whatever has been
// backed up or asked for since.
func TestSecondPodContinuesTheFrozenPlan(t *testing.T) {
	w := backedUp(t)
	first := w.list()[0].ID
	for _, step := range []string{"load", "follow", "shutdown"} {
		c := newCluster(t, 2)
		killed := errors.New("killed")
		_, err := c.restore(w, &databases{at: func(s string) error {
			if s == step {
				return killed
			}
			return nil
		}}, recovery, "run-1", "pod-1").Execute(t.Context())
		require.ErrorIs(t, err, killed)
		require.ErrorContains(t, err, "restore ordinal 1 of shop/db")
		left, err := c.client().Leftovers(t.Context(), "db")
		require.NoError(t, err)
		require.Len(t, left.Seeds, 1, "the name stays held")
		require.Empty(t, left.Seeds[0].LoadedBackup)
		require.Empty(t, left.CronJobs)

		_, err = w.backup().Run(t.Context())
		require.NoError(t, err)
		report, err := c.restore(w, &databases{}, job.Request{Ordinals: []int{0}}, "run-1", "pod-2").Execute(t.Context())
		require.NoError(t, err)
		require.Equal(t, first, report.Plan.Backup)
		require.Equal(t, []job.RestoreResult{{Ordinal: 1, Action: job.ActionSeeded, Rows: 9, Follows: "db-0.db.shop.svc:3306"}}, report.Members)
		c.requireDone()
		report, err = c.restore(w, &databases{}, recovery, "run-1", "pod-3").Execute(t.Context())
		require.NoError(t, err)
		require.Equal(t, job.ActionBefore, report.Members[0].Action)
		require.Equal(t, 1, strings.Count(strings.Join(c.steps, "\n"), "create leases keepset-restore-run-1"))
		first = w.list()[0].ID
	}
}

// A seed pod that the cluster would not take is noticed while the replica and its
// claims still stand.
func TestSeedPodThatTheClusterRefuses(t *testing.T) {
	w := backedUp(t)
	pods := corev1.Resource("pods")
	for name, tc := range map[string]struct {
		err     error
		refused bool
	}{
		"pod security":     {apierrors.NewForbidden(pods, "db-1", errors.New("violates PodSecurity \"restricted:latest\"")), true},
		"a typo":           {apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Pod").GroupKind(), "db-1", nil), true},
		"the name's owner": {apierrors.NewAlreadyExists(pods, "db-1"), false},
		"a full quota":     {apierrors.NewForbidden(pods, "db-1", errors.New("exceeded quota: pods")), false},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 2)
			c.refuses = tc.err
			_, err := c.restore(w, &databases{}, recovery, "run-1", "pod-1").Execute(t.Context())
			if !tc.refused {
				require.NoError(t, err)
				c.requireDone()
				return
			}
			require.ErrorIs(t, err, tc.err)
			require.ErrorContains(t, err, "nothing was touched")
			for _, step := range c.steps {
				require.NotContains(t, step, "pods", step)
				require.NotContains(t, step, "persistentvolumeclaims", step)
			}
		})
	}
}

// Backups that are running are waited for, and may commit until the set is touched.
func TestBackupsMayCommitUntilTheSetIsTouched(t *testing.T) {
	w := backedUp(t)
	c := newCluster(t, 2)
	leases := coordinationv1.SchemeGroupVersion.WithResource("leases")
	guard := &job.LeaseGuard{Client: c.client(), Set: "db"}
	require.NoError(t, guard.Check(t.Context()))
	seen := map[string]bool{}
	c.fail = func(_ int, a core.Action) error {
		object, _ := c.tracker.Get(leases, namespace, statefulset.LeaseName("db"))
		lease, ok := object.(*coordinationv1.Lease)
		if !ok {
			return nil // not taken yet
		}
		waits := lease.Annotations["keepset/waiting-for-backups"] != ""
		switch what := a.GetVerb() + " " + a.GetResource().Resource; {
		case what == "patch cronjobs" && !seen["pods"]: // suspended
			require.True(t, waits)
			seen["cronjobs"] = true
		case a.GetResource().Resource == "pods" || a.GetResource().Resource == "persistentvolumeclaims":
			require.False(t, waits, what)
			seen["pods"] = true
		}
		return nil
	}
	_, err := c.restore(w, &databases{}, recovery, "run-1", "pod-1").Execute(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]bool{"cronjobs": true, "pods": true}, seen)
	require.ErrorIs(t, guard.Check(t.Context()), job.ErrBusy)
}

// A pod that dies between the load and the release leaves a loaded ordinal:
// the next one releases it, and does not load it again.
func TestSecondPodReleasesWhatIsLoaded(t *testing.T) {
	w := backedUp(t)
	c := newCluster(t, 2)
	killed := errors.New("killed")
	c.fail = func(_ int, a core.Action) error {
		if a.Matches("delete", "pods") && slices.Contains(c.steps, "shutdown") {
			return killed
		}
		return nil
	}
	_, err := c.restore(w, &databases{}, recovery, "run-1", "pod-1").Execute(t.Context())
	require.ErrorIs(t, err, killed)
	c.fail = nil
	report, err := c.restore(w, &databases{}, recovery, "run-1", "pod-2").Execute(t.Context())
	require.NoError(t, err)
	require.Equal(t, job.ActionReleased, report.Members[0].Action)
	require.Len(t, slices.DeleteFunc(slices.Clone(c.steps), func(s string) bool { return s != "load" }), 1)
	c.requireDone()
}

// What the database does wrong is the ordinal's error, and the ordinal stays
// held: the interlock is given back, and no replica starts.
func TestItemErrors(t *testing.T) {
	w := backedUp(t)
	broken := errors.New("broken")
	at := func(step string) func(string) error {
		return func(s string) error {
			if s == step {
				return broken
			}
			return nil
		}
	}
	for name, c := range map[string]struct {
		databases databases
		is        error
		says      string
	}{
		"load fails":      {databases{at: at("load")}, broken, "load ordinal 1 into 10.0.0.7:3306"},
		"rows missing":    {databases{lose: 1}, nil, "6 rows arrived of 9"},
		"does not follow": {databases{at: at("follow")}, broken, "follow db-0.db:3306"},
		"does not end":    {databases{at: at("shutdown")}, broken, "shut down the seed's database"},
		"ends badly":      {databases{exit: 137}, statefulset.ErrSeedFailed, "exit code 137"},
		"not let in":      {databases{ready: broken}, broken, "wait for the seed's database"},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := newCluster(t, 2)
			_, err := cluster.restore(w, &c.databases, recovery, "run-1", "pod-1").Execute(t.Context())
			require.ErrorContains(t, err, "restore ordinal 1 of shop/db: ")
			require.ErrorContains(t, err, c.says)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
			require.Empty(t, cluster.wrong)
			require.Equal(t, []string{"patch cronjobs nightly", "update leases keepset-db"}, cluster.steps[len(cluster.steps)-2:], "what was taken is given back")
			_, err = cluster.client().Abort(t.Context(), "db", statefulset.Run{ID: "run-2"}, statefulset.AbortOptions{})
			require.ErrorIs(t, err, statefulset.ErrHeld)
			require.Empty(t, cluster.wrong)
		})
	}
}

// What is refused before anything is touched: the claims and the pods are as
// they were, backups run, and the error says what to do.
func TestRestoreRefusals(t *testing.T) {
	w := backedUp(t)
	away := errors.New("purged")
	for name, c := range map[string]struct {
		request   job.Request
		databases databases
		change    func(*cluster, *job.Restore)
		is        error
		says      string
	}{
		"without consent":     {job.Request{Ordinals: []int{1}}, databases{}, nil, statefulset.ErrClaimInUse, "--replace"},
		"purged upstream":     {recovery, databases{check: away}, nil, away, "can be followed by ordinal 1 of db"},
		"unknown set":         {recovery, databases{}, func(_ *cluster, r *job.Restore) { r.Set = "dbs" }, statefulset.ErrNotFound, "namespace shop has db"},
		"live primary":        {job.Request{Ordinals: []int{0}, Replace: true}, databases{}, nil, job.ErrNeedsConsent, "--allow-rollback"},
		"a set made anew":     {recovery, databases{}, func(c *cluster, r *job.Restore) { c.store(r, func(p *job.RestorePlan) { p.SetUID = "old" }) }, job.ErrConfig, "made anew"},
		"an edited plan":      {recovery, databases{}, func(c *cluster, r *job.Restore) { c.store(r, func(p *job.RestorePlan) { p.Backup = "" }) }, job.ErrConfig, "somebody changed it"},
		"a plan to come":      {recovery, databases{}, func(c *cluster, r *job.Restore) { c.store(r, func(p *job.RestorePlan) { p.Format = 2 }) }, nil, "has format 2"},
		"another run":         {recovery, databases{}, func(c *cluster, _ *job.Restore) { c.hold("run-0") }, job.ErrBusy, "restore run run-0 holds"},
		"a backup that stays": {recovery, databases{}, func(c *cluster, _ *job.Restore) { c.backupRuns() }, job.ErrBusy, "nightly-1"},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := newCluster(t, 2)
			r := cluster.restore(w, &c.databases, c.request, "run-1", "pod-1")
			if c.change != nil {
				c.change(cluster, r)
			}
			_, err := r.Execute(t.Context())
			require.ErrorContains(t, err, c.says)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
			for _, step := range cluster.steps {
				assert.NotRegexp(t, "pods|claims|statefulsets|load", step)
			}
			if name != "another run" && name != "unknown set" {
				cluster.requireDone()
			}
		})
	}
}

// A restore that loses its Lease while it loads stops there: whoever took it
// finds nothing done behind his back.
func TestLostLeaseStopsTheRestore(t *testing.T) {
	w := backedUp(t)
	c := newCluster(t, 2)
	taken := 0
	_, err := c.restore(w, &databases{at: func(step string) error {
		if step == "load" {
			c.hold("run-9")
			taken = len(c.steps)
		}
		return nil
	}}, recovery, "run-2", "pod-1").Execute(t.Context())
	require.ErrorIs(t, err, statefulset.ErrLeaseLost)
	for _, step := range c.steps[taken:] {
		require.NotRegexp(t, "pods|claims|statefulsets|leases keepset-db", step)
	}
	info, err := c.client().CheckFree(context.WithoutCancel(t.Context()), "db")
	require.ErrorIs(t, err, statefulset.ErrBusy)
	require.Equal(t, "run-9", info.Run(), "it is not given back by whoever has lost it")
}

// A backup that warned of very many things can be restored: the plan, which is
// stored where there is little room, repeats some of them.
func TestManyWarningsCanBeRestored(t *testing.T) {
	w := newWorld(t, 3, 3)
	upstream := &record.UpstreamCoordinates{Host: "db-0.db", Port: 3306, Running: true}
	w.servers[w.order[1]].upstream = upstream
	for i := range 2000 {
		text := fmt.Sprintf("view shop.v%d cannot be read, because %s", i, strings.Repeat("a column that it names is not there; ", 3))
		w.servers[w.order[1]].warnings = append(w.servers[w.order[1]].warnings, text)
	}
	_, err := w.backup().Run(t.Context())
	require.NoError(t, err)
	report, err := newCluster(t, 2).restore(w, &databases{}, recovery, "run-1", "pod-1").Execute(t.Context())
	require.NoError(t, err)
	require.Len(t, report.Plan.Notes, 11)
	require.Contains(t, report.Plan.Notes[10], "backup show "+string(report.Plan.Backup))
}
