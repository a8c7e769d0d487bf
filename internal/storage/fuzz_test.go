package storage_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/storage"
)

// A range that was let through lies inside of its object, whatever overflow
// the numbers try.
func FuzzCheckRange(f *testing.F) {
	f.Add(int64(0), int64(-1), int64(10))
	f.Add(int64(1<<62), int64(1<<62), int64(1<<62))
	f.Add(int64(10), int64(0), int64(10))
	f.Add(int64(5), int64(9), int64(-1))
	f.Fuzz(func(t *testing.T, offset, length, size int64) {
		n, err := storage.CheckRange("k", offset, length, size)
		if err != nil {
			require.ErrorIs(t, err, storage.ErrInvalid)
			require.ErrorContains(t, err, `"k"`)
			return
		}
		require.True(t, offset >= 0 && length >= -1)
		if size < 0 {
			require.Equal(t, length, n)
			return
		}
		require.True(t, n >= 0 && offset <= size && n <= size-offset)
		if length >= 0 {
			require.Equal(t, length, n)
		}
	})
}
