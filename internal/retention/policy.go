package retention

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"keepset/internal/record"
)

// Policy says what stays; a backup stays when any rule keeps it. The names of
// the rules, and what they mean, are restic's.
type Policy struct {
	// Last backups, and the newest one of each of the last hours, days, weeks
	// (from Monday), months and years that have any. Those that MinAge keeps take no
	// place among the last backups and hours.
	Last, Hourly, Daily, Weekly, Monthly, Yearly int
	// Within keeps all that were captured so long before the newest good one.
	Within Span
	// Labels: backups that one of them selects stay.
	Labels []record.LabelSelector
	// MinAge: nothing goes that was stored less than this ago.
	MinAge time.Duration
	// Zone in which days begin.
	Zone *time.Location
	// Longest and Slack are the repository's: how long a backup may take, and
	// how far clocks may be off.
	Longest, Slack time.Duration
}

// ErrPolicy says that a policy cannot be meant.
var ErrPolicy = errors.New("wrong policy")

// Validate returns ErrPolicy, wrapped.
func (p *Policy) Validate() error {
	for _, n := range []int{p.Last, p.Hourly, p.Daily, p.Weekly, p.Monthly, p.Yearly} {
		if n < 0 {
			return fmt.Errorf("%w: a rule keeps %d backups", ErrPolicy, n)
		}
	}
	switch {
	case p.Last+p.Hourly+p.Daily+p.Weekly+p.Monthly+p.Yearly == 0 && p.Within == Span{}:
		return fmt.Errorf("%w: no rule keeps anything", ErrPolicy)
	case p.Zone == nil:
		return fmt.Errorf("%w: no time zone", ErrPolicy)
	case p.MinAge < p.Longest+p.Slack:
		return fmt.Errorf("%w: the minimum age is %s, and a backup may take %s: want at least %s",
			ErrPolicy, inDays(p.MinAge), inDays(p.Longest), inDays(p.Longest+p.Slack))
	}
	return nil
}

// rule keeps the newest backup of each of its last count periods.
type rule struct {
	name  string
	count int
	// settled: only backups that have the minimum age take a place. Otherwise
	// who holds a writer's key could fill all places in one night.
	settled bool
	// period names that of a time, so that times of one period have one name.
	period func(time.Time) string
}

func (p *Policy) periods() []rule {
	named := func(layout string) func(time.Time) string {
		return func(t time.Time) string { return t.Format(layout) }
	}
	return []rule{
		{"hourly", p.Hourly, true, named("2006-01-02 15h -0700")}, // an hour that comes twice is two
		{"daily", p.Daily, false, named("2006-01-02")},
		{"weekly", p.Weekly, false, func(t time.Time) string {
			year, week := t.ISOWeek()
			return fmt.Sprintf("%d-W%02d", year, week)
		}},
		{"monthly", p.Monthly, false, named("2006-01")},
		{"yearly", p.Yearly, false, named("2006")},
	}
}

// rules returns which rules keep each of the backups, which are in order, the
// newest first.
func (p *Policy) rules(list []Backup, now time.Time) map[record.BackupID][]string {
	kept := make(map[record.BackupID][]string)
	settled := slices.DeleteFunc(slices.Clone(list), func(b Backup) bool { return p.young(b, now) })
	for i := range min(p.Last, len(settled)) {
		kept[settled[i].ID] = append(kept[settled[i].ID], fmt.Sprintf("last %d/%d", i+1, p.Last))
	}
	for _, r := range p.periods() {
		used, last, from := 0, "", list
		if r.settled {
			from = settled
		}
		for _, b := range from {
			if used == r.count {
				break
			}
			if period := r.period(b.CapturedAt.In(p.Zone)); period != last {
				last = period
				used++
				kept[b.ID] = append(kept[b.ID], fmt.Sprintf("%s %d/%d (%s)", r.name, used, r.count, period))
			}
		}
	}
	if p.Within == (Span{}) || len(list) == 0 {
		return kept
	}
	since := p.Within.before(list[0].CapturedAt.In(p.Zone))
	for _, b := range list {
		if !b.CapturedAt.Before(since) {
			kept[b.ID] = append(kept[b.ID], "within "+p.Within.String())
		}
	}
	return kept
}

// young says whether a backup stays by its age.
func (p *Policy) young(b Backup, now time.Time) bool { return now.Sub(b.StoredAt) < p.MinAge }

// Span is a length of time as a calendar counts it.
type Span struct{ Years, Months, Days, Hours int }

// spanLimit keeps sums of calendar units far from overflowing.
const spanLimit = 100_000

// ParseSpan reads what restic reads: 1y5m7d2h, 30d12h.
func ParseSpan(text string) (Span, error) {
	var s Span
	units := []struct {
		letter string
		value  *int
	}{{"y", &s.Years}, {"m", &s.Months}, {"d", &s.Days}, {"h", &s.Hours}}
	rest := text
	for _, u := range units {
		number, after, found := strings.Cut(rest, u.letter)
		if !found {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || n > spanLimit {
			return Span{}, fmt.Errorf("%q is not a length of time like 30d12h or 1y6m", text)
		}
		*u.value, rest = int(n), after
	}
	if rest != "" || s == (Span{}) {
		return Span{}, fmt.Errorf("%q is not a length of time like 30d12h or 1y6m", text)
	}
	return s, nil
}

// String writes what ParseSpan reads; nothing for no time.
func (s Span) String() string {
	var b strings.Builder
	for _, u := range []struct {
		n      int
		letter string
	}{{s.Years, "y"}, {s.Months, "m"}, {s.Days, "d"}, {s.Hours, "h"}} {
		if u.n > 0 {
			b.WriteString(strconv.Itoa(u.n) + u.letter)
		}
	}
	return b.String()
}

func (s Span) before(t time.Time) time.Time {
	return t.AddDate(-s.Years, -s.Months, -s.Days).Add(-time.Duration(s.Hours) * time.Hour)
}

// Duration takes a day for 24 hours, a month for 30 days and a year for 365.
func (s Span) Duration() time.Duration {
	return time.Duration(s.Hours+24*(s.Days+30*s.Months+365*s.Years)) * time.Hour
}

// inDays writes whole days as days.
func inDays(d time.Duration) string {
	if d >= 48*time.Hour && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return d.String()
}
