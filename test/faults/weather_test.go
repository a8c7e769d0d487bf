package faults

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"keepset/internal/storage"
	"keepset/internal/storage/storagetest"
)

// front is a kind of weather.
type front string

const (
	calm     front = "calm"
	squalls  front = "errors"
	throttle front = "throttling"
	expired  front = "expired credentials"
	lost     front = "lost replies"
	halves   front = "half writes and reads"
	lagging  front = "stale lists"
	disorder front = "reordered lists"
	slow     front = "delays"
	mixed    front = "everything"
)

var fronts = []front{calm, squalls, throttle, expired, lost, halves, lagging, disorder, slow, mixed}

var (
	errBroken   = errors.New("500 internal error")
	errThrottle = errors.New("503 slow down")
	errKilled   = errors.New("the pod was killed")
)

// weather says what a store does to each call. Its mutex is the store's.
type weather struct {
	rng   *rand.Rand
	clock *clock
	front front
	// kill, if not nil, is called after so many calls, and none is answered any more.
	kill func()
	left int
	// burst is how many calls in a row are still throttled; expired, that no call succeeds any more.
	burst   int
	expired bool
	// met counts the faults of each kind.
	met map[front]int
}

// turn begins another weather.
func (w *weather) turn(to front) { w.front, w.burst, w.expired, w.kill = to, 0, false, nil }

// longestLag is shorter than the repository's slack, which is what the protocol of prunes allows for.
const longestLag = 50 * time.Minute

// fault is what happens to one call.
func (w *weather) fault(on storagetest.Operation, _ string) storagetest.Fault {
	if w.kill != nil {
		if w.left--; w.left < 0 {
			w.kill()
			return storagetest.Fault{Err: errKilled}
		}
	}
	front := w.front
	if front == mixed {
		front = fronts[1+w.rng.IntN(len(fronts)-2)]
	}
	f := w.of(front, on)
	if f.Err != nil || f.Delay > 0 || f.Lag > 0 || f.Disorder {
		w.met[front]++
	}
	w.clock.Add(f.Delay)
	f.Delay = 0 // nobody has waited
	return f
}

func (w *weather) of(front front, on storagetest.Operation) storagetest.Fault {
	switch front {
	case squalls:
		return w.failed(errBroken, 0.1)
	case throttle:
		if w.burst == 0 && w.rng.Float64() < 0.05 {
			w.burst = 1 + w.rng.IntN(12)
		}
		if w.burst > 0 {
			w.burst--
			return storagetest.Fault{Err: errThrottle}
		}
	case expired:
		if w.expired = w.expired || w.rng.Float64() < 0.01; w.expired && w.front == expired {
			return storagetest.Fault{Err: fmt.Errorf("the token has expired: %w", storage.ErrCredentials)}
		}
	case lost:
		f := w.failed(errBroken, 0.2)
		f.After = true
		return f
	case halves:
		f := w.failed(errBroken, 0.15)
		f.At = 1 + w.rng.Int64N(300)
		return f
	case lagging:
		if on == storagetest.List && w.rng.Float64() < 0.3 {
			return storagetest.Fault{Lag: time.Duration(w.rng.Int64N(int64(longestLag)))}
		}
	case disorder:
		return storagetest.Fault{Disorder: on == storagetest.List && w.rng.Float64() < 0.15}
	case slow:
		if w.rng.Float64() < 0.2 {
			return storagetest.Fault{Delay: time.Duration(w.rng.Int64N(int64(time.Minute)))}
		}
	}
	return storagetest.Fault{}
}

func (w *weather) failed(err error, often float64) storagetest.Fault {
	if w.rng.Float64() < often {
		return storagetest.Fault{Err: err}
	}
	return storagetest.Fault{}
}
