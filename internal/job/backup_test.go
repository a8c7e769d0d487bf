package job_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"keepset/internal/dbdump"
	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBackupCommitsEveryMember(t *testing.T) {
	w := newWorld(t, 100, 100, 100)
	report, err := w.backup().Run(t.Context())
	require.NoError(t, err)
	assert.Equal(t, job.StatusComplete, report.Status)
	assert.Len(t, report.Members, 3)
	for _, m := range report.Members {
		assert.Equal(t, job.StatusComplete, m.Status)
		assert.EqualValues(t, 300, m.Rows)
	}
	infos := w.list()
	require.Len(t, infos, 1)
	assert.Equal(t, repository.StatusComplete, infos[0].Status)
	var stored, bytes int64
	for _, m := range report.Members {
		stored, bytes = stored+m.Stored, bytes+m.Bytes
	}
	assert.Less(t, stored, bytes/2, "replicas share their content")
}

func TestOneFailingMemberStopsNoOther(t *testing.T) {
	w := newWorld(t, 100, 100, 100)
	w.servers["db1:3306"].fail = fmt.Errorf("read rows: %w", dbdump.ErrDrift)
	report, err := w.backup().Run(t.Context())
	require.ErrorIs(t, err, job.ErrIncomplete)
	require.ErrorContains(t, err, "ordinal 1 (db1:3306) failed")
	require.ErrorContains(t, err, "server changed during the dump")
	assert.Equal(t, job.StatusIncomplete, report.Status)
	infos := w.list()
	require.Len(t, infos, 1)
	assert.Equal(t, repository.StatusIncomplete, infos[0].Status)
	assert.True(t, infos[0].Members[0].Valid)
	assert.True(t, infos[0].Members[2].Valid)
	_, committed := infos[0].Members[1]
	assert.False(t, committed)
}

func TestUnreachableEverywhereIsFailure(t *testing.T) {
	w := newWorld(t, 10)
	delete(w.servers, "db0:3306")
	report, err := w.backup().Run(t.Context())
	require.ErrorIs(t, err, job.ErrFailed)
	require.NotErrorIs(t, err, job.ErrIncomplete)
	assert.Equal(t, job.StatusFailed, report.Status)
	assert.Equal(t, repository.StatusIncomplete, w.list()[0].Status, "the plan is there, and says what is missing")
}

// What no member can do, however often it is tried, is refused: a Job is not to repeat it.
func TestRefusedSelectionIsConfiguration(t *testing.T) {
	w := newWorld(t, 10)
	w.servers["db0:3306"].fail = fmt.Errorf("%w: a table needs another one", dbdump.ErrSelection)
	report, err := w.backup().Run(t.Context())
	require.ErrorIs(t, err, job.ErrConfig)
	require.NotErrorIs(t, err, job.ErrFailed)
	require.ErrorContains(t, err, "a table needs another one")
	assert.Equal(t, job.StatusFailed, report.Status)
}

// In a fan-out it is a matter of the share that has the member: exit code 64 would end the pods that have the others.
func TestRefusedSelectionOfAShare(t *testing.T) {
	w := newWorld(t, 10, 10)
	w.servers["db0:3306"].fail = fmt.Errorf("%w: a table needs another one", dbdump.ErrSelection)
	b := w.backup()
	b.Share = job.Share{Index: 0, Of: 2}
	_, err := b.Run(t.Context())
	require.ErrorIs(t, err, job.ErrFailed)
	require.NotErrorIs(t, err, job.ErrConfig)
	require.ErrorContains(t, err, "a table needs another one")
}

func TestMissingPodFailsItsMemberOnly(t *testing.T) {
	w := newWorld(t, 10, 10)
	b := w.backup()
	b.Discover = func(ctx context.Context) (job.Inventory, error) {
		inv, err := job.Sources(w.order)(ctx)
		inv.Members[1].Problem = errors.New("pod shop-1 does not exist")
		return inv, err
	}
	_, err := b.Run(t.Context())
	require.ErrorIs(t, err, job.ErrIncomplete)
	require.ErrorContains(t, err, "pod shop-1 does not exist")
	assert.Len(t, w.list()[0].Plan.Members, 2, "the plan holds what was expected, not what was found")
}

