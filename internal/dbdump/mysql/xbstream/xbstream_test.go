package xbstream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// write appends chunks as mariadb-backup does.
func write(chunks ...any) []byte {
	var b []byte
	for i := 0; i < len(chunks); i++ {
		c := chunks[i].(Chunk) //nolint:errcheck // of this test
		b = append(b, magic...)
		flags := byte(0)
		if c.Anew {
			flags = flagAnew
		}
		b = append(b, flags, byte(c.Kind))
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(c.Path))), c.Path...)
		switch c.Kind {
		case Payload:
			i++
			data := chunks[i].(string) //nolint:errcheck // of this test
			b = binary.LittleEndian.AppendUint64(b, uint64(len(data)))
			b = binary.LittleEndian.AppendUint64(b, uint64(c.Offset))
			b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE([]byte(data)))
			b = append(b, data...)
		case Seek:
			b = binary.LittleEndian.AppendUint64(b, uint64(c.Offset))
		case Rename:
			b = append(binary.LittleEndian.AppendUint32(b, uint32(len(c.To))), c.To...)
		}
	}
	return b
}

var example = []any{
	Chunk{Kind: Payload, Path: "ib_logfile0"},
	"redo",
	Chunk{Kind: Payload, Path: "d/t.MYD"},
	"rows",
	Chunk{Kind: Payload, Path: "ib_logfile0", Offset: 4},
	"",
	Chunk{Kind: End, Path: "d/t.MYD"},
	Chunk{Kind: Seek, Path: "ib_logfile0", Offset: 1},
	Chunk{Kind: Payload, Path: "ib_logfile0", Offset: 1},
	"ED",
	Chunk{Kind: End, Path: "ib_logfile0"},
	Chunk{Kind: Rename, Path: "d/t.MYD", To: "d/u.MYD"},
	Chunk{Kind: Remove, Path: "d/u.MYD"},
	Chunk{Kind: Payload, Path: "d/u.MYD", Anew: true},
	"again",
	Chunk{Kind: End, Path: "d/u.MYD", Anew: true},
}

// readAll reads chunks of MariaDB's and their payloads, as write has them.
func readAll(r io.Reader) (chunks []any, err error) { return readDialect(r, MariaDB) }

func readDialect(r io.Reader, d Dialect) (chunks []any, err error) {
	x := NewReader(r, d)
	for {
		c, err := x.Next()
		if errors.Is(err, io.EOF) {
			return chunks, nil
		}
		if err != nil {
			return chunks, err
		}
		length := c.Length
		c.Length = 0
		chunks = append(chunks, c)
		if c.Kind != Payload {
			continue
		}
		data, err := io.ReadAll(x)
		if err != nil {
			return chunks, err
		}
		if int64(len(data)) != length {
			return chunks, errors.New("another length")
		}
		chunks = append(chunks, string(data))
	}
}

func TestReader(t *testing.T) {
	whole := write(example...)
	for _, r := range []io.Reader{bytes.NewReader(whole), iotest.OneByteReader(bytes.NewReader(whole)), iotest.DataErrReader(bytes.NewReader(whole))} {
		chunks, err := readAll(r)
		require.NoError(t, err)
		require.Equal(t, example, chunks)
	}
	// What nobody reads is checked all the same.
	x := NewReader(bytes.NewReader(whole), MariaDB)
	for range 2 {
		_, err := x.Next()
		require.NoError(t, err)
	}
}

// A stream that ends within a chunk is none, and one that ends between two
// chunks is for who knows what should be there.
func TestReaderCutOff(t *testing.T) {
	whole := write(example...)
	boundaries := map[int]bool{}
	for i, c := range example {
		if _, ok := c.(Chunk); ok {
			boundaries[len(write(example[:i]...))] = true
		}
	}
	for n := range whole {
		_, err := readAll(bytes.NewReader(whole[:n]))
		if boundaries[n] {
			require.NoError(t, err, n)
			continue
		}
		require.ErrorIs(t, err, ErrStream, n)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, n)
	}
	lost := errors.New("connection lost")
	_, err := readAll(io.MultiReader(bytes.NewReader(whole[:40]), iotest.ErrReader(lost)))
	require.ErrorIs(t, err, lost)
}

func TestReaderHarmed(t *testing.T) {
	whole := write(Chunk{Kind: Payload, Path: "a"}, "rows and rows")
	for name, c := range map[string]struct {
		at   int
		with byte
		want string
	}{
		"magic": {0, 'Y', "no chunk begins at byte 0"}, "flags": {8, 1, "flags 1"}, "kind": {9, 'X', `kind 'X'`},
		"path": {12, 1, "a path of 65537 bytes"}, "length": {22, 0xff, "the number"}, "payload": {len(whole) - 1, 'x', `checksum of "a"`},
	} {
		harmed := bytes.Clone(whole)
		harmed[c.at] = c.with
		_, err := readAll(bytes.NewReader(harmed))
		require.ErrorIs(t, err, ErrStream, name)
		require.ErrorContains(t, err, c.want, name)
		x := NewReader(bytes.NewReader(harmed), MariaDB)
		for err = nil; err == nil; {
			_, err = x.Next() // nobody reads the payload
		}
		require.ErrorIs(t, err, ErrStream, name)
	}
	wide := write(Chunk{Kind: Payload, Path: "a", Offset: 1<<63 - 2}, "rows")
	_, err := readAll(bytes.NewReader(wide))
	require.ErrorIs(t, err, ErrStream)
}

