package retention_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
	_ "time/tzdata"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"keepset/internal/record"
	"keepset/internal/retention"
)

var update = flag.Bool("update", false, "write the golden files anew")

const day = 24 * time.Hour

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// policy is a valid one without rules.
func policy() retention.Policy {
	return retention.Policy{MinAge: 2 * day, Zone: time.UTC, Longest: day, Slack: time.Hour}
}

// taken is a complete backup that was begun, captured and stored at a time.
func taken(at time.Time, n int) retention.Backup {
	return retention.Backup{
		ID: record.NewBackupID(at, fmt.Sprintf("%08d", n)), State: retention.Complete,
		CapturedAt: at.Add(time.Minute), StoredAt: at,
	}
}

// every makes n backups, one each step, the last of them a step before now.
func every(step time.Duration, n int) []retention.Backup {
	var list []retention.Backup
	for i := range n {
		list = append(list, taken(now.Add(-step*time.Duration(n-i)), i))
	}
	return list
}

func show(decisions []retention.Decision) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, d := range decisions {
		word := "delete"
		if d.Keep {
			word = "keep"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", d.Backup, d.State, d.Group, word, strings.Join(d.Reasons, ", "))
	}
	_ = w.Flush() // into memory
	return b.String()
}

// TestDecisions compares what is decided, and why, with golden files.
func TestDecisions(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	at := func(state retention.State, i int) func([]retention.Backup) {
		return func(list []retention.Backup) { list[i].State = state }
	}
	all := func(fs ...func([]retention.Backup)) func([]retention.Backup) {
		return func(list []retention.Backup) {
			for _, f := range fs {
				f(list)
			}
		}
	}
	for name, test := range map[string]struct {
		list   []retention.Backup
		change func([]retention.Backup)
		rule   func(*retention.Policy)
	}{
		"last":   {every(day, 8), nil, func(p *retention.Policy) { p.Last = 3 }},
		"hourly": {every(20*time.Minute, 90)[:12], nil, func(p *retention.Policy) { p.Hourly, p.MinAge = 2, 25*time.Hour }},
		"calendar": {every(5*day, 90), nil, func(p *retention.Policy) {
			p.Daily, p.Weekly, p.Monthly, p.Yearly = 7, 4, 6, 2
		}},
		"within": {every(10*day, 8), nil, func(p *retention.Policy) { p.Within = retention.Span{Days: 30, Hours: 12} }},
		"hours that come twice": {func() []retention.Backup {
			var list []retention.Backup
			for i := range 6 { // 2026-10-25, when 2 o'clock comes twice in Berlin
				list = append(list, taken(time.Date(2026, 10, 24, 23, 10+30*i, 0, 0, time.UTC), i))
			}
			return list
		}(), nil, func(p *retention.Policy) { p.Hourly, p.Zone = 3, berlin }},
		"the day begins in the zone": {func() []retention.Backup {
			return []retention.Backup{
				taken(time.Date(2026, 11, 10, 22, 30, 0, 0, time.UTC), 0), taken(time.Date(2026, 11, 10, 23, 30, 0, 0, time.UTC), 1),
				taken(time.Date(2026, 11, 11, 12, 0, 0, 0, time.UTC), 2),
			}
		}(), nil, func(p *retention.Policy) { p.Daily, p.Zone = 5, berlin }},
		"suspect and incomplete": {
			every(day, 10), all(
				at(retention.Suspect, 1), at(retention.Incomplete, 2), at(retention.Suspect, 6), at(retention.Incomplete, 7), at(retention.Suspect, 9)),
			func(p *retention.Policy) { p.Last = 3 },
		},
		"nothing complete since": {
			every(7*day, 4), all(at(retention.Suspect, 2), at(retention.Incomplete, 3)),
			func(p *retention.Policy) { p.Last = 1 },
		},
		"pinned, drilled, condemned": {every(day, 10), func(list []retention.Backup) {
			list[0].Pinned, list[1].Drilled, list[2].Drilled, list[3].Condemned, list[9].Condemned = true, true, true, true, true
		}, func(p *retention.Policy) { p.Last = 2 }},
		"in doubt": {every(day, 8), func(list []retention.Backup) {
			list[1].CapturedAt = now.Add(365 * day) // its server's clock is wrong
			list[2].StoredAt = now.Add(-time.Hour)  // put there long after its ID
			list[3].State, list[3].Why = retention.Doubtful, "plan: not signed"
			list[4].CapturedAt = list[4].CapturedAt.Add(-30 * day)
		}, func(p *retention.Policy) { p.Last = 2 }},
		"kinds do not replace each other": {every(day, 9), func(list []retention.Backup) {
			for i := range list {
				list[i].Group = []string{"dump", "snapshot", "dump, databases shop"}[i%3]
			}
		}, func(p *retention.Policy) { p.Last = 1 }},
		"by capture, not by start": {func() []retention.Backup {
			waited, quick := taken(now.Add(-5*day), 0), taken(now.Add(-5*day+time.Hour), 1)
			waited.CapturedAt = quick.CapturedAt.Add(time.Hour)
			return []retention.Backup{waited, quick}
		}(), nil, func(p *retention.Policy) { p.Last = 1 }},
	} {
		t.Run(name, func(t *testing.T) {
			p := policy()
			test.rule(&p)
			require.NoError(t, p.Validate())
			if test.change != nil {
				test.change(test.list)
			}
			got := show(retention.Decide(test.list, p, now))
			file := filepath.Join("testdata", strings.ReplaceAll(name, " ", "-")+".golden")
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, string(want), got, "run go test with -update in this directory")
		})
	}
}

