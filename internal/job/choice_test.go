package job_test

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
)

// run takes a backup that change has changed before.
func (w *world) run(change func(*job.Backup)) record.BackupID {
	w.t.Helper()
	b := w.backup()
	change(b)
	_, err := b.Run(w.t.Context())
	require.NoError(w.t, err)
	return b.ID
}

func filter(patterns ...string) func(*job.Backup) {
	return func(b *job.Backup) { b.Plan.Databases = patterns }
}

func narrow(t *testing.T, text string) func(*job.Backup) {
	t.Helper()
	chosen, err := job.ParseOrdinals(text)
	require.NoError(t, err)
	return func(b *job.Backup) { b.Ordinals = chosen }
}

// chosen loads a member into an empty server, and returns from which backup.
func (w *world) chosen(ordinal int, c job.Choice) (record.BackupID, error) {
	l := w.load(ordinal, &fakeServer{tables: map[string][]string{}})
	l.Choice = c
	report, err := l.Run(w.t.Context())
	if err != nil {
		return "", err
	}
	return report.Backup, nil
}

// TestFilteredBackupIsNoWholeMember: somebody takes a backup of one database by
// hand. A restore of a whole replica does not take it for the newest one. From
// when a database is left out every night, which one is meant has to be said.
func TestFilteredBackupIsNoWholeMember(t *testing.T) {
	w := newWorld(t, 10)
	whole := w.run(filter())
	without := w.run(filter("!scratch"))
	only := w.run(filter("shop", "!shop.log"))
	byID := func(id record.BackupID) repository.Selector { return repository.Selector{ID: id} }
	before := repository.Selector{At: without.Time().Add(-time.Second)}

	for _, c := range []struct {
		name   string
		choice job.Choice
		want   record.BackupID
		err    string
	}{
		{"not one that is older by itself", job.Choice{Whole: true}, "", string(without) + ", captured 2026-11-20T13:17:31Z, was taken without scratch (--allow-filtered takes it); the newest that is whole is " + string(whole)},
		{"the older one by its ID", job.Choice{Whole: true, Selector: byID(whole)}, whole, ""},
		{"a part may come from any", job.Choice{}, only, ""},
		{"consent to what was left out", job.Choice{Whole: true, AllowFiltered: true}, without, ""},
		{"by its ID", job.Choice{Whole: true, Selector: byID(without)}, "", "was taken without scratch; --allow-filtered"},
		{"by its ID, with consent", job.Choice{Whole: true, AllowFiltered: true, Selector: byID(without)}, without, ""},
		{"a single database by its ID", job.Choice{Whole: true, Selector: byID(only)}, "", "holds only shop and no accounts and was taken without shop.log; --allow-filtered"},
		{"a single database by its ID, with consent", job.Choice{Whole: true, AllowFiltered: true, Selector: byID(only)}, only, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := w.chosen(0, c.choice)
			if c.err != "" {
				require.ErrorIs(t, err, repository.ErrNoEligible)
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
		})
	}
	_, err := w.chosen(0, job.Choice{Whole: true, Selector: before})
	require.ErrorIs(t, err, repository.ErrNoEligible, "none had been captured by then")
}

// TestNothingWholeNamesTheWayOut: where a server was never backed up whole, the
// refusal says what takes what there is.
func TestNothingWholeNamesTheWayOut(t *testing.T) {
	w := newWorld(t, 10)
	only, without := w.run(filter("shop")), w.run(filter("!scratch"))
	_, err := w.chosen(0, job.Choice{Whole: true})
	require.ErrorIs(t, err, repository.ErrNoEligible)
	require.ErrorContains(t, err, string(without)+" was taken without scratch (--allow-filtered takes it)")
	require.ErrorContains(t, err, string(only)+" holds only shop and no accounts (by its ID with --allow-filtered, or restore load --database)")

	w = newWorld(t, 10)
	only = w.run(filter("shop"))
	_, err = w.chosen(0, job.Choice{Whole: true, AllowFiltered: true})
	require.ErrorIs(t, err, repository.ErrNoEligible, "never by itself")
	require.ErrorContains(t, err, string(only)+" holds only shop")
}

