package repository

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestBackupsOfOneSecond are in the order in which they were begun, whatever
// the random ends of their IDs: "latest" is the later one.
func TestBackupsOfOneSecond(t *testing.T) {
	r := open(t, initStore(t, plainMode()), Keys{}, small())
	at := time.Now().UTC().Truncate(time.Second)
	for i, uid := range []string{"ffffffff", "00000000", "88888888"} {
		b, err := r.Begin(t.Context(), planAt(at.Add(time.Duration(i)*time.Millisecond), uid, 0), "a")
		require.NoError(t, err)
		require.NoError(t, b.Close())
	}
	infos, err := r.Backups(t.Context(), testSet)
	require.NoError(t, err)
	require.Len(t, infos, 3)
	for i, uid := range []string{"88888888", "00000000", "ffffffff"} {
		require.Contains(t, string(infos[i].ID), uid)
	}
}
