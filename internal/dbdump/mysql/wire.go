package mysql

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	mysqldriver "github.com/go-sql-driver/mysql"
)

// Rows are most of a dump, and the driver makes a Go value of every field of
// every row: memory to allocate, numbers to parse, and to write again. On a
// connection without TLS the bytes of the protocol can be read where they
// arrive. Between two statements nothing is on its way on a connection, so a
// query may be sent past the driver, as long as its answer is read to the end.
// (MySQL Internals, "Text Resultset"; MariaDB, "Result Set Packets".)

// bufferedConn reads ahead in large steps.
type bufferedConn struct {
	patientConn
	buf        []byte
	start, end int
}

// Read hands out what is there and reads from the socket only when nothing is.
func (c *bufferedConn) Read(p []byte) (int, error) {
	if c.start == c.end {
		if len(p) >= len(c.buf) {
			return c.patientConn.Read(p)
		}
		n, err := c.patientConn.Read(c.buf)
		if n == 0 {
			return 0, err
		}
		// An error that comes with bytes comes again with the next read.
		c.start, c.end = 0, n
	}
	n := copy(p, c.buf[c.start:c.end])
	c.start += n
	return n, nil
}

// next returns the next n bytes, valid until the next call.
func (c *bufferedConn) next(n int) ([]byte, error) {
	if c.end-c.start < n {
		if n > len(c.buf) {
			large := make([]byte, n)
			return large, c.readFull(large)
		}
		if err := c.fill(n); err != nil {
			return nil, err
		}
	}
	c.start += n
	return c.buf[c.start-n : c.start : c.start], nil
}

// fill reads until at least n bytes are in the buffer.
func (c *bufferedConn) fill(n int) error {
	copy(c.buf, c.buf[c.start:c.end])
	c.start, c.end = 0, c.end-c.start
	for c.end < n {
		m, err := c.patientConn.Read(c.buf[c.end:])
		c.end += m
		if err != nil && c.end < n {
			return unexpected(err)
		}
	}
	return nil
}

// readFull takes what is buffered and the rest from the socket.
func (c *bufferedConn) readFull(p []byte) error {
	n := copy(p, c.buf[c.start:c.end])
	c.start += n
	for n < len(p) {
		m, err := c.patientConn.Read(p[n:])
		n += m
		if err != nil && n < len(p) {
			return unexpected(err)
		}
	}
	return nil
}

// unexpected makes an end of the stream what it is in the middle of an answer.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// largestPacket is the length that says: more of the same follows.
const largestPacket = 1<<24 - 1

// wire reads one answer of the server.
type wire struct {
	conn     *bufferedConn
	sequence byte
}

// packet returns the next packet's payload, valid until the next call.
func (w *wire) packet() ([]byte, error) {
	data, more, err := w.part()
	if err != nil || !more {
		return data, err
	}
	whole := append([]byte(nil), data...)
	for more {
		if data, more, err = w.part(); err != nil {
			return nil, err
		}
		whole = append(whole, data...)
	}
	return whole, nil
}

// part reads one packet; more tells that its payload goes on in another one.
func (w *wire) part() (data []byte, more bool, err error) {
	header, err := w.conn.next(4)
	if err != nil {
		return nil, false, err
	}
	length := int(header[0]) | int(header[1])<<8 | int(header[2])<<16
	if header[3] != w.sequence {
		return nil, false, fmt.Errorf("packet %d came where %d was expected", header[3], w.sequence)
	}
	w.sequence++
	data, err = w.conn.next(length)
	return data, length == largestPacket, err
}

// First bytes of packets.
const (
	packetOK    = 0x00
	packetNull  = 0xfb
	packetEnd   = 0xfe
	packetError = 0xff
)

