package filetree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// reader reads the entries of an archive that this package has written. What
// other programs may put into archives besides is refused: a restore does
// nothing that was not meant.
type reader struct {
	r io.Reader
	// left is what the current entry still has of data, pad what follows it.
	left int64
	pad  int
	// discard is where skipped data goes through.
	discard []byte
}

func newReader(r io.Reader) *reader { return &reader{r: r, discard: make([]byte, 64<<10)} }

// next returns the next entry; what is left of the one before is skipped.
// io.EOF comes at the end of the stream or of the archive.
func (r *reader) next() (*Entry, error) {
	if err := r.skip(); err != nil {
		return nil, err
	}
	var block [blockSize]byte
	if _, err := io.ReadFull(r.r, block[:]); err != nil {
		return nil, cutShort(err, true)
	}
	if block == zeroBlock {
		return nil, r.end()
	}
	e := &Entry{}
	size, err := parseBlock(&block, e)
	if err != nil {
		return nil, err
	}
	var found records
	if e.Kind == recordsKind {
		if found, err = r.records(size); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(r.r, block[:]); err != nil {
			return nil, cutShort(err, false)
		}
		e = &Entry{}
		if size, err = parseBlock(&block, e); err != nil {
			return nil, err
		}
		if size, err = found.apply(e, size); err != nil {
			return nil, err
		}
	}
	return e, r.begin(e, size, found.sparse)
}

// begin checks the entry, and reads what comes before its data.
func (r *reader) begin(e *Entry, size int64, sparse *int64) error {
	e.Name = strings.TrimSuffix(e.Name, "/")
	if e.Kind == Directory && e.Name == "" {
		return fmt.Errorf("%w: a directory without a name", ErrArchive)
	}
	if size < 0 || e.Kind != File && size > 0 {
		return fmt.Errorf("%w: %q with %d bytes of data", ErrArchive, e.Name, size)
	}
	r.left, r.pad = size, padding(size)
	if e.Kind == File {
		e.Size = size
	}
	if sparse != nil {
		e.Size = *sparse
		if err := r.extents(e); err != nil {
			return err
		}
		if e.stored() != r.left {
			return fmt.Errorf("%w: sparse file %q has %d bytes of data, its list says %d", ErrArchive, e.Name, r.left, e.stored())
		}
	}
	return e.validate()
}

