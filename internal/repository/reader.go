package repository

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"

	"keepset/internal/record"
)

// MemberReader reads the streams of one member. It is safe for concurrent use.
type MemberReader struct {
	r       *Repository
	layout  layout
	m       record.Map
	fetcher *fetcher
	decoder *zstd.Decoder
	crc     *crc32.Table
	buffers buffers
	bundles bundles
	volumes []record.VolumeSnapshot

	mu     sync.Mutex
	pieces []*loadedPiece // most recently used first
}

type loadedPiece struct {
	number int
	piece  record.Piece
}

// maxPieces is how many pieces of the map are kept; each takes about 1 MiB.
const maxPieces = 12

// OpenMember reads the map of a member that has a valid commit. ErrNoIdentity
// when the repository is encrypted and no restore identity was given;
// ErrNoTrusted when it is signed and the signatures could not be checked.
func (r *Repository) OpenMember(ctx context.Context, info BackupInfo, ordinal int) (*MemberReader, error) {
	m, err := r.openMember(ctx, &info, ordinal)
	if err != nil {
		return nil, fmt.Errorf("open ordinal %d of %s of %s: %w", ordinal, info.ID, info.Set, err)
	}
	return m, nil
}

func (r *Repository) openMember(ctx context.Context, info *BackupInfo, ordinal int) (*MemberReader, error) {
	member, found := info.Members[ordinal]
	switch {
	case info.Unchecked:
		return nil, fmt.Errorf("%w: set %s", ErrNoTrusted, NameTrustedWriters)
	case !found:
		return nil, fmt.Errorf("%w: the member has no commit", ErrNoBackup)
	case !member.Valid:
		return nil, fmt.Errorf("%w: the member's commit does not count: %s", ErrNoBackup, member.Why)
	}
	if err := r.mayOpen(info.Plan.KeyEpoch()); err != nil {
		return nil, err
	}
	l := layout{info.Set}
	refs, err := r.readRefs(ctx, l, &member.Commit)
	if err != nil {
		return nil, missingIsDamage(err)
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)), zstd.WithDecoderMaxMemory(record.MaxFrame))
	if err != nil {
		return nil, fmt.Errorf("start decompressor: %w", err)
	}
	m := &MemberReader{
		r: r, layout: l, decoder: decoder, crc: crc32.MakeTable(crc32.Castagnoli),
		fetcher: newFetcher(r, l, refs.Packs), volumes: refs.VolumeSnapshots,
	}
	if err := m.readMap(ctx, &member.Commit, &refs); err != nil {
		decoder.Close()
		return nil, missingIsDamage(err)
	}
	return m, nil
}

// missingIsDamage makes an object that is not there what it is here.
func missingIsDamage(err error) error {
	if isNotExist(err) {
		return fmt.Errorf("%w: an object is missing: %w", ErrDamaged, err)
	}
	return err
}

func (m *MemberReader) readMap(ctx context.Context, c *record.Commit, refs *record.Refs) error {
	if err := m.readRecord(ctx, refs.Map, &m.m); err != nil {
		return fmt.Errorf("read map: %w", err)
	}
	if m.m.Backup != c.Backup || m.m.Set != c.Set || m.m.Ordinal != c.Ordinal || m.m.Attempt != c.Attempt {
		return fmt.Errorf("%w: map of ordinal %d of %s", ErrForged, m.m.Ordinal, m.m.Backup)
	}
	return nil
}

// readRecord reads a map or a piece.
func (m *MemberReader) readRecord(ctx context.Context, name hash, rec record.Record) error {
	key := m.layout.mapOf(name)
	data, err := m.r.getContent(ctx, key, record.ObjectRef{SHA256: name})
	if err != nil {
		return err
	}
	plain, err := m.r.codec.open(data, m.r.secrets.data)
	if err != nil {
		return fmt.Errorf("open %s: %w", key, err)
	}
	if _, err := record.Decode(plain, rec, nil); err != nil {
		return fmt.Errorf("open %s: %w", key, err)
	}
	return nil
}

// Map is the member's content. It is shared: do not change it.
func (m *MemberReader) Map() *record.Map { return &m.m }

// Report is what the engine said of the dump.
func (m *MemberReader) Report() record.Report { return m.m.Report }

// Close frees what the reader holds. Streams must be closed before.
func (m *MemberReader) Close() error {
	m.decoder.Close()
	return nil
}

// Open reads one stream; ErrNoStream when there is none of that name. Every
// chunk is compared with its SHA-256 before a byte of it is handed out; io.EOF
// comes only after the whole stream has been delivered and its checksum has
// matched.
func (m *MemberReader) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	s, err := m.OpenStream(ctx, name)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// OpenStream is Open for who does not want to be handed the zeros of holes.
func (m *MemberReader) OpenStream(ctx context.Context, name string) (*StreamReader, error) {
	stream, err := m.stream(name)
	if err != nil {
		return nil, err
	}
	return newStreamReader(ctx, m, stream), nil
}

func (m *MemberReader) stream(name string) (*record.Stream, error) {
	streams := m.m.Streams
	i, found := sort.Find(len(streams), func(i int) int { return strings.Compare(name, streams[i].Name) })
	if !found {
		return nil, fmt.Errorf("%w: %q in ordinal %d of %s", ErrNoStream, name, m.m.Ordinal, m.m.Backup)
	}
	return &streams[i], nil
}

// piece returns a piece of the map, from memory or from the store.
func (m *MemberReader) piece(ctx context.Context, number int) (*record.Piece, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, l := range m.pieces {
		if l.number == number {
			copy(m.pieces[1:i+1], m.pieces[:i])
			m.pieces[0] = l
			return &l.piece, nil
		}
	}
	l := &loadedPiece{number: number}
	ref := m.m.Pieces[number]
	if err := m.readRecord(ctx, ref.SHA256, &l.piece); err != nil {
		return nil, fmt.Errorf("read piece %d of the map: %w", number, missingIsDamage(err))
	}
	p := &l.piece
	if p.Backup != m.m.Backup || p.Ordinal != m.m.Ordinal || p.Number != number || len(p.Segments) != ref.Segments {
		return nil, fmt.Errorf("%w: piece %d of the map belongs elsewhere", ErrDamaged, number)
	}
	m.pieces = slices.Insert(m.pieces, 0, l)
	if len(m.pieces) > maxPieces {
		m.pieces = m.pieces[:maxPieces]
	}
	return p, nil
}

// bundles keeps the decoded frames that hold many small chunks, since
// streams that are asked for one after the other lie in one frame.
type bundles struct {
	mu   sync.Mutex
	list []bundle // most recently used first
}

type bundle struct {
	at   frameAt
	data []byte
}

// maxBundles is how many are kept; each takes about 1 MiB.
const maxBundles = 6

func (b *bundles) find(at frameAt) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, have := range b.list {
		if have.at == at {
			copy(b.list[1:i+1], b.list[:i])
			b.list[0] = have
			return have.data
		}
	}
	return nil
}

func (b *bundles) keep(at frameAt, data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = slices.Insert(b.list, 0, bundle{at, data})
	if len(b.list) > maxBundles {
		b.list = slices.Delete(b.list, maxBundles, len(b.list))
	}
}

var errChunk = errors.New("the bytes are not what was backed up")
