package schedule

import (
	"fmt"
	"time"

	"github.com/robfig/cron/v3"
)

// Explanation is what an expression will do, in a form to be read or printed
// as JSON.
type Explanation struct {
	Schedule string `json:"schedule"`
	TimeZone string `json:"timeZone"`
	// Next are the coming runs, in the zone.
	Next []time.Time `json:"next"`
	// ShortestGap and LongestGap between runs of the coming year.
	ShortestGap Duration `json:"shortestGap"`
	LongestGap  Duration `json:"longestGap"`
	// Warnings are surprises: nights without a run, nights with two, runs
	// closer together than a backup takes, an expression that never fires.
	Warnings []string `json:"warnings"`
}

// Duration is a time.Duration that is text in JSON.
type Duration time.Duration

// MarshalText writes 1h30m0s.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// maxGaps bounds how many runs are looked at for the gaps between them.
const maxGaps = 2000

// Explain looks a year ahead of now. lastTook is how long the last backup
// took, 0 when that is not known.
func (s Schedule) Explain(now time.Time, count int, lastTook time.Duration) Explanation {
	e := Explanation{Schedule: s.Expression, TimeZone: s.Zone.String(), Next: s.Upcoming(now, count), Warnings: []string{}}
	if len(e.Next) == 0 {
		e.Warnings = append(e.Warnings, "it never fires: no such date comes within five years")
		return e
	}
	shortest, longest, at := s.gaps(now)
	e.ShortestGap, e.LongestGap = Duration(shortest), Duration(longest)
	if lastTook > 0 && shortest > 0 && shortest < lastTook {
		e.Warnings = append(e.Warnings, fmt.Sprintf("runs come as close as %s (%s), and the last backup took %s: with concurrencyPolicy Forbid the next one starts late or is left out",
			shortest, at.Format(timeForm), lastTook.Round(time.Second)))
	}
	e.Warnings = append(e.Warnings, s.clockChanges(now)...)
	if domDowTrap(s.spec) {
		e.Warnings = append(e.Warnings, "day of month and day of week are both given: it fires when either matches, not when both do")
	}
	return e
}

const timeForm = "Mon 2006-01-02 15:04 MST"

// gaps returns the shortest and longest time between two runs in the coming
// year, and the run after which the shortest comes.
func (s Schedule) gaps(now time.Time) (shortest, longest time.Duration, at time.Time) {
	run, ok := s.Next(now)
	for range maxGaps {
		next, more := s.Next(run)
		if !ok || !more || next.Sub(now) > 366*24*time.Hour {
			break
		}
		gap := next.Sub(run)
		if shortest == 0 || gap < shortest {
			shortest, at = gap, run
		}
		longest = max(longest, gap)
		run = next
	}
	return shortest, longest, at
}

// domDowTrap recognises the old surprise of cron: two restricted day fields
// are joined by "or".
func domDowTrap(spec cron.Schedule) bool {
	fields, ok := spec.(*cron.SpecSchedule)
	return ok && fields.Dom&starBit == 0 && fields.Dow&starBit == 0
}

// clockChanges finds the runs that a change of the clocks in the coming year
// leaves out or repeats. Expressions that fire every hour lose nothing that
// anybody would miss, and intervals do not look at the wall clock.
func (s Schedule) clockChanges(now time.Time) []string {
	fields, ok := s.spec.(*cron.SpecSchedule)
	if !ok || fields.Hour&starBit != 0 {
		return nil
	}
	var found []string
	for _, c := range s.changes(now, now.AddDate(1, 0, 0)) {
		if c.delta > 0 {
			found = append(found, s.skipped(*fields, c)...)
		} else {
			found = append(found, s.repeated(c)...)
		}
	}
	return found
}

// change is a change of the zone's offset: the instant, and by how much the
// clocks go forward.
type change struct {
	at     time.Time
	before int // offset in seconds until then
	delta  time.Duration
}

func (s Schedule) changes(from, to time.Time) []change {
	var found []change
	for t := from.In(s.Zone); t.Before(to); {
		_, end := t.ZoneBounds()
		if end.IsZero() || !end.Before(to) {
			break
		}
		_, before := end.Add(-time.Second).Zone()
		_, after := end.Zone()
		if before != after {
			found = append(found, change{at: end, before: before, delta: time.Duration(after-before) * time.Second})
		}
		t = end
	}
	return found
}

// skipped lists the wall clock times that do not exist in the night of c and
// would have fired.
func (s Schedule) skipped(fields cron.SpecSchedule, c change) []string {
	old := time.FixedZone("", c.before)
	fields.Location = old
	var found []string
	for run := fields.Next(c.at.Add(-time.Second).In(old)); !run.IsZero() && run.Before(c.at.Add(c.delta)); run = fields.Next(run) {
		found = append(found, fmt.Sprintf("%s does not exist (clocks go forward): this run is left out", run.Format("Mon 2006-01-02 15:04")))
	}
	return found
}

// repeated lists the wall clock times that come twice in the night of c and
// fire both times.
func (s Schedule) repeated(c change) []string {
	var found []string
	span := -c.delta
	first := map[string]bool{}
	for run, ok := s.Next(c.at.Add(-span - time.Second)); ok && run.Before(c.at.Add(span)); run, ok = s.Next(run) {
		wall := run.Format("Mon 2006-01-02 15:04")
		if first[wall] {
			found = append(found, fmt.Sprintf("%s comes twice (clocks go back): this run happens twice", wall))
		}
		first[wall] = true
	}
	return found
}
