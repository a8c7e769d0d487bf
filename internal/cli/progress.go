package cli

import (
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"keepset/internal/job"
)

// logInterval is how often a member's progress becomes a log line.
const logInterval = 30 * time.Second

// StartProgress returns what a job tells its progress to, and what ends it:
// a line for each member on a terminal, drawn over and over again, a line in
// the log every half minute elsewhere.
func (a *App) StartProgress() (job.Progress, func()) {
	if a.Progress() {
		b := &bars{
			clock: a.Clock, pool: mpb.New(mpb.WithOutput(a.Err), mpb.WithRefreshRate(200*time.Millisecond)),
			members: map[int]*memberBar{}, label: new(atomic.Int64),
		}
		a.logs.to(&aboveBars{bars: b.pool, after: a.Err})
		return b.hear, func() {
			b.end()
			a.logs.to(a.Err)
		}
	}
	l := &lines{app: a, last: map[int]time.Time{}}
	return l.hear, func() {}
}

// aboveBars writes log lines above the bars, and after those have ended to
// where they were drawn.
type aboveBars struct{ bars, after io.Writer }

// Write implements io.Writer.
func (w *aboveBars) Write(p []byte) (int, error) {
	n, err := w.bars.Write(p)
	if errors.Is(err, mpb.ErrDone) {
		return w.after.Write(p)
	}
	return n, err
}

// bars draws one row for each member. The pool moves the cursor and knows the
// terminal's width; what a row says is ours.
type bars struct {
	clock   func() time.Time
	mu      sync.Mutex
	pool    *mpb.Progress
	members map[int]*memberBar
	label   *atomic.Int64 // width of the longest member's label
}

// memberBar is one row.
type memberBar struct {
	bar   *mpb.Bar
	clock func() time.Time
	label *atomic.Int64
	mu    sync.Mutex
	pace  pace
	now   job.Event
}

// elapsed stands still once the member is done.
func (m *memberBar) elapsed() time.Duration {
	end := m.clock()
	if m.now.Done {
		end = m.pace.last()
	}
	return end.Sub(m.pace.began)
}

func (b *bars) hear(e job.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m, ok := b.members[e.Ordinal]
	if !ok {
		m = &memberBar{clock: b.clock, label: b.label, pace: newPace(b.clock())}
		b.label.Store(max(b.label.Load(), int64(len(label(e)))))
		m.bar = b.pool.MustAdd(1, mpb.BarFillerFunc(m.fill), mpb.BarFillerTrim(), mpb.BarPriority(e.Ordinal))
		b.members[e.Ordinal] = m
	}
	m.hear(e)
	if e.Done {
		m.bar.SetCurrent(1) // it is drawn once more, and then stays
	}
}

func (m *memberBar) hear(e job.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = e
	m.pace.add(m.clock(), e.Bytes)
}

// fill implements mpb.BarFiller.
func (m *memberBar) fill(w io.Writer, s decor.Statistics) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := row{Event: m.now, label: int(m.label.Load()), elapsed: m.elapsed(), rate: m.pace.rate(), stopped: s.Aborted}
	_, err := io.WriteString(w, r.text(s.AvailableWidth))
	return err
}

// end draws every row for the last time.
func (b *bars) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ordinal := range slices.Sorted(maps.Keys(b.members)) {
		if bar := b.members[ordinal].bar; !bar.Completed() {
			bar.Abort(false)
		}
	}
	b.pool.Wait()
}

// lines logs each member's progress now and then.
type lines struct {
	mu   sync.Mutex
	app  *App
	last map[int]time.Time
}

func (l *lines) hear(e job.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.app.Clock()
	last, seen := l.last[e.Ordinal]
	if !seen {
		l.last[e.Ordinal] = now
		return
	}
	if e.Done || now.Sub(last) < logInterval {
		return
	}
	l.last[e.Ordinal] = now
	attrs := []any{"ordinal", e.Ordinal, "member", e.Name, "bytes", e.Bytes}
	if e.Stored > 0 {
		attrs = append(attrs, "stored", e.Stored)
	}
	if e.Expected > 0 {
		attrs = append(attrs, "percent", percent(e))
	}
	l.app.Log.Info("in progress", attrs...)
}
