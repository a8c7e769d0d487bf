package command

import (
	"bytes"
	"strings"
	"sync"
)

// tailBytes is how much of a program's last words an error repeats.
const tailBytes = 2 << 10

// tail keeps the end of what is written to it.
type tail struct {
	mu    sync.Mutex
	bytes []byte
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bytes = append(t.bytes, p...)
	if len(t.bytes) > tailBytes {
		t.bytes = bytes.Clone(t.bytes[len(t.bytes)-tailBytes:])
	}
	return len(p), nil
}

// String is the tail as text of one line.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(strings.Fields(strings.ToValidUTF8(string(t.bytes), "?")), " ")
}
