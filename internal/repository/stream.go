package repository

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"

	"keepset/internal/record"
)

// StreamOptions describe a stream.
type StreamOptions struct {
	// Secret streams are stored under random chunk names, since the hash of
	// a short secret gives it away, and are never deduplicated.
	Secret bool
	// Fixed has chunks end at multiples of so many bytes, instead of by
	// content: right for block devices, whose content moves by blocks.
	Fixed int
	// Remember lets a later backup take the stream over without reading it;
	// nil does not. Secret streams cannot be.
	Remember *Remember
}

const (
	// holeMin is the shortest run of zeros that becomes a hole.
	holeMin = 64 << 10
	// probe is the distance at which Write looks for zeros: a run of
	// holeMin covers every byte of at least one window of this length.
	probe = 4 << 10
	// segmentBlock is how many segments a stream gathers before it hands
	// them to its member.
	segmentBlock = 1024
)

// segment is a run of a stream's bytes, its chunk perhaps still on its way.
type segment struct {
	hole   int64
	sum    hash
	length uint32
	crc    uint32 // CRC-32C, where the stream is remembered
	chunk  *chunk
}

// StreamWriter is one stream being written. It is for one goroutine; other
// streams may be written at the same time. Exactly one of Close and Abort ends it.
type StreamWriter struct {
	ctx     context.Context //nolint:containedctx // io.Writer has no room for it
	w       *MemberWriter
	name    string
	options StreamOptions
	cut     chunker
	buf     []byte
	zeros   int64 // at the end of what was written, not yet in buf
	at      int64 // the bytes before them
	size    int64
	crc     uint32
	pending []segment
	noted   int    // of pending, those that an ended section has had
	memo    memoAt // of the next row, where the stream is remembered
	entry   *record.Stream
	err     error
	ended   bool
}

// Write appends p to the stream.
func (s *StreamWriter) Write(p []byte) (int, error) {
	if s.ended {
		return 0, fmt.Errorf("write stream %q: %w", s.name, ErrClosed)
	}
	if s.err == nil {
		s.err = s.ctx.Err()
	}
	if s.err != nil {
		return 0, fmt.Errorf("write stream %q: %w", s.name, s.err)
	}
	s.crc = crc32.Update(s.crc, s.w.castagnoli, p)
	s.size += int64(len(p))
	s.w.counters.read.Add(int64(len(p)))
	if s.err = s.split(p); s.err != nil {
		return 0, fmt.Errorf("write stream %q: %w", s.name, s.err)
	}
	return len(p), nil
}

// split tells long runs of zeros from content.
func (s *StreamWriter) split(p []byte) error {
	for len(p) > 0 {
		if s.zeros > 0 {
			n := leadingZeros(p)
			s.zeros += int64(n)
			if p = p[n:]; len(p) == 0 {
				return nil
			}
			if err := s.endZeros(); err != nil {
				return err
			}
		}
		content, zeros := s.nextZeros(p)
		if err := s.feed(p[:content]); err != nil {
			return err
		}
		s.zeros = int64(zeros)
		p = p[content+zeros:]
	}
	return nil
}

// nextZeros returns how much of p is content before the next run of zeros
// that may become a hole: one of a whole window, or one that reaches p's end.
func (s *StreamWriter) nextZeros(p []byte) (content, zeros int) {
	page := s.w.zeroPage
	for at := probe - 1; at < len(p); at += probe {
		if p[at] != 0 || !bytes.Equal(p[at+1-probe:at+1], page) {
			continue
		}
		content = at + 1 - probe
		for content > 0 && p[content-1] == 0 {
			content--
		}
		return content, at + 1 - content
	}
	content = len(p)
	for content > 0 && p[content-1] == 0 {
		content--
	}
	return content, len(p) - content
}

func leadingZeros(p []byte) int {
	n := 0
	for n < len(p) && p[n] == 0 {
		n++
	}
	return n
}

