package repository

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
	"keepset/internal/storage"
)

func readObject(t testing.TB, store storage.Store, key string) []byte {
	t.Helper()
	data, err := getAll(t.Context(), store, key)
	require.NoError(t, err)
	return data
}

func replace(t testing.TB, store storage.Store, key string, data []byte) {
	t.Helper()
	require.NoError(t, store.Delete(t.Context(), key))
	require.NoError(t, store.Put(t.Context(), key, bytes.NewReader(data)))
}

func keysBelow(t testing.TB, store storage.Store, prefix string) []string {
	t.Helper()
	var keys []string
	for object, err := range store.List(t.Context(), prefix) {
		require.NoError(t, err)
		keys = append(keys, object.Key)
	}
	return keys
}

// damages are the ways in which an object goes bad.
var damages = map[string]func([]byte) []byte{
	"first byte":    func(b []byte) []byte { return flip(b, 0) },
	"early byte":    func(b []byte) []byte { return flip(b, len(b)/8) },
	"middle byte":   func(b []byte) []byte { return flip(b, len(b)/2) },
	"last byte":     func(b []byte) []byte { return flip(b, len(b)-1) },
	"cut in half":   func(b []byte) []byte { return b[:len(b)/2] },
	"one byte less": func(b []byte) []byte { return b[:len(b)-1] },
	"one byte more": func(b []byte) []byte { return append(bytes.Clone(b), 0) },
	"empty":         func([]byte) []byte { return nil },
	"swapped":       func(b []byte) []byte { return bytes.Repeat([]byte("not what was here\n"), len(b)/18+1) },
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0x10
	return b
}

// readAllMembers reads every member that may be read, and fails the test on
// a single wrong byte. Errors are what it wants.
func readAllMembers(t *testing.T, store storage.Store, m mode, want content) error {
	t.Helper()
	r, err := Open(t.Context(), store, m.restore, Options{})
	if err != nil {
		return err
	}
	info, err := r.Resolve(t.Context(), testSet, Selector{})
	if err != nil {
		return err
	}
	var first error
	for ordinal := range info.Members {
		member, err := r.OpenMember(t.Context(), info, ordinal)
		if err != nil {
			first = err
			continue
		}
		for name, data := range want {
			body, err := member.Open(t.Context(), name)
			if err != nil {
				first = err
				continue
			}
			got, err := io.ReadAll(body)
			_ = body.Close()
			require.True(t, bytes.HasPrefix(data, got), "stream %s delivered wrong bytes", name)
			if err != nil {
				first = err
				continue
			}
			require.Len(t, got, len(data), "stream %s ended early without an error", name)
		}
		require.NoError(t, member.Close())
	}
	return first
}

// TestDamage breaks every object in every way. Nothing is ever delivered
// wrong, and verify names what was broken.
func TestDamage(t *testing.T) {
	for _, m := range modes(t) {
		t.Run(m.name, func(t *testing.T) {
			store := initStore(t, m)
			want := crashContent(1)
			o := small()
			o.PackBytes = 256 << 10
			r := open(t, store, m.writer, o)
			id := writeBackup(t, r, want)
			require.NoError(t, readAllMembers(t, store, m, want))
			for _, key := range keysBelow(t, store, layout{testSet}.root()) {
				whole := readObject(t, store, key)
				for name, damage := range damages {
					if !m.signed() && unsignedRecord(key) && strings.HasSuffix(name, "byte") {
						continue // a digit changed in an unsigned record is for nobody to see
					}
					broken := damage(whole)
					replace(t, store, key, broken)
					requireNoticed(t, store, m, key, name, want)
				}
				require.NoError(t, store.Delete(t.Context(), key))
				requireNoticed(t, store, m, key, "missing", want)
				replace(t, store, key, whole)
			}
			require.NoError(t, readAllMembers(t, store, m, want))
			report, err := r.Verify(t.Context(), VerifyOptions{Set: testSet, IDs: nil, ReadData: 100})
			require.NoError(t, err)
			require.Empty(t, report.Damages)
			require.Empty(t, report.Problems)
			require.Equal(t, 1, report.Backups)
			_ = id
		})
	}
}

