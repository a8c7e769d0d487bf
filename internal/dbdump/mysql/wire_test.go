package mysql

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// packets writes payloads as the server would, starting with sequence 1.
func packets(payloads ...[]byte) []byte {
	var b []byte
	for i, p := range payloads {
		b = append(b, byte(len(p)), byte(len(p)>>8), byte(len(p)>>16), byte(i+1))
		b = append(b, p...)
	}
	return b
}

// answering gives a wire whose server answers any query with these bytes and
// then hangs up.
func answering(t testing.TB, answer []byte) *wire {
	client, server := net.Pipe()
	go func() {
		_, _ = io.CopyN(io.Discard, server, 4+1+1)
		_, _ = server.Write(answer)
		_ = server.Close()
	}()
	t.Cleanup(func() { _ = client.Close() })
	return &wire{conn: &bufferedConn{patientConn: patientConn{Conn: client, timeout: 10 * time.Second}, buf: make([]byte, 64)}}
}

func collect(w *wire) ([][]string, error) {
	var rows [][]string
	err := w.rows("q", func(fields [][]byte) error {
		var row []string
		for _, f := range fields {
			if f == nil {
				row = append(row, "NULL")
			} else {
				row = append(row, string(f))
			}
		}
		rows = append(rows, row)
		return nil
	})
	return rows, err
}

func TestRowsAreReadOffTheWire(t *testing.T) {
	t.Parallel()
	long := bytes.Repeat([]byte{'x'}, 300)
	row1 := append([]byte{1, 'a', 0xfb}, append([]byte{0xfc, 44, 1}, long...)...)
	row2 := []byte{0, 0, 2, 'b', 'c'}
	column := []byte{3, 'd', 'e', 'f'}
	eof := []byte{0xfe, 0, 0, 2, 0}
	ok := []byte{0xfe, 0, 0, 2, 0, 0, 0}
	want := [][]string{{"a", "NULL", string(long)}, {"", "", "bc"}}
	for name, answer := range map[string][]byte{
		"with ends of lists":    packets([]byte{3}, column, column, column, eof, row1, row2, eof),
		"without ends of lists": packets([]byte{3}, column, column, column, row1, row2, ok),
	} {
		rows, err := collect(answering(t, answer))
		require.NoError(t, err, name)
		require.Equal(t, want, rows, name)
		for cut := range len(answer) {
			_, err := collect(answering(t, answer[:cut]))
			require.Error(t, err, "%s: cut after %d of %d bytes", name, cut, len(answer))
		}
	}
	_, err := collect(answering(t, packets([]byte{3}, column, column, column, row1, append([]byte{0xff, 0x14, 0x05}, "#HY000gone"...))))
	require.EqualValues(t, 1300, errorNumber(err))
	require.ErrorContains(t, err, "gone")
	rows, err := collect(answering(t, packets([]byte{1}, column, ok)))
	require.NoError(t, err)
	require.Empty(t, rows)
}

// A row longer than a packet goes on in the next one, even when nothing is left
// for that; and one that begins with the byte of the end is a row all the same.
func TestRowsOfSeveralPackets(t *testing.T) {
	t.Parallel()
	for _, size := range []int{largestPacket - 9, largestPacket - 8, largestPacket + 1, 2*largestPacket - 9} {
		row := binary.LittleEndian.AppendUint64([]byte{packetEnd}, uint64(size))
		row = append(row, bytes.Repeat([]byte{'x'}, size)...)
		answer := packets([]byte{1}, []byte{3, 'd', 'e', 'f'})
		sequence := byte(3)
		for rest := row; ; sequence++ {
			part := rest[:min(len(rest), largestPacket)]
			answer = append(answer, byte(len(part)), byte(len(part)>>8), byte(len(part)>>16), sequence)
			answer = append(answer, part...)
			if rest = rest[len(part):]; len(part) < largestPacket {
				break
			}
		}
		last := []byte{packetEnd, 0, 0, 2, 0, 0, 0}
		answer = append(answer, byte(len(last)), 0, 0, sequence+1)
		rows, err := collect(answering(t, append(answer, last...)))
		require.NoError(t, err, size)
		require.Len(t, rows, 1, size)
		require.Len(t, rows[0][0], size)
	}
}

func FuzzWire(f *testing.F) {
	f.Add(packets([]byte{1}, []byte{3, 'd', 'e', 'f'}, []byte{1, 'a'}, []byte{0xfe, 0, 0, 2, 0, 0, 0}))
	f.Add(packets([]byte{0xff, 1, 2, '#'}))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if len(answer) > 1<<12 {
			return
		}
		_, _ = collect(answering(t, answer)) // must neither panic nor hang
	})
}