// endZeros makes the run of zeros that has ended a hole, or content.
func (s *StreamWriter) endZeros() error {
	n := s.zeros
	s.zeros = 0
	if n >= holeMin {
		if err := s.flush(); err != nil {
			return err
		}
		s.w.counters.holes.Add(n)
		s.at += n
		s.cut.begin(s.at)
		return s.push(segment{hole: n})
	}
	for n > 0 {
		part := min(n, int64(len(s.w.zeroPage)))
		if err := s.feed(s.w.zeroPage[:part]); err != nil {
			return err
		}
		n -= part
	}
	return nil
}

// feed gathers content and hands over each chunk as it ends.
func (s *StreamWriter) feed(p []byte) error {
	for len(p) > 0 {
		n, end := s.cut.next(p)
		s.buf = s.w.pipeline.buffers.appendTo(s.buf, p[:n])
		s.at += int64(n)
		p = p[n:]
		if end {
			if err := s.chunk(false); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush ends the current chunk before its end has come.
func (s *StreamWriter) flush() error {
	s.cut.begin(s.at)
	if len(s.buf) == 0 {
		return nil
	}
	return s.chunk(len(s.buf) < s.w.pipeline.config.Chunker.Min)
}

func (s *StreamWriter) chunk(small bool) error {
	if err := s.w.check(); err != nil {
		return err
	}
	var crc uint32
	if s.options.Remember != nil {
		crc = crc32.Checksum(s.buf, s.w.castagnoli)
	}
	c, took, err := s.w.pipeline.add(s.buf, small, s.options.Secret, &s.w.counters)
	if err != nil {
		return err
	}
	length := len(s.buf)
	if took {
		s.buf = s.w.pipeline.buffers.get(length)
	}
	s.buf = s.buf[:0]
	return s.push(segment{sum: c.sum, length: uint32(length), crc: crc, chunk: c})
}

func (s *StreamWriter) push(g segment) error {
	if last := len(s.pending) - 1; last >= s.noted && g.hole > 0 && s.pending[last].hole > 0 {
		s.pending[last].hole += g.hole
		return nil
	}
	s.pending = append(s.pending, g)
	if len(s.pending) < segmentBlock {
		return nil
	}
	return s.hand(false)
}

// hand gives the gathered segments to the member; the last ones end the stream.
func (s *StreamWriter) hand(last bool) error {
	if err := s.note(last); err != nil {
		return err
	}
	if len(s.pending) == 0 {
		return nil
	}
	block := segmentsOf{stream: s.entry, list: s.pending}
	s.pending, s.noted = nil, 0
	return s.w.take(s.ctx, block)
}

// Close ends the stream. It returns nil only if everything written was accepted.
func (s *StreamWriter) Close() error {
	if s.ended {
		return fmt.Errorf("close stream %q: %w", s.name, ErrClosed)
	}
	if s.err == nil {
		s.err = s.finish()
	}
	s.release()
	if s.err != nil {
		s.w.giveUp(s.err)
		return fmt.Errorf("close stream %q: %w", s.name, s.err)
	}
	s.w.closed(s)
	return nil
}

func (s *StreamWriter) finish() error {
	if s.zeros > 0 {
		if err := s.endZeros(); err != nil {
			return err
		}
	}
	if err := s.flush(); err != nil {
		return err
	}
	return s.hand(true)
}

// note remembers the gathered segments, if the stream is to be.
func (s *StreamWriter) note(last bool) error {
	if s.options.Remember == nil {
		return nil
	}
	pending := s.pending[s.noted:]
	m := memo{memoAt: s.memo, last: last, fingerprint: s.options.Remember.Fingerprint, segments: make([]memoSegment, len(pending))}
	for i := range pending {
		g := &pending[i]
		m.segments[i] = memoSegment{hole: g.hole, length: g.length, crc: g.crc}
		if g.length > 0 {
			m.segments[i].id = g.chunk.id
		}
	}
	s.memo.offset += m.size()
	return s.w.memos.add(s.ctx, &m)
}

// Abort discards the stream, and with it the member: err is why.
func (s *StreamWriter) Abort(err error) {
	if s.ended {
		return
	}
	s.release()
	if err == nil {
		err = ErrClosed
	}
	s.w.giveUp(fmt.Errorf("stream %q aborted: %w", s.name, err))
}

func (s *StreamWriter) release() {
	s.ended = true
	s.w.pipeline.buffers.put(s.buf)
	s.buf = nil
}
