package job

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/schedule"
	"keepset/internal/statefulset"
)

// This file checks the jobs that work on a set.

// asked is the beginning of a check that needs the cluster: false when there is none.
func (l *look) asked(c *Check) bool {
	switch {
	case len(l.failed) > 0 && l.without != "":
		c.State, c.What = CheckFailed, l.without
	case l.without != "":
		c.State, c.What = CheckUnchecked, l.without
	default:
		return true
	}
	return false
}

// cronJobs looks whether the set's backup CronJobs run, and succeed.
func (l *look) cronJobs(context.Context) Check {
	c := Check{Check: CheckCronJob, State: CheckOK}
	if !l.asked(&c) {
		return c
	}
	if len(l.backups) == 0 {
		c.State, c.What = CheckAlert, fmt.Sprintf("no CronJob of namespace %s backs up the set", l.Cluster.Namespace())
		c.Remedy = "apply one (docs/install.md), label it keepset/set=" + l.Set.Name + ", or give --schedule where another scheduler runs backups"
		return c
	}
	var found, remedies, names []string
	for _, j := range l.backups {
		names = append(names, j.Name)
		what, remedy := l.cronJob(&j)
		if what != "" {
			found, remedies = append(found, what), append(remedies, remedy)
		}
	}
	if len(found) == 0 {
		c.What = "not suspended: " + strings.Join(names, ", ")
		return c
	}
	c.State, c.What, c.Remedy = CheckAlert, strings.Join(found, "; "), strings.Join(remedies, "; ")
	return c
}

// cronJob says what is wrong with one, and what to do.
func (l *look) cronJob(j *statefulset.CronJob) (what, remedy string) {
	switch {
	case j.Suspended && j.SuspendedByRestore != "":
		return fmt.Sprintf("cronjob %s is suspended by restore run %s", j.Name, j.SuspendedByRestore),
			"that run resumes it at its end; if it is dead (restore status), restore abort does"
	case j.Suspended && j.SuspendedByUser != "":
		return fmt.Sprintf("cronjob %s is suspended by backup suspend", j.Name), "backup resume"
	case j.Suspended:
		return fmt.Sprintf("cronjob %s is suspended, not by Keepset", j.Name), suspendedByOther(j)
	}
	// A run that somebody has started by hand after a failure makes good for it,
	// where there is only one CronJob that it can have been for.
	if len(l.backups) == 1 && l.good != nil && j.LastSchedule != nil && l.good.CapturedAt().After(*j.LastSchedule) {
		return "", ""
	}
	if since, late := unsuccessful(j, l.now, l.grace()); late && len(j.Active) == 0 {
		return fmt.Sprintf("cronjob %s has not succeeded since its run of %s", j.Name, since.UTC().Format(time.RFC3339)),
			"read the log of its newest Job, or its pod's termination message"
	}
	return "", ""
}

func suspendedByOther(j *statefulset.CronJob) string {
	return "kubectl patch cronjob " + j.Name + ` -p '{"spec":{"suspend":false}}'`
}

// unsuccessful says since which run a CronJob has had no success. One that has
// never run is not late: nobody knows when it was made.
func unsuccessful(j *statefulset.CronJob, now time.Time, grace time.Duration) (time.Time, bool) {
	if j.LastSchedule == nil || now.Sub(*j.LastSchedule) <= grace {
		return time.Time{}, false
	}
	if j.LastSuccess == nil || j.LastSuccess.Before(*j.LastSchedule) {
		return *j.LastSchedule, true
	}
	s, err := schedule.Parse(j.Schedule, j.TimeZone)
	if err != nil {
		return time.Time{}, false // CheckAge says it
	}
	return s.Overdue(*j.LastSuccess, now, grace)
}

const (
	// pruneLate is for how long what is due may stay, since a prune runs daily.
	pruneLate = 3 * 24 * time.Hour
	// pruneGrace is how long a prune may take, with its retries.
	pruneGrace = 6 * time.Hour
)

// prune looks whether what is condemned gets deleted, and whether the CronJob
// that does it runs. A prune that had nothing to condemn leaves no trace in the
// repository, so that only the cluster can tell whether one has ever run.
func (l *look) prune(ctx context.Context) Check {
	c := Check{Check: CheckPrune, State: CheckOK}
	backlog, err := l.Repository.Backlog(ctx, l.Set)
	switch {
	case errors.Is(err, repository.ErrUncertain) || errors.Is(err, record.ErrNewerFormat):
		c.State, c.What, c.Remedy = CheckAlert, "no prune can delete anything: "+err.Error(), "docs/prune.md, When it stops"
		return c
	case err != nil:
		return l.fail(CheckPrune, err)
	case backlog.Records > 0 && l.now.Sub(backlog.Due) > pruneLate:
		c.State = CheckAlert
		c.What = fmt.Sprintf("what was condemned could be deleted since %s, and no prune has done so", backlog.Due.UTC().Format(time.RFC3339))
		c.Remedy = "run backup prune, and look why its CronJob does not"
		return c
	}
	if !l.asked(&c) {
		return c
	}
	if len(l.prunes) == 0 {
		c.State, c.What = CheckUnchecked, fmt.Sprintf("no CronJob of namespace %s prunes the set, and a prune that deleted nothing leaves no trace", l.Cluster.Namespace())
		c.Remedy = "docs/prune.md, As a CronJob"
		return c
	}
	return l.succeeds(c, l.prunes, pruneGrace, "read the log of its newest Job; docs/prune.md, When it stops, has its messages")
}

// verifyGrace is how long a verification may take that reads everything.
const verifyGrace = 24 * time.Hour

// verify looks whether the CronJob runs that verifies the backups, and whether it
// found them whole: what it finds stands in no object of the repository.
func (l *look) verify(context.Context) Check {
	c := Check{Check: CheckVerify, State: CheckOK}
	if !l.asked(&c) {
		return c
	}
	if len(l.verifications) == 0 {
		c.State, c.What = CheckUnchecked, fmt.Sprintf("no CronJob of namespace %s verifies the set's backups, and a verification leaves no trace", l.Cluster.Namespace())
		c.Remedy = "docs/monitoring.md, As CronJobs"
		return c
	}
	return l.succeeds(c, l.verifications, verifyGrace, "read the log of its newest Job: it names what is damaged, and whom that harms")
}

// succeeds looks whether CronJobs are suspended, or have had no success.
func (l *look) succeeds(c Check, cronJobs []statefulset.CronJob, grace time.Duration, remedy string) Check {
	var found, remedies, names []string
	for _, j := range cronJobs {
		names = append(names, j.Name)
		if j.Suspended {
			found, remedies = append(found, fmt.Sprintf("cronjob %s is suspended", j.Name)), append(remedies, suspendedByOther(&j))
			continue
		}
		if since, late := unsuccessful(&j, l.now, grace); late {
			found = append(found, fmt.Sprintf("cronjob %s has not succeeded since its run of %s", j.Name, since.UTC().Format(time.RFC3339)))
			remedies = append(remedies, remedy)
		}
	}
	if len(found) > 0 {
		c.State, c.What, c.Remedy = CheckAlert, strings.Join(found, "; "), strings.Join(remedies, "; ")
		return c
	}
	c.What = "not suspended: " + strings.Join(names, ", ")
	return c
}
