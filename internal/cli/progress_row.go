package cli

import (
	"fmt"
	"strings"
	"time"

	"keepset/internal/job"
)

// row is what a terminal shows of one member.
type row struct {
	job.Event
	label   int // columns for the label, so that the rows stand in columns
	elapsed time.Duration
	rate    float64 // bytes a second lately
	stopped bool    // the job ended before the member did
}

// text is the row in at most width columns. Where not everything fits, the bar
// goes first, then the bytes, then the rate, and the name last.
func (r row) text(width int) string {
	name := fmt.Sprintf("%-*s", r.label, label(r.Event))
	number := fmt.Sprintf("ordinal %d", r.Ordinal)
	if r.Done || r.stopped {
		return fit(width, name+"  "+r.result(), name+"  "+r.outcome(), number+"  "+r.outcome(), r.outcome())
	}
	rate := fmt.Sprintf("  %9s/s", Bytes(int64(r.rate)))
	if r.Expected == 0 {
		// A first backup: nobody knows how much there is.
		read := fmt.Sprintf("  %9s", Bytes(r.Bytes))
		return fit(width, name+read+rate+"  for "+Age(r.elapsed), name+read+rate, number+read+rate, number+read, read)
	}
	share := fmt.Sprintf("%3d%%", percent(r.Event))
	read := fmt.Sprintf("  %9s of %-9s", Bytes(r.Bytes), Bytes(r.Expected))
	left := "  " + r.left()
	text := fit(width, name+"  "+share+read+rate+left, name+"  "+share+rate+left, name+"  "+share+left,
		number+"  "+share+rate+left, number+"  "+share+left, number+"  "+share, share)
	const smallest, biggest = 10, 40
	if room := width - len(text) - len("[]") - 2; room >= smallest && strings.HasPrefix(text, name) {
		text = name + "  " + bar(min(room, biggest), percent(r.Event)) + strings.TrimPrefix(text, name)
	}
	return text
}

// left says how long it will take at the present rate.
func (r row) left() string {
	missing := r.Expected - r.Bytes
	switch {
	case missing <= 0:
		return "finishing"
	case r.rate < 1:
		return "ETA -"
	}
	seconds := float64(missing) / r.rate
	if seconds > (99 * time.Hour).Seconds() {
		return "ETA > 99h"
	}
	return "ETA " + Age(time.Duration(seconds*float64(time.Second)))
}

// outcome is the last word on the member here; what became of the backup is the
// report's to say.
func (r row) outcome() string {
	switch {
	case r.Failed:
		return "failed"
	case r.stopped:
		return "stopped"
	default:
		took := Age(r.elapsed)
		if r.elapsed < time.Minute {
			took = r.elapsed.Round(100 * time.Millisecond).String()
		}
		return fmt.Sprintf("%s in %s", Bytes(r.Bytes), took)
	}
}

func (r row) result() string {
	if r.Failed || r.stopped {
		return r.outcome() + " after " + Bytes(r.Bytes)
	}
	text := r.outcome()
	if s := r.elapsed.Seconds(); s > 0 {
		text += fmt.Sprintf(", %s/s", Bytes(int64(float64(r.Bytes)/s)))
	}
	if r.Stored > 0 {
		text += fmt.Sprintf(", %s new", Bytes(r.Stored))
	}
	return text
}

// label names the member.
func label(e job.Event) string { return fmt.Sprintf("ordinal %d  %s", e.Ordinal, e.Name) }

// percent never says 100 before the end: what is expected is an estimate.
func percent(e job.Event) int64 { return min(99, e.Bytes*100/max(1, e.Expected)) }

func bar(width int, percent int64) string {
	done := int(percent) * width / 100
	return "[" + strings.Repeat("=", done) + ">" + strings.Repeat(" ", width-done-1) + "]"
}

// fit is the first of texts that has room, or what has room of the last one.
func fit(width int, texts ...string) string {
	for _, t := range texts {
		if len([]rune(t)) <= width {
			return t
		}
	}
	last := []rune(texts[len(texts)-1])
	return string(last[:max(0, min(width, len(last)))])
}

// pace measures how fast bytes come, over the last seconds.
type pace struct {
	began   time.Time
	samples []paceSample
}

type paceSample struct {
	at    time.Time
	bytes int64
}

// paceWindow is long enough to even out the bursts of packs and tables.
const paceWindow = 10 * time.Second

func newPace(now time.Time) pace { return pace{began: now} }

func (p *pace) add(now time.Time, bytes int64) {
	p.samples = append(p.samples, paceSample{now, bytes})
	for len(p.samples) > 2 && now.Sub(p.samples[1].at) >= paceWindow {
		p.samples = p.samples[1:]
	}
}

// last is when bytes were last heard of.
func (p *pace) last() time.Time { return p.samples[len(p.samples)-1].at }

// rate is bytes a second.
func (p *pace) rate() float64 {
	if len(p.samples) < 2 {
		return 0
	}
	first, last := p.samples[0], p.samples[len(p.samples)-1]
	seconds := last.at.Sub(first.at).Seconds()
	if seconds <= 0 {
		return 0
	}
	return float64(last.bytes-first.bytes) / seconds
}
