package job

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"keepset/internal/repository"
	"keepset/internal/snapshot"
)

// The blocks of a volume snapshot are copied into the repository as one
// stream. Unchanged ones are taken over from the copy of an earlier backup,
// unread. Memory: blocksAhead blocks of 512 KiB a member.
const blocksAhead = 16

// blockStream names the stream with the blocks of a claim of this template.
func blockStream(template string) string { return "volumes/" + template }

// copyStats counts the blocks of one volume.
type copyStats struct{ read, same int64 }

// copyBlocks copies each snapshot's blocks, and notes in the refs where.
func (c *capture) copyBlocks(ctx context.Context, w *repository.MemberWriter, refs []snapshot.Ref) error {
	reader, ok := c.job.Volumes.Snapshotter.(snapshot.BlockReader)
	if !ok {
		return fmt.Errorf("%w: this snapshotter cannot read the blocks of a snapshot", ErrConfig)
	}
	for i := range refs {
		r := &refs[i]
		stats, err := copyVolume(ctx, w, reader, *r)
		if err != nil {
			return fmt.Errorf("copy the blocks of snapshot %s of claim %s: %w", r.ID, r.Claim, err)
		}
		r.Stream = blockStream(r.Template)
		c.job.Log.Info("blocks copied", "ordinal", c.planned.Ordinal, "claim", r.Claim, "snapshot", r.ID, "read", stats.read, "unchanged", stats.same)
	}
	return nil
}

// blockCopy is the copy of one volume on its way.
type blockCopy struct {
	reader snapshot.BlockReader
	ref    snapshot.Ref
	stream *repository.StreamWriter
	// base is the copy of an earlier backup; nil when there is none.
	base  *repository.Remembered
	whole *wholeBlocks
	stats copyStats
}

