package repository

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"keepset/internal/record"
)

// StreamReader delivers one stream. It is for one goroutine, and must be closed.
// A goroutine of its own walks its segments, brings
// and checks the chunks, and stays at most two of them ahead of the reader.
type StreamReader struct {
	m      *MemberReader
	stream *record.Stream
	ctx    context.Context //nolint:containedctx // io.Reader has no room for it
	cancel context.CancelCauseFunc
	blocks chan block
	wg     sync.WaitGroup // prefetches

	current block
	crc     uint32
	size    int64
	err     error
}

// block is a run of the stream's bytes: checked data, or zeros.
type block struct {
	data  []byte // what is left of it
	buf   []byte // what goes back to the buffers
	zeros int64
	err   error
}

// step is a segment with the name of its pack.
type step struct {
	record.Segment
	frame frameAt
}

const (
	// window is how many segments are looked at ahead.
	window = 64
	// readAhead is how many checked chunks wait for the reader.
	readAhead = 1
)

func newStreamReader(ctx context.Context, m *MemberReader, stream *record.Stream) *StreamReader {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &StreamReader{m: m, stream: stream, ctx: ctx, cancel: cancel, blocks: make(chan block, readAhead)}
	m.fetcher.join(1)
	go s.run()
	return s
}

// Read implements io.Reader.
func (s *StreamReader) Read(p []byte) (int, error) {
	for s.err == nil && len(s.current.data) == 0 && s.current.zeros == 0 {
		s.next()
	}
	if s.err != nil {
		return 0, s.err
	}
	var n int
	if s.current.zeros > 0 {
		n = int(min(int64(len(p)), s.current.zeros))
		clear(p[:n])
		s.current.zeros -= int64(n)
	} else {
		n = copy(p, s.current.data)
		s.current.data = s.current.data[n:]
	}
	s.crc = crc32.Update(s.crc, s.m.crc, p[:n])
	s.size += int64(n)
	return n, nil
}

// SkipHole passes over a hole that comes next, or the rest of one, at most so
// many bytes, and returns how many: 0 where content comes next, io.EOF at the end
// of the stream. What is passed over is zeros, and counts in the checksum.
func (s *StreamReader) SkipHole(atMost int64) (int64, error) {
	for s.err == nil && len(s.current.data) == 0 && s.current.zeros == 0 {
		s.next()
	}
	if s.err != nil {
		return 0, s.err
	}
	n := max(0, min(atMost, s.current.zeros))
	s.current.zeros -= n
	s.crc = zerosCRC(s.crc, n)
	s.size += n
	return n, nil
}

// next takes the next block, or sets the error that ends the stream.
func (s *StreamReader) next() {
	if s.current.buf != nil {
		s.m.buffers.put(s.current.buf)
	}
	s.current = block{}
	select {
	case b, more := <-s.blocks:
		if !more {
			s.err = s.end()
			return
		}
		s.current, s.err = b, b.err
	case <-s.ctx.Done():
		s.err = s.wrap(context.Cause(s.ctx))
	}
}

// end compares the whole stream with what the map says of it.
func (s *StreamReader) end() error {
	if err := s.ctx.Err(); err != nil {
		return s.wrap(context.Cause(s.ctx))
	}
	if s.size != s.stream.Size || s.crc != s.stream.CRC32C {
		return s.wrap(fmt.Errorf("%w: %d bytes with checksum %08x were put together, the map says %d with %08x", ErrDamaged, s.size, s.crc, s.stream.Size, s.stream.CRC32C))
	}
	return io.EOF
}

func (s *StreamReader) wrap(err error) error {
	return fmt.Errorf("stream %q of ordinal %d of %s of %s: %w", s.stream.Name, s.m.m.Ordinal, s.m.m.Backup, s.m.m.Set, err)
}

// Close ends the stream early or after its end, and waits for its goroutine.
func (s *StreamReader) Close() error {
	s.cancel(ErrClosed)
	for b := range s.blocks {
		if b.buf != nil {
			s.m.buffers.put(b.buf)
		}
	}
	s.wg.Wait()
	if s.err == nil {
		s.err = s.wrap(ErrClosed)
	}
	return nil
}

