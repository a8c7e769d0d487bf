package postgres

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"
)

// errManifest says that a manifest is none, or is not of these files.
var errManifest = errors.New("backup manifest")

// manifestFile is one file as a manifest has it.
type manifestFile struct {
	Path      string `json:"Path"`
	Encoded   string `json:"Encoded-Path"`
	Size      int64  `json:"Size"`
	Algorithm string `json:"Checksum-Algorithm"`
	Checksum  string `json:"Checksum"`
}

// path is the file's name, which stands in hexadecimal where it is not UTF-8.
func (f *manifestFile) path() (string, error) {
	if f.Encoded == "" {
		return f.Path, nil
	}
	name, err := hex.DecodeString(f.Encoded)
	return string(name), err
}

// walRange is what has to be replayed.
type walRange struct {
	Timeline uint64 `json:"Timeline"`
	Start    string `json:"Start-LSN"`
	End      string `json:"End-LSN"`
}

// manifest is what a manifest says apart from its files.
type manifest struct {
	system   string
	ranges   []walRange
	checksum string
	files    int
}

// readManifest reads a backup manifest of version 1 or 2 to its end, without
// holding it, and checks its own checksum. each is told of its files.
func readManifest(r io.Reader, each func(f *manifestFile) error) (manifest, error) {
	var m manifest
	lines := &lineHash{sum: sha256.New()}
	d := json.NewDecoder(io.TeeReader(r, lines))
	d.UseNumber()
	err := m.read(d, each)
	if err == nil {
		// The decoder reads ahead; what it has not seen is white space, or an error.
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			err = nil
		} else if err == nil {
			err = errors.New("it goes on after its end")
		}
	}
	if err != nil {
		return m, fmt.Errorf("%w: %w", errManifest, err)
	}
	if got := hex.EncodeToString(lines.sum.Sum(nil)); got != strings.ToLower(m.checksum) {
		return m, fmt.Errorf("%w: its checksum is %s, and it says %s", errManifest, got, m.checksum)
	}
	return m, nil
}

func (m *manifest) read(d *json.Decoder, each func(*manifestFile) error) error {
	if err := delimiter(d, '{'); err != nil {
		return err
	}
	version := ""
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		switch key {
		case "PostgreSQL-Backup-Manifest-Version":
			var n json.Number
			err = d.Decode(&n)
			version = n.String()
		case "System-Identifier":
			var n json.Number
			err = d.Decode(&n)
			m.system = n.String()
		case "Files":
			err = m.readFiles(d, each)
		case "WAL-Ranges":
			err = d.Decode(&m.ranges)
		case "Manifest-Checksum":
			err = d.Decode(&m.checksum)
		default:
			err = fmt.Errorf("it has %q, which is not known", key)
		}
		if err != nil {
			return err
		}
	}
	if version != "1" && version != "2" {
		return fmt.Errorf("it is of version %q; 1 and 2 are known", version)
	}
	return delimiter(d, '}')
}

func (m *manifest) readFiles(d *json.Decoder, each func(*manifestFile) error) error {
	if err := delimiter(d, '['); err != nil {
		return err
	}
	for d.More() {
		var f manifestFile
		if err := d.Decode(&f); err != nil {
			return err
		}
		m.files++
		if err := each(&f); err != nil {
			return err
		}
	}
	return delimiter(d, ']')
}

func delimiter(d *json.Decoder, want json.Delim) error {
	t, err := d.Token()
	if err == nil && t != want {
		err = fmt.Errorf("%v where %v should be", t, want)
	}
	return err
}

// lineHash is a checksum of all lines but the last.
type lineHash struct {
	sum  hash.Hash
	last []byte
}

// Write implements io.Writer.
func (h *lineHash) Write(p []byte) (int, error) {
	h.last = append(h.last, p...)
	// A line is whole, and not the last, when something follows it.
	if i := bytes.LastIndexByte(h.last[:max(0, len(h.last)-1)], '\n'); i >= 0 {
		h.sum.Write(h.last[:i+1])
		h.last = append(h.last[:0], h.last[i+1:]...)
	}
	return len(p), nil
}

// parseLSN reads a position in the write-ahead log, "16/B374D848".
func parseLSN(s string) (uint64, error) {
	high, low, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("%q is no position in a write-ahead log", s)
	}
	h, err := strconv.ParseUint(high, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is no position in a write-ahead log", s)
	}
	l, err := strconv.ParseUint(low, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is no position in a write-ahead log", s)
	}
	return h<<32 | l, nil
}

// formatLSN writes it.
func formatLSN(n uint64) string { return fmt.Sprintf("%X/%X", n>>32, uint32(n)) }
