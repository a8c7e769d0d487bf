package job_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"

	"keepset/internal/job"
	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/schedule"
	"keepset/internal/statefulset"
)

// look makes a status of the set, whose backups run at one o'clock.
func (w *taken) look(t *testing.T, change func(*job.Status)) (*job.StatusReport, error) {
	t.Helper()
	daily, err := schedule.Parse("0 13 * * *", "")
	require.NoError(t, err)
	s := &job.Status{Repository: w.repo, Set: volumesSet, Schedule: &daily, NoCluster: "nobody asked", Clock: w.clock.Now}
	if change != nil {
		change(s)
	}
	return s.Run(t.Context())
}

// found is the state of a check, and what it says with the remedy.
func found(t *testing.T, r *job.StatusReport, check string) (state, says string) {
	t.Helper()
	require.NotNil(t, r)
	for _, c := range r.Checks {
		if c.Check == check {
			return c.State, c.What + "; " + c.Remedy
		}
	}
	require.Fail(t, "no such check", check)
	return "", ""
}

// requireAlert: there is this one finding, and it says so.
func requireAlert(t *testing.T, r *job.StatusReport, err error, check, says string) {
	t.Helper()
	require.ErrorIs(t, err, job.ErrFindings)
	state, text := found(t, r, check)
	require.Equal(t, job.CheckAlert, state, "%+v", r.Checks)
	require.Contains(t, text, says)
}

func TestStatusOfAGoodSet(t *testing.T) {
	w := newTaken(t, 2)
	r, err := w.look(t, nil)
	require.NoError(t, err)
	require.Equal(t, w.ids[1], r.LastComplete)
	require.Equal(t, w.clock.Now().Add(-24*time.Hour), r.CapturedAt)
	require.Equal(t, time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC), r.DueAt)
	require.Equal(t, map[repository.Status]int{repository.StatusComplete: 2}, r.Backups)
	for check, want := range map[string]string{
		job.CheckAge: job.CheckOK, job.CheckNewest: job.CheckOK, job.CheckCronJob: job.CheckUnchecked, job.CheckPrune: job.CheckUnchecked,
	} {
		state, says := found(t, r, check)
		require.Equal(t, want, state, says)
	}
}

// TestStatusAge: due at one o'clock, complete by two.
func TestStatusAge(t *testing.T) {
	w := newTaken(t, 1)
	_, err := w.look(t, nil)
	require.NoError(t, err, "17 minutes late, and a backup takes time")
	r, err := w.look(t, func(s *job.Status) { s.Grace = time.Minute })
	requireAlert(t, r, err, job.CheckAge, `"0 13 * * *" in UTC wanted one at 2026-11-21T13:00:00Z`)
	w.clock.Add(time.Hour)
	r, err = w.look(t, nil)
	requireAlert(t, r, err, job.CheckAge, "captured 25h0m0s ago")
	r, err = w.look(t, func(s *job.Status) { s.Schedule = nil })
	require.NoError(t, err)
	state, says := found(t, r, job.CheckAge)
	require.Equal(t, job.CheckUnchecked, state)
	require.Contains(t, says, "give --schedule")
}

// TestStatusAgeIsThatOfWholeBackups: those that somebody takes of one database or
// directory do not hide that nobody has taken a whole one since.
func TestStatusAgeIsThatOfWholeBackups(t *testing.T) {
	for name, change := range partial() {
		t.Run(name, func(t *testing.T) {
			w := newTaken(t, 1)
			w.clock.Add(time.Hour)
			w.takePart(t, change)
			r, err := w.look(t, nil)
			requireAlert(t, r, err, job.CheckAge, string(w.ids[0]))
		})
	}
}

func TestStatusWithoutABackup(t *testing.T) {
	w := newTaken(t, 0)
	r, err := w.look(t, nil)
	requireAlert(t, r, err, job.CheckAge, "no backup of the set at all")

	ended := w.beginOnly(t)
	r, err = w.look(t, nil)
	require.NoError(t, err, "the first one may still be running")
	state, says := found(t, r, job.CheckAge)
	require.Equal(t, job.CheckUnchecked, state)
	require.Contains(t, says, "not complete yet")

	w.clock.Add(26 * time.Hour)
	r, err = w.look(t, nil)
	requireAlert(t, r, err, job.CheckAge, "none of the set's 1 backups is complete")
	requireAlert(t, r, err, job.CheckNewest, string(ended)+", is incomplete: ordinal 0 (mysql-0) has no commit")
}

// beginOnly leaves what a run that is under way, or was killed, has stored.
func (w *taken) beginOnly(t *testing.T) record.BackupID {
	t.Helper()
	b := w.beginOne(t)
	require.NoError(t, b.Close())
	return b.Plan().ID
}