// run walks the segments.
func (s *StreamReader) run() {
	defer close(s.blocks)
	defer s.m.fetcher.join(-1)
	w := &walk{m: s.m, ranges: s.stream.Ranges}
	var waiting <-chan struct{}
	for {
		now, err := w.next(s.ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		var b block
		switch {
		case err != nil:
			b.err = s.wrap(err)
		case now.Hole > 0:
			b.zeros = now.Hole
		default:
			b = s.chunk(&now, w.ahead())
			if waiting == nil || isClosed(waiting) {
				waiting = s.prefetch(w.ahead())
			}
		}
		select {
		case s.blocks <- b:
		case <-s.ctx.Done():
			if b.buf != nil {
				s.m.buffers.put(b.buf)
			}
			err = s.ctx.Err()
		}
		if err != nil || b.err != nil {
			break
		}
	}
}

// prefetch begins to bring the first extent ahead that is not there yet.
func (s *StreamReader) prefetch(ahead []frameAt) <-chan struct{} {
	for i := range ahead {
		done := s.m.fetcher.prefetch(s.ctx, &s.wg, ahead[i], ahead[i+1:])
		if done == nil || !isClosed(done) {
			return done
		}
	}
	return nil
}

// chunk brings one chunk. What does not match is asked for once more: the
// fault may have been on the way.
func (s *StreamReader) chunk(g *step, ahead []frameAt) block {
	data, buf, err := s.m.chunk(s.ctx, g, ahead)
	if err != nil && errors.Is(err, ErrDamaged) && s.ctx.Err() == nil {
		s.m.fetcher.forget(g.frame)
		data, buf, err = s.m.chunk(s.ctx, g, ahead)
	}
	if err != nil {
		if s.ctx.Err() != nil {
			err = context.Cause(s.ctx)
		}
		return block{err: s.wrap(fmt.Errorf("pack %s: %w", g.frame.pack, err))}
	}
	return block{data: data, buf: buf}
}

// chunk returns the checked bytes of a chunk, and the buffer to give back
// after use, if any.
func (m *MemberReader) chunk(ctx context.Context, g *step, ahead []frameAt) (data, buf []byte, err error) {
	if frame := m.bundles.find(g.frame); frame != nil {
		data, err = cutChunk(frame, &g.Segment)
		return data, nil, err
	}
	stored, release, err := m.fetcher.frame(ctx, g.frame, ahead)
	if err != nil {
		return nil, nil, missingIsDamage(err)
	}
	defer release()
	buf, err = m.decoder.DecodeAll(stored, m.buffers.get(int(g.Skip)+int(g.Length)))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: decompress: %w", ErrDamaged, err)
	}
	if data, err = cutChunk(buf, &g.Segment); err != nil {
		return nil, nil, err
	}
	if len(data) < len(buf) {
		m.bundles.keep(g.frame, buf)
		return data, nil, nil
	}
	return data, buf, nil
}

// cutChunk takes a chunk out of a decoded frame and compares its hash.
func cutChunk(frame []byte, g *record.Segment) ([]byte, error) {
	end := int64(g.Skip) + int64(g.Length)
	if end > int64(len(frame)) {
		return nil, fmt.Errorf("%w: %w: frame of %d bytes, %d are needed", ErrDamaged, errChunk, len(frame), end)
	}
	data := frame[g.Skip:end]
	if sum := sha256.Sum256(data); sum != g.SHA256 {
		return nil, fmt.Errorf("%w: %w: chunk has the hash %x, the map says %s", ErrDamaged, errChunk, sum, g.SHA256)
	}
	return data, nil
}

// walk goes through the segments of a stream, looking ahead.
type walk struct {
	m      *MemberReader
	ranges []record.Range
	done   int // segments of the first range that are in queue already
	queue  []step
	frames []frameAt
}

// next returns the next segment, or io.EOF.
func (w *walk) next(ctx context.Context) (step, error) {
	if len(w.queue) < window/2 {
		if err := w.fill(ctx); err != nil {
			return step{}, err
		}
	}
	if len(w.queue) == 0 {
		return step{}, io.EOF
	}
	now := w.queue[0]
	w.queue = w.queue[1:]
	return now, nil
}

func (w *walk) fill(ctx context.Context) error {
	for len(w.queue) < window && len(w.ranges) > 0 {
		r := w.ranges[0]
		p, err := w.m.piece(ctx, r.Piece)
		if err != nil {
			return err
		}
		for w.done < r.Count && len(w.queue) < window {
			g := p.Segments[r.First+w.done]
			s := step{Segment: g}
			if g.Hole == 0 {
				s.frame = frameAt{pack: p.Packs[g.Pack], at: int64(g.At), stored: int64(g.Stored)}
			}
			w.queue = append(w.queue, s)
			w.done++
		}
		if w.done == r.Count {
			w.ranges, w.done = w.ranges[1:], 0
		}
	}
	return nil
}

// ahead are the frames of the segments that come next.
func (w *walk) ahead() []frameAt {
	w.frames = w.frames[:0]
	for i := range w.queue {
		if w.queue[i].Hole == 0 {
			w.frames = append(w.frames, w.queue[i].frame)
		}
	}
	return w.frames
}
