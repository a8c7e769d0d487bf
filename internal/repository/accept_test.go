package repository

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
	"keepset/internal/storage"
	"keepset/internal/storage/mem"
)

// suspect takes a backup of which the run has doubts.
func (p *pruned) suspect(t testing.TB) record.BackupID {
	t.Helper()
	b := p.begin(t, p.store)
	w, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	report := testReport()
	report.CapturedAt = p.c.now
	_, err = w.Commit(t.Context(), report, CommitStatus{Suspect: true, Reasons: []string{"rows fell"}})
	require.NoError(t, err)
	require.NoError(t, b.Close())
	return b.Plan().ID
}

// signer is what somebody holds who accepts: it opens nothing.
func (p *pruned) signer(t testing.TB, store storage.Store) *Repository {
	t.Helper()
	return open(t, store, Keys{Writer: p.m.writer.Writer, Trusted: p.m.restore.Trusted}, Options{Clock: p.c.Now})
}

// TestAccept makes a suspect backup count, with the writer's key, for all readers.
func TestAccept(t *testing.T) {
	for _, m := range modes(t) {
		t.Run(m.name, func(t *testing.T) {
			p := newPruned(t, m)
			p.backup(t, pruneContent(1))
			good := p.ids[0]
			p.c.advance(time.Hour)
			id := p.suspect(t)
			if m.writer.Writer != nil {
				_, err := open(t, p.store, p.keyless(), Options{Clock: p.c.Now}).Accept(t.Context(), testSet, id, "", false)
				require.ErrorIs(t, err, ErrNoKey)
			}
			r := p.signer(t, p.store)
			before := keysBelow(t, p.store, "")
			rec, err := r.Accept(t.Context(), testSet, id, "archived", true)
			require.NoError(t, err)
			require.Len(t, rec.Commits, 1)
			require.Equal(t, before, keysBelow(t, p.store, ""), "a dry run changes nothing")

			_, err = r.Accept(t.Context(), testSet, id, "archived", false)
			require.NoError(t, err)
			reader := open(t, p.store, m.restore, Options{Clock: p.c.Now})
			info, err := reader.Resolve(t.Context(), testSet, Selector{})
			require.NoError(t, err)
			require.Equal(t, id, info.ID, "it is the newest that is good")
			require.Empty(t, info.Problems)
			require.Equal(t, "archived", info.Accepted[0].Reason)
			again, err := r.Accept(t.Context(), testSet, id, "", false)
			require.NoError(t, err)
			require.Nil(t, again)
			again, err = r.Accept(t.Context(), testSet, good, "", false)
			require.NoError(t, err)
			require.Nil(t, again, "what is complete has no doubt")

			// It goes with its backup, before the plan.
			p.c.advance(longest + slack)
			p.backup(t, pruneContent(2))
			p.mustPrune(t, PruneOptions{Choose: p.drop(1)})
			require.Empty(t, keysBelow(t, p.store, layout{testSet}.backup(id)))
		})
	}
}

// TestAcceptCoversWhatWasLookedAt: not another attempt's commit, not another
// backup, and nothing that somebody without the key has written.
func TestAcceptCoversWhatWasLookedAt(t *testing.T) {
	p := newPruned(t, encryptedMode(t))
	id := p.suspect(t)
	p.c.advance(time.Minute)
	other := p.suspect(t)
	r := p.signer(t, p.store)
	_, err := r.Accept(t.Context(), testSet, id, "", false)
	require.NoError(t, err)
	status := func(id record.BackupID) (Status, []string) {
		info, err := r.Backup(t.Context(), testSet, id)
		require.NoError(t, err)
		return info.Status, info.Problems
	}
	now, _ := status(id)
	require.Equal(t, StatusComplete, now)

	l := layout{testSet}
	var key string
	for _, k := range keysBelow(t, p.store, l.backup(id)) {
		if k != l.plan(id) {
			key = k
		}
	}
	data := readObject(t, p.store, key)
	moved := l.accept(other, "moved")
	require.NoError(t, p.store.Put(t.Context(), moved, bytes.NewReader(data)))
	now, problems := status(other)
	require.Equal(t, StatusSuspect, now)
	require.Contains(t, problems[0], moved+" accepts nothing")

	// Another doubt, other commits, or no signature: it accepts nothing.
	for name, change := range map[string]func([]byte) []byte{
		"changed":  func(b []byte) []byte { return bytes.Replace(b, []byte(`"suspect"`), []byte(`"times"`), 1) },
		"unsigned": func(b []byte) []byte { return b[:bytes.IndexByte(b, '\n')+1] },
		"garbage":  func([]byte) []byte { return []byte("?\n") },
	} {
		replace(t, p.store, key, change(data))
		now, problems = status(id)
		require.Equal(t, StatusSuspect, now, name)
		require.Contains(t, problems[0], "accepts nothing", name)
	}
	forged := record.Accept{
		Header: record.NewHeader(record.KindAccept), Repository: r.config.Repository, Set: testSet, Backup: id,
		Doubt: record.DoubtSuspect, PlanSHA256: hash{1}, Commits: []hash{{1}}, CreatedAt: p.c.now,
	}
	encoded, err := record.Encode(&forged, p.m.writer.Writer)
	require.NoError(t, err)
	replace(t, p.store, key, encoded)
	now, _ = status(id)
	require.Equal(t, StatusSuspect, now, "other commits")
}

