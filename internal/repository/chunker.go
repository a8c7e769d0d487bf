package repository

import (
	"crypto/sha256"
	"encoding/binary"

	"keepset/internal/record"
)

// The sizes that Init puts into the configuration, in bytes.
const (
	chunkMin     = 256 << 10
	chunkAverage = 1 << 20
	chunkMax     = 4 << 20
)

// gearTable gives each byte value a random-looking number. It is derived, so
// that the format needs no table: the first 8 bytes, big-endian, of SHA-256
// over "keepset gear v1" and the byte.
type gearTable [256]uint64

func newGearTable() *gearTable {
	var t gearTable
	for i := range t {
		sum := sha256.Sum256(append([]byte("keepset gear v1"), byte(i)))
		t[i] = binary.BigEndian.Uint64(sum[:])
	}
	return &t
}

// chunker finds where chunks end. It is FastCDC with normalized chunking: a
// rolling hash over the last 64 bytes, a stricter mask before the average
// size and a laxer one after it, so that sizes gather around the average. It
// sees a stream piece by piece and never needs a byte twice.
type chunker struct {
	gear          *gearTable
	min, avg, max int
	strict, lax   uint64
	hash          uint64
	position      int // bytes of the current chunk seen so far
	fixed         int // cut at multiples of so many bytes instead
}

// normalization is by how many bits the masks differ from the average's.
const normalization = 2

func newChunker(gear *gearTable, c record.Chunker, fixed int) chunker {
	bits := 0
	for size := c.Average; size > 1; size >>= 1 {
		bits++
	}
	return chunker{
		gear: gear, min: c.Min, avg: c.Average, max: c.Max,
		strict: topBits(bits + normalization), lax: topBits(bits - normalization),
		fixed: fixed,
	}
}

// topBits is a mask of the n highest bits: those that depend on the most
// bytes of the window.
func topBits(n int) uint64 { return ^uint64(0) << (64 - n) }

// reset begins a new chunk where one has ended.
func (c *chunker) reset() { c.hash, c.position = 0, 0 }

// begin begins a new chunk anywhere in the stream.
func (c *chunker) begin(at int64) {
	c.reset()
	if c.fixed > 0 {
		c.position = int(at % int64(c.fixed))
	}
}

// next takes bytes from the front of p and returns how many belong to the
// current chunk, and whether the chunk ends there. Then the next one begins.
func (c *chunker) next(p []byte) (n int, end bool) {
	if c.fixed > 0 {
		n = min(c.fixed-c.position, len(p))
		c.position += n
		return n, c.ended(c.position == c.fixed)
	}
	if c.position < c.min {
		n = min(c.min-c.position, len(p))
		c.position += n
	}
	if n < len(p) && c.position < c.avg {
		m, found := c.scan(p[n:min(len(p), n+c.avg-c.position)], c.strict)
		n += m
		if found {
			return n, c.ended(true)
		}
	}
	if n < len(p) && c.position < c.max {
		m, found := c.scan(p[n:min(len(p), n+c.max-c.position)], c.lax)
		n += m
		if found {
			return n, c.ended(true)
		}
	}
	return n, c.ended(c.position >= c.max)
}

func (c *chunker) ended(end bool) bool {
	if end {
		c.reset()
	}
	return end
}

// lane is how far apart the two bytes are that scan takes at a time.
const lane = 4 << 10

// scan rolls the hash over p until the mask fits. It is the hot loop. A hash
// depends on the 64 bytes before alone: the processor, which would wait for
// each hash before it begins the next, can roll two of them, a lane apart.
func (c *chunker) scan(p []byte, mask uint64) (int, bool) {
	n := 0
	for ; n+2*lane <= len(p); n += 2 * lane {
		h, fits := c.gear.pair(c.hash, (*[lane]byte)(p[n:]), (*[lane]byte)(p[n+lane:]), mask)
		if fits {
			break // where, and whether there is one before it, the rest says
		}
		c.hash = h
	}
	c.position += n
	m, found := c.roll(p[n:], mask)
	return n + m, found
}

// pair rolls the hash h over two lanes of which the second follows the first, and
// returns it at their end, or that the mask fits in one of them.
func (t *gearTable) pair(h uint64, first, second *[lane]byte, mask uint64) (after uint64, fits bool) {
	for _, b := range first[lane-64:] {
		after = after<<1 + t[b]
	}
	for i := 0; i < lane; i += 2 {
		h = h<<1 + t[first[i]]
		after = after<<1 + t[second[i]]
		if h&mask == 0 || after&mask == 0 {
			return 0, true
		}
		h = h<<1 + t[first[i+1]]
		after = after<<1 + t[second[i+1]]
		if h&mask == 0 || after&mask == 0 {
			return 0, true
		}
	}
	return after, false
}

// roll does the same byte by byte.
func (c *chunker) roll(p []byte, mask uint64) (int, bool) {
	h, gear := c.hash, c.gear
	for i, b := range p {
		h = h<<1 + gear[b]
		if h&mask == 0 {
			c.position += i + 1
			return i + 1, true
		}
	}
	c.hash = h
	c.position += len(p)
	return len(p), false
}