// drawn draws backups of all kinds, and a policy.
func drawn(rt *rapid.T) ([]retention.Backup, retention.Policy) {
	var list []retention.Backup
	for i := range rapid.IntRange(0, 25).Draw(rt, "backups") {
		b := taken(now.Add(-time.Duration(rapid.IntRange(0, 400*24).Draw(rt, "hours"))*time.Hour), i)
		b.State = rapid.SampledFrom([]retention.State{
			retention.Complete, retention.Complete, retention.Complete, retention.Suspect, retention.Incomplete, retention.Doubtful,
		}).Draw(rt, "state")
		b.Group = rapid.SampledFrom([]string{"", "", "b"}).Draw(rt, "group")
		if n := rapid.IntRange(0, 9).Draw(rt, "label"); n < 3 {
			b.Labels = record.Labels{"release": fmt.Sprint(n)}
		}
		b.Pinned = rapid.IntRange(0, 9).Draw(rt, "pinned") == 0
		b.Drilled = rapid.IntRange(0, 4).Draw(rt, "drilled") == 0
		b.Condemned = rapid.IntRange(0, 9).Draw(rt, "condemned") == 0
		list = append(list, b)
	}
	p := policy()
	if rapid.Bool().Draw(rt, "by label") {
		p.Labels = []record.LabelSelector{{Key: "release", Value: "1"}}
	}
	count := func(name string) int { return rapid.IntRange(0, 5).Draw(rt, name) }
	p.Last, p.Hourly, p.Daily, p.Weekly, p.Monthly, p.Yearly = count("last"), count("hourly"), count("daily"), count("weekly"), count("monthly"), count("yearly")
	p.Within = retention.Span{Days: rapid.IntRange(0, 90).Draw(rt, "within")}
	return list, p
}

func kept(decisions []retention.Decision) map[record.BackupID]bool {
	m := make(map[record.BackupID]bool)
	for _, d := range decisions {
		if d.Keep {
			m[d.Backup] = true
		}
	}
	return m
}

// TestIdempotent: once what was decided has been done, nothing more goes.
func TestIdempotent(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		list, p := drawn(rt)
		first := kept(retention.Decide(list, p, now))
		left := slices.DeleteFunc(slices.Clone(list), func(b retention.Backup) bool { return !first[b.ID] })
		require.Equal(rt, first, kept(retention.Decide(left, p, now)))
	})
}

// TestMonotonic: more generous rules keep all that others keep, and time alone
// brings nothing back.
func TestMonotonic(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		list, p := drawn(rt)
		before := kept(retention.Decide(list, p, now))
		more := p
		for _, n := range []*int{&more.Last, &more.Hourly, &more.Daily, &more.Weekly, &more.Monthly, &more.Yearly, &more.Within.Days} {
			*n += rapid.IntRange(0, 3).Draw(rt, "more")
		}
		more.MinAge += time.Duration(rapid.IntRange(0, 100).Draw(rt, "older")) * time.Hour
		after := kept(retention.Decide(list, more, now))
		for id := range before {
			require.True(rt, after[id], "%s is kept by less and not by more", id)
		}
		for id := range kept(retention.Decide(list, p, now.Add(time.Duration(rapid.IntRange(0, 1000).Draw(rt, "later"))*time.Hour))) {
			require.True(rt, before[id], "%s comes back", id)
		}
	})
}

