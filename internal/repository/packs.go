package repository

import (
	"slices"
	"sync"

	"keepset/internal/record"
)

// packState says what is known of a pack.
type packState uint8

const (
	// packOpen: being filled or uploaded; it has no name yet.
	packOpen packState = iota
	// packKnown: an index names it, and no listing has shown it yet.
	packKnown
	// packUsable: stored by this run, or shown by a listing in its right
	// size and not condemned.
	packUsable
	// packUnusable: missing, of another size, or condemned.
	packUnusable
)

// pack is one pack of the table.
type pack struct {
	name  hash
	size  int64
	state packState
}

// packs numbers all packs that a run knows, so that a chunk's location takes
// four bytes for it. It also guards the locations of chunks.
type packs struct {
	mu     sync.Mutex
	list   []pack
	byName map[hash]uint32
}

func newPacks() *packs { return &packs{byName: make(map[hash]uint32)} }

// open adds a pack that is about to be filled.
func (p *packs) open() uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, pack{})
	return uint32(len(p.list) - 1)
}

// stored notes that a pack has been uploaded.
func (p *packs) stored(number uint32, name hash, size int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list[number] = pack{name: name, size: size, state: packUsable}
	p.byName[name] = number
}

// known returns the number of a pack that an index names.
func (p *packs) known(name hash, size int64) uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if number, found := p.byName[name]; found {
		if p.list[number].size != size {
			p.list[number].state = packUnusable // two indexes contradict each other
		}
		return number
	}
	p.list = append(p.list, pack{name: name, size: size, state: packKnown})
	number := uint32(len(p.list) - 1)
	p.byName[name] = number
	return number
}

// listed notes that a listing shows a pack.
func (p *packs) listed(name hash, size int64, condemned bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	number, found := p.byName[name]
	if !found || p.list[number].state != packKnown {
		return
	}
	if p.list[number].size == size && !condemned {
		p.list[number].state = packUsable
	} else {
		p.list[number].state = packUnusable
	}
}

// unlisted returns the packs that are known and not yet judged.
func (p *packs) unlisted() []hash {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []hash
	for i := range p.list {
		if p.list[i].state == packKnown {
			names = append(names, p.list[i].name)
		}
	}
	return names
}

// get returns what is known of a pack.
func (p *packs) get(number uint32) pack {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.list[number]
}

// usable says whether chunks in the pack may be reused.
func (p *packs) usable(number uint32) bool { return p.get(number).state == packUsable }

// refs returns the named packs in order of their names.
func (p *packs) refs(numbers bitset) []record.ObjectRef {
	p.mu.Lock()
	var list []record.ObjectRef
	for i := range p.list {
		if numbers.has(i) {
			list = append(list, record.ObjectRef{SHA256: p.list[i].name, Size: p.list[i].size})
		}
	}
	p.mu.Unlock()
	slices.SortFunc(list, compareRefs)
	return list
}

// bitset is a set of small numbers.
type bitset []uint64

func (b bitset) has(i int) bool { return i/64 < len(b) && b[i/64]&(1<<(i%64)) != 0 }

// add returns false when i was there already.
func (b *bitset) add(i int) bool {
	for i/64 >= len(*b) {
		*b = append(*b, 0)
	}
	fresh := !b.has(i)
	(*b)[i/64] |= 1 << (i % 64)
	return fresh
}
