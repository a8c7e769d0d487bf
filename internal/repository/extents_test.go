package repository

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
)

func openLatest(t *testing.T, r *Repository, id record.BackupID) *MemberReader {
	t.Helper()
	info, err := r.Backup(t.Context(), testSet, id)
	require.NoError(t, err)
	m, err := r.OpenMember(t.Context(), info, 0)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// TestExtents: what is content and what is not is known without a pack.
func TestExtents(t *testing.T) {
	for _, m := range modes(t) {
		store := initStore(t, m)
		data := slices.Concat(make([]byte, 100<<10), randomBytes(1, 300<<10), make([]byte, 5<<20), randomBytes(2, 9))
		id := writeBackup(t, open(t, store, m.writer, small()), content{"disk": data, "empty": {}, "zeros": make([]byte, 1<<20)})
		for _, key := range keysBelow(t, store, layout{testSet}.packs()) {
			require.NoError(t, store.Delete(t.Context(), key))
		}
		reader := openLatest(t, open(t, store, m.restore, Options{}), id)
		extents := func(name string) (list []Extent) {
			for e, err := range reader.Extents(t.Context(), name) {
				require.NoError(t, err)
				list = append(list, e)
			}
			return list
		}
		require.Equal(t, []Extent{
			{0, 100 << 10, true}, {100 << 10, 300 << 10, false}, {400 << 10, 5 << 20, true}, {400<<10 + 5<<20, 9, false},
		}, extents("disk"))
		require.Empty(t, extents("empty"))
		require.Equal(t, []Extent{{0, 1 << 20, true}}, extents("zeros"))
		for _, err := range reader.Extents(t.Context(), "none") {
			require.ErrorIs(t, err, ErrNoStream)
		}
	}
}

// TestSkipHole: who skips holes gets everything else, and the checksum is
// still that of the whole stream.
func TestSkipHole(t *testing.T) {
	m := encryptedMode(t)
	store := initStore(t, m)
	data := slices.Concat(make([]byte, 700<<10), randomBytes(1, 300<<10), make([]byte, 5<<20), randomBytes(2, 9), make([]byte, 70<<10))
	id := writeBackup(t, open(t, store, m.writer, small()), content{"disk": data})
	reader := openLatest(t, open(t, store, m.restore, Options{}), id)
	for _, block := range []int64{999, 512 << 10, 1 << 40} {
		s, err := reader.OpenStream(t.Context(), "disk")
		require.NoError(t, err)
		got, skipped := make([]byte, len(data)), int64(0)
		for at := int64(0); ; {
			n, err := s.SkipHole(block)
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			if skipped += n; n == 0 {
				read, err := s.Read(got[at:min(at+1000, int64(len(got)))])
				require.NoError(t, err)
				n = int64(read)
			}
			at += n
		}
		require.True(t, bytes.Equal(data, got))
		require.EqualValues(t, 700<<10+5<<20+70<<10, skipped)
		require.NoError(t, s.Close())
	}
	s, err := reader.OpenStream(t.Context(), "disk")
	require.NoError(t, err)
	n, err := s.SkipHole(-1)
	require.NoError(t, err)
	require.Zero(t, n)
	require.NoError(t, s.Close())
}
