package job

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keepset/internal/record"
	"keepset/internal/repository"
	"keepset/internal/schedule"
	"keepset/internal/statefulset"
)

// Status looks at a set from outside, as somebody on call would: is there a
// backup, is it young enough, are its jobs alive. It changes nothing, and needs
// no secret key.
type Status struct {
	Repository *repository.Repository
	Set        record.SetID
	// Schedule of the backups, where the user gives it. Nil: the CronJobs' own.
	Schedule *schedule.Schedule
	// Cluster is where the set's CronJobs are. Where it is nil, NoCluster says why.
	Cluster   *statefulset.Client
	NoCluster string
	// Grace is how long after its time a backup may be complete. 0: twice what the
	// last one took, and at least an hour.
	Grace time.Duration
	// DrillWithin is how long ago the last drill that has passed may be; 0: as long
	// as you like.
	DrillWithin time.Duration
	Clock       func() time.Time
}

// The checks, in the order in which they are made.
const (
	// CheckAge: the newest complete backup is as young as the schedule promises.
	CheckAge = "age"
	// CheckNewest: the newest run has left a complete backup.
	CheckNewest = "newest"
	// CheckCronJob: no backup CronJob is suspended, and their runs succeed.
	CheckCronJob = "cronjob"
	// CheckPrune: what is condemned gets deleted.
	CheckPrune = "prune"
	// CheckVerify: the CronJob that verifies the backups finds them whole.
	CheckVerify = "verify"
	// CheckDrill: a restore was proven, and not too long ago.
	CheckDrill = "drill"
)

// CheckNames lists the checks.
func CheckNames() []string {
	return []string{CheckAge, CheckNewest, CheckCronJob, CheckPrune, CheckVerify, CheckDrill}
}

// The outcomes of a check.
const (
	CheckOK = "ok"
	// CheckAlert is a finding: somebody has to do something.
	CheckAlert = "alert"
	// CheckUnchecked: it does not apply here, or what it takes was not given.
	CheckUnchecked = "unchecked"
	// CheckFailed: it was to be made, and could not.
	CheckFailed = "failed"
)

// Check is one line of a status.
type Check struct {
	Check string `json:"check"`
	State string `json:"state"`
	What  string `json:"what"`
	// Remedy of an alert, or of what keeps a check from being made.
	Remedy string `json:"remedy,omitempty"`
}

// StatusReport is what a Status found.
type StatusReport struct {
	Set       string    `json:"set"`
	CheckedAt time.Time `json:"checkedAt"`
	// LastComplete backup, of those that count for the schedule, and when it was captured.
	LastComplete record.BackupID `json:"lastComplete,omitempty"`
	CapturedAt   time.Time       `json:"lastCapturedAt,omitzero"`
	// DueAt is when the next one is due, by the schedule.
	DueAt time.Time `json:"dueAt,omitzero"`
	// Backups says how many there are of each status.
	Backups map[repository.Status]int `json:"backups"`
	// LastDrilled backup is the one of the last drill that has passed, and when that was.
	LastDrilled record.BackupID `json:"lastDrilled,omitempty"`
	DrilledAt   time.Time       `json:"drilledAt,omitzero"`
	Checks      []Check         `json:"checks"`
}

// Alerts are the findings.
func (r *StatusReport) Alerts() []Check {
	var alerts []Check
	for _, c := range r.Checks {
		if c.State == CheckAlert {
			alerts = append(alerts, c)
		}
	}
	return alerts
}

// Run makes the checks. ErrFindings when there is a finding; an error of another
// kind says that a check could not be made. The report is there in both cases,
// unless the backups could not be listed.
func (s *Status) Run(ctx context.Context) (*StatusReport, error) {
	infos, err := s.Repository.Backups(ctx, s.Set)
	if err != nil {
		return nil, err
	}
	if s.Repository.Signed() && len(infos) > 0 && infos[0].Unchecked {
		return nil, fmt.Errorf("status of %s: %w: set %s, or nobody knows which backups are good", s.Set, repository.ErrNoTrusted, repository.NameTrustedWriters)
	}
	r := &StatusReport{Set: s.Set.String(), CheckedAt: s.Clock().UTC(), Backups: map[repository.Status]int{}}
	for i := range infos {
		r.Backups[infos[i].Status]++
	}
	l := &look{Status: s, report: r, infos: infos, now: r.CheckedAt, good: countedGood(infos)}
	l.jobs(ctx)
	for _, check := range []func(context.Context) Check{l.age, l.newest, l.cronJobs, l.prune, l.verify, l.drill} {
		r.Checks = append(r.Checks, check(ctx))
	}
	return r, l.outcome()
}

// look is one look at a set.
type look struct {
	*Status
	report *StatusReport
	infos  []repository.BackupInfo // the newest first
	now    time.Time
	// good is the newest complete backup that counts; nil when there is none.
	good *repository.BackupInfo

	// What the cluster says; without says why it was not asked.
	backups, prunes, verifications []statefulset.CronJob
	without                        string
	failed                         []error
}

// outcome is the error that belongs to the report.
func (l *look) outcome() error {
	alerts := l.report.Alerts()
	if len(alerts) == 0 {
		return errors.Join(l.failed...)
	}
	text := alerts[0].What
	if len(alerts) > 1 {
		text = fmt.Sprintf("%s; and %d more", text, len(alerts)-1)
	}
	return errors.Join(fmt.Errorf("%w: %s: %s", ErrFindings, l.Set, text), errors.Join(l.failed...))
}

// fail notes why a check could not be made.
func (l *look) fail(check string, err error) Check {
	l.failed = append(l.failed, fmt.Errorf("check %s of %s: %w", check, l.Set, err))
	return Check{Check: check, State: CheckFailed, What: err.Error()}
}

// countedGood is the newest complete backup. Those of single databases, paths or
// ordinals, which somebody takes by hand, do not hide that the nightly ones
// fail: they count only where the set has no others.
func countedGood(infos []repository.BackupInfo) *repository.BackupInfo {
	partly := true
	for i := range infos {
		if infos[i].Status != repository.StatusInvalid && !partOfSet(&infos[i].Plan) {
			partly = false
		}
	}
	var newest *repository.BackupInfo
	for i := range infos {
		info := &infos[i]
		if info.Status != repository.StatusComplete || info.Condemned || !partly && partOfSet(&info.Plan) {
			continue
		}
		if newest == nil || info.CapturedAt().After(newest.CapturedAt()) {
			newest = info
		}
	}
	return newest
}

// partOfSet tells whether only some databases, paths or ordinals were asked for.
func partOfSet(p *record.Plan) bool {
	include, _ := p.Filter()
	return len(include) > 0 || len(p.OnlyPaths()) > 0 || p.Ordinals != ""
}

// grace is how long after its time a backup may be complete.
func (l *look) grace() time.Duration {
	if l.Grace > 0 {
		return l.Grace
	}
	grace := time.Hour
	if l.good != nil {
		grace = max(grace, 2*l.good.Took())
	}
	return grace
}
