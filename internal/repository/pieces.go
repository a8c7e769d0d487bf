package repository

import (
	"context"
	"fmt"

	"keepset/internal/record"
)

// storePieces stores the segments that wait, a piece at a time: as long as
// there are enough for a full one, or all of them. It needs w.mu. A piece
// names packs, so its chunks must be in packs that have a name; when the
// oldest ones are not, it leaves them for later.
func (w *MemberWriter) storePieces(ctx context.Context, all bool) error {
	for w.waiting >= pieceSegments || all && w.waiting > 0 {
		count := min(w.waiting, pieceSegments)
		piece, ok := w.buildPiece(count)
		if !ok {
			if all {
				return fmt.Errorf("chunks of ordinal %d were not stored, which is a bug", w.planned.Ordinal)
			}
			return nil
		}
		ref, err := w.putRecord(ctx, piece)
		if err != nil {
			return fmt.Errorf("store piece %d of the map: %w", piece.Number, err)
		}
		w.maps = append(w.maps, ref)
		w.pieces = append(w.pieces, record.PieceRef{SHA256: ref.SHA256, Segments: count})
		w.dropBlocks(count)
	}
	return nil
}

// buildPiece makes a piece of the first count segments that wait.
func (w *MemberWriter) buildPiece(count int) (*record.Piece, bool) {
	piece := &record.Piece{
		Header: record.NewHeader(record.KindPiece), Backup: w.b.plan.ID, Ordinal: w.planned.Ordinal,
		Attempt: w.b.attempt, Number: len(w.pieces), Packs: []hash{},
		Segments: make([]record.Segment, 0, count),
	}
	table := w.pipeline.index.packs
	table.mu.Lock()
	defer table.mu.Unlock()
	numbers := make(map[uint32]uint32)
	for _, block := range w.blocks {
		for i := range block.list {
			if len(piece.Segments) == count {
				break
			}
			g := &block.list[i]
			if g.hole > 0 {
				piece.Segments = append(piece.Segments, record.Segment{Hole: g.hole})
				continue
			}
			if !g.chunk.placed || table.list[g.chunk.where.pack].state == packOpen {
				return nil, false
			}
			at := g.chunk.where
			number, seen := numbers[at.pack]
			if !seen {
				number = uint32(len(piece.Packs))
				numbers[at.pack] = number
				piece.Packs = append(piece.Packs, table.list[at.pack].name)
			}
			piece.Segments = append(piece.Segments, record.Segment{
				Pack: number, At: at.at, Stored: at.stored, Skip: at.skip, Length: g.length, SHA256: g.sum,
			})
		}
	}
	for number := range numbers {
		w.packs.add(int(number))
	}
	return piece, true
}

// dropBlocks removes the first count segments, now in the newest piece, and
// gives their streams the ranges.
func (w *MemberWriter) dropBlocks(count int) {
	at := 0
	for at < count {
		block := &w.blocks[0]
		n := min(count-at, len(block.list))
		addRange(block.stream, len(w.pieces)-1, at, n)
		at += n
		if block.list = block.list[n:]; len(block.list) == 0 {
			w.blocks = w.blocks[1:]
		}
	}
	w.waiting -= count
	w.tryAt = 0
}

func addRange(s *record.Stream, piece, first, count int) {
	if last := len(s.Ranges) - 1; last >= 0 {
		if r := &s.Ranges[last]; r.Piece == piece && r.First+r.Count == first {
			r.Count += count
			return
		}
	}
	s.Ranges = append(s.Ranges, record.Range{Piece: piece, First: first, Count: count})
}

// putRecord stores a map or a piece under maps/, readable with D.
func (w *MemberWriter) putRecord(ctx context.Context, rec record.Record) (record.ObjectRef, error) {
	plain, err := record.Encode(rec, nil)
	if err != nil {
		return record.ObjectRef{}, err
	}
	r := w.b.r
	return r.putSealed(ctx, w.b.layout.maps(), plain, r.dataRecipient())
}