// sparse is a payload with gaps, as xtrabackup writes it.
func sparse(path string, offset int, data string, pieces ...piece) []byte {
	var list []byte
	for _, p := range pieces {
		list = binary.LittleEndian.AppendUint32(list, uint32(p.gap))
		list = binary.LittleEndian.AppendUint32(list, uint32(p.length))
	}
	b := append([]byte(magic), 0, byte(Seek))
	b = append(binary.LittleEndian.AppendUint32(b, uint32(len(path))), path...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(pieces)))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(data)))
	b = binary.LittleEndian.AppendUint64(b, uint64(offset))
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(append(bytes.Clone(list), data...)))
	return append(append(b, list...), data...)
}

// Gaps come as zeros, one at the end included.
func TestReaderSparse(t *testing.T) {
	whole := bytes.Join([][]byte{
		sparse("d/t.ibd", 0, "firstsecond", piece{0, 5}, piece{3, 6}, piece{2, 0}),
		sparse("d/t.ibd", 16, "", piece{4, 0}),
		write(Chunk{Kind: Payload, Path: "d/t.ibd", Offset: 20}, "plain", Chunk{Kind: End, Path: "d/t.ibd"}),
	}, nil)
	want := []any{
		Chunk{Kind: Payload, Path: "d/t.ibd"},
		"first\x00\x00\x00second\x00\x00",
		Chunk{Kind: Payload, Path: "d/t.ibd", Offset: 16},
		"\x00\x00\x00\x00",
		Chunk{Kind: Payload, Path: "d/t.ibd", Offset: 20},
		"plain",
		Chunk{Kind: End, Path: "d/t.ibd"},
	}
	for _, r := range []io.Reader{bytes.NewReader(whole), iotest.OneByteReader(bytes.NewReader(whole)), iotest.DataErrReader(bytes.NewReader(whole))} {
		chunks, err := readDialect(r, Percona)
		require.NoError(t, err)
		require.Equal(t, want, chunks)
	}
	// What nobody reads is passed over, the gap at its end included.
	x := NewReader(bytes.NewReader(whole), Percona)
	for _, offset := range []int64{0, 16, 20} {
		c, err := x.Next()
		require.NoError(t, err)
		require.Equal(t, offset, c.Offset)
	}
	first := len(sparse("d/t.ibd", 0, "firstsecond", piece{0, 5}, piece{3, 6}, piece{2, 0}))
	for n := 1; n < first; n++ {
		_, err := readDialect(bytes.NewReader(whole[:n]), Percona)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, n)
	}
	for name, stream := range map[string][]byte{
		"pieces are less": sparse("a", 0, "abc", piece{1, 2}), "pieces are more": sparse("a", 0, "abc", piece{1, 4}),
		"no pieces": sparse("a", 0, "abc"), "MariaDB's kinds": write(Chunk{Kind: Remove, Path: "a"}), "MariaDB's flag": write(Chunk{Kind: End, Path: "a", Anew: true}),
		"too far": sparse("a", 1<<63-3, "ab", piece{2, 2}),
	} {
		_, err := readDialect(bytes.NewReader(stream), Percona)
		require.ErrorIs(t, err, ErrStream, name)
	}
	for _, at := range []int{first - 1, first - len("firstsecond") - 1} { // the payload, and a gap
		harmed := bytes.Clone(whole[:first])
		harmed[at] ^= 1
		_, err := readDialect(bytes.NewReader(harmed), Percona)
		require.ErrorIs(t, err, ErrStream)
	}
}

// What is read is what was written, or an error.
func FuzzReader(f *testing.F) {
	f.Add(write(example...))
	f.Add(write(example...)[:99])
	f.Add([]byte(magic))
	f.Add(sparse("d/t.ibd", 0, "firstsecond", piece{0, 5}, piece{3, 6}, piece{2, 0}))
	f.Fuzz(func(t *testing.T, stream []byte) {
		if !bytes.Contains(stream, []byte("XBSTCK01\x00S")) { // gaps may be large
			_, err := readDialect(bytes.NewReader(stream), Percona)
			require.True(t, err == nil || errors.Is(err, ErrStream), err)
		} else {
			c, err := NewReader(bytes.NewReader(stream), Percona).Next()
			require.True(t, err == nil && c.Length >= 0 && c.Offset+c.Length >= 0 || errors.Is(err, ErrStream), err)
		}
		chunks, err := readAll(bytes.NewReader(stream))
		if err != nil {
			return
		}
		require.Equal(t, stream, append([]byte{}, write(chunks...)...))
	})
}
