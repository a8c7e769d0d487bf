package repository

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
	"keepset/internal/storage"
	"keepset/internal/storage/dir"
	"keepset/internal/storage/mem"
)

// places are where a copy goes: the second one is a real directory.
func places(t *testing.T, c *clock) map[string]storage.Store {
	t.Helper()
	directory, err := dir.Create(dir.Options{Path: t.TempDir()})
	require.NoError(t, err)
	return map[string]storage.Store{"memory": mem.New(mem.Options{Now: c.Now}), "directory": directory}
}

// copyTo copies as who may copy does: no key, or in a signed repository the writers' public one.
func (p *pruned) copyTo(t testing.TB, to storage.Store, o CopyOptions) (CopyReport, error) {
	t.Helper()
	o.Set = testSet
	return open(t, p.store, p.keyless(), Options{Clock: p.c.Now}).Copy(t.Context(), to, o)
}

// at looks at a copy as if it were the original.
func (p *pruned) at(store storage.Store) *pruned {
	other := *p
	other.store = store
	return &other
}

// TestCopy: what is copied is restored like the original, and the second time
// nothing is copied but what is new.
func TestCopy(t *testing.T) {
	for _, m := range modes(t) {
		p := newPruned(t, m)
		p.c.now = time.Now() // by which a directory stamps its files
		for name, to := range places(t, p.c) {
			t.Run(m.name+" "+name, func(t *testing.T) {
				p := newPruned(t, m)
				p.c.now = time.Now()
				p.backup(t, pruneContent(1))
				p.c.advance(time.Second)
				p.backup(t, pruneContent(2))
				dry, err := p.copyTo(t, to, CopyOptions{DryRun: true})
				require.NoError(t, err)
				require.Empty(t, keysBelow(t, to, ""))
				var heard []record.BackupID
				report, err := p.copyTo(t, to, CopyOptions{Done: func(b CopiedBackup) { heard = append(heard, b.ID) }})
				require.NoError(t, err)
				require.Equal(t, p.ids, heard, "the oldest first")
				require.Equal(t, dry.Copied, report.Copied)
				for _, b := range report.Backups {
					require.Equal(t, StatusComplete, b.Status, b.Problems)
				}
				p.at(to).requireLeft(t, 0, 1)

				p.c.advance(time.Second)
				p.backup(t, pruneContent(3))
				next, err := p.copyTo(t, to, CopyOptions{})
				require.NoError(t, err)
				require.True(t, next.Backups[0].Before && next.Backups[1].Before && !next.Backups[2].Before)
				require.Positive(t, next.Copied.Objects)
				require.Less(t, next.Copied.Bytes, report.Copied.Bytes)
				require.Positive(t, next.Present.Bytes, "the packs of what is the same in all")
				p.at(to).requireLeft(t, 0, 1, 2)
			})
		}
	}
}

// TestCopyOfOne that is named, and of what has nothing to copy.
func TestCopyOfOne(t *testing.T) {
	p := newPruned(t, plainMode())
	p.backup(t, pruneContent(1))
	p.c.advance(time.Second)
	p.backup(t, pruneContent(2))
	p.c.advance(time.Second)
	require.NoError(t, p.begin(t, p.store).Close())
	to := mem.New(mem.Options{Now: p.c.Now})
	report, err := p.copyTo(t, to, CopyOptions{IDs: p.ids[1:2]})
	require.NoError(t, err)
	require.Len(t, report.Backups, 1)
	p.at(to).requireLeft(t, 1)
	_, err = p.copyTo(t, to, CopyOptions{IDs: p.ids[2:]})
	require.ErrorIs(t, err, ErrNoEligible)
	_, err = p.copyTo(t, to, CopyOptions{IDs: []record.BackupID{"20200101T000000Z-12345678"}})
	require.ErrorIs(t, err, ErrNoBackup)
	other := newPruned(t, plainMode())
	_, err = p.copyTo(t, other.store, CopyOptions{})
	require.ErrorIs(t, err, ErrExists)
	require.ErrorContains(t, err, "not a copy of this one")
}

// TestCopyOfAnOldBackup has the copy's times, and counts once it is adopted.
func TestCopyOfAnOldBackup(t *testing.T) {
	p := newPruned(t, encryptedMode(t))
	p.backup(t, pruneContent(1))
	p.c.advance(30 * 24 * time.Hour)
	to := mem.New(mem.Options{Now: p.c.Now})
	report, err := p.copyTo(t, to, CopyOptions{})
	require.NoError(t, err)
	require.Equal(t, StatusInvalid, report.Backups[0].Status)
	require.Contains(t, report.Backups[0].Problems[0], "backup adopt")
	again, err := p.copyTo(t, to, CopyOptions{})
	require.NoError(t, err)
	require.True(t, again.Backups[0].Before)
	require.Zero(t, again.Copied)
	_, err = p.signer(t, to).AdoptCopies(t.Context(), testSet, AdoptOptions{})
	require.NoError(t, err)
	p.at(to).requireLeft(t, 0)
}

// killed is a store that fails after so many writes.
type killed struct {
	storage.Store
	left atomic.Int64
}

var errKilled = errors.New("killed")

func (k *killed) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	if k.left.Add(-1) < 0 {
		return errKilled
	}
	return k.Store.Put(ctx, key, body)
}

