package dbdump

import (
	"bytes"
	"strings"
	"sync"
)

// lastBytes is how much of a program's last words an error repeats.
const lastBytes = 2 << 10

// LastWords keeps the end of what is written to it, as of a program's standard
// error. It may be written to and read at once.
type LastWords struct {
	mu    sync.Mutex
	bytes []byte
}

// Write implements io.Writer. It never fails.
func (w *LastWords) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bytes = append(w.bytes, p...)
	if len(w.bytes) > lastBytes {
		w.bytes = bytes.Clone(w.bytes[len(w.bytes)-lastBytes:])
	}
	return len(p), nil
}

// String is the text in one line.
func (w *LastWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(strings.Fields(strings.ToValidUTF8(string(w.bytes), "?")), " ")
}
