package statefulset

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errLate is until's timeout, before anybody has said what was waited for.
var errLate = errors.New("late")

// until looks at done again and again until it is true, fails, the context is
// cancelled (its error) or the timeout has passed (errLate).
func (c *Client) until(ctx context.Context, timeout time.Duration, done func(context.Context) (bool, error)) error {
	deadline := c.clock.Now().Add(timeout)
	for {
		ok, err := done(ctx)
		if ok || err != nil {
			return err
		}
		if !c.clock.Now().Before(deadline) {
			return errLate
		}
		if err := c.sleep(ctx, c.poll); err != nil {
			return err
		}
	}
}

// describeTimeout turns errLate into ErrTimeout with a reason.
func describeTimeout(err error, timeout time.Duration, what string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errLate):
		return fmt.Errorf("%w after %s: %s", ErrTimeout, timeout, what)
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", what, err)
	default:
		return err
	}
}
