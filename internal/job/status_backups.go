package job

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"keepset/internal/repository"
	"keepset/internal/schedule"
	"keepset/internal/statefulset"
)

// This file checks the backups that a set has.

// mayRun is how long a run may take, by the rules of the repository.
func (l *look) mayRun() time.Duration {
	config := l.Repository.Config()
	return config.LongestBackup.Duration() + config.Slack.Duration()
}

// age compares the newest complete backup with what the schedule promises.
func (l *look) age(context.Context) Check {
	c := Check{Check: CheckAge, State: CheckOK}
	if l.good == nil {
		return l.noneComplete(c)
	}
	l.report.LastComplete, l.report.CapturedAt = l.good.ID, l.good.CapturedAt().UTC()
	last := fmt.Sprintf("the last complete backup is %s, captured %s", l.good.ID, l.ago(l.report.CapturedAt))
	schedules, err := l.schedules()
	if err != nil {
		return l.fail(CheckAge, err)
	}
	if len(schedules) == 0 {
		c.State, c.What = CheckUnchecked, last+"; no schedule is known to compare it with"
		c.Remedy = "give --schedule and --time-zone"
		return c
	}
	var late []string
	for _, s := range schedules {
		if next, ok := s.Next(l.report.CapturedAt); ok && (l.report.DueAt.IsZero() || next.Before(l.report.DueAt)) {
			l.report.DueAt = next.UTC()
		}
		if since, overdue := s.Overdue(l.report.CapturedAt, l.now, l.grace()); overdue {
			late = append(late, fmt.Sprintf("%q in %s wanted one at %s", s.Expression, s.Zone, since.UTC().Format(time.RFC3339)))
		}
	}
	if len(late) == 0 {
		c.What = last
		return c
	}
	c.State, c.What = CheckAlert, last+"; the schedule "+strings.Join(late, ", ")+l.atWork()
	c.Remedy = "read the log of the newest backup Job, or the termination message of its pod (kubectl describe pod)"
	return c
}

// noneComplete is the age of a set that has nothing to be restored.
func (l *look) noneComplete(c Check) Check {
	if len(l.infos) == 0 {
		c.State, c.What = CheckAlert, "the repository has no backup of the set at all"
		c.Remedy = "is it the right --set and --repository? If so, take the first one: backup run"
		return c
	}
	first := l.infos[len(l.infos)-1].PlanTime
	if !first.IsZero() && l.now.Sub(first) <= l.mayRun() && len(l.infos) == 1 && l.infos[0].Status == repository.StatusIncomplete {
		c.State, c.What = CheckUnchecked, fmt.Sprintf("the first backup, %s, begun %s, is not complete yet", l.infos[0].ID, l.ago(first))
		return c
	}
	c.State, c.What = CheckAlert, fmt.Sprintf("none of the set's %d backups is complete: nothing can be restored without a flag that names the doubt", len(l.infos))
	c.Remedy = "backup list says what each is; take one: backup run"
	return c
}

// schedules are the user's, or those of the set's CronJobs.
func (l *look) schedules() ([]schedule.Schedule, error) {
	if l.Schedule != nil {
		return []schedule.Schedule{*l.Schedule}, nil
	}
	var list []schedule.Schedule
	for _, j := range l.backups {
		s, err := schedule.Parse(j.Schedule, j.TimeZone)
		if err != nil {
			return nil, fmt.Errorf("read the schedule of cronjob %s: %w", j.Name, err)
		}
		list = append(list, s)
	}
	return list, nil
}

// newest judges the newest backup whose run has ended.
func (l *look) newest(ctx context.Context) Check {
	c := Check{Check: CheckNewest, State: CheckOK}
	running := ""
	for i := range l.infos {
		info := &l.infos[i]
		if info.Condemned {
			continue
		}
		ended, err := l.ended(ctx, info)
		if err != nil {
			return l.fail(CheckNewest, err)
		}
		if !ended {
			running = fmt.Sprintf("; %s, begun %s, may still be running", info.ID, l.ago(info.PlanTime))
			continue
		}
		c.What = fmt.Sprintf("the newest backup, %s, is %s", info.ID, info.Status)
		if info.Status != repository.StatusComplete {
			c.State = CheckAlert
			c.What += ": " + strings.Join(info.Problems, "; ")
			c.Remedy = remedyOf(info.Status)
		}
		c.What += running
		return c
	}
	c.State, c.What = CheckUnchecked, "no backup has ended yet"+running
	return c
}

// ended says whether a backup will become nothing else than what it is.
func (l *look) ended(ctx context.Context, info *repository.BackupInfo) (bool, error) {
	if info.Status != repository.StatusIncomplete || l.now.Sub(info.PlanTime) > l.mayRun() {
		return true, nil
	}
	return l.Repository.Ended(ctx, l.Set, info.ID)
}

// remedyOf a newest backup that is not complete.
func remedyOf(s repository.Status) string {
	switch s {
	case repository.StatusSuspect:
		return "look at the set's data: if it is right as it is, backup accept says so, and the next run is compared with it; else backup show tells which older one is good"
	case repository.StatusIncomplete:
		return "read the log of its Job; the next run, or a retry of that Job, takes the missing members"
	default:
		return "backup verify tells what is wrong with its records"
	}
}

// ago says when something was.
func (l *look) ago(t time.Time) string {
	d := l.now.Sub(t)
	if d < 0 {
		return "at " + t.UTC().Format(time.RFC3339) + ", which is in the future"
	}
	return fmt.Sprintf("%s ago", d.Round(ageUnit(d)))
}

func ageUnit(d time.Duration) time.Duration {
	if d < time.Hour {
		return time.Second
	}
	return time.Minute
}

// atWork names the Jobs that are running.
func (l *look) atWork() string {
	var names []string
	for _, j := range l.backups {
		names = append(names, j.Active...)
	}
	if len(names) == 0 {
		return ""
	}
	return "; at work now: " + strings.Join(names, ", ")
}

// jobs asks the cluster for the set's CronJobs. What it cannot tell is
// said by the checks that need it.
func (l *look) jobs(ctx context.Context) {
	if l.without = l.NoCluster; l.Cluster == nil {
		return
	}
	if l.without = l.otherCluster(); l.without != "" {
		return
	}
	var err, pruneErr, verifyErr error
	l.backups, err = l.Cluster.BackupCronJobs(ctx, l.Set.Name)
	l.prunes, pruneErr = l.Cluster.PruneCronJobs(ctx, l.Set.Name)
	l.verifications, verifyErr = l.Cluster.VerifyCronJobs(ctx, l.Set.Name)
	if err = errors.Join(err, pruneErr, verifyErr); err != nil {
		l.without = err.Error()
		l.failed = append(l.failed, fmt.Errorf("ask for the cronjobs of %s: %w", l.Set, err))
	}
}

// otherCluster says that the kubeconfig leads to another cluster than the one
// that the backups come from, where a set of this name may well exist.
func (l *look) otherCluster() string {
	from := originOf(l.infos)
	here, err := l.Cluster.Origin()
	if err != nil || here == "" || !strings.HasPrefix(from, statefulset.OriginPrefix) || from == here {
		return ""
	}
	return fmt.Sprintf("the backups come from cluster %s, and the kubeconfig leads to %s", from, here)
}
