package repository

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func beginFrom(t *testing.T, r *Repository, n int, origin string) error {
	t.Helper()
	plan := testPlan(n, 0)
	plan.Origin = origin
	b, err := r.Begin(t.Context(), plan, "attempt-1")
	if err != nil {
		return err
	}
	return b.Close()
}

// TestOriginOfAClone: production and its cloned staging write to one
// repository, in either order, and one that does not know its name is neither.
func TestOriginOfAClone(t *testing.T) {
	for _, order := range [][3]string{{"production", "staging", ""}, {"staging", "production", ""}} {
		r := open(t, initStore(t, plainMode()), Keys{}, small())
		require.NoError(t, beginFrom(t, r, 0, order[0]))
		for n, other := range order[1:] {
			err := beginFrom(t, r, n+1, other)
			require.ErrorIs(t, err, ErrOrigin)
			require.ErrorContains(t, err, "give --origin "+order[0])
		}
		require.NoError(t, beginFrom(t, r, 3, order[0]))
		require.Len(t, keysBelow(t, r.store, layout{testSet}.backups()), 2)
	}
}

// TestOriginOfEarlierVersions named nobody: the first writer with a name
// adopts the set, and then that name counts.
func TestOriginOfEarlierVersions(t *testing.T) {
	for _, m := range modes(t) {
		r := open(t, initStore(t, m), m.writer, small())
		require.NoError(t, beginFrom(t, r, 0, ""))
		require.NoError(t, beginFrom(t, r, 1, ""), "plain servers stay without a name")
		require.NoError(t, beginFrom(t, r, 2, "production"))
		require.NoError(t, beginFrom(t, r, 3, "production"))
		require.ErrorIs(t, beginFrom(t, r, 4, "staging"), ErrOrigin)
		require.ErrorIs(t, beginFrom(t, r, 5, ""), ErrOrigin)
		require.Len(t, keysBelow(t, r.store, layout{testSet}.origin()), 2)
	}
}

// TestOriginOfALaptop: a guess leaves a set that has no origin as it is, so
// that the cluster's own Job can still give it its name; it counts elsewhere.
func TestOriginOfALaptop(t *testing.T) {
	store := initStore(t, plainMode())
	o := small()
	o.GuessedOrigin = true
	laptop, job := open(t, store, Keys{}, o), open(t, store, Keys{}, small())
	require.NoError(t, beginFrom(t, job, 0, ""))
	require.NoError(t, beginFrom(t, laptop, 1, "proxy"))
	require.NoError(t, beginFrom(t, job, 2, "production"))
	require.NoError(t, beginFrom(t, laptop, 3, "production"))
	require.ErrorIs(t, beginFrom(t, laptop, 4, "proxy"), ErrOrigin)

	// The very first backup of a set, too.
	store = initStore(t, plainMode())
	laptop, job = open(t, store, Keys{}, o), open(t, store, Keys{}, small())
	require.NoError(t, beginFrom(t, laptop, 0, "proxy"))
	require.NoError(t, beginFrom(t, job, 1, "production"))
	require.ErrorIs(t, beginFrom(t, laptop, 2, "proxy"), ErrOrigin)
}

// TestInitInterrupted between key files and configuration, and then begun
// again with other keys of the same holder.
func TestInitInterrupted(t *testing.T) {
	one, two := encryptedMode(t), encryptedMode(t)
	store := initStore(t, one)
	require.NoError(t, store.Delete(t.Context(), keyConfig(0)))
	left := keysBelow(t, store, prefixKeys)
	for name, data := range two.writer.KeyFiles {
		delete(two.writer.KeyFiles, name)
		for taken := range one.writer.KeyFiles {
			two.writer.KeyFiles[taken] = data
		}
	}
	_, err := Init(t.Context(), store, InitOptions{Keys: two.writer})
	require.ErrorIs(t, err, ErrExists)
	require.ErrorContains(t, err, "remove that object")
	require.ErrorContains(t, err, left[0])
	require.NoError(t, store.Delete(t.Context(), left[0]))
	_, err = Init(t.Context(), store, InitOptions{Keys: two.writer})
	require.NoError(t, err)
}

// TestInitOverBackups whose configuration is lost.
func TestInitOverBackups(t *testing.T) {
	m := encryptedMode(t)
	store := initStore(t, m)
	writeBackup(t, open(t, store, m.writer, small()), content{"a": []byte("a")})
	require.NoError(t, store.Delete(t.Context(), keyConfig(0)))
	_, err := Init(t.Context(), store, InitOptions{Keys: m.writer})
	require.ErrorIs(t, err, ErrExists)
	require.ErrorContains(t, err, "config/0 is gone; put it back")
}