func TestRetryContinuesTheSameBackup(t *testing.T) {
	w := newWorld(t, 50, 50)
	w.servers["db1:3306"].fail = errors.New("killed")
	first := w.backup()
	_, err := first.Run(t.Context())
	require.ErrorIs(t, err, job.ErrIncomplete)

	w.servers["db1:3306"].fail = nil
	retry := w.backup()
	retry.ID = first.ID
	report, err := retry.Run(t.Context())
	require.NoError(t, err)
	assert.True(t, report.Members[0].Resumed)
	assert.False(t, report.Members[1].Resumed)
	assert.Equal(t, 1, w.servers["db0:3306"].dumps, "a committed member is not read again")
	infos := w.list()
	require.Len(t, infos, 1)
	assert.Equal(t, repository.StatusComplete, infos[0].Status)
}

func TestRetryUsesTheStoredPlan(t *testing.T) {
	w := newWorld(t, 50, 50, 50)
	w.servers["db2:3306"].fail = errors.New("killed")
	first := w.backup()
	_, err := first.Run(t.Context())
	require.ErrorIs(t, err, job.ErrIncomplete)
	// The set was scaled down meanwhile: the plan still names ordinal 2.
	retry := w.backup()
	retry.ID = first.ID
	retry.Discover = job.Sources(w.order[:2])
	_, err = retry.Run(t.Context())
	require.ErrorIs(t, err, job.ErrIncomplete)
	require.ErrorContains(t, err, "ordinal 2 is in the plan and no longer in the set")
}

func TestFanOutSharesThePlan(t *testing.T) {
	w := newWorld(t, 20, 20, 20, 20, 20)
	id := w.backup().ID
	seen := map[int]int{}
	for index := range 3 {
		b := w.backup()
		b.ID, b.Share = id, job.Share{Index: index, Of: 3}
		report, err := b.Run(t.Context())
		require.NoError(t, err)
		assert.True(t, report.Partial())
		assert.Contains(t, report.Summary(), "of 5 members) of backup", "a share does not speak for the whole")
		for _, m := range report.Members {
			seen[m.Ordinal]++
		}
	}
	assert.Equal(t, map[int]int{0: 1, 1: 1, 2: 1, 3: 1, 4: 1}, seen)
	infos := w.list()
	require.Len(t, infos, 1)
	assert.Equal(t, repository.StatusComplete, infos[0].Status)
}

func TestShrunkMemberIsSuspect(t *testing.T) {
	w := newWorld(t, 100, 100)
	_, err := w.backup().Run(t.Context())
	require.NoError(t, err)
	w.servers["db1:3306"].tables["t0"] = nil
	w.servers["db1:3306"].tables["t1"] = w.servers["db1:3306"].tables["t1"][:20]
	report, err := w.backup().Run(t.Context())
	require.ErrorIs(t, err, job.ErrSuspect)
	require.ErrorContains(t, err, "rows fell from 300 to 120")
	assert.Equal(t, job.StatusSuspect, report.Status)
	infos := w.list()
	assert.Equal(t, repository.StatusSuspect, infos[0].Status)

	// The suspect one is not what the next is measured by.
	_, err = w.backup().Run(t.Context())
	require.ErrorIs(t, err, job.ErrSuspect)
	// And it is never chosen by itself.
	info, err := w.repo.Resolve(t.Context(), testSet, repository.Selector{})
	require.NoError(t, err)
	assert.Equal(t, infos[1].ID, info.ID)
}