// TestPassingOverIsLogged, by what runs without a plan.
func TestPassingOverIsLogged(t *testing.T) {
	w := newWorld(t, 10)
	whole := w.run(filter())
	var byHand []record.BackupID
	for range 5 {
		byHand = append(byHand, w.run(filter("shop")))
	}
	var log bytes.Buffer
	l := w.load(0, &fakeServer{tables: map[string][]string{}})
	l.Choice, l.Log = job.Choice{Whole: true}, slog.New(slog.NewTextHandler(&log, nil))
	report, err := l.Run(t.Context())
	require.NoError(t, err)
	assert.Equal(t, whole, report.Backup)
	assert.Contains(t, log.String(), "level=WARN msg=\"newer backups were passed over for "+string(whole)+", captured 2026-11-20T13:17:31Z: "+string(byHand[4])+" holds only shop")
	assert.Contains(t, log.String(), "; and 2 more")
}

// TestNarrowedBackupLacksTheMember: a backup of some ordinals serves for these,
// and is passed over for the others. So is one of an earlier version, whose
// plan does not say that it is narrowed.
func TestNarrowedBackupLacksTheMember(t *testing.T) {
	w := newWorld(t, 10, 10, 10)
	all := w.run(narrow(t, ""))
	some := w.run(narrow(t, " 1-2"))
	infos := w.list()
	assert.Equal(t, "1-2", infos[0].Plan.Ordinals)
	assert.False(t, infos[1].Plan.Narrowed())
	want := map[int]record.BackupID{0: all, 1: some, 2: some}
	choose := func() {
		for ordinal, want := range want {
			got, err := w.chosen(ordinal, job.Choice{Whole: true, Ordinals: []int{ordinal}})
			require.NoError(t, err)
			assert.Equal(t, want, got)
		}
	}
	choose()
	want[2] = w.run(func(b *job.Backup) {
		b.Discover = func(ctx context.Context) (job.Inventory, error) {
			inv, err := job.Sources(w.order)(ctx)
			inv.Members = inv.Members[2:]
			return inv, err
		}
	})
	assert.False(t, w.list()[0].Plan.Narrowed())
	choose()
	// A set that has grown is another matter: there was nothing to leave out.
	w = newWorld(t, 10)
	all = w.run(filter())
	_, err := w.chosen(3, job.Choice{Ordinals: []int{3}})
	require.ErrorContains(t, err, "open ordinal 3 of backup "+string(all))
}

// TestOneDatabaseIsTheNewest: where a backup has whichever copy was the active one,
// the newest is taken whichever that was, and the wish for another copy is not
// answered with an older backup.
func TestOneDatabaseIsTheNewest(t *testing.T) {
	w := newWorld(t, 10, 10)
	older := w.run(narrow(t, "0"))
	newest := w.run(narrow(t, "1"))
	load := func(ordinal int, c job.Choice) (*job.LoadReport, error) {
		l := w.load(ordinal, &fakeServer{tables: map[string][]string{}})
		l.Choice, l.OneDatabase = c, true
		return l.Run(t.Context())
	}
	for _, ordinal := range []int{-1, 1} {
		report, err := load(ordinal, job.Choice{Whole: true})
		require.NoError(t, err)
		require.Equal(t, newest, report.Backup)
		require.Equal(t, 1, report.Ordinal)
	}
	_, err := load(0, job.Choice{Whole: true})
	require.ErrorIs(t, err, job.ErrConfig)
	require.ErrorContains(t, err, string(newest)+", captured 2026-11-20T13:17:31Z, has ordinal 1, which was the active one then, and not 0")
	report, err := load(-1, job.Choice{Whole: true, Selector: repository.Selector{ID: older}})
	require.NoError(t, err)
	require.Equal(t, 0, report.Ordinal)

	both := w.run(narrow(t, "0,1"))
	_, err = load(-1, job.Choice{Whole: true})
	require.ErrorIs(t, err, job.ErrConfig)
	require.ErrorContains(t, err, "backup "+string(both)+" has 2 members: say which with --ordinal")
	report, err = load(1, job.Choice{Whole: true})
	require.NoError(t, err)
	require.Equal(t, 1, report.Ordinal)
}

