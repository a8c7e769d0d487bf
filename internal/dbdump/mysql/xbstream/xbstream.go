// Package xbstream reads the streams that mariadb-backup and xtrabackup write:
// the files of a server, cut into chunks that may alternate between files.
//
// Its central type is [Reader]. It promises that a stream is read to an end
// that lies between two chunks, that every payload has the checksum that was
// sent with it, and that a kind of chunk that is not known here is an error and
// never left out: to the original two each of the programs has added its own.
// MariaDB's take back files that have been sent already, when tables are
// changed or dropped while they are copied; Percona's leaves out what pages that
// the server compresses do not use.
//
// A chunk is, all numbers with the least significant byte first:
//
//	8 bytes   XBSTCK01
//	1 byte    flags: 2 where the file comes anew, in place of one of its name
//	1 byte    kind
//	4 bytes   length of the path, and the path
//	          P  8 bytes length, 8 bytes offset, 4 bytes CRC-32 (IEEE), payload
//	          E  nothing: the end of the file
//	MariaDB:  S  8 bytes offset: where the next payload goes
//	          D  nothing: the file, which has ended, is gone after all
//	          R  4 bytes length of another path, and that: the file is called so now
//	Percona:  S  4 bytes number of pieces, then as P, and before the payload, in
//	             the same checksum, for each piece of it 4 bytes length of a gap
//	             before it and 4 bytes length
package xbstream

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"strings"
)

// ErrStream says that a stream is none, or not a whole one.
var ErrStream = errors.New("the stream of files cannot be read")

// Dialect is whose stream it is.
type Dialect int

// The dialects.
const (
	MariaDB Dialect = iota // of mariadb-backup
	Percona                // of xtrabackup, for MySQL
)

// kinds that a dialect has.
var kinds = [...]string{MariaDB: "PSEDR", Percona: "PSE"}

// Kind is what a chunk says.
type Kind byte

// The kinds. A reader gives Percona's S as a Payload with zeros in its gaps.
const (
	Payload Kind = 'P'
	Seek    Kind = 'S'
	End     Kind = 'E'
	Remove  Kind = 'D'
	Rename  Kind = 'R'
)

// Chunk is one message of a stream.
type Chunk struct {
	Kind Kind
	// Path of the file, relative, by slashes.
	Path string
	// Anew: the file takes the place of one of the same name that has ended.
	Anew bool
	// Offset of a Payload or a Seek in the file.
	Offset int64
	// Length of a Payload.
	Length int64
	// To is the new path of a Rename.
	To string
}

const (
	magic = "XBSTCK01"
	// flagAnew is the only flag that is in use, and MariaDB's.
	flagAnew = 2
	// longestPath is the limit of who writes them.
	longestPath = 512
	// mostPieces of one payload are far more than who writes them makes of his buffers.
	mostPieces = 1 << 20
	bufferSize = 256 << 10
)

// piece of a payload is where so many bytes of it go, behind a gap.
type piece struct{ gap, length int64 }

// Reader reads a stream, chunk by chunk.
type Reader struct {
	r       *bufio.Reader
	dialect Dialect
	// at is the offset of what is read next, for messages.
	at int64
	// left is how much of the payload has not been read; pieces are those of it, where it has gaps.
	left   int64
	pieces []piece
	sum    hash.Hash32
	want   uint32
	path   string
	err    error
}

// NewReader reads from r.
func NewReader(r io.Reader, d Dialect) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, bufferSize), dialect: d, sum: crc32.NewIEEE()}
}

// Next goes to the next chunk, after the rest of the payload before it, which
// is checked. io.EOF: there is none.
func (r *Reader) Next() (Chunk, error) {
	if r.err == nil && (r.left > 0 || len(r.pieces) > 0) {
		_, r.err = io.Copy(io.Discard, r)
	}
	if r.err != nil {
		return Chunk{}, r.err
	}
	c, err := r.next()
	r.err = err
	return c, err
}

func (r *Reader) next() (c Chunk, err error) {
	begins := r.at
	var head [len(magic) + 6]byte
	n, err := io.ReadFull(r.r, head[:])
	r.at += int64(n)
	if n == 0 && errors.Is(err, io.EOF) {
		return c, io.EOF
	}
	if err != nil {
		return c, r.broken(err)
	}
	if string(head[:len(magic)]) != magic {
		return c, fmt.Errorf("%w: no chunk begins at byte %d", ErrStream, begins)
	}
	flags, kind := head[len(magic)], head[len(magic)+1]
	c.Kind, c.Anew = Kind(kind), flags == flagAnew
	if flags != 0 && (flags != flagAnew || r.dialect != MariaDB) || !strings.ContainsRune(kinds[r.dialect], rune(kind)) {
		return c, fmt.Errorf("%w: the chunk at byte %d is of kind %q with the flags %d, which are not known here", ErrStream, begins, kind, flags)
	}
	if c.Path, err = r.readPath(binary.LittleEndian.Uint32(head[len(magic)+2:])); err != nil {
		return c, err
	}
	r.path = c.Path
	switch c.Kind {
	case Payload:
		return c, r.payload(&c)
	case Seek:
		if r.dialect == Percona {
			c.Kind = Payload
			return c, r.sparse(&c)
		}
		c.Offset, err = r.number()
	case Rename:
		var length uint32
		if length, err = r.word(); err == nil {
			c.To, err = r.readPath(length)
		}
	}
	return c, err
}

