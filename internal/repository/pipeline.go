package repository

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"

	"keepset/internal/record"
)

// pipeline is what all members of a backup share: the index that finds
// duplicates, the workers that compress, and the packer. Streams hand it
// chunks; a chunk that is new becomes part of a frame, a frame is compressed,
// decoded and compared, and appended to a pack.
//
// In flight are at most twice as many frames as workers.
type pipeline struct {
	ctx    context.Context //nolint:containedctx // the life of its goroutines
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	verify  bool
	config  record.Config
	gear    *gearTable
	buffers buffers
	index   *index
	packer  *packer
	jobs    chan *frame
	// adds are chunks that the index may have announced and that are in no
	// frame yet; frames are those that are in no pack yet.
	adds, frames *tracker

	mu     sync.Mutex
	bundle *frame // small chunks waiting for company
}

// chunk is one piece of content on its way into a pack, or already in one.
type chunk struct {
	// id is the name in the index, sum the SHA-256 of the bytes. They differ
	// only in secret streams.
	id, sum hash
	length  uint32
	// where and placed are guarded by packs.mu until the pack is stored.
	where  location
	placed bool
	stats  *counters
}

// frame is what is compressed as one.
type frame struct {
	data   []byte
	chunks []*chunk
	ticket uint64
}

const (
	// bundleTarget is when a frame of small chunks is full enough.
	bundleTarget = 1 << 20
	// encoderWindow: a larger one takes memory and finds nothing more in a
	// chunk of rows.
	encoderWindow = 1 << 20
)

func newPipeline(r *Repository, l layout) (*pipeline, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	p := &pipeline{
		ctx: ctx, cancel: cancel, verify: !r.options.NoExtraVerify, config: r.config, gear: newGearTable(),
		jobs: make(chan *frame, r.options.Workers), adds: newTracker(), frames: newTracker(),
	}
	table := newPacks()
	p.index = newIndex(r, l, table)
	p.packer = newPacker(ctx, r.store, l.packs(), r.dataRecipient(), r.options, table, cancel)
	for range r.options.Workers {
		w, err := newWorker(p)
		if err != nil {
			cancel(err)
			return nil, err
		}
		p.wg.Go(w.run)
	}
	return p, nil
}

// close ends the goroutines. What was not flushed is lost.
func (p *pipeline) close() error {
	p.cancel(ErrClosed)
	p.wg.Wait()
	return p.packer.close()
}

// err is why the pipeline has failed, nil while it has not.
func (p *pipeline) err() error { return context.Cause(p.ctx) }

// add takes a chunk. It returns where the chunk will be, and whether it took
// data over. small chunks are bundled.
func (p *pipeline) add(data []byte, small, secret bool, stats *counters) (c *chunk, took bool, err error) {
	if p.ctx.Err() != nil {
		return nil, false, p.err()
	}
	sum := hash(sha256.Sum256(data))
	// As soon as the index knows the chunk others refer to it, and flush must
	// not overlook it before it has reached the bundle or a frame.
	defer p.adds.end(p.adds.begin())
	c, fresh, err := p.index.findOrAdd(p.ctx, sum, uint32(len(data)), secret, stats)
	if err != nil {
		return nil, false, err
	}
	if !fresh {
		stats.deduplicated.Add(int64(len(data)))
		return c, false, nil
	}
	stats.fresh.Add(int64(len(data)))
	// From here on others may refer to the chunk, so it must arrive: only
	// the end of the pipeline stops it.
	if small {
		return c, false, p.addSmall(data, c)
	}
	return c, true, p.submit(&frame{data: data, chunks: []*chunk{c}})
}

func (p *pipeline) addSmall(data []byte, c *chunk) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bundle == nil {
		p.bundle = &frame{data: p.buffers.get(bundleTarget)}
	}
	if len(p.bundle.data) > 0 && len(p.bundle.data)+len(data) > cap(p.bundle.data) {
		if err := p.submitBundle(); err != nil {
			return err
		}
		p.bundle = &frame{data: p.buffers.get(max(bundleTarget, len(data)))}
	}
	p.bundle.data = append(p.bundle.data, data...)
	p.bundle.chunks = append(p.bundle.chunks, c)
	return nil
}

