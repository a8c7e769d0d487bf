package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
)

// Extent is a run of a stream's bytes that are all content, or all zeros that
// take no room.
type Extent struct {
	Offset, Length int64
	Hole           bool
}

// Extents yields the extents of a stream in order, content and holes in turn,
// without reading its packs: how much a restore will write. ErrNoStream when
// there is none of that name.
func (m *MemberReader) Extents(ctx context.Context, name string) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		stream, err := m.stream(name)
		if err != nil {
			yield(Extent{}, err)
			return
		}
		w := &walk{m: m, ranges: stream.Ranges}
		var now Extent
		for {
			g, err := w.next(ctx)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				yield(Extent{}, fmt.Errorf("extents of stream %q of ordinal %d of %s: %w", name, m.m.Ordinal, m.m.Backup, err))
				return
			}
			next := Extent{Offset: now.Offset + now.Length, Length: g.Hole + int64(g.Length), Hole: g.Hole > 0}
			if now.Length > 0 && next.Hole == now.Hole {
				now.Length += next.Length
				continue
			}
			if now.Length > 0 && !yield(now, nil) {
				return
			}
			now = next
		}
		if now.Length > 0 {
			yield(now, nil)
		}
	}
}
