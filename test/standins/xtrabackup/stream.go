package xtrabackup

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

// buffer is how much of a file goes into one chunk, and page what of it may end in zeros.
const (
	buffer = 1 << 20
	page   = 16 << 10
)

// stream writes xbstream.
type stream struct {
	w   io.Writer
	err error
	// at is where each file has come to.
	at map[string]int64
}

func (s *stream) write(p []byte) {
	if s.err == nil {
		_, s.err = s.w.Write(p)
	}
}

func head(kind byte, name string) []byte {
	b := append([]byte("XBSTCK01"), 0, kind)
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(name))), name...)
}

// data adds to a file. What its pages end in is left out, if that is zeros.
func (s *stream) data(name string, data []byte) {
	pieces, payload := sparse(data)
	kind := byte('P')
	if len(pieces) > 0 {
		kind = 'S'
	}
	b := head(kind, name)
	if kind == 'S' {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(pieces)/8))
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(len(payload)))
	b = binary.LittleEndian.AppendUint64(b, uint64(s.at[name]))
	sum := crc32.Update(crc32.ChecksumIEEE(pieces), crc32.IEEETable, payload)
	s.write(append(binary.LittleEndian.AppendUint32(b, sum), pieces...))
	s.write(payload)
	s.at[name] += int64(len(data))
}

// sparse is a list of gaps and lengths, as it is sent, and the data without the gaps. No list: there is no gap.
func sparse(data []byte) (list, payload []byte) {
	var gap, length uint32
	add := func() {
		list = binary.LittleEndian.AppendUint32(list, gap)
		list = binary.LittleEndian.AppendUint32(list, length)
	}
	for len(data) > 0 {
		p := data[:min(page, len(data))]
		data = data[len(p):]
		kept := bytes.TrimRight(p, "\x00")
		payload, length = append(payload, kept...), length+uint32(len(kept))
		if left := len(p) - len(kept); left > 0 {
			add()
			gap, length = uint32(left), 0
		}
	}
	if list != nil {
		add()
	}
	return list, payload
}

func (s *stream) end(name string) { s.write(head('E', name)) }

// text is a small file.
func (s *stream) text(name, text string) {
	s.data(name, []byte(text))
	s.end(name)
}

// file is a whole one, or as much of it as is asked for.
func (s *stream) file(name, path string, most int64) error {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	r := io.Reader(f)
	if most >= 0 {
		r = io.LimitReader(f, most)
	}
	p := make([]byte, buffer)
	for {
		n, err := io.ReadFull(r, p)
		if n > 0 {
			s.data(name, p[:n])
		}
		if err != nil {
			s.end(name)
			break
		}
	}
	return s.err
}
