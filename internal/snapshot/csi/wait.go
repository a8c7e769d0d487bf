package csi

import (
	"context"
	"errors"
	"time"

	"keepset/internal/snapshot"
)

// errLate is until's timeout, before anybody has said what was waited for.
var errLate = errors.New("late")

// until looks again and again, every poll, until done is true, fails, the
// context ends (its error) or bound has passed (errLate; no bound: 0). An API
// server that cannot be reached is asked again, for as long as one call may take.
func (s *Snapshotter) until(ctx context.Context, bound, poll time.Duration, done func(context.Context) (bool, error)) error {
	begin := s.clock.Now()
	var gone time.Time
	for {
		ok, err := done(ctx)
		now := s.clock.Now()
		switch {
		case err == nil && ok:
			return nil
		case err == nil:
			gone = time.Time{}
		case !errors.Is(err, snapshot.ErrUnreachable) && !errors.Is(err, snapshot.ErrLimit):
			return err
		case gone.IsZero():
			gone = now
		case now.Sub(gone) >= s.patience.Call:
			return err
		}
		if bound > 0 && now.Sub(begin) >= bound {
			return errLate
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.clock.After(poll):
		}
	}
}

// complaint follows an error that a controller shows in a status and may take
// back.
type complaint struct {
	text  string
	since time.Time
}

// lasts takes the status's error, empty when there is none, and says whether
// there has been one for as long as grace.
func (c *complaint) lasts(now time.Time, text string, grace time.Duration) bool {
	if text == "" {
		*c = complaint{}
		return false
	}
	if c.text == "" {
		c.since = now
	}
	c.text = text
	return now.Sub(c.since) >= grace
}
