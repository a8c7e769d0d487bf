// Package schedule reads CronJob schedules and says what they will do: when
// they fire next, when they should have fired last, and where an expression
// does not mean what its author thinks.
//
// Its one central type is [Schedule]. It is built on robfig/cron, the parser
// that the CronJob controller uses, so that what is explained here is what
// happens there; the traps of that parser (it panics on a bare "TZ=UTC",
// accepts dates that never come, and turns "@every 0s" into one second) are
// caught before they are reached. It does no I/O and reads no clock.
package schedule

import (
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // a static binary in an empty image has no zone files

	"github.com/robfig/cron/v3"
)

// Schedule is a parsed expression in a time zone.
type Schedule struct {
	// Expression as it was given, and the zone that it is meant in.
	Expression string
	Zone       *time.Location
	spec       cron.Schedule
}

// ErrNever says that an expression parses and never fires, like 31 February.
var ErrNever = errors.New("never fires")

// starBit is set in a field of cron.SpecSchedule that was given as "*".
const starBit = 1 << 63

// horizon is how far robfig/cron looks for the next run before it gives up.
const horizon = 5 * 365 * 24 * time.Hour

// Parse reads a CronJob's schedule and timeZone. An empty zone is UTC, which
// is what the controller manager uses unless it was configured otherwise. An
// expression that never fires is no error here: see [Schedule.Next].
func Parse(expression, zone string) (Schedule, error) {
	s := Schedule{Expression: strings.TrimSpace(expression), Zone: time.UTC}
	if s.Expression == "" {
		return s, errors.New("the schedule is empty; give five fields, for example \"0 3 * * *\"")
	}
	if strings.HasPrefix(s.Expression, "TZ=") || strings.HasPrefix(s.Expression, "CRON_TZ=") {
		return s, fmt.Errorf("schedule %q: a CronJob does not accept a zone inside the schedule; use its field timeZone", s.Expression)
	}
	if zone != "" {
		location, err := loadZone(zone)
		if err != nil {
			return s, err
		}
		s.Zone = location
	}
	spec, err := cron.ParseStandard(s.Expression)
	if err != nil {
		return s, fmt.Errorf("schedule %q: %w", s.Expression, explainParse(s.Expression, err))
	}
	if every, ok := spec.(cron.ConstantDelaySchedule); ok {
		if err := checkEvery(s.Expression, every); err != nil {
			return s, err
		}
	}
	s.spec = spec
	return s, nil
}

// loadZone refuses "Local", which would mean the zone of whoever asks.
func loadZone(zone string) (*time.Location, error) {
	if strings.EqualFold(zone, "local") {
		return nil, errors.New("time zone \"Local\" is refused by Kubernetes; give a name such as Europe/Berlin")
	}
	location, err := time.LoadLocation(zone)
	if err != nil {
		return nil, fmt.Errorf("time zone %q is not in the IANA database; give a name such as Europe/Berlin", zone)
	}
	return location, nil
}

// checkEvery refuses delays that robfig/cron would silently round.
func checkEvery(expression string, every cron.ConstantDelaySchedule) error {
	given, err := time.ParseDuration(strings.TrimSpace(strings.TrimPrefix(expression, "@every")))
	if err == nil && given != every.Delay {
		return fmt.Errorf("schedule %q: the delay would become %s; give whole seconds, at least one", expression, every.Delay)
	}
	return nil
}

// explainParse adds what people usually meant.
func explainParse(expression string, err error) error {
	fields := strings.Fields(expression)
	if len(fields) == 6 {
		return fmt.Errorf("%w; a CronJob's schedule has no field for seconds", err)
	}
	if len(fields) == 5 && strings.Contains(fields[4], "7") {
		return fmt.Errorf("%w; Sunday is 0, not 7", err)
	}
	return err
}

// Next returns the first run after t; false when there is none.
func (s Schedule) Next(t time.Time) (time.Time, bool) {
	next := s.spec.Next(t.In(s.Zone))
	return next, !next.IsZero()
}

// Upcoming returns the next n runs after t, fewer when there are fewer.
func (s Schedule) Upcoming(t time.Time, n int) []time.Time {
	var runs []time.Time
	for range n {
		next, ok := s.Next(t)
		if !ok {
			break
		}
		runs = append(runs, next)
		t = next
	}
	return runs
}

// Previous returns the last run before t; false when there was none within
// the last five years.
func (s Schedule) Previous(t time.Time) (time.Time, bool) {
	for window := time.Minute; window < horizon; window *= 2 {
		run, ok := s.Next(t.Add(-window))
		if !ok || !run.Before(t) {
			continue
		}
		for {
			next, ok := s.Next(run)
			if !ok || !next.Before(t) {
				return run, true
			}
			run = next
		}
	}
	return time.Time{}, false
}

// Overdue says since when a backup is missing: the first run after the last
// good backup that lies more than grace before now. False when none is.
func (s Schedule) Overdue(last, now time.Time, grace time.Duration) (time.Time, bool) {
	due, ok := s.Next(last)
	if !ok || now.Sub(due) <= grace {
		return time.Time{}, false
	}
	return due, true
}