// TestAcceptOnlyWhatIsSuspect.
func TestAcceptOnlyWhatIsSuspect(t *testing.T) {
	p := newPruned(t, plainMode())
	require.NoError(t, p.begin(t, p.store).Close())
	r := p.signer(t, p.store)
	_, err := r.Accept(t.Context(), testSet, p.ids[0], "", false)
	require.ErrorIs(t, err, ErrNoEligible)
	require.ErrorContains(t, err, "is incomplete")
	_, err = r.Accept(t.Context(), testSet, "20200101T000000Z-12345678", "", false)
	require.ErrorIs(t, err, ErrNoBackup)
	_, err = open(t, p.store, Keys{}, Options{AcceptCopiedTimes: true}).Accept(t.Context(), testSet, p.ids[0], "", false)
	require.ErrorIs(t, err, ErrReadOnly)
}

// copyBucket copies all objects, in any order, as a tool does that knows nothing
// of them.
func copyBucket(t testing.TB, from storage.Store, c *clock) storage.Store {
	t.Helper()
	to := mem.New(mem.Options{Now: c.Now})
	keys := keysBelow(t, from, "")
	for i := range keys {
		key := keys[len(keys)-1-i]
		require.NoError(t, to.Put(t.Context(), key, bytes.NewReader(readObject(t, from, key))))
		c.advance(time.Minute)
	}
	return to
}

// TestAdoptCopies: a copied bucket counts again, for readers, writers and
// pruners, but for what is not whole.
func TestAdoptCopies(t *testing.T) {
	for _, m := range modes(t) {
		t.Run(m.name, func(t *testing.T) {
			p := newPruned(t, m)
			p.backup(t, pruneContent(1))
			p.c.advance(24 * time.Hour)
			p.backup(t, pruneContent(2))
			p.c.advance(30 * 24 * time.Hour)
			p.store = copyBucket(t, p.store, p.c)
			r := p.signer(t, p.store)
			_, err := r.Resolve(t.Context(), testSet, Selector{})
			require.ErrorIs(t, err, ErrNoEligible)

			// What only the second backup needs is lost.
			info, err := open(t, p.store, m.restore, Options{AcceptCopiedTimes: true}).Backup(t.Context(), testSet, p.ids[1])
			require.NoError(t, err)
			refs, err := r.readRefs(t.Context(), layout{testSet}, new(info.Members[0].Commit))
			require.NoError(t, err)
			lost := layout{testSet}.mapOf(refs.Map)
			data := readObject(t, p.store, lost)
			require.NoError(t, p.store.Delete(t.Context(), lost))
			before := keysBelow(t, p.store, "")
			dry, err := r.AdoptCopies(t.Context(), testSet, AdoptOptions{DryRun: true})
			require.NoError(t, err)
			require.Equal(t, before, keysBelow(t, p.store, ""))
			list, err := r.AdoptCopies(t.Context(), testSet, AdoptOptions{Reason: "moved"})
			require.NoError(t, err)
			require.Equal(t, dry, list)
			require.Len(t, list, 2)
			require.Equal(t, Adopted{p.ids[1], "ordinal 0: " + lost + " is missing"}, list[0])
			require.Equal(t, Adopted{Backup: p.ids[0]}, list[1])
			p.requireLeft(t, 0)

			require.NoError(t, p.store.Put(t.Context(), lost, bytes.NewReader(data)))
			list, err = r.AdoptCopies(t.Context(), testSet, AdoptOptions{Reason: "moved"})
			require.NoError(t, err)
			require.Equal(t, []Adopted{{Backup: p.ids[1]}}, list)
			p.requireLeft(t, 0, 1)
			list, err = r.AdoptCopies(t.Context(), testSet, AdoptOptions{Reason: "moved"})
			require.NoError(t, err)
			require.Empty(t, list)

			// It is a repository like others: written to, and pruned.
			p.backup(t, pruneContent(3))
			p.mustPrune(t, PruneOptions{Choose: p.drop(0)})
			p.requireLeft(t, 1, 2)
		})
	}
}

// TestAdoptOrigin: a cluster takes another one's place, and then it counts.
func TestAdoptOrigin(t *testing.T) {
	for _, m := range modes(t) {
		store := initStore(t, m)
		r := open(t, store, m.writer, small())
		adopted, err := r.AdoptOrigin(t.Context(), testSet, "new", false)
		require.NoError(t, err)
		require.Nil(t, adopted, "a set that nobody has is nobody's")
		require.NoError(t, beginFrom(t, r, 0, ""))
		require.NoError(t, beginFrom(t, r, 1, "old"))
		require.ErrorIs(t, beginFrom(t, r, 2, "new"), ErrOrigin)
		dry, err := r.AdoptOrigin(t.Context(), testSet, "new", true)
		require.NoError(t, err)
		require.Equal(t, "old", dry.From)
		require.NotEmpty(t, dry.Newest)
		require.ErrorIs(t, beginFrom(t, r, 2, "new"), ErrOrigin, "a dry run changes nothing")
		for n, origin := range []string{"new", "newer", "old"} {
			adopted, err = r.AdoptOrigin(t.Context(), testSet, origin, false)
			require.NoError(t, err)
			require.Equal(t, origin, adopted.To)
			require.NoError(t, beginFrom(t, r, 3+n, origin))
		}
		require.ErrorIs(t, beginFrom(t, r, 7, "newer"), ErrOrigin)
		adopted, err = r.AdoptOrigin(t.Context(), testSet, "old", false)
		require.NoError(t, err)
		require.Nil(t, adopted)
		report, err := r.Verify(t.Context(), VerifyOptions{Set: testSet})
		require.NoError(t, err)
		require.Empty(t, report.Damages)
	}
}