func copyVolume(ctx context.Context, w *repository.MemberWriter, reader snapshot.BlockReader, ref snapshot.Ref) (copyStats, error) {
	key := blockStream(ref.Template)
	base, _, err := w.Recall(ctx, key, nil)
	if err != nil {
		return copyStats{}, err
	}
	stream, err := w.Create(ctx, key, repository.StreamOptions{
		Fixed: snapshot.BlockSize, Remember: &repository.Remember{Key: key, Fingerprint: []byte(ref.ID)},
	})
	if err != nil {
		return copyStats{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b := &blockCopy{reader: reader, ref: ref, stream: stream, base: base, whole: &wholeBlocks{ctx: ctx, reader: reader, ref: ref}}
	defer b.whole.stop()
	err = b.run(ctx, b.since())
	if errors.Is(err, errNoBase) {
		err = b.run(ctx, nil)
	}
	if err != nil {
		stream.Abort(err)
		return b.stats, err
	}
	return b.stats, stream.Close()
}

// since is the snapshot that the base's copy was made of.
func (b *blockCopy) since() *snapshot.Ref {
	if b.base == nil || b.base.Size() != b.ref.Size {
		return nil // a volume that has grown is read whole once
	}
	since := b.ref
	since.ID = string(b.base.Fingerprint())
	return &since
}

// errNoBase: the snapshot that blocks were to be compared with is gone.
var errNoBase = errors.New("earlier snapshot is gone")

// run writes the volume. Blocks are read ahead, several at once, and written
// in their order.
func (b *blockCopy) run(ctx context.Context, since *snapshot.Ref) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	at := int64(0)
	for f := range b.readAhead(ctx, since) {
		<-f.done
		if since != nil && at == 0 && errors.Is(f.err, snapshot.ErrNotFound) {
			return fmt.Errorf("%w: %w", errNoBase, f.err)
		}
		if f.err != nil {
			return f.err
		}
		begin := f.block.Index * snapshot.BlockSize
		if begin < at || begin >= b.ref.Size {
			return fmt.Errorf("%w: block %d after byte %d of %d", snapshot.ErrDamaged, f.block.Index, at, b.ref.Size)
		}
		if err := b.stream.Zeros(begin - at); err != nil {
			return err
		}
		n, err := b.write(f)
		if err != nil {
			return err
		}
		at = begin + n
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return b.stream.Zeros(b.ref.Size - at)
}

// write appends one block and returns its length.
func (b *blockCopy) write(f *fetched) (int64, error) {
	n := min(snapshot.BlockSize, b.ref.Size-f.block.Index*snapshot.BlockSize)
	if !f.block.Same {
		b.stats.read++
		if int64(len(f.data)) != n {
			return 0, fmt.Errorf("%w: block %d has %d bytes, not %d", snapshot.ErrDamaged, f.block.Index, len(f.data), n)
		}
		_, err := b.stream.Write(f.data)
		return n, err
	}
	done, err := b.stream.Reuse(b.base, f.block.Index*snapshot.BlockSize, n)
	if err == nil {
		b.stats.same++
		return n, nil
	}
	if !errors.Is(err, repository.ErrNotReusable) {
		return 0, err
	}
	// The store has lost it, say. The snapshot still has it.
	data, err := b.whole.read(f.block.Index)
	if err != nil {
		return 0, err
	}
	b.stats.read++
	_, err = b.stream.Write(data[done:n])
	return n, err
}

// fetched is a block on its way; done is closed when the rest is valid.
type fetched struct {
	block snapshot.Block
	data  []byte
	err   error
	done  chan struct{}
}

// readAhead yields the blocks in their order, each perhaps still being read.
func (b *blockCopy) readAhead(ctx context.Context, since *snapshot.Ref) iter.Seq[*fetched] {
	return func(yield func(*fetched) bool) {
		ctx, cancel := context.WithCancel(ctx)
		queue := make(chan *fetched, blocksAhead)
		go func() {
			defer close(queue)
			for block, err := range b.reader.Blocks(ctx, b.ref, since) {
				f := &fetched{block: block, err: err, done: make(chan struct{})}
				select {
				case queue <- f:
				case <-ctx.Done():
					return
				}
				if err != nil || block.Same {
					close(f.done)
					continue
				}
				go b.fetch(ctx, f)
			}
		}()
		defer func() {
			cancel()
			for f := range queue { // nothing is left running
				<-f.done
			}
		}()
		for f := range queue {
			if !yield(f) {
				<-f.done
				return
			}
		}
	}
}

func (b *blockCopy) fetch(ctx context.Context, f *fetched) {
	defer close(f.done)
	buffer := make([]byte, snapshot.BlockSize)
	n, err := b.reader.ReadBlock(ctx, b.ref, f.block, buffer)
	f.data, f.err = buffer[:n], err
}

// wholeBlocks reads single blocks of a snapshot, in ascending order: those that
// are unchanged have no token of their own.
type wholeBlocks struct {
	ctx    context.Context //nolint:containedctx // of the copy that it is a part of
	reader snapshot.BlockReader
	ref    snapshot.Ref
	next   func() (snapshot.Block, error, bool)
	end    func()
}

func (w *wholeBlocks) read(index int64) ([]byte, error) {
	if w.next == nil {
		w.next, w.end = iter.Pull2(w.reader.Blocks(w.ctx, w.ref, nil))
	}
	for {
		block, err, ok := w.next()
		switch {
		case err != nil:
			return nil, err
		case !ok || block.Index > index:
			return nil, fmt.Errorf("%w: snapshot %s has no block %d, which it said was unchanged", snapshot.ErrDamaged, w.ref.ID, index)
		case block.Index == index:
			buffer := make([]byte, snapshot.BlockSize)
			n, err := w.reader.ReadBlock(w.ctx, w.ref, block, buffer)
			return buffer[:n], err
		}
	}
}

func (w *wholeBlocks) stop() {
	if w.end != nil {
		w.end()
	}
}
