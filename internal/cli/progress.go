package cli

import (
	"fmt"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"keepset/internal/job"
)

// logInterval is how often a member's progress becomes a log line.
const logInterval = 30 * time.Second

// StartProgress returns what a job tells its progress to, and what ends it:
// bars on a terminal, a line in the log every half minute elsewhere.
func (a *App) StartProgress() (job.Progress, func()) {
	if a.Progress() {
		b := &bars{pool: mpb.New(mpb.WithOutput(a.Err), mpb.WithWidth(48)), byOrdinal: map[int]*mpb.Bar{}}
		a.logs.to(b.pool)
		return b.hear, func() {
			b.end()
			a.logs.to(a.Err)
		}
	}
	l := &lines{app: a, last: map[int]time.Time{}}
	return l.hear, func() {}
}

// bars draws one bar for each member.
type bars struct {
	mu        sync.Mutex
	pool      *mpb.Progress
	byOrdinal map[int]*mpb.Bar
}

func (b *bars) hear(e job.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	bar, ok := b.byOrdinal[e.Ordinal]
	if !ok {
		bar = b.pool.AddBar(e.Expected,
			mpb.PrependDecorators(decor.Name(fmt.Sprintf("ordinal %d  %s", e.Ordinal, e.Name), decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f"), decor.Name(" "), decor.AverageSpeed(decor.SizeB1024(0), "% .1f")))
		b.byOrdinal[e.Ordinal] = bar
	}
	// The expectation is the last backup's size; growth must not end the bar.
	bar.SetTotal(max(e.Expected, e.Bytes+1), false)
	bar.SetCurrent(e.Bytes)
	if e.Done {
		bar.SetTotal(max(e.Bytes, 1), false)
		bar.SetTotal(-1, true)
	}
}

func (b *bars) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, bar := range b.byOrdinal {
		if !bar.Completed() {
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
		attrs = append(attrs, "percent", min(99, e.Bytes*100/e.Expected))
	}
	l.app.Log.Info("in progress", attrs...)
}