// payload reads what comes before it.
func (r *Reader) payload(c *Chunk) error {
	if err := r.extent(c); err != nil {
		return err
	}
	if r.left == 0 {
		return r.check()
	}
	return nil
}

// extent reads where a payload goes, how long it is, and its checksum.
func (r *Reader) extent(c *Chunk) (err error) {
	if c.Length, err = r.number(); err != nil {
		return err
	}
	if c.Offset, err = r.number(); err != nil {
		return err
	}
	if c.Offset > math.MaxInt64-c.Length {
		return fmt.Errorf("%w: %d bytes at %d of %q", ErrStream, c.Length, c.Offset, c.Path)
	}
	if r.want, err = r.word(); err != nil {
		return err
	}
	r.left = c.Length
	r.sum.Reset()
	return nil
}

// sparse reads what comes before a payload with gaps. The length of the chunk is that with them.
func (r *Reader) sparse(c *Chunk) error {
	n, err := r.word()
	if err != nil {
		return err
	}
	if n > mostPieces {
		return fmt.Errorf("%w: a payload of %d pieces before byte %d", ErrStream, n, r.at)
	}
	if err := r.extent(c); err != nil {
		return err
	}
	var whole, data int64
	for range n {
		var b [8]byte
		if err := r.full(b[:]); err != nil {
			return err
		}
		r.sum.Write(b[:]) // it never fails
		p := piece{gap: int64(binary.LittleEndian.Uint32(b[:])), length: int64(binary.LittleEndian.Uint32(b[4:]))}
		r.pieces = append(r.pieces, p)
		whole, data = whole+p.gap+p.length, data+p.length
	}
	if data != c.Length || c.Offset > math.MaxInt64-whole {
		return fmt.Errorf("%w: %d bytes at %d of %q, in pieces of %d and %d with their gaps", ErrStream, c.Length, c.Offset, c.Path, data, whole)
	}
	c.Length = whole
	if r.left == 0 {
		return r.check()
	}
	return nil
}

// Read reads the payload of the current chunk. It ends with io.EOF once the
// checksum has matched.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	for len(r.pieces) > 0 && r.pieces[0] == (piece{}) {
		r.pieces = r.pieces[1:]
	}
	most := r.left
	if len(r.pieces) > 0 {
		if first := &r.pieces[0]; first.gap > 0 {
			n := min(int64(len(p)), first.gap)
			clear(p[:n])
			first.gap -= n
			return int(n), nil
		}
		most = r.pieces[0].length
	}
	if most == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > most {
		p = p[:most]
	}
	n, err := r.r.Read(p)
	if len(r.pieces) > 0 {
		r.pieces[0].length -= int64(n)
	}
	r.at, r.left = r.at+int64(n), r.left-int64(n)
	r.sum.Write(p[:n]) // it never fails
	if r.left == 0 {
		r.err = r.check()
		return n, r.err
	}
	if err != nil {
		r.err = r.broken(err)
	}
	return n, r.err
}

func (r *Reader) check() error {
	if got := r.sum.Sum32(); got != r.want {
		return fmt.Errorf("%w: the checksum of %q before byte %d is %08x, and was %08x when it was sent", ErrStream, r.path, r.at, got, r.want)
	}
	return nil
}

// number reads eight bytes as a length or an offset.
func (r *Reader) number() (int64, error) {
	var b [8]byte
	if err := r.full(b[:]); err != nil {
		return 0, err
	}
	n := binary.LittleEndian.Uint64(b[:])
	if n > math.MaxInt64 {
		return 0, fmt.Errorf("%w: the number %d before byte %d", ErrStream, n, r.at)
	}
	return int64(n), nil
}

// word reads four bytes.
func (r *Reader) word() (uint32, error) {
	var b [4]byte
	err := r.full(b[:])
	return binary.LittleEndian.Uint32(b[:]), err
}

func (r *Reader) readPath(length uint32) (string, error) {
	if length == 0 || length > longestPath {
		return "", fmt.Errorf("%w: a path of %d bytes before byte %d", ErrStream, length, r.at)
	}
	path := make([]byte, length)
	if err := r.full(path); err != nil {
		return "", err
	}
	return string(path), nil
}

func (r *Reader) full(p []byte) error {
	n, err := io.ReadFull(r.r, p)
	r.at += int64(n)
	if err != nil {
		return r.broken(err)
	}
	return nil
}

// broken is the error of a stream that ends within a chunk. Who has sent it may
// have said why.
func (r *Reader) broken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it is cut off at byte %d: %w", ErrStream, r.at, io.ErrUnexpectedEOF)
	}
	return err
}