// TestFollowersAreSeededFromOneMember: a CronJob that backs up one follower
// serves for all others, too, and the newest of its backups does. Only who
// follows nobody needs rows of its own.
func TestFollowersAreSeededFromOneMember(t *testing.T) {
	w := newWorld(t, 3, 3, 3)
	for _, address := range w.order[1:] {
		w.servers[address].upstream = &record.UpstreamCoordinates{Host: "db-0.db", Port: 3306, Running: true}
	}
	all := w.run(filter())
	w.run(narrow(t, "1"))
	newest := w.run(narrow(t, "1"))
	restore := func(q job.Request) (*job.RestorePlan, error) {
		report, err := newCluster(t, 3).restore(w, &databases{}, q, "run-1", "pod-1").Execute(t.Context())
		if err != nil {
			return nil, err
		}
		return &report.Plan, nil
	}
	plan, err := restore(job.Request{Ordinals: []int{2}, Replace: true, Base: -1})
	require.NoError(t, err)
	assert.Equal(t, newest, plan.Backup)
	assert.Equal(t, 1, plan.Items[0].Base)
	assert.Contains(t, plan.Items[0].Follow, "db-0.db")
	assert.Empty(t, plan.Notes)

	plan, err = restore(job.Request{Ordinals: []int{0}, Replace: true, Base: -1, AllowRollback: true})
	require.NoError(t, err)
	assert.Equal(t, all, plan.Backup)
	require.Len(t, plan.Notes, 1)
	assert.Contains(t, plan.Notes[0], string(newest)+" was taken without ordinal 0")
}

// TestLeftOutServerIsNotReplacedByAnother: a backup of one shard does not say
// what the other one is, and is not loaded into it by itself.
func TestLeftOutServerIsNotReplacedByAnother(t *testing.T) {
	w := newWorld(t, 3, 4, 5)
	all := w.run(filter())
	one := w.run(narrow(t, "1"))
	q := job.Request{Ordinals: []int{2}, Replace: true, Base: -1, AllowRollback: true}
	execute := func() (*job.RestoreReport, error) {
		return newCluster(t, 3).restore(w, &databases{}, q, "run-1", "pod-1").Execute(t.Context())
	}
	_, err := execute()
	require.ErrorIs(t, err, job.ErrConfig)
	require.ErrorContains(t, err, string(one)+" was taken without ordinal 2")
	q.Follow = "none"
	report, err := execute()
	require.NoError(t, err)
	assert.Equal(t, all, report.Plan.Backup)
	assert.EqualValues(t, 15, report.Members[0].Rows)
	q.Follow, q.Base = "", 1
	report, err = execute()
	require.NoError(t, err, "said so")
	assert.Equal(t, one, report.Plan.Backup)
}

// TestPlanSaysThatFollowersAloneWereTaken, so that a restore can tell.
func TestPlanSaysThatFollowersAloneWereTaken(t *testing.T) {
	w := newWorld(t, 10, 10)
	b := w.backup()
	b.FollowersOnly = true
	plan, _, err := b.DryRun(t.Context())
	require.NoError(t, err)
	assert.True(t, plan.FollowersOnly)
	assert.True(t, plan.Narrowed())
}

