package repository

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"keepset/internal/record"
)

// Stats count bytes.
type Stats struct {
	// Read from the caller.
	Read int64
	// Holes of it were zeros that take no room.
	Holes int64
	// Deduplicated of it were in the store already.
	Deduplicated int64
	// New of it were not.
	New int64
	// Stored is what New took, compressed.
	Stored int64
	// Reused of an earlier backup, without being read; no part of the others.
	Reused int64
	// Streams that were closed.
	Streams int64
}

// MemberWriter takes the streams of one member. [MemberWriter.Commit] makes
// them part of the backup, [MemberWriter.Abort] gives them up.
type MemberWriter struct {
	b          *Backup
	pipeline   *pipeline
	planned    record.PlannedMember
	started    time.Time
	counters   counters
	castagnoli *crc32.Table
	zeroPage   []byte

	mu      sync.Mutex
	err     error // why it is given up
	done    bool
	names   map[string]struct{}
	open    int
	streams []*record.Stream
	blocks  []segmentsOf
	waiting int // segments in blocks
	tryAt   int // how many must wait before the next try to store a piece
	pieces  []record.PieceRef
	maps    []record.ObjectRef
	packs   bitset
	memos   *memoWriter
	volumes []record.VolumeSnapshot
}

// segmentsOf are consecutive segments of one stream.
type segmentsOf struct {
	stream *record.Stream
	list   []segment
}

// pieceSegments is how many segments a piece has; the last has fewer.
const pieceSegments = 16384

func newMemberWriter(b *Backup, planned record.PlannedMember) *MemberWriter {
	return &MemberWriter{
		b: b, pipeline: b.pipeline, planned: planned, started: b.r.options.Clock().UTC(),
		castagnoli: crc32.MakeTable(crc32.Castagnoli), zeroPage: make([]byte, probe),
		names: make(map[string]struct{}), memos: newMemoWriter(b, planned.Ordinal),
	}
}

// Create begins a stream. Names are unique within the member, not empty, and
// valid UTF-8. The stream's writes end when ctx does.
func (w *MemberWriter) Create(ctx context.Context, name string, o StreamOptions) (*StreamWriter, error) {
	if name == "" || !utf8.ValidString(name) {
		return nil, fmt.Errorf("create stream %q: the name must be valid UTF-8 and not empty", name)
	}
	if o.Fixed < 0 || o.Fixed > w.pipeline.config.Chunker.Max {
		return nil, fmt.Errorf("create stream %q: chunks of %d bytes, at most %d", name, o.Fixed, w.pipeline.config.Chunker.Max)
	}
	if err := o.Remember.check(o.Secret); err != nil {
		return nil, fmt.Errorf("create stream %q: %w", name, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usable(); err != nil {
		return nil, fmt.Errorf("create stream %q: %w", name, err)
	}
	if _, exists := w.names[name]; exists {
		return nil, fmt.Errorf("create stream %q: the member has one of that name", name)
	}
	s := &StreamWriter{
		ctx: ctx, w: w, name: name, options: o,
		entry: &record.Stream{Name: name, Secret: o.Secret, Ranges: []record.Range{}},
		cut:   newChunker(w.pipeline.gear, w.pipeline.config.Chunker, o.Fixed),
	}
	if o.Remember != nil {
		s.options.Remember = &Remember{Key: o.Remember.Key, Fingerprint: bytes.Clone(o.Remember.Fingerprint)}
		var err error
		if s.memo, err = w.memos.begin(o.Remember.Key); err != nil {
			return nil, fmt.Errorf("create stream %q: %w", name, err)
		}
	}
	w.names[name] = struct{}{}
	w.open++
	return s, nil
}

// check says why the member takes no more, if so.
func (w *MemberWriter) check() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.usable()
}

// usable needs w.mu.
func (w *MemberWriter) usable() error {
	if w.err != nil {
		return w.err
	}
	if w.done {
		return ErrClosed
	}
	return nil
}

// closed notes a stream that was written whole.
func (w *MemberWriter) closed(s *StreamWriter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open--
	w.counters.streams.Add(1)
	// The entry's ranges are filled in as segments are put into pieces.
	s.entry.Size, s.entry.CRC32C = s.size, s.crc
	w.streams = append(w.streams, s.entry)
}

// giveUp makes every later call fail with err.
func (w *MemberWriter) giveUp(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil && !w.done {
		w.err = err
	}
}

// Abort gives the member up. What was stored stays, for the next attempt to
// find. After Commit it does nothing.
func (w *MemberWriter) Abort() {
	w.giveUp(fmt.Errorf("member %d aborted: %w", w.planned.Ordinal, ErrClosed))
	w.b.forget(w)
}

// Stats returns what was counted so far.
func (w *MemberWriter) Stats() Stats { return w.counters.stats() }

// take accepts segments, and stores a piece when there are enough.
func (w *MemberWriter) take(ctx context.Context, block segmentsOf) error {
	if w.pipeline.index.full() {
		if err := w.pipeline.index.seal(ctx, false); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usable(); err != nil {
		return err
	}
	w.blocks = append(w.blocks, block)
	w.waiting += len(block.list)
	if w.waiting < max(pieceSegments, w.tryAt) {
		return nil
	}
	w.tryAt = w.waiting + pieceSegments/4 // should they not all have a pack yet
	if w.waiting > 4*pieceSegments {
		// The oldest chunk is held up in a pack that does not fill.
		if err := w.pipeline.flush(ctx); err != nil {
			return err
		}
	}
	return w.storePieces(ctx, false)
}

var errOpenStreams = errors.New("streams are still open")

// finishStreams checks that every stream was closed, and puts all remaining
// segments into pieces.
func (w *MemberWriter) finishStreams(ctx context.Context) ([]record.Stream, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usable(); err != nil {
		return nil, err
	}
	if w.open > 0 {
		return nil, fmt.Errorf("%w: %d", errOpenStreams, w.open)
	}
	if err := w.storePieces(ctx, true); err != nil {
		return nil, err
	}
	slices.SortFunc(w.streams, func(a, b *record.Stream) int { return cmp.Compare(a.Name, b.Name) })
	streams := make([]record.Stream, len(w.streams))
	for i, entry := range w.streams {
		streams[i] = *entry
	}
	return streams, nil
}
