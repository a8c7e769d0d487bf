package repository

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"

	"keepset/internal/record"
)

// A part is a piece of the index: which chunk lies where. Its plain bytes,
// little-endian, are
//
//	"KSPART\x00\x01"                               8 bytes
//	nonce                                          16 random bytes
//	u32 number of packs, for each, in order of the names: name (32 bytes), u64 size
//	u32 number of rows, for each, in order of the chunk IDs:
//	    chunk ID (32 bytes), u32 pack, u32 at, u32 stored, u32 skip, u32 length
//
// where pack is an index into the packs, at and stored say where the frame
// lies in the pack's plaintext, skip and length where the chunk lies in the
// decoded frame.

const (
	partMagic   = "KSPART\x00\x01"
	partHead    = len(partMagic) + nonceSize + 4
	partPack    = record.HashSize + 8
	partRow     = record.HashSize + 5*4
	maxPartRows = 1 << 16
)

// location says where a chunk lies. Pack is a number in a [packs] table.
type location struct {
	pack                     uint32
	at, stored, skip, length uint32
}

// partRows is the plain bytes of a part, parsed as far as lookups need.
type partRows struct {
	names []hash
	sizes []int64
	rows  []byte
}

func (p *partRows) len() int { return len(p.rows) / partRow }

func (p *partRows) row(i int) []byte { return p.rows[i*partRow : (i+1)*partRow] }

func (p *partRows) id(i int) (id hash) {
	copy(id[:], p.row(i))
	return id
}

// location of row i, its pack still a number within the part.
func (p *partRows) location(i int) location {
	row, le := p.row(i)[record.HashSize:], binary.LittleEndian
	return location{
		pack: le.Uint32(row), at: le.Uint32(row[4:]), stored: le.Uint32(row[8:]),
		skip: le.Uint32(row[12:]), length: le.Uint32(row[16:]),
	}
}

// find returns the row of a chunk.
func (p *partRows) find(id *hash) (int, bool) {
	return sort.Find(p.len(), func(i int) int {
		return bytes.Compare(id[:], p.rows[i*partRow:i*partRow+record.HashSize])
	})
}

// partEntry is a row to be written; name and size are its pack's.
type partEntry struct {
	id   hash
	at   location
	name hash
	size int64
}

// encodePart sorts entries and returns the plain bytes of a part.
func encodePart(nonce [nonceSize]byte, entries []partEntry) []byte {
	slices.SortFunc(entries, func(a, b partEntry) int { return bytes.Compare(a.id[:], b.id[:]) })
	numbers := make(map[hash]uint32)
	var names []partEntry
	for _, e := range entries {
		if _, seen := numbers[e.name]; !seen {
			numbers[e.name] = 0
			names = append(names, e)
		}
	}
	slices.SortFunc(names, func(a, b partEntry) int { return cmp.Compare(string(a.name[:]), string(b.name[:])) })
	le := binary.LittleEndian
	b := make([]byte, 0, partHead+len(names)*partPack+4+len(entries)*partRow)
	b = append(b, partMagic...)
	b = append(b, nonce[:]...)
	b = le.AppendUint32(b, uint32(len(names)))
	for i, e := range names {
		numbers[e.name] = uint32(i)
		b = append(b, e.name[:]...)
		b = le.AppendUint64(b, uint64(e.size))
	}
	b = le.AppendUint32(b, uint32(len(entries)))
	for _, e := range entries {
		b = append(b, e.id[:]...)
		b = le.AppendUint32(b, numbers[e.name])
		b = le.AppendUint32(b, e.at.at)
		b = le.AppendUint32(b, e.at.stored)
		b = le.AppendUint32(b, e.at.skip)
		b = le.AppendUint32(b, e.at.length)
	}
	return b
}

// parsePart checks the plain bytes of a part; rows refers to them.
func parsePart(plain []byte) (*partRows, error) {
	le := binary.LittleEndian
	if len(plain) < partHead+4 || string(plain[:len(partMagic)]) != partMagic {
		return nil, fmt.Errorf("%w: not a part of the index", ErrDamaged)
	}
	packs := int64(le.Uint32(plain[partHead-4:]))
	rest := plain[partHead:]
	if packs*partPack+4 > int64(len(rest)) {
		return nil, fmt.Errorf("%w: part of the index lists %d packs", ErrDamaged, packs)
	}
	p := &partRows{names: make([]hash, packs), sizes: make([]int64, packs)}
	for i := range p.names {
		copy(p.names[i][:], rest)
		p.sizes[i] = int64(le.Uint64(rest[record.HashSize:]))
		rest = rest[partPack:]
		if p.sizes[i] <= 0 || i > 0 && bytes.Compare(p.names[i-1][:], p.names[i][:]) >= 0 {
			return nil, fmt.Errorf("%w: pack %d of a part of the index is out of order or has no size", ErrDamaged, i)
		}
	}
	count := int64(le.Uint32(rest))
	p.rows = rest[4:]
	if count != int64(p.len()) || count*partRow != int64(len(p.rows)) {
		return nil, fmt.Errorf("%w: part of the index claims %d rows", ErrDamaged, count)
	}
	for i := range p.len() {
		l := p.location(i)
		ordered := i == 0 || bytes.Compare(p.row(i - 1)[:record.HashSize], p.row(i)[:record.HashSize]) < 0
		if !ordered || int64(l.pack) >= packs || l.length == 0 || l.stored == 0 ||
			int64(l.skip)+int64(l.length) > record.MaxFrame || int64(l.at)+int64(l.stored) > record.MaxPack {
			return nil, fmt.Errorf("%w: row %d of a part of the index is out of range", ErrDamaged, i)
		}
	}
	return p, nil
}