// TestReplicaIsNotReplacedByOneDatabase: the restore of an ordinal consents to
// the loss of its claim, and not to getting back less than the nightly backup
// holds. Who names the smaller one gets it, and is told.
func TestReplicaIsNotReplacedByOneDatabase(t *testing.T) {
	w := backedUp(t)
	nightly := w.list()[0].ID
	byHand := w.run(filter("shop"))
	restore := func(c job.Choice) *job.Restore {
		r := newCluster(t, 2).restore(w, &databases{}, recovery, "run-1", "pod-1")
		r.Choice = c
		return r
	}
	var log bytes.Buffer
	r := restore(job.Choice{})
	r.Log = slog.New(slog.NewTextHandler(&log, nil))
	report, err := r.Execute(t.Context())
	require.NoError(t, err)
	assert.Equal(t, nightly, report.Plan.Backup)
	require.Len(t, report.Plan.Notes, 1)
	assert.Contains(t, report.Plan.Notes[0], "passed over for "+string(nightly))
	assert.Contains(t, report.Plan.Notes[0], string(byHand)+" holds only shop")
	assert.Contains(t, log.String(), report.Plan.Notes[0], "who only reads the Job's log is told as well")

	named := job.Choice{Selector: repository.Selector{ID: byHand}}
	_, err = restore(named).Execute(t.Context())
	require.ErrorIs(t, err, repository.ErrNoEligible)
	require.ErrorContains(t, err, "holds only shop and no accounts; --allow-filtered")
	named.AllowFiltered = true
	report, err = restore(named).Execute(t.Context())
	require.NoError(t, err, "what the plan has allowed, its execution does not refuse")
	assert.Equal(t, byHand, report.Plan.Backup)
	require.Len(t, report.Plan.Notes, 1)
	assert.Contains(t, report.Plan.Notes[0], "holds only shop")
}

// TestRestoreIsNeverSilentlyOlder: the CronJob has left a database out since
// spring. A restore does not bring back last spring's server instead.
func TestRestoreIsNeverSilentlyOlder(t *testing.T) {
	w := backedUp(t)
	spring := w.list()[0].ID
	w.run(filter("!tmpdb"))
	newest := w.run(filter("!tmpdb"))
	for _, c := range []struct {
		choice job.Choice
		want   record.BackupID
	}{
		{job.Choice{}, ""},
		{job.Choice{AllowFiltered: true}, newest},
		{job.Choice{Selector: repository.Selector{ID: spring}}, spring},
	} {
		cluster := newCluster(t, 2)
		r := cluster.restore(w, &databases{}, recovery, "run-1", "pod-1")
		r.Choice = c.choice
		report, err := r.Execute(t.Context())
		if c.want == "" {
			require.ErrorIs(t, err, repository.ErrNoEligible)
			require.ErrorContains(t, err, string(newest)+", captured 2026-11-20T13:17:31Z, was taken without tmpdb (--allow-filtered takes it)")
			require.ErrorContains(t, err, "--backup "+string(spring))
			for _, step := range cluster.steps {
				assert.NotRegexp(t, "pods|claims|load", step)
			}
			continue
		}
		require.NoError(t, err)
		assert.Equal(t, c.want, report.Plan.Backup)
	}
}

// TestShardsGetTheirOwnRows: three servers that have nothing to do with each
// other come back as they were, and not as three of the first.
func TestShardsGetTheirOwnRows(t *testing.T) {
	w := newWorld(t, 3, 4, 5)
	w.run(filter())
	q := job.Request{All: true, Replicas: 3}
	_, err := newCluster(t, 0).restore(w, &databases{}, q, "run-1", "pod-1").Execute(t.Context())
	require.ErrorIs(t, err, job.ErrConfig)
	require.ErrorContains(t, err, "--as-follower-of none")

	q.Follow = "none"
	report, err := newCluster(t, 0).restore(w, &databases{}, q, "run-1", "pod-1").Execute(t.Context())
	require.NoError(t, err)
	require.Len(t, report.Members, 3)
	for i, m := range report.Members {
		assert.Equal(t, i, m.Ordinal)
		assert.EqualValues(t, 3*(3+i), m.Rows)
	}
}
