package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
)

// ErrNotReusable says that the bytes must be read and written, since what the
// store has of them cannot be relied on, or does not begin or end there.
var ErrNotReusable = errors.New("stored bytes cannot be reused")

// Remembered is a stream of an earlier backup whose bytes can be reused. It is
// for one goroutine.
type Remembered struct {
	x           *recall
	fingerprint []byte
	size        int64
	rows        []longRow
	// segments of the row number loaded, and where in the stream each begins.
	loaded   int
	segments []memoSegment
	begins   []int64
}

func newRemembered(x *recall, rows []longRow, size int64, first *memo) *Remembered {
	e := &Remembered{x: x, fingerprint: bytes.Clone(first.fingerprint), size: size, rows: rows}
	e.use(0, first.segments)
	return e
}

func (e *Remembered) use(row int, segments []memoSegment) {
	e.loaded, e.segments, e.begins = row, segments, slices.Grow(e.begins[:0], len(segments))
	at := e.rows[row].offset
	for i := range segments {
		e.begins = append(e.begins, at)
		at += segments[i].size()
	}
}

// Size of the stream, in bytes.
func (e *Remembered) Size() int64 { return e.size }

// Fingerprint that it was remembered with.
func (e *Remembered) Fingerprint() []byte { return bytes.Clone(e.fingerprint) }

// from returns the segments from the one that holds the byte at an offset,
// some of them, and where the first one begins.
func (e *Remembered) from(ctx context.Context, offset int64) ([]memoSegment, int64, error) {
	row := sort.Search(len(e.rows), func(i int) bool { return e.rows[i].offset > offset }) - 1
	if row != e.loaded {
		o := e.rows[row].object
		e.x.mu.Lock()
		readable, err := e.x.load(ctx, o)
		var segments []memoSegment
		if readable && err == nil {
			m := o.memos.row(e.rows[row].row)
			segments = m.segments
		}
		e.x.mu.Unlock()
		if err != nil {
			return nil, 0, err
		}
		if !readable {
			return nil, 0, fmt.Errorf("%w: the index of its chunks is lost", ErrNotReusable)
		}
		e.use(row, segments)
	}
	i := sort.Search(len(e.begins), func(i int) bool { return e.begins[i] > offset }) - 1
	return e.segments[i:], e.begins[i], nil
}

// Recall returns what an earlier backup, or an earlier attempt at this one, has
// remembered of the member under a key: with this fingerprint, or the newest one
// with any if it is nil. Only streams that were written whole are found.
func (w *MemberWriter) Recall(ctx context.Context, key string, fingerprint []byte) (e *Remembered, found bool, err error) {
	if err := w.check(); err != nil {
		return nil, false, fmt.Errorf("recall %q: %w", key, err)
	}
	e, err = w.b.recall.find(ctx, w.planned.Ordinal, key, fingerprint)
	if err != nil {
		return nil, false, fmt.Errorf("recall %q: %w", key, err)
	}
	return e, e != nil, nil
}

// Reuse appends bytes of a remembered stream, as if they had been read and
// written, and returns how many. Each chunk of them is known to lie in a pack
// that the store has, in its right size, and that is not condemned; where that
// ends, Reuse ends with ErrNotReusable, and the caller writes the bytes from
// there on. So it does where the range begins or ends within a chunk: streams
// with [StreamOptions].Fixed have chunks that end at multiples of it. Any other
// error ends the stream, as one of Write does.
func (s *StreamWriter) Reuse(e *Remembered, offset, length int64) (int64, error) {
	if s.ended {
		return 0, fmt.Errorf("reuse for stream %q: %w", s.name, ErrClosed)
	}
	if s.err == nil {
		s.err = s.ctx.Err()
	}
	if s.err != nil {
		return 0, fmt.Errorf("reuse for stream %q: %w", s.name, s.err)
	}
	var done int64
	err := e.covers(s, offset, length)
	for err == nil && done < length {
		var n int64
		n, err = s.reuseSome(e, offset+done, length-done)
		done += n
	}
	if err != nil && !errors.Is(err, ErrNotReusable) {
		s.err = err
	}
	if err != nil {
		return done, fmt.Errorf("reuse for stream %q, from byte %d: %w", s.name, offset+done, err)
	}
	return done, nil
}

