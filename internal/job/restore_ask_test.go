package job_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/dbdump"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/statefulset"
)

// asked is what the set's own servers answer, one after the other, the last answer
// for ever. The clock goes on by ten seconds each time.
type asked struct {
	w       *world
	answers []error
	unasked string
	times   int
}

func (a *asked) of(item job.RestoreItem) job.Asker {
	return func(_ context.Context, address string) (string, error) {
		if address != "10.0.0.7:3306" || item.Coordinates == nil {
			return "", fmt.Errorf("asked at %q, with %v", address, item.Coordinates)
		}
		a.times++
		a.w.clock.Add(10 * time.Second)
		err := a.answers[min(a.times, len(a.answers))-1]
		if err != nil {
			return "", err
		}
		return a.unasked, nil
	}
}

// A pod that is Ready is not the end: its server says that it is what was restored,
// within the time that it has, or the restore fails.
func TestRestoredServersAreAsked(t *testing.T) {
	w := copiedWorld(t)
	unreachable, behind := fmt.Errorf("no route: %w", dbdump.ErrUnreachable), fmt.Errorf("it waits: %w", dbdump.ErrNotFollowing)
	for name, c := range map[string]struct {
		answers []error
		unasked string
		want    error
		says    string
		times   int
	}{
		"it is":                    {[]error{nil}, "", nil, "", 1},
		"later":                    {[]error{unreachable, unreachable, behind, behind, nil}, "", nil, "", 5},
		"it may not be asked":      {[]error{nil}, "its access rules", nil, "", 1},
		"it is another one":        {[]error{dbdump.ErrMismatch}, "", job.ErrConfig, "in the claim at files: --data-directory", 1},
		"it never answers":         {[]error{unreachable}, "", dbdump.ErrUnreachable, "--ready-timeout is 1m0s", 6},
		"it never follows":         {[]error{behind}, "", dbdump.ErrNotFollowing, "it waits", 6},
		"it takes no password":     {[]error{dbdump.ErrAccess}, "", dbdump.ErrAccess, "does not know the account", 3},
		"it takes a password soon": {[]error{dbdump.ErrAccess, nil}, "", nil, "", 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			t.Log(name)
			cluster := newCluster(t, 2)
			a := &asked{w: w, answers: c.answers, unasked: c.unasked}
			r := cluster.fill(w, nil, recovery)
			r.Files.Ask, r.ReadyWait = a.of, time.Minute
			report, err := r.Execute(t.Context())
			require.Equal(t, c.times, a.times, "%v", err)
			require.Empty(t, cluster.wrong)
			if c.want != nil {
				require.ErrorIs(t, err, c.want)
				require.ErrorContains(t, err, c.says)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.unasked, report.Members[0].Unasked)
			cluster.requireDone()
		})
	}
}

// The next pod of a Job asks again, and no other ordinal is begun before one has
// answered; what is let come up as it is, is not asked.
func TestWhoIsAsked(t *testing.T) {
	w := copiedWorld(t)
	cluster := newCluster(t, 0)
	a := &asked{w: w, answers: []error{dbdump.ErrMismatch}}
	r := cluster.fill(w, nil, job.Request{All: true})
	r.Files.Ask = a.of
	_, err := r.Execute(t.Context())
	require.ErrorIs(t, err, dbdump.ErrMismatch)
	require.Len(t, cluster.fills(), 1)

	again := cluster.again(w, r)
	again.Files.Ask = a.of
	a.answers = []error{nil}
	report, err := again.Execute(t.Context())
	require.NoError(t, err)
	require.Equal(t, 3, a.times, "the first ordinal anew, then the second")
	require.Equal(t, []string{job.ActionBefore, job.ActionSeeded}, []string{report.Members[0].Action, report.Members[1].Action})

	kept := newCluster(t, 2)
	r = kept.fill(w, nil, job.Request{Ordinals: []int{1}, Keep: true})
	r.Files.Ask = func(job.RestoreItem) job.Asker { panic("nobody is asked") }
	_, err = r.Execute(t.Context())
	require.NoError(t, err)
}