func (m mode) signed() bool { return m.writer.Writer != nil }

func unsignedRecord(key string) bool {
	return strings.Contains(key, "/commits/") || strings.HasSuffix(key, "/plan")
}

func requireNoticed(t *testing.T, store storage.Store, m mode, key, what string, want content) {
	t.Helper()
	err := readAllMembers(t, store, m, want)
	if strings.HasSuffix(key, "/origin") {
		return // says who may write; a reader does not ask
	}
	if !strings.Contains(key, "/parts/") && err == nil && (m.signed() || what == "missing") && !endsUnread(key, what) {
		t.Errorf("%s: %s: everything was read as if nothing had happened", key, what)
	}
	r := open(t, store, Keys{Trusted: m.restore.Trusted}, Options{})
	report, err := r.Verify(t.Context(), VerifyOptions{Set: testSet, ReadData: 100})
	require.NoError(t, err)
	if m.signed() || !unsignedRecord(key) || what == "missing" {
		require.NotZero(t, len(report.Damages)+len(report.Problems), "%s: %s: verify has noticed nothing", key, what)
	}
	if !unsignedRecord(key) {
		require.NotEmpty(t, report.Damages)
		require.Equal(t, key, report.Damages[0].Key)
		require.NotEmpty(t, report.Damages[0].Harmed)
	}
}

// endsUnread: a reader may never touch the bytes of a pack in which its table lies.
func endsUnread(key, what string) bool {
	return strings.Contains(key, "/packs/") && what != "missing"
}

// TestDamageIsNamed: the error says which stream, pack and backup.
func TestDamageIsNamed(t *testing.T) {
	for _, m := range modes(t) {
		store := initStore(t, m)
		id := writeBackup(t, open(t, store, m.writer, small()), content{"data/shop/orders": randomBytes(1, 3<<20)})
		key := keysBelow(t, store, layout{testSet}.packs())[0]
		replace(t, store, key, flip(readObject(t, store, key), 300_000))
		r := open(t, store, m.restore, Options{})
		_, err := readMember(t.Context(), r, id, 0)
		require.ErrorIs(t, err, ErrDamaged)
		name, _ := parseHashKey(key, layout{testSet}.packs())
		for _, part := range []string{`"data/shop/orders"`, name.String(), string(id)} {
			require.ErrorContains(t, err, part)
		}
		report, err := r.Verify(t.Context(), VerifyOptions{ReadData: 100})
		require.NoError(t, err)
		require.Len(t, report.Damages, 1)
		require.Equal(t, []string{"data/shop/orders"}, report.Damages[0].Harmed[0].Streams)
		require.Equal(t, "mysql-0", report.Damages[0].Harmed[0].Member)
	}
}

// flaky breaks what it hands out the first time.
type flaky struct {
	storage.Store
	left int
}

func (f *flaky) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	body, err := f.Store.Get(ctx, key, offset, length)
	if err != nil || !strings.Contains(key, "/packs/") || f.left == 0 {
		return body, err
	}
	f.left--
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(flip(data, len(data)/2))), body.Close()
}

// TestBitFlipOnTheWay: bytes that were broken in transit are asked for again.
func TestBitFlipOnTheWay(t *testing.T) {
	m := plainMode()
	store := initStore(t, m)
	want := content{"a": randomBytes(1, 600<<10)}
	id := writeBackup(t, open(t, store, m.writer, small()), want)
	got, err := readMember(t.Context(), open(t, &flaky{store, 1}, m.restore, Options{}), id, 0)
	require.NoError(t, err)
	requireContent(t, want, got)
}

