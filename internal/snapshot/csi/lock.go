package csi

import (
	"context"
	"sync"
)

// locks has one lock for each name that is in use.
type locks struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

// lock waits for the name to be free, and returns what frees it again. The
// context's error when that ends first.
func (l *locks) lock(ctx context.Context, name string) (release func(), err error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		l.mu.Lock()
		held, taken := l.held[name]
		if !taken {
			if l.held == nil {
				l.held = map[string]chan struct{}{}
			}
			mine := make(chan struct{})
			l.held[name] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				defer l.mu.Unlock()
				delete(l.held, name)
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-held:
		}
	}
}
