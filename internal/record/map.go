package record

import "fmt"

// Map is the content of one member: what the engine reported, and the
// streams by name. Where a stream's bytes lie is in the map's pieces, so that
// neither writer nor reader ever holds the chunk list of a whole volume.
type Map struct {
	Header
	Repository string        `json:"repository"`
	Backup     BackupID      `json:"backup"`
	Set        SetID         `json:"set"`
	Ordinal    int           `json:"ordinal"`
	Attempt    AttemptID     `json:"attempt"`
	Member     PlannedMember `json:"member"`
	Report     Report        `json:"report"`
	// Pieces are the names, under maps/, of the lists of segments.
	Pieces []PieceRef `json:"pieces"`
	// Streams in order of their names (bytes).
	Streams []Stream `json:"streams"`
}

// PieceRef points to a [Piece].
type PieceRef struct {
	SHA256   Hash `json:"sha256"`
	Segments int  `json:"segments"`
}

// Stream is one named sequence of bytes.
type Stream struct {
	Name string `json:"name"`
	// Size in bytes, holes included.
	Size int64 `json:"size"`
	// CRC32C of the whole stream, holes included: each chunk has its
	// SHA-256; this one guards the order in which they are put together.
	CRC32C uint32 `json:"crc32c"`
	// Secret streams are not deduplicated.
	Secret bool `json:"secret,omitempty"`
	// Ranges of segments, in the order of the stream's bytes.
	Ranges []Range `json:"ranges"`
}

// Range is a run of segments within one piece.
type Range struct {
	// Piece is an index into Map.Pieces.
	Piece int `json:"piece"`
	First int `json:"first"`
	Count int `json:"count"`
}

// Piece is a list of segments; streams point into it.
type Piece struct {
	Header
	Backup  BackupID  `json:"backup"`
	Ordinal int       `json:"ordinal"`
	Attempt AttemptID `json:"attempt"`
	// Number of the piece within its map, from 0.
	Number int `json:"number"`
	// Packs that the segments lie in.
	Packs    []Hash    `json:"packs"`
	Segments []Segment `json:"segments"`
}

// Segment is a run of a stream's bytes: a chunk, or a hole.
type Segment struct {
	// Hole is the number of zero bytes; when it is set nothing else is.
	Hole int64 `json:"hole,omitempty"`
	// Pack is an index into Piece.Packs.
	Pack uint32 `json:"pack"`
	// At is where the zstd frame begins in the pack's plaintext, Stored its length.
	At     uint32 `json:"at"`
	Stored uint32 `json:"stored"`
	// Skip is where the chunk begins in the decoded frame, Length its length.
	Skip   uint32 `json:"skip"`
	Length uint32 `json:"length"`
	// SHA256 of the chunk's bytes.
	SHA256 Hash `json:"sha256,omitzero"`
}

// Bytes is how many bytes of the stream the segment stands for.
func (s *Segment) Bytes() int64 {
	if s.Hole > 0 {
		return s.Hole
	}
	return int64(s.Length)
}

// Limits on what a map may ask of its reader.
const (
	// MaxFrame bounds the decoded length of one zstd frame.
	MaxFrame = maxChunk
	// MaxPack bounds the plaintext of one pack.
	MaxPack = 256 << 20
	// MaxPieceSegments bounds one piece.
	MaxPieceSegments = 1 << 20
)

// RecordKind is KindMap.
func (m *Map) RecordKind() Kind { return KindMap }

// Validate checks names, order, and that ranges lie inside of their pieces.
func (m *Map) Validate() error {
	if err := validateMember(m.Backup, m.Ordinal, m.Attempt); err != nil {
		return err
	}
	if err := m.Set.Validate(); err != nil {
		return err
	}
	for i, p := range m.Pieces {
		if p.SHA256.IsZero() || p.Segments < 1 || p.Segments > MaxPieceSegments {
			return fmt.Errorf("%w: piece %d of the map has %d segments", ErrInvalid, i, p.Segments)
		}
	}
	for i := range m.Streams {
		s := &m.Streams[i]
		if s.Name == "" || s.Size < 0 || i > 0 && m.Streams[i-1].Name >= s.Name {
			return fmt.Errorf("%w: stream %q of %d bytes, the %d. of the map", ErrInvalid, s.Name, s.Size, i+1)
		}
		for _, r := range s.Ranges {
			if r.Piece < 0 || r.Piece >= len(m.Pieces) || r.First < 0 || r.Count < 1 || r.Count > m.Pieces[r.Piece].Segments-r.First {
				return fmt.Errorf("%w: stream %q refers to segments %d+%d of piece %d", ErrInvalid, s.Name, r.First, r.Count, r.Piece)
			}
		}
	}
	return nil
}

// RecordKind is KindPiece.
func (p *Piece) RecordKind() Kind { return KindPiece }

// Validate checks that every segment can be read within the limits.
func (p *Piece) Validate() error {
	if err := validateMember(p.Backup, p.Ordinal, p.Attempt); err != nil {
		return err
	}
	if p.Number < 0 || len(p.Segments) == 0 || len(p.Segments) > MaxPieceSegments {
		return fmt.Errorf("%w: piece %d with %d segments", ErrInvalid, p.Number, len(p.Segments))
	}
	for i := range p.Segments {
		s := &p.Segments[i]
		if s.Hole != 0 {
			if s.Hole < 0 || *s != (Segment{Hole: s.Hole}) {
				return fmt.Errorf("%w: segment %d is both hole and chunk", ErrInvalid, i)
			}
			continue
		}
		if s.Length == 0 || s.Stored == 0 || int64(s.Skip)+int64(s.Length) > MaxFrame ||
			int64(s.At)+int64(s.Stored) > MaxPack || int64(s.Pack) >= int64(len(p.Packs)) || s.SHA256.IsZero() {
			return fmt.Errorf("%w: segment %d is out of range", ErrInvalid, i)
		}
	}
	return nil
}

func validateMember(id BackupID, ordinal int, attempt AttemptID) error {
	if err := id.Validate(); err != nil {
		return err
	}
	if ordinal < 0 {
		return fmt.Errorf("%w: ordinal %d", ErrInvalid, ordinal)
	}
	return attempt.Validate()
}
