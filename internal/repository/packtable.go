package repository

import (
	"encoding/binary"
	"fmt"

	"keepset/internal/record"
)

// A pack's plaintext is zstd frames, then one skippable frame with this
// table. The zstd program skips it; a reader finds it from the end. All
// numbers are little-endian:
//
//	u32 0x184D2A5B, u32 length of what follows     (zstd's skippable frame)
//	"KSPACK\x00\x01"                               8 bytes
//	nonce                                          16 random bytes
//	u32 number of frames, then for each:
//	    u32 stored length, u32 decoded length, u32 number of chunks, for each:
//	        chunk ID (32 bytes), u32 length
//	u32 length of all of this, including the first 8 bytes
//
// The nonce makes every pack unique, so that a new pack never has the name of
// an old one that a prune has condemned.

const (
	skippableMagic = 0x184D2A5B
	packMagic      = "KSPACK\x00\x01"
	nonceSize      = 16
	tableFixed     = 8 + len(packMagic) + nonceSize + 4 + 4
	tableFrame     = 12
	tableChunk     = record.HashSize + 4
)

// tableEntry is one chunk of a frame.
type tableEntry struct {
	ID     hash
	Length uint32
}

// frameEntry is one frame of a pack.
type frameEntry struct {
	Stored, Decoded uint32
	Chunks          []tableEntry
}

// tableSize is the length of the encoded table.
func tableSize(frames, chunks int) int {
	return tableFixed + frames*tableFrame + chunks*tableChunk
}

// appendTable appends the skippable frame.
func appendTable(b []byte, nonce [nonceSize]byte, frames []frameEntry) []byte {
	chunks := 0
	for i := range frames {
		chunks += len(frames[i].Chunks)
	}
	size := uint32(tableSize(len(frames), chunks))
	le := binary.LittleEndian
	b = le.AppendUint32(b, skippableMagic)
	b = le.AppendUint32(b, size-8)
	b = append(b, packMagic...)
	b = append(b, nonce[:]...)
	b = le.AppendUint32(b, uint32(len(frames)))
	for i := range frames {
		f := &frames[i]
		b = le.AppendUint32(b, f.Stored)
		b = le.AppendUint32(b, f.Decoded)
		b = le.AppendUint32(b, uint32(len(f.Chunks)))
		for _, c := range f.Chunks {
			b = append(b, c.ID[:]...)
			b = le.AppendUint32(b, c.Length)
		}
	}
	return le.AppendUint32(b, size)
}

// parseTable reads the table at the end of a pack's plaintext, and checks
// that the frames it lists fill the pack exactly.
func parseTable(plain []byte) ([]frameEntry, error) {
	le := binary.LittleEndian
	if len(plain) < tableFixed {
		return nil, fmt.Errorf("%w: pack of %d bytes has no table", ErrDamaged, len(plain))
	}
	size := int64(le.Uint32(plain[len(plain)-4:]))
	if size < int64(tableFixed) || size > int64(len(plain)) {
		return nil, fmt.Errorf("%w: pack's table has %d bytes", ErrDamaged, size)
	}
	data := int64(len(plain)) - size
	t := plain[data:]
	if le.Uint32(t) != skippableMagic || int64(le.Uint32(t[4:])) != size-8 || string(t[8:16]) != packMagic {
		return nil, fmt.Errorf("%w: pack's table does not begin as one", ErrDamaged)
	}
	count := le.Uint32(t[16+nonceSize:])
	rest := t[tableFixed-4 : len(t)-4]
	if int64(count)*tableFrame > int64(len(rest)) {
		return nil, fmt.Errorf("%w: pack's table lists %d frames", ErrDamaged, count)
	}
	frames := make([]frameEntry, count)
	var total int64
	for i := range frames {
		var err error
		if rest, err = parseFrame(rest, &frames[i]); err != nil {
			return nil, fmt.Errorf("%w: frame %d of the pack's table: %w", ErrDamaged, i, err)
		}
		total += int64(frames[i].Stored)
	}
	if len(rest) != 0 || total != data {
		return nil, fmt.Errorf("%w: pack's table accounts for %d of %d bytes", ErrDamaged, total, data)
	}
	return frames, nil
}

func parseFrame(rest []byte, f *frameEntry) ([]byte, error) {
	le := binary.LittleEndian
	if len(rest) < tableFrame {
		return nil, record.ErrInvalid
	}
	f.Stored, f.Decoded = le.Uint32(rest), le.Uint32(rest[4:])
	count := int64(le.Uint32(rest[8:]))
	rest = rest[tableFrame:]
	if count < 1 || count*tableChunk > int64(len(rest)) || f.Stored == 0 || f.Decoded > record.MaxFrame {
		return nil, record.ErrInvalid
	}
	f.Chunks = make([]tableEntry, count)
	var sum int64
	for i := range f.Chunks {
		copy(f.Chunks[i].ID[:], rest)
		f.Chunks[i].Length = le.Uint32(rest[record.HashSize:])
		sum += int64(f.Chunks[i].Length)
		rest = rest[tableChunk:]
	}
	if sum != int64(f.Decoded) {
		return nil, record.ErrInvalid
	}
	return rest, nil
}
