package command

import (
	"context"
	"fmt"
	"io"
	"regexp"
)

// endingBytes is how much of an output's end a Proof may look at.
const endingBytes = 4 << 10

// Proof is what the user knows of a whole output, beyond the program's status.
// An output without a byte is never whole.
type Proof struct {
	// EndsWith has to match within the last 4 KiB, nil: anything. It is for the
	// writer of the expression to tie it to the end, with `\s*\z` say.
	EndsWith *regexp.Regexp
	// MinBytes is how long the output has to be.
	MinBytes int64
	// Check is a program that is run once the other one has ended well, in the
	// same place, and has to end with status 0.
	Check []string
	// Ask does the same in the program's stead.
	Ask func(ctx context.Context) error
}

// judge is nil for an output that ends as it has to.
func (p Proof) judge(out *ending) error {
	switch {
	case out.n == 0:
		return fmt.Errorf("the command ended with status 0 and printed nothing: its standard output is the backup")
	case out.n < p.MinBytes:
		return fmt.Errorf("the command ended with status 0 after %d bytes, and at least %d were to be expected", out.n, p.MinBytes)
	case p.EndsWith != nil && !p.EndsWith.Match(out.last):
		return fmt.Errorf("the command ended with status 0, but its output of %d bytes does not end with %q", out.n, p.EndsWith)
	}
	return nil
}

// ending passes an output on, counts it, and keeps its end.
type ending struct {
	w    io.Writer
	n    int64
	last []byte
}

func newEnding(w io.Writer) *ending { return &ending{w: w, last: make([]byte, 0, 2*endingBytes)} }

// Write implements io.Writer.
func (e *ending) Write(p []byte) (int, error) {
	n, err := e.w.Write(p)
	e.n += int64(n)
	e.last = keepEnd(e.last, p[:n], endingBytes)
	return n, err
}

// keepEnd appends p to kept and drops all but the last limit bytes. It does not
// allocate once kept has room for twice the limit.
func keepEnd(kept, p []byte, limit int) []byte {
	if len(p) >= limit {
		return append(kept[:0], p[len(p)-limit:]...)
	}
	if over := len(kept) + len(p) - limit; over > 0 {
		kept = kept[:copy(kept, kept[over:])]
	}
	return append(kept, p...)
}
