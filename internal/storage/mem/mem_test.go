package mem_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"keepset/internal/storage"
	"keepset/internal/storage/mem"
	"keepset/internal/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(*testing.T) storage.Store { return mem.New(mem.Options{}) })
}

func TestLastModifiedComesFromTheClock(t *testing.T) {
	now := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	s := mem.New(mem.Options{Now: func() time.Time { return now }})
	require.NoError(t, s.Put(t.Context(), "k", strings.NewReader("x")))
	now = now.Add(time.Hour)
	o, err := s.Stat(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, now.Add(-time.Hour), o.LastModified)
}
