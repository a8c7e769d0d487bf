package schedule_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/schedule"
)

// What is said of a schedule holds together: runs come in order and to the
// second, the one before a run is that run's own, no gap is shorter than the
// shortest, and what fires never is said never to fire.
func FuzzExplain(f *testing.F) {
	for _, s := range []string{"0 3 * * *", "*/7 2-4 * * 1-5", "30 2 * * 0", "0 0 31 2 *", "@every 90m", "@monthly", "0 0 29 2 *", "59 23 31 12 *"} {
		f.Add(s, "Europe/Berlin", int64(1774000000))
	}
	f.Add("30 1 * * *", "Australia/Lord_Howe", int64(1790000000))
	f.Add("0 0 * * *", "America/Sao_Paulo", int64(1500000000))
	f.Fuzz(func(t *testing.T, expression, zone string, second int64) {
		now := time.Unix(second, 0)
		if now.Year() < 1970 || now.Year() > 2100 {
			return
		}
		s, err := schedule.Parse(expression, zone)
		if err != nil {
			return
		}
		e := s.Explain(now, 5, time.Minute)
		if len(e.Next) == 0 {
			require.Len(t, e.Warnings, 1)
			require.Contains(t, e.Warnings[0], "never fires")
			return
		}
		require.True(t, slices.IsSortedFunc(append([]time.Time{now}, e.Next...), time.Time.Compare))
		require.LessOrEqual(t, e.ShortestGap, e.LongestGap)
		for i := 1; i < len(e.Next); i++ {
			gap := e.Next[i].Sub(e.Next[i-1])
			require.Positive(t, gap)
			if e.Next[i].Sub(now) < 360*24*time.Hour {
				require.GreaterOrEqual(t, gap, time.Duration(e.ShortestGap))
			}
		}
		if strings.HasPrefix(s.Expression, "@every") {
			return // counted from whenever the last run was
		}
		previous, ok := s.Previous(e.Next[0].Add(time.Second))
		require.True(t, ok)
		require.True(t, previous.Equal(e.Next[0]), "%s before %s", previous, e.Next[0])
		due, overdue := s.Overdue(now, e.Next[0].Add(time.Hour), time.Minute)
		require.True(t, overdue)
		require.True(t, due.Equal(e.Next[0]))
	})
}