func TestEmptyMemberIsSuspect(t *testing.T) {
	w := newWorld(t, 0)
	_, err := w.backup().Run(t.Context())
	require.ErrorIs(t, err, job.ErrSuspect)
	require.ErrorContains(t, err, "it holds no table")
	w.servers["db0:3306"].tables["t0"] = []string{}
	_, err = w.backup().Run(t.Context())
	require.ErrorContains(t, err, "none of its tables holds a row")
	b := w.backup()
	b.Rules.AllowEmpty = true
	_, err = b.Run(t.Context())
	require.NoError(t, err)
}

func TestBrokenFollowerIsSuspect(t *testing.T) {
	w := newWorld(t, 10, 10)
	w.servers["db1:3306"].upstream = &record.UpstreamCoordinates{Host: "db0", Port: 3306, Running: false, LagSeconds: -1}
	_, err := w.backup().Run(t.Context())
	require.ErrorIs(t, err, job.ErrSuspect)
	require.ErrorContains(t, err, "replication from db0:3306 is not running")
	w.servers["db1:3306"].upstream = &record.UpstreamCoordinates{Host: "db0", Port: 3306, Running: true, LagSeconds: 61}
	_, err = w.backup().Run(t.Context())
	require.ErrorIs(t, err, job.ErrSuspect)
	require.ErrorContains(t, err, "1m1s behind")
	w.servers["db1:3306"].upstream.LagSeconds = 5
	_, err = w.backup().Run(t.Context())
	require.NoError(t, err)
	w.servers["db1:3306"].others = []record.UpstreamCoordinates{{Host: "db9", Port: 3306, Running: false}}
	_, err = w.backup().Run(t.Context())
	require.ErrorIs(t, err, job.ErrSuspect)
	require.ErrorContains(t, err, "replication from db9:3306 is not running")
}

func TestOrdinalsAreCheckedAgainstTheSet(t *testing.T) {
	w := newWorld(t, 10, 10, 10)
	b := w.backup()
	var err error
	b.Ordinals, err = job.ParseOrdinals("0,2")
	require.NoError(t, err)
	report, err := b.Run(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []int{0, 2}, []int{report.Members[0].Ordinal, report.Members[1].Ordinal})
	b = w.backup()
	b.Ordinals, err = job.ParseOrdinals("1-4")
	require.NoError(t, err)
	_, err = b.Run(t.Context())
	require.ErrorIs(t, err, job.ErrConfig)
	require.ErrorContains(t, err, "no ordinal 3")
	for _, wrong := range []string{"a", "2-1", "-1", "1,,2"} {
		_, err := job.ParseOrdinals(wrong)
		require.Error(t, err, wrong)
	}
}

func TestFollowersOnly(t *testing.T) {
	w := newWorld(t, 10, 10, 10)
	b := w.backup()
	b.FollowersOnly = true
	b.Role = func(_ context.Context, m job.Member) (string, error) {
		if m.Ordinal == 0 {
			return job.RolePrimary, nil
		}
		return job.RoleFollower, nil
	}
	report, err := b.Run(t.Context())
	require.NoError(t, err)
	require.Len(t, report.Members, 2)
	assert.Equal(t, job.RoleFollower, w.list()[0].Plan.Members[0].Role)
	b = w.backup()
	b.FollowersOnly = true
	b.Role = func(context.Context, job.Member) (string, error) { return job.RolePrimary, nil }
	_, err = b.Run(t.Context())
	require.ErrorIs(t, err, job.ErrConfig, "nothing to back up is not a success")
	require.ErrorContains(t, err, "no member of set _/shop follows another")
}

// guard is busy from its nth check on.
type guard struct{ from, checks int }

func (g *guard) Check(context.Context) error {
	if g.checks++; g.checks >= g.from {
		return fmt.Errorf("%w: a restore holds it", job.ErrBusy)
	}
	return nil
}

func TestBusySetIsNotTouched(t *testing.T) {
	w := newWorld(t, 10)
	b := w.backup()
	b.Guard = &guard{from: 1}
	_, err := b.Run(t.Context())
	require.ErrorIs(t, err, job.ErrBusy)
	assert.Empty(t, w.list())
	assert.Zero(t, w.servers["db0:3306"].dumps)
}