// TestLostPackIsStoredAgain: a pack that a lifecycle rule has deleted costs
// one upload, not every later backup.
func TestLostPackIsStoredAgain(t *testing.T) {
	for _, m := range modes(t) {
		store := initStore(t, m)
		want := testContent()
		writeBackup(t, open(t, store, m.writer, small()), want)
		lost := keysBelow(t, store, layout{testSet}.packs())[1]
		size := int64(len(readObject(t, store, lost)))
		require.NoError(t, store.Delete(t.Context(), lost))
		r := open(t, store, m.writer, small())
		b, err := r.Begin(t.Context(), testPlan(1, 0), "attempt-1")
		require.NoError(t, err)
		commit := writeMember(t, b, 0, want)
		require.NoError(t, b.Close())
		require.Greater(t, commit.Stored, size/2)
		require.Less(t, commit.Stored, 2*size)
		got, err := readMember(t.Context(), open(t, store, m.restore, Options{}), b.Plan().ID, 0)
		require.NoError(t, err)
		requireContent(t, want, got)
	}
}

// TestPackThatVanishesBeforeTheCommit: the listing before the commit sees it.
func TestPackThatVanishesBeforeTheCommit(t *testing.T) {
	m := plainMode()
	store := initStore(t, m)
	b := begin(t, store, m, testPlan(0, 0), "attempt-1")
	w, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	s, err := w.Create(t.Context(), "a", StreamOptions{})
	require.NoError(t, err)
	require.NoError(t, writeAll(s, randomBytes(1, 3<<20)))
	require.NoError(t, b.pipeline.flush(t.Context()))
	require.NoError(t, store.Delete(t.Context(), keysBelow(t, store, layout{testSet}.packs())[0]))
	_, err = w.Commit(t.Context(), testReport(), CommitStatus{})
	require.ErrorIs(t, err, ErrDamaged)
	require.ErrorContains(t, err, "lifecycle")
	require.NoError(t, b.Close())
	require.Empty(t, keysBelow(t, store, layout{testSet}.commits()))
}

// TestExtraVerify: a frame that does not decode to what was hashed is not stored.
func TestExtraVerify(t *testing.T) {
	m := plainMode()
	r := open(t, initStore(t, m), m.writer, small())
	p, err := newPipeline(r, layout{testSet})
	require.NoError(t, err)
	defer func() { require.NoError(t, p.close()) }()
	w, err := newWorker(p)
	require.NoError(t, err)
	defer w.decoder.Close()
	data := text(1, 300<<10)
	f := &frame{data: data, chunks: []*chunk{{sum: contentRef(data).SHA256, length: uint32(len(data)), stats: new(counters)}}}
	require.NoError(t, w.check(f, w.encoder.EncodeAll(data, nil)))
	require.ErrorIs(t, w.check(f, w.encoder.EncodeAll(flip(data, 1000), nil)), errExtraVerify)
	require.ErrorIs(t, w.check(f, w.encoder.EncodeAll(data[1:], nil)), errExtraVerify)
	require.ErrorIs(t, w.check(f, flip(w.encoder.EncodeAll(data, nil), 0)), errExtraVerify)
}

// TestPutTogetherWrongly: right chunks in a wrong order or number are not the stream.
func TestPutTogetherWrongly(t *testing.T) {
	m := plainMode()
	store := initStore(t, m)
	id := writeBackup(t, open(t, store, m.writer, small()), content{"a": slices.Concat(randomBytes(1, 400<<10), make([]byte, 100<<10), randomBytes(2, 5000))})
	r := open(t, store, m.restore, Options{})
	info, err := r.Backup(t.Context(), testSet, id)
	require.NoError(t, err)
	for name, change := range map[string]func(*record.Stream){
		"nothing":   func(*record.Stream) {},
		"last gone": func(s *record.Stream) { s.Ranges[0].Count-- },
		"twice":     func(s *record.Stream) { s.Ranges = append(s.Ranges, s.Ranges[0]) },
		"order": func(s *record.Stream) {
			s.Ranges = []record.Range{{First: 2, Count: 1}, {First: 1, Count: 1}, {First: 0, Count: 1}}
		},
	} {
		member, err := r.OpenMember(t.Context(), info, 0)
		require.NoError(t, err)
		require.Equal(t, 3, member.m.Streams[0].Ranges[0].Count)
		change(&member.m.Streams[0])
		body, err := member.Open(t.Context(), "a")
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, body)
		if name == "nothing" {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, ErrDamaged, name)
			require.ErrorContains(t, err, "checksum")
		}
		require.NoError(t, errors.Join(body.Close(), member.Close()))
	}
}
