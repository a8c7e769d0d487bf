package repository

import (
	"context"
	"sync"
)

// tracker counts work in flight, and lets a caller wait for everything that
// was begun before, while others go on beginning.
type tracker struct {
	mu      sync.Mutex
	changed sync.Cond
	next    uint64
	open    map[uint64]struct{}
}

func newTracker() *tracker {
	t := &tracker{open: make(map[uint64]struct{})}
	t.changed.L = &t.mu
	return t
}

// begin returns a ticket for end.
func (t *tracker) begin() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next++
	t.open[t.next] = struct{}{}
	return t.next
}

func (t *tracker) end(ticket uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, ticket)
	t.changed.Broadcast()
}

// wait returns when all that was begun before the call has ended, or with
// the context's cause.
func (t *tracker) wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.changed.Broadcast()
	})
	defer stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	for mark := t.next; t.anyUpTo(mark); {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		t.changed.Wait()
	}
	return nil
}

func (t *tracker) anyUpTo(mark uint64) bool {
	for ticket := range t.open {
		if ticket <= mark {
			return true
		}
	}
	return false
}