func (w *taken) beginOne(t *testing.T) *repository.Backup {
	t.Helper()
	b, err := w.repo.Begin(t.Context(), record.Plan{
		ID: record.NewBackupID(w.clock.Now(), ""), Set: volumesSet, Origin: "here", CreatedAt: w.clock.Now(),
		Method: record.MethodSnapshot, Replicas: 1, Members: []record.PlannedMember{{Name: "mysql-0"}},
	}, "one")
	require.NoError(t, err)
	return b
}

// TestStatusOfTheNewestRun: what has ended counts, what may be running does not.
func TestStatusOfTheNewestRun(t *testing.T) {
	w := newTaken(t, 1)
	running := w.beginOnly(t)
	r, err := w.look(t, nil)
	require.NoError(t, err)
	state, says := found(t, r, job.CheckNewest)
	require.Equal(t, job.CheckOK, state)
	require.Contains(t, says, string(w.ids[0])+", is complete; "+string(running))

	w.clock.Add(time.Minute)
	b := w.beginOne(t)
	require.NoError(t, b.Report(t.Context(), map[string]string{"status": "incomplete"}))
	require.NoError(t, b.Close())
	r, err = w.look(t, nil)
	requireAlert(t, r, err, job.CheckNewest, string(b.Plan().ID)+", is incomplete")

	w.clock.Add(time.Minute)
	w.take(t, repository.CommitStatus{Suspect: true, Reasons: []string{"rows fell"}})
	r, err = w.look(t, nil)
	requireAlert(t, r, err, job.CheckNewest, "rows fell")
	_, says = found(t, r, job.CheckNewest)
	require.Contains(t, says, "backup accept")
}

// cronJob is one of the set.
func cronJob(name string, change func(*batchv1.CronJob)) *batchv1.CronJob {
	utc := "Etc/UTC"
	o := &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", Labels: map[string]string{statefulset.LabelSet: "mysql"}},
		Spec:       batchv1.CronJobSpec{Schedule: "0 13 * * *", TimeZone: &utc},
	}
	if change != nil {
		change(o)
	}
	return o
}

// in looks at the set in a cluster with these CronJobs.
func in(cronJobs ...runtime.Object) func(*job.Status) {
	return func(s *job.Status) {
		s.Schedule, s.NoCluster = nil, ""
		s.Cluster = statefulset.New(fake.NewClientset(cronJobs...), "shop", nil)
	}
}

func suspended(key, by string) func(*batchv1.CronJob) {
	return func(o *batchv1.CronJob) {
		yes := true
		o.Spec.Suspend = &yes
		if key != "" {
			o.Annotations = map[string]string{key: by}
		}
	}
}

func ran(schedule, success time.Time) func(*batchv1.CronJob) {
	return func(o *batchv1.CronJob) {
		o.Status.LastScheduleTime = &metav1.Time{Time: schedule}
		if !success.IsZero() {
			o.Status.LastSuccessfulTime = &metav1.Time{Time: success}
		}
	}
}

func TestStatusOfCronJobs(t *testing.T) {
	w := newTaken(t, 1)
	r, err := w.look(t, in(cronJob("keepset-backup", nil)))
	require.NoError(t, err)
	state, says := found(t, r, job.CheckAge)
	require.Equal(t, job.CheckOK, state, says)
	require.Equal(t, time.Date(2026, 11, 21, 13, 0, 0, 0, time.UTC), r.DueAt, "by the CronJob's schedule")
	state, says = found(t, r, job.CheckCronJob)
	require.Equal(t, job.CheckOK, state, says)

	r, err = w.look(t, in())
	requireAlert(t, r, err, job.CheckCronJob, "no CronJob of namespace shop backs up the set")
	for says, change := range map[string]func(*batchv1.CronJob){
		"suspended by restore run run-1":                           suspended(statefulset.AnnotationSuspendedByRestore, "run-1"),
		"suspended by backup suspend; backup resume":               suspended(statefulset.AnnotationSuspendedByUser, statefulset.SuspendUser),
		"suspended, not by Keepset; kubectl patch cronjob nightly": suspended("", ""),
	} {
		r, err = w.look(t, in(cronJob("nightly", change)))
		requireAlert(t, r, err, job.CheckCronJob, says)
	}
}

// TestStatusOfFailingCronJobs: of two, the good backups of one do not hide that
// the other one fails.
func TestStatusOfFailingCronJobs(t *testing.T) {
	w := newTaken(t, 1)
	now := w.clock.Now()
	failing := ran(now.Add(-26*time.Hour), now.Add(-50*time.Hour))
	_, err := w.look(t, in(cronJob("nightly", failing)))
	require.NoError(t, err, "its run failed, and a backup was taken since")
	r, err := w.look(t, in(cronJob("nightly", failing), cronJob("hourly", ran(now.Add(-time.Minute), now))))
	requireAlert(t, r, err, job.CheckCronJob, "cronjob nightly has not succeeded since its run of 2026-11-20T11:17:30Z")
	r, err = w.look(t, in(cronJob("nightly", ran(now.Add(-2*time.Hour), time.Time{}))))
	requireAlert(t, r, err, job.CheckCronJob, "cronjob nightly has not succeeded")
	_, err = w.look(t, in(cronJob("nightly", ran(now.Add(-time.Minute), time.Time{}))))
	require.NoError(t, err, "its first run may be at work")
}

