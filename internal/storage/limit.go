package storage

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/time/rate"
)

// Bandwidth limits in bytes a second; 0 is unlimited.
type Bandwidth struct {
	Upload   int64
	Download int64
}

// WithBandwidth returns s, slowed down to the limits, each of which all
// streams share. It limits the bytes of objects; requests and
// headers come on top.
func WithBandwidth(s Store, b Bandwidth) Store {
	return &limited{Store: s, up: newMeter(b.Upload), down: newMeter(b.Download)}
}

type limited struct {
	Store
	up, down *meter
}

func (l *limited) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	if l.up == nil {
		return l.Store.Put(ctx, key, body)
	}
	return l.Store.Put(ctx, key, &limitedBody{meter: l.up, wait: l.up.waiter(ctx), body: body})
}

func (l *limited) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := l.Store.Get(ctx, key, offset, length)
	if err != nil || l.down == nil {
		return r, err
	}
	return &limitedReader{meter: l.down, wait: l.down.waiter(ctx), ReadCloser: r}, nil
}

func (l *limited) Probe(ctx context.Context, key string, body io.ReadSeeker) (Guarantee, error) {
	return Probe(ctx, l.Store, key, body)
}

func (l *limited) Holds(ctx context.Context, key string, body io.ReadSeeker) (same, known bool, err error) {
	return compare(ctx, l.Store, key, body)
}

func (l *limited) Remove(ctx context.Context, key string) (kept bool, err error) {
	return Remove(ctx, l.Store, key)
}

// meter hands out bytes at a steady rate. A nil meter has no limit.
type meter struct {
	limiter *rate.Limiter
	// piece is the most that one stream takes at a time: small enough that
	// many streams at a low rate each move often, lest a connection looks dead.
	piece int
}

func newMeter(bytesPerSecond int64) *meter {
	if bytesPerSecond <= 0 {
		return nil
	}
	piece := int(min(max(bytesPerSecond/64, 512), 64<<10))
	return &meter{limiter: rate.NewLimiter(rate.Limit(bytesPerSecond), piece), piece: piece}
}

func (m *meter) waiter(ctx context.Context) func(int) error {
	return func(n int) error {
		if n == 0 {
			return nil
		}
		err := m.limiter.WaitN(ctx, n)
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("wait for bandwidth: %w", context.DeadlineExceeded) // it would pass while waiting
		}
		return err
	}
}

type limitedBody struct {
	meter *meter
	wait  func(int) error
	body  io.ReadSeeker
}

func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p[:min(len(p), b.meter.piece)])
	if failed := b.wait(n); failed != nil {
		return 0, failed
	}
	return n, err
}

func (b *limitedBody) Seek(offset int64, whence int) (int64, error) {
	return b.body.Seek(offset, whence)
}

func (b *limitedBody) Unlimited() io.ReadSeeker { return b.body }

// Unlimited returns body without the limit of [WithBandwidth], for a store
// that reads it once for a checksum before it sends it.
func Unlimited(body io.ReadSeeker) io.ReadSeeker {
	for {
		u, ok := body.(interface{ Unlimited() io.ReadSeeker })
		if !ok {
			return body
		}
		body = u.Unlimited()
	}
}

type limitedReader struct {
	meter *meter
	wait  func(int) error
	io.ReadCloser
}

func (r *limitedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p[:min(len(p), r.meter.piece)])
	if failed := r.wait(n); failed != nil {
		return 0, failed
	}
	return n, err
}
