package job

import (
	"fmt"
	"time"

	"keepset/internal/record"
)

// SuspectRules decide when a captured member is doubtful. A doubtful member is
// committed as suspect: it can be looked at and, with a flag, restored, and it
// never displaces a good one.
type SuspectRules struct {
	// ShrinkPercent is how much smaller than in the last good backup rows,
	// bytes or tables may be. 0 turns the comparison off.
	ShrinkPercent int
	// MaxLag is how far a follower may be behind its upstream. 0: any lag.
	MaxLag time.Duration
	// AllowEmpty accepts a member without tables or rows.
	AllowEmpty bool
}

// extent is how much a member holds, as far as shrinking is judged.
type extent struct {
	rows, bytes, tables int64
	// uncounted: the rows of its tables are not known.
	uncounted bool
	// opaque: nothing is known of what is in it.
	opaque bool
}

// extentOf counts what a dump holds.
func extentOf(r record.Report) extent {
	e := extent{rows: r.Rows, bytes: r.Bytes}
	for _, o := range r.Objects {
		e.opaque = e.opaque || o.Kind == record.KindStream
		if o.Kind == "table" {
			e.tables++
			e.uncounted = e.uncounted || o.Rows < 0
		}
	}
	return e
}

// Judge returns the reasons to doubt a member, none when it is good. last is
// the commit of the same ordinal in the last good backup, nil when there is
// none.
func (s SuspectRules) Judge(r record.Report, last *record.Commit) []string {
	if isTree(r) {
		return s.judgeTree(r, last)
	}
	if isBase(r) {
		return s.judgeBase(r, last)
	}
	reasons := s.judgeFollower(r.Coordinates.Upstream)
	for _, other := range r.Coordinates.OtherUpstreams {
		reasons = append(reasons, s.judgeFollower(&other)...)
	}
	now := extentOf(r)
	if !s.AllowEmpty && !now.opaque && !unseen(r) { // of which nobody has seen the inside
		switch {
		case now.tables == 0:
			reasons = append(reasons, "it holds no table")
		case now.rows == 0 && !now.uncounted:
			reasons = append(reasons, "none of its tables holds a row")
		}
	}
	if last != nil && s.ShrinkPercent > 0 && !unseen(r) {
		was := extent{rows: last.Rows, bytes: last.Bytes, tables: last.Objects}
		if !now.uncounted { // of volumes neither is known
			reasons = append(reasons, s.shrunk("rows", was.rows, now.rows)...)
			reasons = append(reasons, s.shrunk("bytes", was.bytes, now.bytes)...)
		}
		reasons = append(reasons, s.shrunk("objects", was.tables, int64(len(r.Objects)))...)
	}
	return reasons
}

func (s SuspectRules) judgeFollower(up *record.UpstreamCoordinates) []string {
	if up == nil {
		return nil
	}
	if !up.Running {
		return []string{fmt.Sprintf("its replication from %s:%d is not running", up.Host, up.Port)}
	}
	lag := time.Duration(up.LagSeconds) * time.Second
	if s.MaxLag > 0 && lag > s.MaxLag {
		return []string{fmt.Sprintf("it is %s behind %s:%d, more than %s", lag, up.Host, up.Port, s.MaxLag)}
	}
	return nil
}

// shrunk compares one count with the last good backup's.
func (s SuspectRules) shrunk(what string, was, now int64) []string {
	if was <= 0 || now >= was {
		return nil
	}
	// 100*(was-now)/was without overflow for sizes in bytes.
	percent := float64(was-now) / float64(was) * 100
	if percent < float64(s.ShrinkPercent) {
		return nil
	}
	return []string{fmt.Sprintf("%s fell from %d to %d since the last good backup (%.0f %%)", what, was, now, percent)}
}
