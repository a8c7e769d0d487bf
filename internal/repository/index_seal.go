package repository

import (
	"context"
	"fmt"
	"io"
	"slices"

	"keepset/internal/record"
)

const (
	// smallPart: parts with fewer rows are put together when there are many.
	smallPart = 4096
	// manySmall is how many small parts are let be.
	manySmall = 16
)

// seal writes the open chunks that have arrived in the store as parts, each
// when it is full, or all of them.
func (x *index) seal(ctx context.Context, all bool) error {
	x.sealing.Lock()
	defer x.sealing.Unlock()
	for {
		more, err := x.sealOne(ctx, all)
		if err != nil || !more {
			return err
		}
	}
}

func (x *index) sealOne(ctx context.Context, all bool) (bool, error) {
	x.mu.Lock()
	entries := x.arrived()
	x.mu.Unlock()
	if len(entries) == 0 || len(entries) < maxPartRows && !all {
		return false, nil
	}
	var nonce [nonceSize]byte
	if _, err := io.ReadFull(x.r.options.Random, nonce[:]); err != nil {
		return false, fmt.Errorf("make nonce of index part: %w", err)
	}
	plain := encodePart(nonce, entries)
	rows, err := parsePart(plain)
	if err != nil {
		return false, fmt.Errorf("index part just made: %w", err)
	}
	ref, err := x.r.putSealed(ctx, x.layout.parts(), plain, x.r.partRecipient())
	if err != nil {
		return false, fmt.Errorf("store index part: %w", err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.add(ref, rows, true, false)
	x.forget(entries)
	return true, nil
}

// arrived returns up to a part's worth of open chunks whose packs are stored.
func (x *index) arrived() []partEntry {
	var entries []partEntry
	x.packs.mu.Lock()
	defer x.packs.mu.Unlock()
	for _, c := range x.order {
		if len(entries) == maxPartRows {
			break
		}
		if !c.placed {
			continue
		}
		if p := x.packs.list[c.where.pack]; p.state == packUsable {
			entries = append(entries, partEntry{id: c.id, at: c.where, name: p.name, size: p.size})
		}
	}
	return entries
}

// forget drops open chunks that are now in a part.
func (x *index) forget(entries []partEntry) {
	for i := range entries {
		delete(x.open, entries[i].id)
	}
	x.order = slices.DeleteFunc(x.order, func(c *chunk) bool { return x.open[c.id] != c })
	x.tryAt = 0
}

// full says whether there are enough open chunks to try to seal a part. It
// says so once for each eighth of a part, since those that are there may not
// have arrived in the store.
func (x *index) full() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.order) < max(x.tryAt, maxPartRows+maxPartRows/8) {
		return false
	}
	x.tryAt = len(x.order) + maxPartRows/8
	return true
}

// own lists the parts that this run has written.
func (x *index) own() []record.ObjectRef {
	x.mu.Lock()
	defer x.mu.Unlock()
	var list []record.ObjectRef
	for _, p := range x.parts {
		if p.own {
			list = append(list, p.ref)
		}
	}
	slices.SortFunc(list, compareRefs)
	return list
}

// finish makes everything in use findable for the next backup: it carries
// rows over from parts that are mostly unused, condemned, or too small and too
// many, seals what is open, and returns all parts that a commit needs.
func (x *index) finish(ctx context.Context) ([]record.ObjectRef, error) {
	if err := x.carryOver(ctx); err != nil {
		return nil, err
	}
	if err := x.seal(ctx, true); err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	var list []record.ObjectRef
	for _, p := range x.parts {
		if p.own || p.inUse > 0 && !p.retired {
			list = append(list, p.ref)
		}
	}
	slices.SortFunc(list, compareRefs)
	return list, nil
}

func (x *index) carryOver(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	small := 0
	for _, p := range x.parts {
		if !p.own && p.inUse > 0 && p.count < smallPart {
			small++
		}
	}
	for _, p := range x.parts {
		if p.own || p.inUse == 0 {
			continue
		}
		if p.retired || p.inUse*4 < p.count || p.count < smallPart && small > manySmall {
			if err := x.carry(ctx, p); err != nil {
				return fmt.Errorf("carry rows of index part %s over: %w", p.ref.SHA256, err)
			}
		}
	}
	return nil
}

// carry opens the used rows of a part anew, and retires it.
func (x *index) carry(ctx context.Context, p *part) error {
	if err := x.load(ctx, p); err != nil {
		return err
	}
	rows := p.rows
	for i := range p.count {
		if !p.used.has(i) {
			continue
		}
		c := &chunk{id: rows.id(i), where: rows.location(i), placed: true}
		c.sum, c.length = c.id, c.where.length
		c.where.pack = p.numbers[c.where.pack]
		if x.open[c.id] == nil {
			x.open[c.id] = c
			x.order = append(x.order, c)
		}
	}
	p.retired, p.used, p.inUse = true, nil, 0
	return nil
}

func compareRefs(a, b record.ObjectRef) int { return slices.Compare(a.SHA256[:], b.SHA256[:]) }