func TestRestoreDuringTheDumpPreventsTheCommit(t *testing.T) {
	w := newWorld(t, 10)
	b := w.backup()
	b.Guard = &guard{from: 2}
	report, err := b.Run(t.Context())
	require.ErrorIs(t, err, job.ErrBusy)
	assert.Equal(t, job.StatusBusy, report.Status)
	assert.Equal(t, repository.StatusIncomplete, w.list()[0].Status)
}

func TestCancelledRunCommitsNothing(t *testing.T) {
	w := newWorld(t, 10)
	ctx, cancel := context.WithCancel(t.Context())
	b := w.backup()
	open := b.Open
	b.Open = func(m job.Member) (dbdump.Engine, error) { cancel(); return open(m) }
	_, err := b.Run(ctx)
	require.ErrorIs(t, err, job.ErrFailed)
	for _, info := range w.list() {
		assert.NotEqual(t, repository.StatusComplete, info.Status)
	}
}

func TestLoadBringsAMemberBack(t *testing.T) {
	w := newWorld(t, 30, 40)
	_, err := w.backup().Run(t.Context())
	require.NoError(t, err)
	target := &fakeServer{tables: map[string][]string{}}
	l := w.load(1, target)
	report, err := l.Run(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, 120, report.Rows)
	assert.True(t, slices.Equal(target.tables["t2"], w.servers["db1:3306"].tables["t2"]))
	_, err = w.load(1, target).Run(t.Context())
	require.ErrorIs(t, err, dbdump.ErrNotEmpty)
}

func (w *world) load(ordinal int, target *fakeServer) *job.Load {
	return &job.Load{
		Repository: w.repo, Set: testSet, Ordinal: ordinal, Target: "new:3306",
		Open:  func() (dbdump.Engine, error) { return target, nil },
		Clock: w.clock.Now, Log: slog.New(slog.DiscardHandler),
	}
}

func TestLoadCountsRows(t *testing.T) {
	w := newWorld(t, 30)
	_, err := w.backup().Run(t.Context())
	require.NoError(t, err)
	_, err = w.load(0, &fakeServer{tables: map[string][]string{}, lose: 1}).Run(t.Context())
	require.ErrorIs(t, err, dbdump.ErrMismatch)
	require.ErrorContains(t, err, "87 rows arrived of 90")
}

func TestLoadFindsNothingFails(t *testing.T) {
	w := newWorld(t, 30)
	target := &fakeServer{tables: map[string][]string{}}
	_, err := w.load(0, target).Run(t.Context())
	require.ErrorIs(t, err, repository.ErrNoEligible)

	w.servers["db0:3306"].tables = map[string][]string{}
	report, err := w.backup().Run(t.Context())
	require.ErrorIs(t, err, job.ErrSuspect)
	_, err = w.load(0, target).Run(t.Context())
	require.ErrorIs(t, err, repository.ErrNoEligible, "a suspect backup is not chosen by itself")
	l := w.load(0, target)
	l.Choice.Selector.ID = report.Backup
	_, err = l.Run(t.Context())
	require.ErrorIs(t, err, repository.ErrNoEligible, "nor by its ID alone")
	l.Choice.AllowIncomplete = true
	_, err = l.Run(t.Context())
	require.ErrorIs(t, err, repository.ErrNoEligible, "nor with a flag for another doubt")
	l.Choice.AllowSuspect = true
	_, err = l.Run(t.Context())
	require.NoError(t, err)
}

func TestProgressEndsWithDone(t *testing.T) {
	w := newWorld(t, 10)
	b := w.backup()
	var events []job.Event
	b.Parallel = 1
	b.Progress = func(e job.Event) { events = append(events, e) }
	_, err := b.Run(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, events)
	last := events[len(events)-1]
	assert.True(t, last.Done)
	assert.Positive(t, last.Bytes)
}
