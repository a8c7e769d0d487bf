package repository

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"keepset/internal/record"
)

// index finds chunks that are in the store already. It holds
//
//   - the chunks of this run that are in no part yet ("open"), all of them;
//   - of every part that it knows, a few numbers, and the rows of as many
//     parts as fit into a budget, least recently used ones going first;
//   - of one chunk in 64 ("hooks") in which part it is. A chunk that is in no
//     loaded part but has a hook brings its part in, and with it its
//     neighbours, which were written together and will be asked for together.
//
// While all parts fit into the budget every duplicate is found. Beyond that
// some are missed, which costs bytes in the store and never memory.
type index struct {
	r      *Repository
	layout layout
	packs  *packs
	budget int

	// sealing keeps two seals from writing the same rows; it is taken before mu.
	sealing sync.Mutex

	mu     sync.Mutex
	open   map[hash]*chunk
	order  []*chunk // open, oldest first
	tryAt  int      // how many there must be before the next try to seal some
	hooks  map[uint64]uint32
	parts  []*part
	byName map[hash]*part
	recent []*part // loaded parts, most recently used first
	loaded int     // bytes of them
}

// part is what the index knows of one part.
type part struct {
	ref record.ObjectRef
	// own parts were written by this run.
	own bool
	// retired parts are not to be referred to by name any more.
	retired bool
	// numbers are the packs of its rows, as the packs table counts them.
	numbers []uint32
	count   int
	// used are the rows that this run refers to.
	used  bitset
	inUse int
	// rows are loaded when not nil.
	rows *partRows
}

// hookMask picks one chunk in 64.
const hookMask = 63

func newIndex(r *Repository, l layout, p *packs) *index {
	return &index{
		r: r, layout: l, packs: p, budget: r.options.IndexBytes,
		open: make(map[hash]*chunk), hooks: make(map[uint64]uint32), byName: make(map[hash]*part),
	}
}

// findOrAdd returns the chunk of these bytes: one that is in the store or on
// its way there, or a fresh one that the caller must now store. Secret chunks
// are always fresh, under a random name.
func (x *index) findOrAdd(ctx context.Context, sum hash, length uint32, secret bool, stats *counters) (c *chunk, fresh bool, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	id := sum
	if secret {
		if _, err := io.ReadFull(x.r.options.Random, id[:]); err != nil {
			return nil, false, fmt.Errorf("make random chunk name: %w", err)
		}
	} else if c, err := x.find(ctx, id, length); err != nil || c != nil {
		return c, false, err
	}
	c = &chunk{id: id, sum: sum, length: length, stats: stats}
	x.open[id] = c
	x.order = append(x.order, c)
	return c, true, nil
}

func (x *index) find(ctx context.Context, id hash, length uint32) (*chunk, error) {
	if c := x.open[id]; c != nil && c.length == length {
		return c, nil
	}
	for i, p := range x.recent {
		if c := x.findIn(p, id, length); c != nil {
			copy(x.recent[1:i+1], x.recent[:i])
			x.recent[0] = p
			return c, nil
		}
	}
	p, err := x.bring(ctx, &id)
	if err != nil || p == nil {
		return nil, err
	}
	return x.findIn(p, id, length), nil
}

// bring loads the part that a chunk has a hook of, if it is not loaded; nil
// if there is nothing to load.
func (x *index) bring(ctx context.Context, id *hash) (*part, error) {
	key := hookKey(id)
	if key&hookMask != 0 {
		return nil, nil
	}
	number, found := x.hooks[key]
	if !found || x.parts[number].rows != nil {
		return nil, nil
	}
	p := x.parts[number]
	if err := x.load(ctx, p); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		x.r.log.Warn("index part cannot be read; its chunks are stored again", "part", p.ref.SHA256, "error", err)
		delete(x.hooks, key)
		return nil, nil
	}
	return p, nil
}

