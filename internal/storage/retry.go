package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Retry says how often and how patiently [WithRetry] tries again. Zero fields
// take the defaults.
type Retry struct {
	// Attempts is how often in a row an operation is tried without any
	// progress; default 10, which takes half a minute on average.
	Attempts int
	// MinDelay bounds the first pause, MaxDelay all of them; between them the bound
	// doubles. Each pause is drawn evenly from zero to the bound, so
	// that many clients do not come back at once. Defaults 200 ms and 15 s.
	MinDelay time.Duration
	MaxDelay time.Duration
	// Silence is how long the store may say nothing, summed up over the attempts
	// of an operation that make no progress, by what each [SilentError] says; default 2 minutes.
	Silence time.Duration
	// FirstSilence is the same for a store that has not been heard yet: an
	// address that is wrong shall be found out sooner. Default three quarters of
	// Silence. However long one attempt was silent, there is a second one.
	FirstSilence time.Duration
	// Logger is told of every failure that is retried; nil for none.
	Logger *slog.Logger
}

// WithRetry returns s with failures that may pass tried again.
//
// A Put whose reply was lost is a success if the object is there and is the
// one that was to be put, and ErrExists if it is another one. A Get goes on where the
// connection broke off, a List after the last key. What the sentinels of
// this package name is never retried: see [Permanent].
func WithRetry(s Store, r Retry) Store {
	if r.Attempts <= 0 {
		r.Attempts = 10
	}
	if r.MinDelay <= 0 {
		r.MinDelay = 200 * time.Millisecond
	}
	if r.MaxDelay <= 0 {
		r.MaxDelay = 15 * time.Second
	}
	if r.Silence <= 0 {
		r.Silence = 2 * time.Minute
	}
	if r.FirstSilence <= 0 {
		r.FirstSilence = r.Silence * 3 / 4
	}
	if r.Logger == nil {
		r.Logger = slog.New(slog.DiscardHandler)
	}
	return &retrying{store: s, retry: r}
}

// Permanent says whether trying again cannot help against err.
func Permanent(err error) bool {
	for _, sentinel := range []error{
		ErrExists, ErrNoContainer, ErrDenied, ErrLocked, ErrCredentials, ErrFull, ErrInvalid, ErrRefused, ErrCorrupt,
		fs.ErrNotExist, fs.ErrClosed, errBody,
	} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

// errBody marks failures of what is to be uploaded, not of the store.
var errBody = errors.New("the body cannot be read")

// SilentError is a failure because the store said nothing. It may pass, but
// each attempt to find out takes long.
type SilentError struct {
	For time.Duration // how long it was waited for
	Err error
}

func (e *SilentError) Error() string { return e.Err.Error() }

// Unwrap gives the reason.
func (e *SilentError) Unwrap() error { return e.Err }

type retrying struct {
	store Store
	retry Retry
	heard atomic.Bool // an operation has succeeded or was refused
}

// attempts counts the failures of one operation in a row.
type attempts struct {
	*retrying
	operation string
	key       string
	failures  int
	silence   time.Duration
}

func (r *retrying) begin(operation, key string) *attempts {
	return &attempts{retrying: r, operation: operation, key: key}
}

// again returns nil when the operation should be tried again after err, having paused
// before, and the error to return otherwise.
func (a *attempts) again(ctx context.Context, err error) error {
	if Permanent(err) {
		a.heard.Store(true)
	}
	if ctx.Err() != nil || Permanent(err) {
		return err
	}
	a.failures++
	if silent, ok := errors.AsType[*SilentError](err); ok {
		a.silence += silent.For
	}
	// One hung server behind a load balancer is no hung store.
	if a.silence >= a.patience() && a.failures > 1 {
		return fmt.Errorf("%w (given up after %s of silence, at attempt %d; check the store's address and the network policies)",
			err, a.silence.Round(time.Second), a.failures)
	}
	if a.failures >= a.retry.Attempts {
		return fmt.Errorf("%w (given up after %d attempts)", err, a.failures)
	}
	bound := a.retry.MaxDelay
	if shift := a.failures - 1; shift < 32 && a.retry.MinDelay<<shift > 0 {
		bound = min(bound, a.retry.MinDelay<<shift)
	}
	delay := rand.N(bound + 1)
	a.retry.Logger.WarnContext(ctx, "store failed, trying again", "operation", a.operation, "key", a.key,
		"failures", a.failures, "delay", delay, "error", err)
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("%s object %q: %w, after: %w", a.operation, a.key, ctx.Err(), err)
	case <-timer.C:
		return nil
	}
}

// patience is how much silence there may be in a row.
func (a *attempts) patience() time.Duration {
	if a.heard.Load() {
		return a.retry.Silence
	}
	return a.retry.FirstSilence
}

// progress forgets the failures before it.
func (a *attempts) progress() {
	a.failures, a.silence = 0, 0
	a.heard.Store(true)
}