// TestTheOrderDoesNotMatter in which the backups come.
func TestTheOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		list, p := drawn(rt)
		require.Equal(rt, retention.Decide(list, p, now), retention.Decide(rapid.Permutation(list).Draw(rt, "order"), p, now))
	})
}

// TestOneNight: who holds the writer's key, and stores as many backups in one
// night as he likes, makes no older one go.
func TestOneNight(t *testing.T) {
	good := append(every(day, 40), taken(now.Add(-time.Hour), 900))
	night := slices.Clone(good)
	for i := range 50 {
		forged := taken(now.Add(-time.Duration(i)*time.Minute), 1000+i)
		forged.CapturedAt = now.Add(time.Hour - time.Duration(i)*30*time.Minute) // as far as it is believed
		night = append(night, forged)
	}
	for name, set := range map[string]func(*retention.Policy){
		"last": func(p *retention.Policy) { p.Last = 7 }, "hourly": func(p *retention.Policy) { p.Hourly = 24 },
		"daily": func(p *retention.Policy) { p.Daily = 7 }, "weekly": func(p *retention.Policy) { p.Weekly = 4 },
		"monthly": func(p *retention.Policy) { p.Monthly = 2 }, "yearly": func(p *retention.Policy) { p.Yearly = 1 },
		"within": func(p *retention.Policy) { p.Within = retention.Span{Days: 10, Hours: 2} },
	} {
		p := policy()
		set(&p)
		before, after := kept(retention.Decide(good, p, now)), kept(retention.Decide(night, p, now))
		for id := range before {
			// What holds the day's place beside a forged one stays by its age.
			require.True(t, after[id], "%s: %s is evicted", name, id)
		}
	}
}

// TestTheForgedChangeNothing: whatever is put there that is not beyond doubt,
// the others stay or go as they did, and it stays.
func TestTheForgedChangeNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		list, p := drawn(rt)
		want := kept(retention.Decide(list, p, now))
		with := slices.Clone(list)
		for i := range rapid.IntRange(1, 10).Draw(rt, "forged") {
			b := taken(now.Add(-time.Duration(rapid.IntRange(0, 400*24).Draw(rt, "hours"))*time.Hour), 1000+i)
			switch rapid.IntRange(0, 3).Draw(rt, "kind") {
			case 0:
				b.State, b.Why = retention.Doubtful, "forged"
			case 1: // a date in the future, and what claims to have been stored then
				b = taken(now.Add(time.Duration(rapid.IntRange(2, 9999).Draw(rt, "future"))*time.Hour), 1000+i)
			case 2:
				b.StoredAt = b.StoredAt.Add(26 * time.Hour)
			default:
				b.CapturedAt = b.CapturedAt.Add(-time.Duration(rapid.IntRange(30, 9999).Draw(rt, "past")) * time.Hour)
			}
			b.Drilled = true
			want[b.ID] = true
			with = append(with, b)
		}
		require.Equal(rt, want, kept(retention.Decide(with, p, now)))
	})
}

// TestSuspectAndIncompleteDisplaceNothing.
func TestSuspectAndIncompleteDisplaceNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		list, p := drawn(rt)
		good := slices.DeleteFunc(slices.Clone(list), func(b retention.Backup) bool { return b.State != retention.Complete })
		all, alone := kept(retention.Decide(list, p, now)), kept(retention.Decide(good, p, now))
		for _, b := range good {
			require.Equal(rt, alone[b.ID], all[b.ID], b.ID)
		}
	})
}

// TestAlwaysStay: the newest complete one and the newest drilled one of each
// kind, what is pinned, and what is young.
func TestAlwaysStay(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		list, p := drawn(rt)
		got := kept(retention.Decide(list, p, now))
		newest, drilled := map[string]retention.Backup{}, map[string]retention.Backup{}
		for _, b := range list {
			require.True(rt, got[b.ID] || !b.Pinned && (b.Condemned || now.Sub(b.StoredAt) >= p.MinAge))
			if b.State != retention.Complete || b.Condemned {
				continue
			}
			later := func(m map[string]retention.Backup) {
				o, seen := m[b.Group]
				if !seen || b.CapturedAt.After(o.CapturedAt) || b.CapturedAt.Equal(o.CapturedAt) && b.ID > o.ID {
					m[b.Group] = b
				}
			}
			later(newest)
			if b.Drilled {
				later(drilled)
			}
		}
		for _, m := range []map[string]retention.Backup{newest, drilled} {
			for _, b := range m {
				require.True(rt, got[b.ID])
			}
		}
	})
}