// TestCopyIsKilled at each of its writes: what is there is no lie, and the next
// one goes on.
func TestCopyIsKilled(t *testing.T) {
	p := newPruned(t, encryptedMode(t))
	p.backup(t, pruneContent(1))
	whole := mem.New(mem.Options{Now: p.c.Now})
	_, err := p.copyTo(t, whole, CopyOptions{})
	require.NoError(t, err)
	sites := len(keysBelow(t, whole, ""))
	require.Greater(t, sites, 8)
	for n := range sites {
		to := mem.New(mem.Options{Now: p.c.Now})
		k := &killed{Store: to}
		k.left.Store(int64(n))
		_, err := p.copyTo(t, k, CopyOptions{})
		require.ErrorIs(t, err, errKilled)
		if keys := keysBelow(t, to, prefixConfig); len(keys) > 0 {
			infos, err := open(t, to, p.m.restore, Options{Clock: p.c.Now}).Backups(t.Context(), testSet)
			require.NoError(t, err)
			for _, info := range infos {
				require.NotEqual(t, StatusComplete, info.Status)
			}
		}
		report, err := p.copyTo(t, to, CopyOptions{})
		require.NoError(t, err, "site %d", n)
		require.Equal(t, StatusComplete, report.Backups[0].Status)
		require.Equal(t, keysBelow(t, whole, ""), keysBelow(t, to, ""))
	}
	t.Logf("killed at %d sites", sites)
}

// TestCopyThatLostSomething: of a backup that was copied before, an object is gone
// from the copy. The next copy brings it again, and does not say that all is there.
func TestCopyThatLostSomething(t *testing.T) {
	p := newPruned(t, plainMode())
	p.backup(t, pruneContent(1))
	to := mem.New(mem.Options{Now: p.c.Now})
	_, err := p.copyTo(t, to, CopyOptions{})
	require.NoError(t, err)
	whole := keysBelow(t, to, "")
	l := layout{testSet}
	for _, prefix := range []string{l.packs(), l.maps(), l.parts(), l.refs()} {
		key := keysBelow(t, to, prefix)[0]
		require.NoError(t, to.Delete(t.Context(), key))
		dry, err := p.copyTo(t, to, CopyOptions{DryRun: true})
		require.NoError(t, err)
		require.False(t, dry.Backups[0].Before, key)
		report, err := p.copyTo(t, to, CopyOptions{})
		require.NoError(t, err, key)
		require.False(t, report.Backups[0].Before, key)
		require.Equal(t, 1, report.Copied.Objects, key)
		require.Equal(t, whole, keysBelow(t, to, ""))
		p.at(to).requireLeft(t, 0)
	}
	key := keysBelow(t, to, l.packs())[0]
	data := readObject(t, to, key)
	replace(t, to, key, data[1:])
	_, err = p.copyTo(t, to, CopyOptions{})
	require.ErrorIs(t, err, ErrDamaged, "half an object is somebody's to look at")
	replace(t, to, key, data)
	report, err := p.copyTo(t, to, CopyOptions{})
	require.NoError(t, err)
	require.True(t, report.Backups[0].Before)
}

// TestCopyOfADamagedBackup: a byte that has changed is not handed on.
func TestCopyOfADamagedBackup(t *testing.T) {
	p := newPruned(t, plainMode())
	p.backup(t, pruneContent(1))
	for _, prefix := range []string{layout{testSet}.packs(), layout{testSet}.maps(), layout{testSet}.parts(), layout{testSet}.refs()} {
		key := keysBelow(t, p.store, prefix)[0]
		data := readObject(t, p.store, key)
		bad := append([]byte{}, data...)
		bad[len(bad)/2] ^= 1
		replace(t, p.store, key, bad)
		to := mem.New(mem.Options{Now: p.c.Now})
		_, err := p.copyTo(t, to, CopyOptions{})
		require.ErrorIs(t, err, ErrDamaged, key)
		require.Empty(t, keysBelow(t, to, layout{testSet}.commits()))
		replace(t, p.store, key, data)
	}
}

// TestCopyAndPrune: a prune of the copy has condemned what a later copy needs.
// The copy waits until that is gone, and brings it again.
func TestCopyAndPrune(t *testing.T) {
	p := newPruned(t, plainMode())
	p.backup(t, pruneContent(1))
	p.c.advance(time.Hour)
	to := mem.New(mem.Options{Now: p.c.Now})
	_, err := p.copyTo(t, to, CopyOptions{})
	require.NoError(t, err)
	there := p.at(to)
	p.c.advance(longest + 2*slack)
	there.mustPrune(t, PruneOptions{Choose: there.drop(0), Force: true})
	p.backup(t, pruneContent(2)) // needs packs of the first one
	_, err = p.copyTo(t, to, CopyOptions{IDs: p.ids[1:]})
	require.ErrorIs(t, err, ErrCopyWaits)
	p.c.advance(longest + 2*slack + time.Minute)
	there.mustPrune(t, PruneOptions{})
	report, err := p.copyTo(t, to, CopyOptions{IDs: p.ids[1:]})
	require.NoError(t, err)
	require.Positive(t, report.Copied.Bytes)
	_, err = p.signer(t, to).AdoptCopies(t.Context(), testSet, AdoptOptions{})
	require.NoError(t, err)
	p.at(to).requireLeft(t, 1)
}
