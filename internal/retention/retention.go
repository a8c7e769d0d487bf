// Package retention decides which backups of a set stay. It is a pure function:
// backups, a policy and a point in time go in, a decision with its reasons for
// each backup comes out. It reads no clock and no store.
//
// Its central function is [Decide]. What it promises:
//
//   - Only complete backups that are beyond doubt count for the policy. Suspect
//     and incomplete ones are judged apart, and never take the place of a good one.
//   - What is in doubt (forged, quarantined, dated in the future, unreadable)
//     stays, takes nobody's place, and is no reason for anything to go.
//   - Backups that were stored in one night displace none that are older, whoever signed
//     them: places are counted by days and longer, or among those of the minimum age.
//   - The newest complete backup and the newest drilled one of each group stay, so
//     do pinned ones and those that are younger than the policy's minimum age.
//   - More generous rules never delete more, and deciding again after what was
//     decided has been done deletes nothing.
//
// Backups are ordered by when their content was captured, not by when their run began.
package retention

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"keepset/internal/record"
)

// State is what a backup is.
type State string

// The states.
const (
	Complete   State = "complete"
	Suspect    State = "suspect"
	Incomplete State = "incomplete"
	// Doubtful: nobody knows what it is.
	Doubtful State = "doubtful"
)

// Backup is what has to be known of a backup.
type Backup struct {
	ID record.BackupID
	// Group: backups of different groups do not replace each other, as when one
	// holds a single database and the other all of them.
	Group string
	State State
	// Why it is doubtful.
	Why string
	// CapturedAt is the point in time that it holds.
	CapturedAt time.Time
	// StoredAt is the store's clock when its plan was stored.
	StoredAt time.Time
	// Copied: the user has said that the time it was stored is that of a copy.
	Copied bool
	// Pinned by the user.
	Pinned bool
	// Labels that the user has given.
	Labels record.Labels
	// Drilled: a restore of it was proven.
	Drilled bool
	// Condemned by an earlier prune, which is not done with it.
	Condemned bool
}

// Decision is what becomes of a backup.
type Decision struct {
	Backup record.BackupID `json:"backup"`
	Group  string          `json:"group,omitempty"`
	State  State           `json:"state"`
	// CapturedAt and StoredAt as they came in.
	CapturedAt time.Time `json:"capturedAt"`
	StoredAt   time.Time `json:"storedAt"`
	Keep       bool      `json:"keep"`
	// Reasons, at least one, each a few words for the user.
	Reasons []string `json:"reasons"`
}

// Decide decides on all backups of one set, and returns the newest first. The
// policy must be valid; now is the store's clock.
func Decide(backups []Backup, p Policy, now time.Time) []Decision {
	list := slices.Clone(backups)
	for i := range list {
		p.doubt(&list[i], now)
	}
	slices.SortFunc(list, newestFirst)
	groups := make(map[string]*group)
	for _, b := range list {
		g := groups[b.Group]
		if g == nil {
			g = &group{policy: p, now: now}
			groups[b.Group] = g
		}
		if b.State == Complete && !b.Condemned {
			g.good = append(g.good, b)
		}
	}
	for _, g := range groups {
		g.rules = p.rules(g.good, now)
	}
	decisions := make([]Decision, 0, len(list))
	for _, b := range list {
		decisions = append(decisions, groups[b.Group].decide(b))
	}
	return decisions
}

// newestFirst is the order of the policy. Equal times are told apart by IDs.
func newestFirst(a, b Backup) int {
	return cmp.Or(b.CapturedAt.Compare(a.CapturedAt), cmp.Compare(b.ID, a.ID))
}