// do tries call until it succeeds or is given up.
func (r *retrying) do(ctx context.Context, operation, key string, call func() error) error {
	a := r.begin(operation, key)
	for {
		err := call()
		if err == nil {
			r.heard.Store(true)
			return nil
		}
		if err := a.again(ctx, err); err != nil {
			return err
		}
	}
}

func (r *retrying) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	tried := false
	return r.do(ctx, "put", key, func() error {
		if tried {
			// Looking first is not only cheaper than sending the body once more. A
			// store that knows from the headers that the key exists may answer and close the
			// connection without reading the body, and then the sender sees a broken
			// connection, however often it tries.
			if settled, err := r.settled(ctx, key, body); settled {
				return err
			}
		}
		err := r.store.Put(ctx, key, &guardedBody{body})
		if tried && errors.Is(err, ErrExists) {
			// The store was still at work on the earlier attempt when we looked.
			if settled, err := r.settled(ctx, key, body); settled {
				return err
			}
		}
		tried = true
		return err
	})
}

// settled finds out what has become of a Put that failed. It reports false
// when the key is still free, or when nobody may look.
func (r *retrying) settled(ctx context.Context, key string, body io.ReadSeeker) (bool, error) {
	same, err := Holds(ctx, r.store, key, &guardedBody{body})
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, ErrDenied):
		return false, nil
	case err != nil:
		return true, fmt.Errorf("put object %q: see whether an earlier attempt arrived: %w", key, err)
	case !same:
		return true, fmt.Errorf("put object %q: %w, with other bytes", key, ErrExists)
	}
	return true, nil
}

func (r *retrying) Stat(ctx context.Context, key string) (o Object, err error) {
	err = r.do(ctx, "stat", key, func() (err error) {
		o, err = r.store.Stat(ctx, key)
		return err
	})
	return o, err
}

func (r *retrying) Delete(ctx context.Context, key string) error {
	return r.do(ctx, "delete", key, func() error { return r.store.Delete(ctx, key) })
}

func (r *retrying) Remove(ctx context.Context, key string) (kept bool, err error) {
	err = r.do(ctx, "delete", key, func() (err error) {
		kept, err = Remove(ctx, r.store, key)
		return err
	})
	return kept, err
}

func (r *retrying) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		a := r.begin("list", prefix)
		last := ""
		for {
			stopped, failed := r.listAfter(ctx, prefix, &last, a, yield)
			if stopped || failed == nil {
				r.heard.Store(true)
				return
			}
			if err := a.again(ctx, failed); err != nil {
				yield(Object{}, err)
				return
			}
		}
	}
}

// listAfter yields what comes after last, and keeps last up to date. It
// reports whether the caller wants no more. A listing that is not in order is
// an error: what came too late would be taken for what has been seen before
// the listing broke off, and whoever deletes what is not listed would take it
// for gone.
func (r *retrying) listAfter(
	ctx context.Context, prefix string, last *string, a *attempts, yield func(Object, error) bool,
) (stopped bool, failed error) {
	before := ""
	for o, err := range r.store.List(ctx, prefix) {
		if err != nil {
			return false, err
		}
		if before != "" && o.Key <= before {
			return false, fmt.Errorf("list objects %q: %q came after %q, and the store has to list in the order of the keys: %w", prefix, o.Key, before, ErrRefused)
		}
		before = o.Key
		if *last != "" && o.Key <= *last {
			continue
		}
		*last = o.Key
		a.progress()
		if !yield(o, nil) {
			return true, nil
		}
	}
	return false, nil
}

func (r *retrying) Probe(ctx context.Context, key string, body io.ReadSeeker) (g Guarantee, err error) {
	err = r.do(ctx, "probe with", key, func() (err error) {
		g, err = Probe(ctx, r.store, key, &guardedBody{body})
		return err
	})
	return g, err
}

func (r *retrying) Holds(ctx context.Context, key string, body io.ReadSeeker) (same, known bool, err error) {
	err = r.do(ctx, "compare", key, func() (err error) {
		same, known, err = compare(ctx, r.store, key, &guardedBody{body})
		return err
	})
	return same, known, err
}

// guardedBody marks the errors of a body, against which nothing helps that
// could be tried on the store.
type guardedBody struct{ body io.ReadSeeker }

func (g *guardedBody) Read(p []byte) (int, error) {
	n, err := g.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", errBody, err)
	}
	return n, err
}

func (g *guardedBody) Seek(offset int64, whence int) (int64, error) {
	n, err := g.body.Seek(offset, whence)
	if err != nil {
		err = fmt.Errorf("%w: %w", errBody, err)
	}
	return n, err
}

// Unlimited makes a limit below this body known; see the function Unlimited.
func (g *guardedBody) Unlimited() io.ReadSeeker { return g.body }
