package schedule_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keepset/internal/schedule"
)

func at(t *testing.T, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, s)
	require.NoError(t, err)
	return v
}

func parse(t *testing.T, expression, zone string) schedule.Schedule {
	t.Helper()
	s, err := schedule.Parse(expression, zone)
	require.NoError(t, err)
	return s
}

func TestParseRefusesWhatTheControllerWouldRefuseOrMisread(t *testing.T) {
	for _, c := range []struct{ expression, zone, want string }{
		{"", "", "empty"},
		{"TZ=UTC", "", "timeZone"},
		{"CRON_TZ=UTC 0 3 * * *", "", "timeZone"},
		{"0 3 * * 7", "", "Sunday is 0"},
		{"0 0 3 * * *", "", "no field for seconds"},
		{"0 25 * * *", "", "above maximum"},
		{"@every 0s", "", "would become 1s"},
		{"@every 1500ms", "", "would become 1s"},
		{"0 3 * * *", "Europe/Nowhere", "IANA"},
		{"0 3 * * *", "Local", "refused by Kubernetes"},
	} {
		_, err := schedule.Parse(c.expression, c.zone)
		require.ErrorContains(t, err, c.want, "%q in %q", c.expression, c.zone)
	}
}

func TestNextInAZone(t *testing.T) {
	s := parse(t, "30 3 * * *", "Asia/Seoul")
	next, ok := s.Next(at(t, "2026-11-20T12:00:00Z"))
	require.True(t, ok)
	assert.Equal(t, at(t, "2026-11-20T18:30:00Z"), next.UTC())
}

func TestNeverFires(t *testing.T) {
	s := parse(t, "0 0 31 2 *", "")
	_, ok := s.Next(at(t, "2026-11-20T12:00:00Z"))
	assert.False(t, ok)
	_, ok = s.Previous(at(t, "2026-11-20T12:00:00Z"))
	assert.False(t, ok)
	e := s.Explain(at(t, "2026-11-20T12:00:00Z"), 3, 0)
	assert.Empty(t, e.Next)
	assert.Contains(t, e.Warnings[0], "never fires")
}

func TestPreviousIsTheLastRunBefore(t *testing.T) {
	now := at(t, "2026-11-20T12:00:00Z")
	for expression, want := range map[string]string{
		"*/1 * * * *": "2026-11-20T11:59:00Z",
		"0 3 * * *":   "2026-11-20T03:00:00Z",
		"0 0 1 * *":   "2026-11-01T00:00:00Z",
		"0 0 29 2 *":  "2024-02-29T00:00:00Z",
	} {
		previous, ok := parse(t, expression, "").Previous(now)
		require.True(t, ok, expression)
		assert.Equal(t, at(t, want), previous.UTC(), expression)
	}
}

func TestOverdue(t *testing.T) {
	s := parse(t, "0 3 * * *", "")
	last := at(t, "2026-11-18T03:10:00Z")
	_, late := s.Overdue(last, at(t, "2026-11-19T03:30:00Z"), time.Hour)
	assert.False(t, late, "within the grace")
	since, late := s.Overdue(last, at(t, "2026-11-20T12:00:00Z"), time.Hour)
	assert.True(t, late)
	assert.Equal(t, at(t, "2026-11-19T03:00:00Z"), since.UTC())
}

func TestExplainClockChanges(t *testing.T) {
	now := at(t, "2026-01-10T00:00:00Z")
	spring := parse(t, "30 2 * * *", "Europe/Berlin").Explain(now, 3, 0)
	assert.Contains(t, spring.Warnings, "Sun 2026-03-29 02:30 does not exist (clocks go forward): this run is left out")
	autumn := parse(t, "30 2 * * *", "Europe/Berlin").Explain(now, 3, 0)
	assert.Contains(t, autumn.Warnings, "Sun 2026-10-25 02:30 comes twice (clocks go back): this run happens twice")
	assert.Empty(t, parse(t, "30 4 * * *", "Europe/Berlin").Explain(now, 3, 0).Warnings)
	assert.Empty(t, parse(t, "30 * * * *", "Europe/Berlin").Explain(now, 3, 0).Warnings, "an hourly run misses nothing")
	assert.Empty(t, parse(t, "30 2 * * *", "").Explain(now, 3, 0).Warnings, "UTC has no changes")
}

func TestExplainAgreesWithTheRunsThemselves(t *testing.T) {
	s := parse(t, "30 2 * * *", "Europe/Berlin")
	days := map[string]int{}
	for _, run := range s.Upcoming(at(t, "2026-01-01T00:00:00Z"), 365) {
		days[run.Format("2006-01-02")]++
	}
	assert.Zero(t, days["2026-03-29"])
	assert.Equal(t, 2, days["2026-10-25"])
	assert.Equal(t, 1, days["2026-10-26"])
}

func TestExplainGaps(t *testing.T) {
	now := at(t, "2026-01-10T00:00:00Z")
	e := parse(t, "0 3,4 * * *", "").Explain(now, 2, 90*time.Minute)
	assert.Equal(t, schedule.Duration(time.Hour), e.ShortestGap)
	assert.Equal(t, schedule.Duration(23*time.Hour), e.LongestGap)
	assert.Contains(t, e.Warnings[0], "as close as 1h0m0s")
	assert.Empty(t, parse(t, "0 3,4 * * *", "").Explain(now, 2, 30*time.Minute).Warnings)
	assert.Contains(t, parse(t, "0 3 1 * 1", "").Explain(now, 2, 0).Warnings[0], "either")
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"0 3 * * *", "TZ=UTC", "@every 0s", "0 0 31 2 *", "@daily", "*/0 * * * *", "0-0/0 * * * *"} {
		f.Add(s, "Europe/Berlin")
	}
	now := time.Date(2026, 1, 10, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, expression, zone string) {
		s, err := schedule.Parse(expression, zone)
		if err != nil {
			return
		}
		if next, ok := s.Next(now); ok && !next.After(now) {
			t.Fatalf("%q: next %s is not after %s", expression, next, now)
		}
	})
}