func pruneJob(change func(*batchv1.CronJob)) *batchv1.CronJob { return componentJob("prune", change) }

func componentJob(component string, change func(*batchv1.CronJob)) *batchv1.CronJob {
	return cronJob("keepset-"+component, func(o *batchv1.CronJob) {
		o.Labels["app.kubernetes.io/component"] = component
		if change != nil {
			change(o)
		}
	})
}

func TestStatusOfVerifications(t *testing.T) {
	w := newTaken(t, 1)
	now := w.clock.Now()
	backup := cronJob("keepset-backup", nil)
	weekly := func(change func(*batchv1.CronJob)) *batchv1.CronJob {
		return componentJob("verify", func(o *batchv1.CronJob) {
			o.Spec.Schedule = "0 9 * * 6"
			change(o)
		})
	}
	check := func(want, says string, verify *batchv1.CronJob) {
		t.Helper()
		r, err := w.look(t, in(backup, verify))
		if want == job.CheckAlert {
			requireAlert(t, r, err, job.CheckVerify, says)
			return
		}
		require.NoError(t, err)
		state, text := found(t, r, job.CheckVerify)
		require.Equal(t, want, state)
		require.Contains(t, text, says)
	}
	check(job.CheckUnchecked, "no CronJob of namespace shop verifies", componentJob("status", nil))
	check(job.CheckOK, "not suspended: keepset-verify", weekly(ran(now.Add(-3*24*time.Hour), now.Add(-3*24*time.Hour+time.Hour))))
	check(job.CheckOK, "not suspended", weekly(ran(now.Add(-23*time.Hour), now.Add(-8*24*time.Hour))))
	check(job.CheckAlert, "cronjob keepset-verify has not succeeded since its run of", weekly(ran(now.Add(-25*time.Hour), now.Add(-8*24*time.Hour))))
	check(job.CheckAlert, "cronjob keepset-verify is suspended", weekly(suspended("", "")))
	check(job.CheckUnchecked, "no CronJob", weekly(func(o *batchv1.CronJob) { o.Labels[statefulset.LabelSet] = "another" }))
}

func TestStatusOfPrunes(t *testing.T) {
	w := newTaken(t, 4)
	now := w.clock.Now()
	backup := cronJob("keepset-backup", nil)
	r, err := w.look(t, in(backup))
	require.NoError(t, err)
	state, says := found(t, r, job.CheckPrune)
	require.Equal(t, job.CheckUnchecked, state, "nobody knows who prunes: %s", says)
	r, err = w.look(t, in(backup, pruneJob(ran(now.Add(-25*time.Hour), now.Add(-24*time.Hour)))))
	require.NoError(t, err)
	state, says = found(t, r, job.CheckPrune)
	require.Equal(t, job.CheckOK, state, says)
	r, err = w.look(t, in(backup, pruneJob(suspended("", ""))))
	requireAlert(t, r, err, job.CheckPrune, "cronjob keepset-prune is suspended")
	r, err = w.look(t, in(backup, pruneJob(ran(now.Add(-7*time.Hour), now.Add(-31*time.Hour)))))
	requireAlert(t, r, err, job.CheckPrune, "has not succeeded since its run of")

	// What is condemned is due a day and two hours later, and gone by the next day.
	_, err = w.prune(nil).Run(t.Context())
	require.NoError(t, err)
	quiet := func(s *job.Status) { s.Schedule = nil }
	w.clock.Add(4 * 24 * time.Hour)
	_, err = w.look(t, quiet)
	require.NoError(t, err)
	w.clock.Add(3 * time.Hour)
	r, err = w.look(t, quiet)
	requireAlert(t, r, err, job.CheckPrune, "could be deleted since")

	require.NoError(t, w.store.Put(t.Context(), "sets/shop/mysql/prune/20261120T131730Z-1a2b3c4d", bytes.NewReader([]byte("?\n"))))
	r, err = w.look(t, quiet)
	requireAlert(t, r, err, job.CheckPrune, "no prune can delete anything")
}

// TestStatusOfAClusterThatCannotBeAsked: what is not known is no finding, and is said.
func TestStatusOfAClusterThatCannotBeAsked(t *testing.T) {
	w := newTaken(t, 1)
	r, err := w.look(t, func(s *job.Status) {
		in()(s)
		s.Cluster, s.NoCluster = nil, "there is no cluster"
	})
	require.NoError(t, err)
	for _, check := range []string{job.CheckCronJob, job.CheckPrune, job.CheckVerify} {
		state, says := found(t, r, check)
		require.Equal(t, job.CheckUnchecked, state)
		require.Contains(t, says, "there is no cluster")
	}
}