// neighbours is how many of the chunks that follow one in its stream are
// looked at for a hook of the part that holds it. The chance that none has one
// is 3 in 10,000.
const neighbours = 512

// findRun returns the chunks of the first count segments, nil for holes, up to
// the first one that is not found.
func (x *index) findRun(ctx context.Context, segments []memoSegment, count int) ([]*chunk, error) {
	chunks := make([]*chunk, 0, count)
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range count {
		g := &segments[i]
		if g.length == 0 {
			chunks = append(chunks, nil)
			continue
		}
		c, err := x.find(ctx, g.id, g.length)
		if c == nil && err == nil {
			c, err = x.findBeside(ctx, g, segments[i+1:min(len(segments), i+1+neighbours)])
		}
		if err != nil || c == nil {
			return chunks, err
		}
		chunks = append(chunks, c)
	}
	return chunks, nil
}

// besideLoads is how many parts are loaded at most to find one chunk.
const besideLoads = 2

// findBeside looks for a chunk in the parts of those that follow it.
func (x *index) findBeside(ctx context.Context, g *memoSegment, next []memoSegment) (*chunk, error) {
	loads := 0
	for i := range next {
		if next[i].length == 0 {
			continue
		}
		if loads == besideLoads {
			break
		}
		p, err := x.bring(ctx, &next[i].id)
		if err != nil {
			return nil, err
		}
		if p != nil {
			loads++
			if c := x.findIn(p, g.id, g.length); c != nil {
				return c, nil
			}
		}
	}
	return nil, nil
}

func hookKey(id *hash) uint64 { return binary.LittleEndian.Uint64(id[:]) }

// findIn looks for a chunk in a loaded part, and notes that it is in use.
func (x *index) findIn(p *part, id hash, length uint32) *chunk {
	row, found := p.rows.find(&id)
	if !found {
		return nil
	}
	where := p.rows.location(row)
	where.pack = p.numbers[where.pack]
	if where.length != length || !x.packs.usable(where.pack) {
		return nil
	}
	if !p.own && p.used.add(row) {
		p.inUse++
	}
	return &chunk{id: id, sum: id, length: length, where: where, placed: true}
}

// add makes a part known whose rows have just been read or written.
func (x *index) add(ref record.ObjectRef, rows *partRows, own, retired bool) {
	if x.byName[ref.SHA256] != nil {
		return
	}
	p := &part{ref: ref, own: own, retired: retired, count: rows.len(), numbers: make([]uint32, len(rows.names))}
	for i, name := range rows.names {
		p.numbers[i] = x.packs.known(name, rows.sizes[i])
	}
	number := uint32(len(x.parts))
	x.parts = append(x.parts, p)
	x.byName[ref.SHA256] = p
	for i := range rows.len() {
		id := rows.id(i)
		if key := hookKey(&id); key&hookMask == 0 {
			x.hooks[key] = number
		}
	}
	x.keep(p, rows)
}

// keep takes rows into memory, and lets go of others to make room.
func (x *index) keep(p *part, rows *partRows) {
	p.rows = rows
	x.recent = append([]*part{p}, x.recent...)
	x.loaded += len(rows.rows)
	for x.loaded > x.budget && len(x.recent) > 1 {
		last := x.recent[len(x.recent)-1]
		x.recent = x.recent[:len(x.recent)-1]
		x.loaded -= len(last.rows.rows)
		last.rows = nil
	}
}

// load reads the rows of a part that is known.
func (x *index) load(ctx context.Context, p *part) error {
	if p.rows != nil {
		return nil
	}
	rows, err := x.r.readPart(ctx, x.layout, p.ref)
	if err != nil {
		return err
	}
	if rows.len() != p.count || len(rows.names) != len(p.numbers) {
		return fmt.Errorf("%w: part %s has changed", ErrDamaged, p.ref.SHA256)
	}
	x.keep(p, rows)
	return nil
}