func (e *Remembered) covers(s *StreamWriter, offset, length int64) error {
	switch {
	case offset < 0 || length < 0 || length > e.size-offset:
		return fmt.Errorf("%w: %d bytes of a stream of %d", ErrNotReusable, length, e.size)
	case e.x != s.w.b.recall:
		return fmt.Errorf("%w: it was recalled for another backup", ErrNotReusable)
	case s.options.Secret:
		return fmt.Errorf("%w: the stream is secret", ErrNotReusable)
	}
	return nil
}

// reuseSome appends at least one segment, or says why not.
func (s *StreamWriter) reuseSome(e *Remembered, offset, length int64) (int64, error) {
	segments, begins, err := e.from(s.ctx, offset)
	if err != nil {
		return 0, err
	}
	count := 0 // of those that lie within the range
	for at := begins; count < len(segments) && at < offset+length; count++ {
		g := &segments[count]
		if g.length > 0 && (at < offset || at+g.size() > offset+length) {
			break
		}
		at += g.size()
	}
	chunks, err := s.w.pipeline.index.findRun(s.ctx, segments, count)
	if err != nil {
		return 0, err
	}
	if len(chunks) == 0 && count > 0 {
		return 0, fmt.Errorf("%w: chunk %s is in no pack that may be used", ErrNotReusable, segments[0].id)
	}
	if len(chunks) == 0 {
		return 0, fmt.Errorf("%w: the range begins or ends within a chunk", ErrNotReusable)
	}
	if err := s.interrupt(); err != nil {
		return 0, err
	}
	var done int64
	for i, c := range chunks {
		g := segments[i]
		if c == nil {
			before := max(0, offset-begins)
			g.hole = min(g.hole-before, length-done)
		}
		begins += segments[i].size()
		if err := s.pushStored(&g, c); err != nil {
			return done, err
		}
		done += g.size()
	}
	s.cut.begin(s.at)
	return done, nil
}

// interrupt ends the current chunk, so that something else can follow.
func (s *StreamWriter) interrupt() error {
	if s.zeros > 0 {
		if err := s.endZeros(); err != nil {
			return err
		}
	}
	return s.flush()
}

// pushStored appends a hole, or a chunk that is in the store.
func (s *StreamWriter) pushStored(g *memoSegment, c *chunk) error {
	n := g.size()
	s.size += n
	s.at += n
	s.w.counters.reused.Add(n)
	if c == nil {
		s.crc = zerosCRC(s.crc, n)
		return s.push(segment{hole: n})
	}
	s.crc = joinCRC(s.crc, g.crc, n)
	return s.push(segment{sum: c.sum, length: g.length, crc: g.crc, chunk: c})
}

// Zeros appends n zero bytes, as if they had been written: for sources that
// know where they have nothing.
func (s *StreamWriter) Zeros(n int64) error {
	if s.ended {
		return fmt.Errorf("write stream %q: %w", s.name, ErrClosed)
	}
	if n < 0 {
		return fmt.Errorf("write stream %q: %d zeros", s.name, n)
	}
	if s.err == nil {
		s.err = s.ctx.Err()
	}
	if s.err != nil {
		return fmt.Errorf("write stream %q: %w", s.name, s.err)
	}
	s.crc = zerosCRC(s.crc, n)
	s.size += n
	s.zeros += n
	s.w.counters.read.Add(n)
	return nil
}

// Forget keeps the stream from being remembered after all: what it was read
// from has changed meanwhile.
func (s *StreamWriter) Forget() { s.options.Remember = nil }