// submitBundle needs p.mu.
func (p *pipeline) submitBundle() error {
	f := p.bundle
	p.bundle = nil
	if f == nil {
		return nil
	}
	return p.submit(f)
}

func (p *pipeline) submit(f *frame) error {
	f.ticket = p.frames.begin()
	select {
	case p.jobs <- f:
		return nil
	case <-p.ctx.Done():
		return p.err()
	}
}

// flush returns once everything added before is in the store, and so is what
// others were adding when it was called.
func (p *pipeline) flush(ctx context.Context) error {
	ctx, cancel := withCause(ctx, p.ctx)
	defer cancel()
	if err := p.adds.wait(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	err := p.submitBundle()
	p.mu.Unlock()
	if err != nil {
		return err
	}
	if err := p.frames.wait(ctx); err != nil {
		return err
	}
	if err := p.packer.flush(ctx); err != nil {
		return err
	}
	return p.err()
}

// withCause ends a context when another one ends, with its cause.
func withCause(ctx, other context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(other, func() { cancel(context.Cause(other)) })
	return ctx, func() { stop(); cancel(nil) }
}

// worker compresses frames.
type worker struct {
	p       *pipeline
	encoder *zstd.Encoder
	decoder *zstd.Decoder
}

func newWorker(p *pipeline) (*worker, error) {
	// Literals are entropy-coded always: the fastest level would store rows
	// without repetitions as they are, and digits alone shrink to less than half.
	// There is no checksum in the frame, since every chunk has its SHA-256.
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(encoderWindow), zstd.WithAllLitEntropyCompression(true))
	if err != nil {
		return nil, fmt.Errorf("start compressor: %w", err)
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(record.MaxFrame))
	if err != nil {
		return nil, fmt.Errorf("start decompressor: %w", err)
	}
	return &worker{p: p, encoder: encoder, decoder: decoder}, nil
}

func (w *worker) run() {
	defer w.decoder.Close()
	for {
		select {
		case f := <-w.p.jobs:
			if err := w.do(f); err != nil {
				w.p.cancel(err)
			}
			w.p.frames.end(f.ticket)
			w.p.buffers.put(f.data)
		case <-w.p.ctx.Done():
			return
		}
	}
}

func (w *worker) do(f *frame) error {
	stored := w.encoder.EncodeAll(f.data, w.p.buffers.get(w.encoder.MaxEncodedSize(len(f.data))))
	defer func() { w.p.buffers.put(stored) }()
	if w.p.verify {
		if err := w.check(f, stored); err != nil {
			return err
		}
	}
	f.account(int64(len(stored)))
	return w.p.packer.append(f, stored)
}

// account shares what the frame takes in the store among its chunks, so that
// the shares add up.
func (f *frame) account(stored int64) {
	var before, shared int64
	for _, c := range f.chunks {
		before += int64(c.length)
		share := stored*before/int64(len(f.data)) - shared
		c.stats.stored.Add(share)
		shared += share
	}
}

// errExtraVerify says that memory, processor or compressor are not to be trusted.
var errExtraVerify = errors.New("a frame does not decode to what was compressed: faulty memory or processor; run the backup on another node")

// check decodes the frame and compares the hash of each chunk.
func (w *worker) check(f *frame, stored []byte) error {
	decoded, err := w.decoder.DecodeAll(stored, w.p.buffers.get(len(f.data)))
	if err != nil {
		return fmt.Errorf("%w: %w", errExtraVerify, err)
	}
	defer w.p.buffers.put(decoded)
	if len(decoded) != len(f.data) {
		return fmt.Errorf("%w: %d bytes became %d", errExtraVerify, len(f.data), len(decoded))
	}
	rest := decoded
	for _, c := range f.chunks {
		if sha256.Sum256(rest[:c.length]) != c.sum {
			return fmt.Errorf("%w: chunk %s", errExtraVerify, c.sum)
		}
		rest = rest[c.length:]
	}
	return nil
}

// counters are the live form of [Stats].
type counters struct {
	read, holes, deduplicated, fresh, stored, reused, streams atomic.Int64
}

func (c *counters) stats() Stats {
	return Stats{
		Read: c.read.Load(), Holes: c.holes.Load(), Deduplicated: c.deduplicated.Load(),
		New: c.fresh.Load(), Stored: c.stored.Load(), Reused: c.reused.Load(), Streams: c.streams.Load(),
	}
}
