package dir_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"keepset/internal/storage"
	"keepset/internal/storage/dir"
	"keepset/internal/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store {
		s, err := dir.New(dir.Options{Path: t.TempDir()})
		require.NoError(t, err)
		return s
	})
}