// again is the restore of the Job's next pod.
func (c *cluster) again(w *world, r *job.Restore) *job.Restore {
	next := c.restore(w, &databases{}, r.Request, r.Run.ID, "pod-2")
	next.Files, next.Servers, next.Seed = r.Files, nil, r.Seed
	return next
}

// A slot serves one standby, and none that a restore brings back can be there.
func TestSlotsOfStandbys(t *testing.T) {
	w := copiedWorld(t)
	for name, c := range map[string]struct {
		replicas int32
		request  job.Request
		slots    []string
		refused  string
	}{
		"one":                   {2, job.Request{Replicas: 3, Slot: "spare"}, []string{"spare"}, ""},
		"one by its ordinal":    {2, job.Request{Ordinals: []int{1}, Replace: true, Slot: "db_{ordinal}"}, []string{"db_1"}, ""},
		"two by their ordinals": {2, job.Request{Replicas: 4, Slot: "db_{ordinal}_x"}, []string{"db_2_x", "db_3_x"}, ""},
		"two on one":            {2, job.Request{Replicas: 4, Slot: "spare"}, nil, "ordinals 2 and 3 would share it: write {ordinal} into its name"},
		"of a new primary":      {0, job.Request{All: true, Slot: "db_{ordinal}"}, nil, "a backup has no replication slots"},
		"of one that goes back": {2, job.Request{Ordinals: []int{0, 1}, Replace: true, Slot: "db_{ordinal}"}, nil, "a backup has no replication slots"},
		"of another set's":      {0, job.Request{All: true, Follow: "elsewhere:5432", Slot: "db_{ordinal}"}, []string{"db_0", "db_1"}, ""},
		"for nobody":            {2, job.Request{Ordinals: []int{0}, Replace: true, AllowRollback: true, Slot: "spare"}, nil, "none of the ordinals will follow"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newCluster(t, c.replicas).fill(w, nil, c.request)
			r.Run.Local = true
			plan, err := r.Resolve(t.Context())
			if c.refused != "" {
				require.ErrorIs(t, err, job.ErrConfig)
				require.ErrorContains(t, err, c.refused)
				return
			}
			require.NoError(t, err)
			var slots []string
			for _, item := range plan.Items {
				slots = append(slots, item.Slot)
			}
			require.Equal(t, c.slots, slots)
		})
	}
}

// Files that have no place are refused before anything is touched, a primary's as well.
func TestNoPlace(t *testing.T) {
	w := copiedWorld(t)
	for name, q := range map[string]job.Request{
		"a standby": recovery, "the primary": {Ordinals: []int{0}, Replace: true, AllowRollback: true}, "one more": {Replicas: 3},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := newCluster(t, 2)
			r := cluster.fill(w, nil, q)
			r.Files.Place = func(statefulset.Set, record.Report) (statefulset.DataPlace, error) {
				return statefulset.DataPlace{}, job.ErrConfig
			}
			_, err := r.Execute(t.Context())
			require.ErrorIs(t, err, job.ErrConfig)
			require.Equal(t, []string{"create leases keepset-db", "update leases keepset-db"}, cluster.steps)
		})
	}
}

// Where the files go stands in the plan, and a plan without that is not guessed at.
func TestPlaceIsPlanned(t *testing.T) {
	w := copiedWorld(t)
	cluster := newCluster(t, 2)
	r := cluster.fill(w, nil, recovery)
	cluster.store(r, func(p *job.RestorePlan) {
		require.Equal(t, &statefulset.DataPlace{Template: "data", Path: "files"}, p.Items[0].Place)
		p.Items[0].Place = nil
	})
	_, err := r.Execute(t.Context())
	require.ErrorIs(t, err, job.ErrConfig)
	require.ErrorContains(t, err, "another version's")
	require.Empty(t, cluster.fills())
}

// What was recorded of the files is in the plan for whoever asks their server, and not
// otherwise: the sets of GTIDs of a long history would make it too long to be stored.
func TestPlanOfWhoIsNotAsked(t *testing.T) {
	w := copiedWorld(t)
	r := newCluster(t, 2).fill(w, nil, recovery)
	plan, err := r.Resolve(t.Context())
	require.NoError(t, err)
	require.NotNil(t, plan.Items[0].Place)
	require.Nil(t, plan.Items[0].Coordinates)
}
