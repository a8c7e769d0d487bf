package job_test

import (
	"testing"

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
// hand. A restore of a whole replica does not take it for the newest one.
func TestFilteredBackupIsNoWholeMember(t *testing.T) {
	w := newWorld(t, 10)
	whole := w.run(filter())
	without := w.run(filter("!scratch"))
	only := w.run(filter("shop", "!shop.log"))
	latest := repository.Selector{}

	for _, c := range []struct {
		name   string
		choice job.Choice
		want   record.BackupID
		err    string
	}{
		{"the newest that is whole", job.Choice{Whole: true}, whole, ""},
		{"a part may come from any", job.Choice{}, only, ""},
		{"consent to what was left out", job.Choice{Whole: true, AllowFiltered: true}, without, ""},
		{"by its ID", job.Choice{Whole: true, Selector: repository.Selector{ID: without}}, "", "was taken without scratch; --allow-filtered"},
		{"by its ID, with consent", job.Choice{Whole: true, AllowFiltered: true, Selector: repository.Selector{ID: without}}, without, ""},
		{"a single database by its ID", job.Choice{Whole: true, Selector: repository.Selector{ID: only}}, "", "holds only shop and no accounts and was taken without shop.log; --allow-filtered"},
		{"a single database by its ID, with consent", job.Choice{Whole: true, AllowFiltered: true, Selector: repository.Selector{ID: only}}, only, ""},
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

	w = newWorld(t, 10)
	only = w.run(filter("shop"))
	_, err := w.chosen(0, job.Choice{Whole: true, AllowFiltered: true, Selector: latest})
	require.ErrorIs(t, err, repository.ErrNoEligible, "never by itself")
	require.ErrorContains(t, err, string(only)+" holds only shop")
}

// TestNarrowedBackupLacksTheMember: a backup of some ordinals serves for these,
// and is passed over for the others.
func TestNarrowedBackupLacksTheMember(t *testing.T) {
	w := newWorld(t, 10, 10, 10)
	all := w.run(narrow(t, ""))
	some := w.run(narrow(t, " 1-2"))
	infos := w.list()
	assert.Equal(t, "1-2", infos[0].Plan.Ordinals)
	assert.False(t, infos[1].Plan.Narrowed())
	for ordinal, want := range map[int]record.BackupID{0: all, 1: some, 2: some} {
		got, err := w.chosen(ordinal, job.Choice{Whole: true, Ordinals: []int{ordinal}})
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	// A set that has grown is another matter: there was nothing to leave out.
	_, err := w.chosen(3, job.Choice{Ordinals: []int{3}})
	require.ErrorContains(t, err, "open ordinal 3 of backup "+string(all))
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
	report, err := restore(job.Choice{}).Execute(t.Context())
	require.NoError(t, err)
	assert.Equal(t, nightly, report.Plan.Backup)
	assert.Empty(t, report.Plan.Notes)

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