// query sends a statement and reads up to its rows. It returns how many fields
// a row has, and the first row when it was met on the way.
func (w *wire) query(statement string) (fields int, first []byte, err error) {
	packet := make([]byte, 5, 5+len(statement))
	length := len(statement) + 1
	if length >= largestPacket {
		return 0, nil, errors.New("the statement is too long")
	}
	packet[0], packet[1], packet[2] = byte(length), byte(length>>8), byte(length>>16)
	packet[4] = 3 // COM_QUERY
	if _, err := w.conn.Write(append(packet, statement...)); err != nil {
		return 0, nil, err
	}
	w.sequence = 1
	data, err := w.packet()
	if err != nil {
		return 0, nil, err
	}
	if len(data) == 0 || data[0] == packetOK || data[0] == packetNull {
		return 0, nil, errors.New("the server answered a query without rows")
	}
	if data[0] == packetError {
		return 0, nil, serverError(data)
	}
	count, _, _, err := lengthEncoded(data)
	if err != nil {
		return 0, nil, err
	}
	for range count {
		if data, err = w.packet(); err != nil {
			return 0, nil, err
		}
		if len(data) > 0 && data[0] == packetError {
			return 0, nil, serverError(data)
		}
	}
	// Older dialects end the list of columns with a packet of its own. It is
	// shorter than the one that ends the rows in newer ones.
	if data, err = w.packet(); err != nil {
		return 0, nil, err
	}
	if len(data) == 5 && data[0] == packetEnd {
		data = nil
	}
	return int(count), data, nil //nolint:gosec // at most 4096 columns
}

// rows calls fn with the fields of every row: nil is NULL, and what is handed
// over is valid during the call. It returns nil only after the packet that ends
// the rows.
func (w *wire) rows(statement string, fn func(fields [][]byte) error) error {
	n, data, err := w.query(statement)
	if err != nil {
		return err
	}
	fields := make([][]byte, n)
	for ; ; data = nil {
		if data == nil {
			if data, err = w.packet(); err != nil {
				return err
			}
		}
		switch {
		case len(data) == 0:
			return errors.New("the server sent an empty packet among rows")
		case data[0] == packetError:
			return serverError(data)
		case data[0] == packetEnd && len(data) < largestPacket:
			return nil
		}
		for i := range fields {
			if fields[i], data, err = field(data); err != nil {
				return err
			}
		}
		if len(data) > 0 {
			return errors.New("a row of the server's answer is longer than its fields")
		}
		if err := fn(fields); err != nil {
			return err
		}
	}
}

// field takes one field off a row.
func field(data []byte) (value, rest []byte, err error) {
	n, null, rest, err := lengthEncoded(data)
	switch {
	case err != nil:
		return nil, nil, err
	case null:
		return nil, rest, nil
	case n > uint64(len(rest)):
		return nil, nil, errors.New("a field of the server's answer is longer than its row")
	}
	return rest[:n:n], rest[n:], nil
}

// lengthEncoded takes an integer off data.
func lengthEncoded(data []byte) (n uint64, null bool, rest []byte, err error) {
	if len(data) == 0 {
		return 0, false, nil, errors.New("the server's answer ends within a row")
	}
	size := 0
	switch data[0] {
	default:
		return uint64(data[0]), false, data[1:], nil
	case packetNull:
		return 0, true, data[1:], nil
	case packetError:
		return 0, false, nil, errors.New("the server's answer holds an impossible length")
	case 0xfc:
		size = 2
	case 0xfd:
		size = 3
	case packetEnd:
		size = 8
	}
	if len(data) < 1+size {
		return 0, false, nil, errors.New("the server's answer ends within a length")
	}
	var wide [8]byte
	copy(wide[:], data[1:1+size])
	return binary.LittleEndian.Uint64(wide[:]), false, data[1+size:], nil
}

// serverError reads an error packet into what the driver makes of it.
func serverError(data []byte) error {
	if len(data) < 3 {
		return errors.New("the server sent an error that cannot be read")
	}
	e := &mysqldriver.MySQLError{Number: binary.LittleEndian.Uint16(data[1:])}
	data = data[3:]
	if len(data) >= 6 && data[0] == '#' {
		copy(e.SQLState[:], data[1:6])
		data = data[6:]
	}
	e.Message = string(data)
	return e
}

// streamWire is streamRows past the driver.
func (s *session) streamWire(ctx context.Context, query string, fn func([][]byte) error) error {
	// Whoever ends the context ends the reading.
	stop := context.AfterFunc(ctx, func() { _ = s.wire.Close() })
	defer stop()
	w := &wire{conn: s.wire}
	return s.explain(w.rows(query, fn))
}
