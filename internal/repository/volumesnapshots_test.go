package repository

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
	"keepset/internal/storage"
	"keepset/internal/storage/mem"
)

func testVolumeSnapshot(id string) record.VolumeSnapshot {
	return record.VolumeSnapshot{
		Provider: record.ProviderEBS, ID: id, Cut: "cut-1" + id, Driver: "ebs.csi.aws.com", Claim: "data-mysql-0",
		Volume: "vol-1", Size: 1 << 30, CutAt: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC),
	}
}

// snapshotBackup commits one member that needs volume snapshots, and no streams.
func snapshotBackup(t *testing.T, store storage.Store, m mode, n int, ids ...string) *Backup {
	t.Helper()
	b := begin(t, store, m, testPlan(n, 0), "attempt-1")
	w, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	for _, id := range ids {
		require.NoError(t, w.AddVolumeSnapshots([]record.VolumeSnapshot{testVolumeSnapshot(id)}))
	}
	_, err = w.Commit(t.Context(), testReport(), CommitStatus{})
	require.NoError(t, err)
	require.ErrorIs(t, w.AddVolumeSnapshots(nil), ErrClosed)
	require.NoError(t, b.Close())
	return b
}

func neededIDs(t *testing.T, store storage.Store, m mode) ([]string, error) {
	t.Helper()
	var ids []string
	keys := Keys{Trusted: m.restore.Trusted} // nothing that opens anything
	for needed, err := range open(t, store, keys, Options{}).VolumeSnapshots(t.Context(), testSet) {
		if err != nil {
			return ids, err
		}
		require.Equal(t, testVolumeSnapshot(needed.Snapshot.ID), needed.Snapshot)
		ids = append(ids, needed.Snapshot.ID)
	}
	return ids, nil
}

// TestVolumeSnapshots: what a backup needs outside of the repository is told
// to who restores it, and to who holds no key at all.
func TestVolumeSnapshots(t *testing.T) {
	for _, m := range modes(t) {
		t.Run(m.name, func(t *testing.T) {
			store := initStore(t, m)
			snapshotBackup(t, store, m, 0, "snap-1", "snap-2")
			b := snapshotBackup(t, store, m, 1, "snap-3")
			snapshotBackup(t, store, m, 2)
			ids, err := neededIDs(t, store, m)
			require.NoError(t, err)
			require.Equal(t, []string{"snap-3", "snap-1", "snap-2"}, ids)
			r := open(t, store, m.restore, Options{})
			info, err := r.Backup(t.Context(), testSet, b.Plan().ID)
			require.NoError(t, err)
			reader, err := r.OpenMember(t.Context(), info, 0)
			require.NoError(t, err)
			require.Equal(t, []record.VolumeSnapshot{testVolumeSnapshot("snap-3")}, reader.VolumeSnapshots())
			require.NoError(t, reader.Close())
		})
	}
}

func TestInvalidVolumeSnapshotIsNotCommitted(t *testing.T) {
	_, w := newMember(t)
	bad := testVolumeSnapshot("snap-1")
	bad.Provider = "tape"
	require.NoError(t, w.AddVolumeSnapshots([]record.VolumeSnapshot{bad}))
	_, err := w.Commit(t.Context(), testReport(), CommitStatus{})
	require.ErrorIs(t, err, record.ErrInvalid)
}

// TestVolumeSnapshotsAreCertain: whoever deletes what no backup needs must not
// delete because a record could not be read; and what was forged keeps nothing.
func TestVolumeSnapshotsAreCertain(t *testing.T) {
	m := encryptedMode(t)
	l := layout{testSet}
	newer := func(data []byte) []byte { return bytes.Replace(data, []byte(`"format":1`), []byte(`"format":2`), 1) }
	change := func(prefix string, f func([]byte) []byte) func(*testing.T, storage.Store, *Backup) {
		return func(t *testing.T, store storage.Store, _ *Backup) {
			key := keysBelow(t, store, prefix)[0]
			replace(t, store, key, f(readObject(t, store, key)))
		}
	}
	plan := func(f func([]byte) []byte) func(*testing.T, storage.Store, *Backup) {
		return func(t *testing.T, store storage.Store, b *Backup) {
			key := l.plan(b.Plan().ID)
			replace(t, store, key, f(readObject(t, store, key)))
		}
	}
	for name, harm := range map[string]func(*testing.T, storage.Store, *Backup){
		"refs gone": func(t *testing.T, store storage.Store, _ *Backup) {
			require.NoError(t, store.Delete(t.Context(), keysBelow(t, store, l.refs())[0]))
		},
		"refs changed":           change(l.refs(), func(data []byte) []byte { return flip(data, len(data)/2) }),
		"refs of a newer format": change(l.refs(), newer),
		"plan gone": func(t *testing.T, store storage.Store, b *Backup) {
			require.NoError(t, store.Delete(t.Context(), l.plan(b.Plan().ID)))
		},
		"plan forged over a good one": plan(func(data []byte) []byte { return flip(data, 40) }),
		"commit cut off":              change(l.commits(), func(data []byte) []byte { return data[:20] }),
	} {
		t.Run(name, func(t *testing.T) {
			store := initStore(t, m)
			harm(t, store, snapshotBackup(t, store, m, 0, "snap-1"))
			_, err := neededIDs(t, store, m)
			require.ErrorIs(t, err, ErrUncertain)
		})
	}
	t.Run("commit forged", func(t *testing.T) {
		store := initStore(t, m)
		snapshotBackup(t, store, m, 0, "snap-1")
		key := keysBelow(t, store, l.commits())[0]
		line, _, _ := bytes.Cut(readObject(t, store, key), []byte("\n"))
		require.NoError(t, store.Put(t.Context(), key+"-x", bytes.NewReader(append(line, '\n'))))
		ids, err := neededIDs(t, store, m)
		require.NoError(t, err)
		require.Equal(t, []string{"snap-1"}, ids)
	})
}

// TestVolumeSnapshotsOfACopiedRepository are another repository's, also where
// the copy is so young that its plan counts.
func TestVolumeSnapshotsOfACopiedRepository(t *testing.T) {
	m, c := encryptedMode(t), newClock()
	store := initAt(t, m, c)
	o := small()
	o.Clock = c.Now
	b, err := open(t, store, m.writer, o).Begin(t.Context(), planAt(c.now, "1a2b3c4d", 0), "a")
	require.NoError(t, err)
	w, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	require.NoError(t, w.AddVolumeSnapshots([]record.VolumeSnapshot{testVolumeSnapshot("snap-1")}))
	_, err = w.Commit(t.Context(), testReport(), CommitStatus{})
	require.NoError(t, err)
	require.NoError(t, b.Close())
	young := mem.New(mem.Options{Now: c.Now})
	for _, key := range slices.Backward(keysBelow(t, store, "")) { // commits before plans
		require.NoError(t, young.Put(t.Context(), key, bytes.NewReader(readObject(t, store, key))))
		c.advance(90 * time.Minute)
	}
	require.Less(t, c.now.Sub(b.Plan().CreatedAt), 24*time.Hour)
	_, err = neededIDs(t, young, m)
	require.ErrorIs(t, err, ErrUncertain)
	c.advance(72 * time.Hour)
	copied := mem.New(mem.Options{Now: c.Now})
	for _, key := range keysBelow(t, store, "") {
		require.NoError(t, copied.Put(t.Context(), key, bytes.NewReader(readObject(t, store, key))))
	}
	_, err = neededIDs(t, copied, m)
	require.ErrorIs(t, err, ErrUncertain)
}