// TestMass: most of what there is goes only with the user's word.
func TestMass(t *testing.T) {
	for _, test := range []struct {
		backups, last int
		mass          bool
	}{{4, 1, false}, {5, 1, true}, {8, 4, false}, {9, 4, true}, {100, 50, false}, {100, 49, true}} {
		p := policy()
		p.Last = test.last
		list := every(3*day, test.backups)
		for i := range list {
			if i%2 == 1 && i < len(list)-1 {
				continue
			}
			incomplete := taken(list[i].StoredAt.Add(time.Hour), 5000+i)
			incomplete.State = retention.Incomplete
			list = append(list, incomplete) // these do not count
		}
		deleted, of, mass := retention.Mass(retention.Decide(list, p, now))
		require.Equal(t, test.backups-test.last, deleted)
		require.Equal(t, test.backups, of)
		require.Equal(t, test.mass, mass, "%+v", test)
	}
}

func TestPolicyIsChecked(t *testing.T) {
	for name, change := range map[string]func(*retention.Policy){
		"no rule":      func(p *retention.Policy) { p.Last = 0 },
		"negative":     func(p *retention.Policy) { p.Daily = -1 },
		"no zone":      func(p *retention.Policy) { p.Zone = nil },
		"no age":       func(p *retention.Policy) { p.MinAge = 0 },
		"small an age": func(p *retention.Policy) { p.MinAge = 24 * time.Hour },
	} {
		p := policy()
		p.Last = 1
		change(&p)
		require.ErrorIs(t, p.Validate(), retention.ErrPolicy, name)
	}
}

func TestParseSpan(t *testing.T) {
	for text, want := range map[string]retention.Span{
		"30d12h": {Days: 30, Hours: 12}, "1y6m": {Years: 1, Months: 6}, "2y5m7d3h": {2, 5, 7, 3}, "3h": {Hours: 3},
	} {
		got, err := retention.ParseSpan(text)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Equal(t, text, got.String())
	}
	for _, text := range []string{"", "d", "3", "3x", "1h1d", "-3d", "0d", "3d ", "1d1d", "99999999d", "+3d"} {
		_, err := retention.ParseSpan(text)
		require.Error(t, err, text)
	}
}

// FuzzParseSpan: what is read is written in a form that is read alike.
func FuzzParseSpan(f *testing.F) {
	f.Add("30d12h")
	f.Add("1y2m3d4h")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := retention.ParseSpan(text)
		if err != nil {
			return
		}
		again, err := retention.ParseSpan(s.String())
		require.NoError(t, err)
		require.Equal(t, s, again)
	})
}

// TestLabels: complete backups with a label that is named stay, and only those.
func TestLabels(t *testing.T) {
	list := every(10*day, 6)
	for i, l := range []record.Labels{{"release": "1"}, {"release": "2"}, {"env": "prod"}, {"release": "1"}, nil, nil} {
		list[i].Labels = l
	}
	list[3].State = retention.Incomplete
	p := policy()
	p.Last = 1
	kept := func(texts ...string) (ids []int) {
		var err error
		p.Labels, err = record.ParseLabelSelectors(texts)
		require.NoError(t, err)
		for _, d := range retention.Decide(list, p, now) {
			if d.Keep {
				ids = append(ids, slices.IndexFunc(list, func(b retention.Backup) bool { return b.ID == d.Backup }))
			}
		}
		slices.Sort(ids)
		return ids
	}
	require.Equal(t, []int{5}, kept())
	require.Equal(t, []int{0, 5}, kept("release=1"), "an incomplete one is judged apart")
	require.Equal(t, []int{0, 1, 5}, kept("release"))
	require.Equal(t, []int{0, 2, 5}, kept("release=1", "env"))
	require.Equal(t, []int{5}, kept("release=3"))
	list[0].Condemned = true
	require.Equal(t, []int{5}, kept("release=1"))
}
