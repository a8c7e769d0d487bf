package storage_test

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"keepset/internal/storage"
	"keepset/internal/storage/storagetest"
)

func TestGetGoesOnWhereItBroke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, faulty, inner := retrying()
		data := bytes.Repeat([]byte("0123456789"), 1000)
		require.NoError(t, inner.Put(t.Context(), "k", bytes.NewReader(data)))
		for _, r := range []struct{ offset, length int64 }{{0, -1}, {0, 10_000}, {123, 5000}, {9_000, -1}, {9_999, 1}} {
			// Each reader lives for 997 bytes; more failures than attempts, but each after progress.
			faulty.Inject(storagetest.Fault{On: storagetest.Get, Err: io.ErrUnexpectedEOF, At: 997, Times: -1})
			got, err := read(t.Context(), s, "k", r.offset, r.length)
			require.NoError(t, err)
			want := data[r.offset:]
			if r.length >= 0 {
				want = want[:r.length]
			}
			require.True(t, bytes.Equal(want, got), "range %d+%d", r.offset, r.length)
			faulty.Heal()
		}
	})
}

func TestGetGivesUpWithoutProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, faulty, inner := retrying()
		write(t, inner, "k", "0123456789")
		faulty.Inject(
			storagetest.Fault{On: storagetest.Get, Err: io.ErrUnexpectedEOF, At: 4},
			storagetest.Fault{On: storagetest.Get, Err: errFlaky, Times: -1},
		)
		r, err := s.Get(t.Context(), "k", 0, -1)
		require.NoError(t, err)
		got, err := io.ReadAll(r)
		require.ErrorIs(t, err, errFlaky)
		require.Equal(t, "0123", string(got))
		_, again := r.Read(make([]byte, 1))
		require.Equal(t, err, again, "a reader that failed stays failed")
		require.NoError(t, r.Close())
		_, err = r.Read(make([]byte, 1))
		require.ErrorIs(t, err, fs.ErrClosed)
	})
}

// An error that comes with or after the last byte, such as a wrong checksum, must
// not be taken for a broken connection and forgotten.
func TestGetKeepsAnErrorAfterTheLastByte(t *testing.T) {
	for _, want := range []error{storage.ErrCorrupt, errFlaky} {
		s, faulty, inner := retrying()
		write(t, inner, "k", "0123456789")
		faulty.Inject(storagetest.Fault{On: storagetest.Get, Err: want, At: 10})
		_, err := read(t.Context(), s, "k", 0, 10)
		require.ErrorIs(t, err, want)
	}
}

func TestListGoesOnAfterTheLastKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, faulty, inner := retrying()
		var want []string
		for i := range 50 {
			key := fmt.Sprintf("k/%03d", i)
			write(t, inner, key, "x")
			want = append(want, key)
		}
		for i := range int64(16) {
			faulty.Inject(storagetest.Fault{On: storagetest.List, Err: errFlaky, At: 3 * (i + 1)})
		}
		var got []string
		for o, err := range s.List(t.Context(), "k/") {
			require.NoError(t, err)
			got = append(got, o.Key)
		}
		require.Equal(t, want, got)
		require.Equal(t, 17, faulty.Calls(storagetest.List))
	})
}
