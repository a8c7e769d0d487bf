package repository

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sort"

	"keepset/internal/record"
)

// A memo tells the next backup what a remembered stream consisted of, so that
// it can take over what has not changed without reading it, or being able to
// read it. An object of memos lies below parts/, since it is for the same
// readers. Its plain bytes, little-endian, are
//
//	"KSMEMO\x00\x01"                               8 bytes
//	run                                            16 random bytes
//	u32 number of the object within its run, from 0
//	u32 number of rows, for each, in order of key, stream and offset:
//	    key                                        16 bytes
//	    u32 stream
//	    u64 offset
//	    u8 1 when the stream ends with this row, else 0
//	    u8 length of the fingerprint, and so many bytes
//	    u32 number of segments, for each:
//	        u32 length, chunk ID (32 bytes), u32 CRC-32C of the chunk
//	        or u32 0, u64 length of a hole
//
// The key is the beginning of an HMAC-SHA256 of the name, so that it does not
// tell it. A long stream has several rows, each beginning in the stream's bytes
// where the one before ends; the number of the stream keeps those apart from
// the rows of another stream of the same key. A run is what one attempt wrote
// for one member; it also makes the object unique, as a pack's nonce does.

const (
	memoMagic = "KSMEMO\x00\x01"
	memoHead  = len(memoMagic) + nonceSize + 4 + 4
	memoRow   = memoKeySize + 4 + 8 + 1 + 1 + 4 // without fingerprint and segments
	memoChunk = 4 + record.HashSize + 4
	memoHole  = 4 + 8
	// memoKeySize: among 10^9 names the chance of two equal ones is 10^-21.
	memoKeySize = 16
	// maxFingerprint is the longest, in bytes.
	maxFingerprint = 255
)

// memoKey is the name under which a stream is remembered.
type memoKey [memoKeySize]byte

// memoAt is the place of a row among others.
type memoAt struct {
	key    memoKey
	stream uint32
	offset int64
}

func (a memoAt) compare(b memoAt) int {
	return cmp.Or(bytes.Compare(a.key[:], b.key[:]), cmp.Compare(a.stream, b.stream), cmp.Compare(a.offset, b.offset))
}

// memoSegment is a hole, or a chunk.
type memoSegment struct {
	hole        int64
	id          hash
	length, crc uint32
}

func (g *memoSegment) size() int64 { return g.hole + int64(g.length) }

// memo is one row.
type memo struct {
	memoAt
	last        bool
	fingerprint []byte
	segments    []memoSegment
}

// size is how many bytes of the stream the row is for.
func (m *memo) size() (n int64) {
	for i := range m.segments {
		n += m.segments[i].size()
	}
	return n
}

// appendMemo appends a row.
func appendMemo(b []byte, m *memo) []byte {
	le := binary.LittleEndian
	b = append(b, m.key[:]...)
	b = le.AppendUint32(b, m.stream)
	b = le.AppendUint64(b, uint64(m.offset))
	last := byte(0)
	if m.last {
		last = 1
	}
	b = append(b, last, byte(len(m.fingerprint)))
	b = append(b, m.fingerprint...)
	b = le.AppendUint32(b, uint32(len(m.segments)))
	for i := range m.segments {
		g := &m.segments[i]
		b = le.AppendUint32(b, g.length)
		if g.length == 0 {
			b = le.AppendUint64(b, uint64(g.hole))
			continue
		}
		b = append(b, g.id[:]...)
		b = le.AppendUint32(b, g.crc)
	}
	return b
}

// encodedMemo is a row as appendMemo made it.
type encodedMemo struct {
	at   memoAt
	data []byte
}

// encodeMemos sorts rows and returns the plain bytes of an object.
func encodeMemos(run [nonceSize]byte, number uint32, rows []encodedMemo) []byte {
	slices.SortFunc(rows, func(a, b encodedMemo) int { return a.at.compare(b.at) })
	size := memoHead
	for i := range rows {
		size += len(rows[i].data)
	}
	b := append(make([]byte, 0, size), memoMagic...)
	b = append(b, run[:]...)
	b = binary.LittleEndian.AppendUint32(b, number)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(rows)))
	for i := range rows {
		b = append(b, rows[i].data...)
	}
	return b
}

// memos is the plain bytes of an object, parsed as far as lookups need.
type memos struct {
	run    [nonceSize]byte
	number uint32
	plain  []byte
	rows   []uint32 // where each begins in plain
}

// bytes is what they take in memory.
func (m *memos) bytes() int { return cap(m.plain) + 4*cap(m.rows) }

