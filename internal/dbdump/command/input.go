package command

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"keepset/internal/dbdump"
)

// input is the backup's stream on its way to a program. Whatever goes wrong
// with it ends the run before the program could see an end of its input.
type input struct {
	run *run
	r   io.Reader
	// size is what has to come.
	size int64
	// whole is set once all of it was read, and its end verified.
	whole atomic.Bool

	mu     sync.Mutex
	n      int64
	closed bool
}

// Read implements io.Reader.
func (in *input) Read(p []byte) (int, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return 0, errAfterEnd
	}
	in.run.busy.Add(1)
	n, err := in.r.Read(p)
	in.run.busy.Add(-1)
	in.run.alive()
	in.n += int64(n)
	switch {
	case in.n > in.size || err == io.EOF && in.n < in.size: //nolint:errorlint // a reader's EOF is never wrapped
		err = fmt.Errorf("%w: %d bytes of the stream were read, %d were recorded", dbdump.ErrMismatch, in.n, in.size)
	case err == io.EOF: //nolint:errorlint // likewise
		in.whole.Store(true)
		return n, err
	case err == nil:
		return n, nil
	}
	in.run.cancel(fmt.Errorf("read the backup: %w", err))
	return 0, err
}

// close ends a read that is under way and waits for it.
func (in *input) close() {
	if !in.whole.Load() {
		in.run.cancel(errUnread)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
}