// doubt makes a backup doubtful whose times contradict each other.
func (p *Policy) doubt(b *Backup, now time.Time) {
	if b.State == Doubtful {
		return
	}
	why := ""
	switch {
	case b.StoredAt.After(now.Add(p.Slack)):
		why = "it was stored after now"
	case b.CapturedAt.After(now.Add(p.Slack)):
		why = fmt.Sprintf("it is dated %s in the future", b.CapturedAt.Sub(now).Round(time.Minute))
	case b.Copied:
		return // what is older than its copy is no contradiction
	case b.StoredAt.Sub(b.ID.Time()).Abs() > p.Longest:
		why = fmt.Sprintf("its ID and the time it was stored differ by %s", b.StoredAt.Sub(b.ID.Time()).Abs().Round(time.Minute))
	case b.CapturedAt.Sub(b.StoredAt).Abs() > p.Longest+p.Slack:
		why = fmt.Sprintf("the time it holds and the time it was stored differ by %s", b.CapturedAt.Sub(b.StoredAt).Abs().Round(time.Minute))
	default:
		return
	}
	b.State, b.Why = Doubtful, why
}

// group is what does replace each other.
type group struct {
	policy Policy
	now    time.Time
	good   []Backup // newest first
	rules  map[record.BackupID][]string
}

func (g *group) decide(b Backup) Decision {
	d := Decision{Backup: b.ID, Group: b.Group, State: b.State, CapturedAt: b.CapturedAt, StoredAt: b.StoredAt}
	keep, why := g.reasons(b)
	if !b.Condemned && g.policy.young(b, g.now) {
		keep = append(keep, "younger than "+inDays(g.policy.MinAge))
	}
	if b.Pinned {
		keep = append(keep, "pinned")
	}
	d.Keep = len(keep) > 0
	d.Reasons = keep
	if !d.Keep {
		d.Reasons = []string{why}
	}
	return d
}

// reasons says why a backup stays, or, if it does not, why not.
func (g *group) reasons(b Backup) (keep []string, why string) {
	switch {
	case b.Condemned:
		return nil, "condemned by an earlier prune"
	case b.State == Doubtful:
		return []string{"in doubt: " + b.Why}, ""
	case b.State == Complete:
		return g.goodReasons(b), "no rule keeps it"
	}
	newer := g.since(b)
	if newer == "" {
		return []string{string(b.State) + ", and none is complete since"}, ""
	}
	if b.State == Suspect {
		with := append(slices.Clone(g.good), b)
		slices.SortFunc(with, newestFirst)
		for _, rule := range g.policy.rules(with, g.now)[b.ID] {
			keep = append(keep, "suspect, judged apart: "+rule)
		}
		return keep, "suspect, and no rule would keep a complete one of its time"
	}
	return nil, fmt.Sprintf("incomplete, and %s is complete since", newer)
}

func (g *group) goodReasons(b Backup) []string {
	var keep []string
	if b.ID == g.good[0].ID {
		keep = append(keep, "newest complete")
	}
	if i := slices.IndexFunc(g.good, func(o Backup) bool { return o.Drilled }); i >= 0 && g.good[i].ID == b.ID {
		keep = append(keep, "newest drilled")
	}
	for _, s := range g.policy.Labels {
		if s.Selects(b.Labels) {
			keep = append(keep, "label "+s.String())
		}
	}
	return append(keep, g.rules[b.ID]...)
}

// since is the oldest good backup that is newer than b; empty when there is none.
func (g *group) since(b Backup) record.BackupID {
	for _, good := range slices.Backward(g.good) {
		if good.CapturedAt.After(b.CapturedAt) {
			return good.ID
		}
	}
	return ""
}

// Mass counts the good and suspect backups that go, of how many there are, and
// says whether those are too many to go at once without the user's word: more
// than three, and more than half. A wrong policy, or times that somebody has
// tampered with, must not empty a repository in one night.
func Mass(decisions []Decision) (deleted, of int, mass bool) {
	for _, d := range decisions {
		if d.State != Complete && d.State != Suspect {
			continue
		}
		of++
		if !d.Keep {
			deleted++
		}
	}
	return deleted, of, deleted > massLeast && 2*deleted > of
}

// massLeast is how many may always go at once.
const massLeast = 3
