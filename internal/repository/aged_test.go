package repository

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
	"keepset/internal/storage"
)

// TestOldDataIsStoredAgain: what is locked for a while from when it is stored protects a later backup only as long as it
// is young. Everything that a backup needs was stored at most ReuseWithin before it, and nothing is stored again sooner.
func TestOldDataIsStoredAgain(t *testing.T) {
	const within = 10 * 24 * time.Hour
	for _, m := range modes(t) {
		t.Run(m.name, func(t *testing.T) {
			p := newPruned(t, m)
			c := crashContent(4)
			take := func() (packs int) {
				before := len(keysBelow(t, p.store, layout{testSet}.packs()))
				plan := planAt(p.c.now, "job00001", 0) // the time makes it another one each time
				o := p.options()
				o.ReuseWithin = within
				b, err := open(t, p.store, m.writer, o).Begin(t.Context(), plan, "attempt-1")
				require.NoError(t, err)
				writeMember(t, b, 0, c)
				require.NoError(t, b.Close())
				requireYoung(t, open(t, p.store, m.restore, o), plan.ID, p.c.now.Add(-within))
				got, err := readMember(t.Context(), open(t, p.store, m.restore, o), plan.ID, 0)
				require.NoError(t, err)
				require.Equal(t, c, got)
				return len(keysBelow(t, p.store, layout{testSet}.packs())) - before
			}
			all := take()
			require.Greater(t, all, 1)
			secret := 0 // a secret stream is stored anew each time
			for range 5 {
				p.c.advance(2 * 24 * time.Hour)
				secret = take()
				require.Less(t, secret, all)
			}
			p.c.advance(2 * 24 * time.Hour)
			require.Greater(t, take(), secret, "the first ones are too old")
			p.c.advance(2 * 24 * time.Hour)
			require.Less(t, take(), all, "and the new ones are taken over")
		})
	}
}

// requireYoung looks at the age of every object that a backup needs.
func requireYoung(t *testing.T, r *Repository, id record.BackupID, since time.Time) {
	t.Helper()
	info, err := r.Backup(t.Context(), testSet, id)
	require.NoError(t, err)
	member := info.Members[0]
	l := layout{testSet}
	refs, err := r.readRefs(t.Context(), l, &member.Commit)
	require.NoError(t, err)
	seen := 0
	for prefix, list := range map[string][]record.ObjectRef{l.packs(): refs.Packs, l.parts(): append(refs.Parts, refs.Memos...), l.maps(): refs.Maps} {
		for _, ref := range list {
			object, err := r.store.Stat(t.Context(), prefix+ref.SHA256.String())
			require.NoError(t, err)
			require.False(t, object.LastModified.Before(since), "%s is of %s", object.Key, object.LastModified)
			seen++
		}
	}
	require.Greater(t, seen, 2)
}

// TestLasting: each key of a backup is lasting or passing, and a pruner never has to delete what it has written itself
// from under a lock.
func TestLasting(t *testing.T) {
	m := encryptedMode(t)
	p := newPruned(t, m)
	p.backup(t, crashContent(1))
	l := layout{testSet}
	for _, key := range keysBelow(t, p.store, "") {
		require.True(t, Lasting(key), key)
	}
	id := p.ids[0]
	for _, key := range []string{l.plan(id), l.accept(id, "x"), l.commit(id, 0, "a"), l.originAt(2), l.part(hash{}), keyConfig(3)} {
		require.True(t, Lasting(key), key)
	}
	for _, key := range []string{l.checkpoint(id, 0, "a", 1), l.report(id, "a"), l.prune(id), l.pin(id), "elsewhere"} {
		require.False(t, Lasting(key), key)
	}
}

// keeping is a store that keeps what is deleted, as a bucket with versions does.
type keeping struct{ storage.Store }

func (k keeping) Remove(ctx context.Context, key string) (bool, error) {
	return true, k.Delete(ctx, key)
}

// TestPruneSaysWhatIsHidden: what the store keeps is not freed.
func TestPruneSaysWhatIsHidden(t *testing.T) {
	m := plainMode()
	p := newPruned(t, m)
	for n := range 2 {
		p.backup(t, crashContent(uint64(10*n)))
		p.c.advance(26 * time.Hour)
	}
	prune := func(store storage.Store, ids ...record.BackupID) PruneReport {
		report, err := open(t, store, m.writer, p.options()).Prune(t.Context(), PruneOptions{
			Set: testSet, Choose: func(PruneView) ([]record.BackupID, error) { return ids, nil },
		})
		require.NoError(t, err)
		return report
	}
	kept := storage.WithRetry(storage.WithBandwidth(keeping{p.store}, storage.Bandwidth{}), storage.Retry{}) // the decorators pass it on
	for _, ids := range [][]record.BackupID{p.ids[:1], nil} {                                                // the second one deletes what the first has condemned
		report := prune(kept, ids...)
		require.Zero(t, report.Freed)
		require.Greater(t, report.Hidden.Objects, 1)
		require.Positive(t, report.Hidden.Bytes)
		p.c.advance(27 * time.Hour)
	}
}