// at is the place of row i.
func (m *memos) at(i int) (a memoAt) {
	row := m.plain[m.rows[i]:]
	copy(a.key[:], row)
	a.stream = binary.LittleEndian.Uint32(row[memoKeySize:])
	a.offset = int64(binary.LittleEndian.Uint64(row[memoKeySize+4:]))
	return a
}

// find returns the first row of a key, or of what follows it.
func (m *memos) find(key *memoKey) int {
	return sort.Search(len(m.rows), func(i int) bool {
		return bytes.Compare(m.plain[m.rows[i]:][:memoKeySize], key[:]) >= 0
	})
}

// row reads row i; its fingerprint refers to m.
func (m *memos) row(i int) memo {
	var row memo
	_, _ = parseMemo(m.plain[m.rows[i]:], &row, true) // checked by parseMemos
	return row
}

// parseMemos checks the plain bytes of an object, which the result refers to.
func parseMemos(plain []byte) (*memos, error) {
	le := binary.LittleEndian
	if len(plain) < memoHead || string(plain[:len(memoMagic)]) != memoMagic {
		return nil, fmt.Errorf("%w: not an object of memos", ErrDamaged)
	}
	m := &memos{plain: plain, number: le.Uint32(plain[len(memoMagic)+nonceSize:])}
	copy(m.run[:], plain[len(memoMagic):])
	count := int64(le.Uint32(plain[memoHead-4:]))
	rest := plain[memoHead:]
	if count*memoRow > int64(len(rest)) || int64(len(plain)) > math.MaxUint32 {
		return nil, fmt.Errorf("%w: object of memos claims %d rows", ErrDamaged, count)
	}
	m.rows = make([]uint32, count)
	var before memoAt
	for i := range m.rows {
		m.rows[i] = uint32(len(plain) - len(rest))
		var row memo
		var err error
		if rest, err = parseMemo(rest, &row, false); err != nil {
			return nil, fmt.Errorf("%w: memo %d: %w", ErrDamaged, i, err)
		}
		if i > 0 && before.compare(row.memoAt) >= 0 {
			return nil, fmt.Errorf("%w: memo %d is out of order", ErrDamaged, i)
		}
		before = row.memoAt
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: %d bytes after the last memo", ErrDamaged, len(rest))
	}
	return m, nil
}

// parseMemo reads the row that data begins with, and returns what follows it.
// Without keep its segments are checked only.
func parseMemo(data []byte, m *memo, keep bool) ([]byte, error) {
	le := binary.LittleEndian
	if len(data) < memoRow {
		return nil, record.ErrInvalid
	}
	copy(m.key[:], data)
	m.stream = le.Uint32(data[memoKeySize:])
	offset := le.Uint64(data[memoKeySize+4:])
	last, fingerprint := data[memoKeySize+12], int(data[memoKeySize+13])
	data = data[memoKeySize+14:]
	if len(data) < fingerprint+4 || last > 1 || offset > math.MaxInt64 {
		return nil, record.ErrInvalid
	}
	m.offset, m.last, m.fingerprint = int64(offset), last == 1, data[:fingerprint:fingerprint]
	count := int64(le.Uint32(data[fingerprint:]))
	data = data[fingerprint+4:]
	if count*memoHole > int64(len(data)) || count == 0 && !m.last {
		return nil, record.ErrInvalid
	}
	if keep {
		m.segments = make([]memoSegment, 0, count)
	}
	end := m.offset
	for range count {
		var g memoSegment
		var err error
		if data, err = parseMemoSegment(data, &g); err != nil {
			return nil, err
		}
		if end += g.size(); end < 0 {
			return nil, record.ErrInvalid
		}
		if keep {
			m.segments = append(m.segments, g)
		}
	}
	return data, nil
}

func parseMemoSegment(data []byte, g *memoSegment) ([]byte, error) {
	le := binary.LittleEndian
	if len(data) < memoHole {
		return nil, record.ErrInvalid
	}
	if g.length = le.Uint32(data); g.length == 0 {
		hole := le.Uint64(data[4:])
		if hole == 0 || hole > math.MaxInt64 {
			return nil, record.ErrInvalid
		}
		g.hole = int64(hole)
		return data[memoHole:], nil
	}
	if len(data) < memoChunk || g.length > record.MaxFrame {
		return nil, record.ErrInvalid
	}
	copy(g.id[:], data[4:])
	g.crc = le.Uint32(data[4+record.HashSize:])
	if g.id.IsZero() {
		return nil, record.ErrInvalid
	}
	return data[memoChunk:], nil
}