// Read reads the current entry's data.
func (r *reader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.r.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	if errors.Is(err, io.EOF) && r.left > 0 {
		err = cutShort(io.ErrUnexpectedEOF, false)
	} else if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (r *reader) skip() error {
	for r.left > 0 {
		n, err := r.Read(r.discard[:min(r.left, int64(len(r.discard)))])
		if err != nil && n == 0 {
			return err
		}
	}
	n := r.pad
	r.pad = 0
	if _, err := io.ReadFull(r.r, r.discard[:n]); err != nil {
		return cutShort(err, false)
	}
	return nil
}

// end reads to the end of the stream, which has to follow two blocks of zeros.
func (r *reader) end() error {
	var block [blockSize]byte
	if _, err := io.ReadFull(r.r, block[:]); err != nil {
		return cutShort(err, false)
	}
	if block != zeroBlock {
		return fmt.Errorf("%w: a block of zeros in the middle", ErrArchive)
	}
	if n, err := r.r.Read(block[:1]); n > 0 || !errors.Is(err, io.EOF) {
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		return fmt.Errorf("%w: bytes after its end", ErrArchive)
	}
	return io.EOF
}

// cutShort tells the end of an archive from one in the middle of an entry.
func cutShort(err error, between bool) error {
	if errors.Is(err, io.EOF) && between {
		return io.EOF
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends in the middle of an entry", ErrArchive)
	}
	return err
}

// extents reads the list of a sparse file's data.
func (r *reader) extents(e *Entry) error {
	count, err := r.line()
	if err != nil {
		return err
	}
	if count < 1 || count > maxExtents+1 {
		return fmt.Errorf("%w: sparse file %q with %d pieces of data", ErrArchive, e.Name, count)
	}
	read := int64(len(strconv.FormatInt(count, 10)) + 1)
	e.Extents = []Extent{}
	for i := range count {
		offset, err := r.line()
		if err != nil {
			return err
		}
		length, err := r.line()
		if err != nil {
			return err
		}
		read += int64(len(strconv.FormatInt(offset, 10)) + len(strconv.FormatInt(length, 10)) + 2)
		if i == count-1 && length == 0 && offset == e.Size {
			break
		}
		e.Extents = append(e.Extents, Extent{offset, length})
	}
	if n, err := io.ReadFull(r, make([]byte, padding(read))); err != nil {
		return fmt.Errorf("%w: list of sparse file %q ends after %d bytes", ErrArchive, e.Name, n)
	}
	r.pad = padding(r.left)
	return nil
}

// line reads a decimal number and the end of its line, a byte at a time: lists
// are short, and what is behind them is data.
func (r *reader) line() (int64, error) {
	var digits []byte
	for {
		var c [1]byte
		if _, err := io.ReadFull(r, c[:]); err != nil {
			return 0, fmt.Errorf("%w: the list of a sparse file ends early", ErrArchive)
		}
		if c[0] == '\n' {
			return parseDecimal(string(digits))
		}
		if digits = append(digits, c[0]); len(digits) > 19 {
			return 0, fmt.Errorf("%w: number %q", ErrArchive, digits)
		}
	}
}

// parseDecimal accepts a number as it would be written, and nothing else.
func parseDecimal(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != s {
		return 0, fmt.Errorf("%w: number %q", ErrArchive, s)
	}
	return n, nil
}

// parseBlock reads the fields of a header, and returns the size of what follows.
func parseBlock(block *[blockSize]byte, e *Entry) (size int64, err error) {
	sum, err := parseOctal(block[148:154])
	if err != nil || sum != checksum(block) || !bytes.Equal(block[257:265], []byte("ustar\x0000")) {
		return 0, fmt.Errorf("%w: a block is no header", ErrArchive)
	}
	e.Name, e.Kind = text(block[0:100]), Kind(block[156])
	numbers := []struct {
		from, to int
		set      func(int64)
	}{
		{100, 107, func(n int64) { e.Mode = uint32(n) }},
		{108, 115, func(n int64) { e.UID = uint32(n) }},
		{116, 123, func(n int64) { e.GID = uint32(n) }},
		{124, 135, func(n int64) { size = n }},
		{136, 147, func(n int64) { e.ModTime.Sec = n }},
	}
	if e.Kind == Character || e.Kind == Block {
		numbers = append(numbers, []struct {
			from, to int
			set      func(int64)
		}{
			{329, 336, func(n int64) { e.Major = uint32(n) }},
			{337, 344, func(n int64) { e.Minor = uint32(n) }},
		}...)
	}
	for _, field := range numbers {
		n, err := parseOctal(block[field.from:field.to])
		if err != nil {
			return 0, err
		}
		field.set(n)
	}
	if e.Kind == HardLink || e.Kind == Symlink {
		e.Target = text(block[157:257])
	}
	if e.Kind != recordsKind && !e.Kind.known() {
		return 0, fmt.Errorf("%w: %q is of kind %q", ErrArchive, e.Name, byte(e.Kind))
	}
	return size, nil
}

// text is a field up to the first NUL.
func text(field []byte) string {
	before, _, _ := bytes.Cut(field, []byte{0})
	return string(before)
}

func parseOctal(field []byte) (int64, error) {
	n, err := strconv.ParseUint(string(field), 8, 63)
	if err != nil {
		return 0, fmt.Errorf("%w: number %q", ErrArchive, field)
	}
	return int64(n), nil
}
