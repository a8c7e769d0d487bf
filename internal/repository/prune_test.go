package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
	"keepset/internal/storage"
)

const (
	longest = 24 * time.Hour
	slack   = time.Hour
)

// pruned is a repository whose store has a clock that the test moves.
type pruned struct {
	m     mode
	c     *clock
	store storage.Store
	ids   []record.BackupID // in the order in which they were taken
	holds map[record.BackupID]content
}

func newPruned(t testing.TB, m mode) *pruned {
	t.Helper()
	c := newClock()
	return &pruned{m: m, c: c, store: initAt(t, m, c), holds: make(map[record.BackupID]content)}
}

func (p *pruned) options() Options {
	o := small()
	o.Clock, o.PackBytes = p.c.Now, 64<<10
	return o
}

func (p *pruned) begin(t testing.TB, store storage.Store) *Backup {
	t.Helper()
	plan := planAt(p.c.now, fmt.Sprintf("job%05d", len(p.ids)), 0)
	b, err := open(t, store, p.m.writer, p.options()).Begin(t.Context(), plan, "attempt-1")
	require.NoError(t, err)
	p.ids = append(p.ids, plan.ID)
	return b
}

func (p *pruned) backup(t testing.TB, c content) {
	t.Helper()
	b := p.begin(t, p.store)
	w, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	require.NoError(t, p.commit(t, b, w, c))
	require.NoError(t, b.Close())
}

// commit writes the member, captured now.
func (p *pruned) commit(t testing.TB, b *Backup, w *MemberWriter, c content) error {
	t.Helper()
	for name, data := range c {
		s, err := w.Create(t.Context(), name, StreamOptions{})
		require.NoError(t, err)
		require.NoError(t, writeAll(s, data))
	}
	report := testReport()
	report.CapturedAt = p.c.now
	_, err := w.Commit(t.Context(), report, CommitStatus{})
	if err == nil {
		p.holds[b.Plan().ID] = c
	}
	return err
}

// keyless is what a pruner holds.
func (p *pruned) keyless() Keys { return Keys{Trusted: p.m.restore.Trusted} }

func (p *pruned) prune(t testing.TB, store storage.Store, o PruneOptions) (PruneReport, error) {
	t.Helper()
	r, err := Open(t.Context(), store, p.keyless(), Options{Clock: p.c.Now})
	if err != nil {
		return PruneReport{}, err
	}
	o.Set = testSet
	return r.Prune(t.Context(), o)
}

func (p *pruned) mustPrune(t testing.TB, o PruneOptions) PruneReport {
	t.Helper()
	report, err := p.prune(t, p.store, o)
	require.NoError(t, err)
	return report
}

// drop chooses backups by their place in the order in which they were taken.
func (p *pruned) drop(places ...int) func(PruneView) ([]record.BackupID, error) {
	return func(v PruneView) ([]record.BackupID, error) {
		var ids []record.BackupID
		for _, at := range places {
			if slices.ContainsFunc(v.Backups, func(b BackupInfo) bool { return b.ID == p.ids[at] }) {
				ids = append(ids, p.ids[at])
			}
		}
		return ids, nil
	}
}

// requireLeft: exactly these backups are complete and uncondemned, and every
// byte of them is right.
func (p *pruned) requireLeft(t testing.TB, places ...int) {
	t.Helper()
	r := open(t, p.store, p.m.restore, Options{Clock: p.c.Now})
	infos, err := r.Backups(t.Context(), testSet)
	require.NoError(t, err)
	var left []record.BackupID
	for _, info := range infos {
		if info.Status == StatusComplete && !info.Condemned {
			left = append(left, info.ID)
		}
	}
	var want []record.BackupID
	for _, at := range places {
		want = append(want, p.ids[at])
	}
	require.ElementsMatch(t, want, left)
	for _, id := range left {
		got, err := readMember(t.Context(), r, id, 0)
		require.NoError(t, err)
		requireContent(t, p.holds[id], got)
	}
	if len(left) == 0 {
		return
	}
	report, err := r.Verify(t.Context(), VerifyOptions{Set: testSet, IDs: left, ReadData: 100})
	require.NoError(t, err)
	require.Empty(t, report.Damages)
}

// requireOnlyNeeded: nothing lies in the store that no backup needs.
func (p *pruned) requireOnlyNeeded(t testing.TB) {
	t.Helper()
	r := open(t, p.store, p.m.restore, Options{Clock: p.c.Now})
	infos, err := r.Backups(t.Context(), testSet)
	require.NoError(t, err)
	l := layout{testSet}
	needed := map[string]bool{l.origin(): true, l.originAt(1): true}
	for _, info := range infos {
		needed[l.plan(info.ID)] = true
		for _, m := range info.Members {
			refs, err := r.readRefs(t.Context(), l, &m.Commit)
			require.NoError(t, err)
			needed[l.ref(m.Commit.Refs)] = true
			needed[l.commit(info.ID, m.Commit.Ordinal, m.Commit.Attempt)] = true
			for prefix, list := range map[string][]record.ObjectRef{l.packs(): refs.Packs, l.parts(): mergeRefs(refs.Parts, refs.Memos), l.maps(): refs.Maps} {
				for _, ref := range list {
					needed[prefix+ref.SHA256.String()] = true
				}
			}
		}
	}
	for _, key := range keysBelow(t, p.store, prefixSets) {
		require.True(t, needed[key], "%s is left", key)
	}
}

func pruneContent(seed uint64) content {
	return content{"same": randomBytes(1, 150<<10), "own": randomBytes(seed, 150<<10), "text": text(seed, 5000)}
}

// TestPrune condemns in one run, deletes in a later one, and leaves nothing.
func TestPrune(t *testing.T) {
	for _, m := range modes(t) {
		t.Run(m.name, func(t *testing.T) {
			p := newPruned(t, m)
			for n := range 4 {
				p.backup(t, pruneContent(uint64(10+n)))
				p.c.advance(24 * time.Hour)
			}
			before := keysBelow(t, p.store, "")
			dry := p.mustPrune(t, PruneOptions{Choose: p.drop(0, 2), DryRun: true})
			require.Equal(t, before, keysBelow(t, p.store, ""), "a dry run changes nothing")
			require.Equal(t, []record.BackupID{p.ids[0], p.ids[2]}, dry.Condemned)

			first := p.mustPrune(t, PruneOptions{Choose: p.drop(0, 2)})
			require.Equal(t, dry.Condemned, first.Condemned)
			require.Positive(t, first.Marked.Objects)
			require.Zero(t, first.Deletable)
			require.Equal(t, p.c.now.Add(longest+2*slack), first.Due)
			require.Positive(t, first.HalfDead.Bytes, "the first backup's packs hold what is the same in all")
			p.requireLeft(t, 1, 3)
			packs := keysBelow(t, p.store, layout{testSet}.packs())

			p.c.advance(longest + 2*slack)
			second := p.mustPrune(t, PruneOptions{})
			require.Zero(t, second.Deletable, "not a second too early")
			require.Zero(t, second.Marked, "nothing is condemned twice")
			require.Equal(t, first.Marked, second.Waiting)
			require.Equal(t, packs, keysBelow(t, p.store, layout{testSet}.packs()))

			p.c.advance(time.Second)
			third := p.mustPrune(t, PruneOptions{})
			require.Equal(t, first.Marked, third.Deletable)
			require.Greater(t, third.Freed.Bytes, third.Deletable.Bytes, "and the record")
			p.requireLeft(t, 1, 3)
			p.requireOnlyNeeded(t)
			fourth := p.mustPrune(t, PruneOptions{})
			require.Zero(t, fourth.Freed)
			require.Equal(t, third.Needed, fourth.Needed)
		})
	}
}

// TestPruneCondemnsTheBaseOfARunningBackup is the race that the protocol is made for: a prune
// condemns the base of a backup that is running, and the backup commits as late as it may.
func TestPruneCondemnsTheBaseOfARunningBackup(t *testing.T) {
	for _, m := range modes(t) {
		for _, test := range []struct {
			name string
			// planned and committed are measured from the moment of the condemnation.
			planned, committed time.Duration
			void               bool
		}{
			{"planned before, committed at once", -time.Second, time.Second, false},
			{"planned before, committed at its last moment", -time.Second, longest - time.Second, false},
			{"planned before, too late", -time.Second, longest, true},
			{"planned within the slack, not having seen the record", slack, slack, false},
			{"planned within the slack, committed at its last moment", slack, longest + slack, false},
			{"planned within the slack, too late", slack, longest + slack + time.Second, true},
		} {
			t.Run(m.name+"/"+test.name, func(t *testing.T) {
				p := newPruned(t, m)
				p.backup(t, pruneContent(1))
				p.c.advance(time.Hour)
				p.backup(t, pruneContent(2))
				p.c.advance(5 * 24 * time.Hour)
				at := p.c.now
				// What was there before the prune: a listing that lags by less than the slack.
				lagging := &unseeing{Store: p.store, prefix: layout{testSet}.prunes()}
				write := func() (*Backup, *MemberWriter) {
					p.c.now = at.Add(test.planned)
					b := p.begin(t, lagging)
					w, err := b.Member(t.Context(), 0)
					require.NoError(t, err)
					return b, w
				}
				var b *Backup
				var w *MemberWriter
				if test.planned < 0 {
					b, w = write()
				}
				p.c.now = at
				p.mustPrune(t, PruneOptions{Choose: p.drop(0, 1), Force: true})
				if test.planned >= 0 {
					b, w = write()
				}
				p.c.now = at.Add(test.committed)
				err := p.commit(t, b, w, pruneContent(2))
				require.NoError(t, b.Close())
				if test.void {
					require.ErrorIs(t, err, ErrVoid)
				} else {
					require.NoError(t, err)
				}
				p.c.now = at.Add(longest + 2*slack + time.Second)
				report := p.mustPrune(t, PruneOptions{})
				require.Positive(t, report.Deletable.Objects)
				if test.void {
					p.requireLeft(t)
					return
				}
				stored := p.holds[b.Plan().ID]
				require.NotNil(t, stored)
				p.requireLeft(t, 2)
				p.c.advance(40 * 24 * time.Hour)
				p.mustPrune(t, PruneOptions{})
				p.c.advance(2 * 24 * time.Hour)
				p.mustPrune(t, PruneOptions{})
				p.requireLeft(t, 2)
			})
		}
	}
}

// TestPruneAndABackupThatSawTheRecord: it avoids what is condemned, and may
// take as long as it likes.
func TestPruneAndABackupThatSawTheRecord(t *testing.T) {
	for _, m := range modes(t) {
		p := newPruned(t, m)
		p.backup(t, pruneContent(1))
		p.c.advance(5 * 24 * time.Hour)
		at := p.c.now
		p.mustPrune(t, PruneOptions{Choose: p.drop(0), Force: true})
		p.c.now = at.Add(slack + time.Second)
		b := p.begin(t, p.store)
		w, err := b.Member(t.Context(), 0)
		require.NoError(t, err)
		p.c.now = at.Add(longest + 2*slack + time.Second)
		report := p.mustPrune(t, PruneOptions{})
		require.Positive(t, report.Deletable.Objects)
		p.c.now = at.Add(slack + time.Second + longest)
		// It has begun before the deletion and ends after it.
		require.NoError(t, p.commit(t, b, w, pruneContent(1)))
		require.NoError(t, b.Close())
		p.requireLeft(t, 1)
	}
}

// crashed makes a repository in which a prune has something of everything to do.
func crashed(t *testing.T, m mode) *pruned {
	p := newPruned(t, m)
	for n := range 4 {
		p.backup(t, pruneContent(uint64(10+n)))
		p.c.advance(24 * time.Hour)
	}
	p.mustPrune(t, PruneOptions{Choose: p.drop(0)})
	p.c.advance(longest + 2*slack + time.Minute)
	return p
}

// TestPruneCrashesAtEveryCall stops a prune at every call of the store in
// turn. No backup that stays is harmed, and the next prunes leave nothing.
func TestPruneCrashesAtEveryCall(t *testing.T) {
	m := encryptedMode(t)
	for _, lostReply := range []bool{false, true} {
		sites := 0
		for ; ; sites += 1 + (slowdown-1)/2 {
			p := crashed(t, m)
			d := &dying{Store: p.store, lostReply: lostReply}
			d.left.Store(int64(sites))
			_, err := p.prune(t, d, PruneOptions{Choose: p.drop(2)})
			if d.left.Load() >= 0 {
				require.NoError(t, err)
				break
			}
			require.Error(t, err, "call %d", sites)
			infos, err := open(t, p.store, m.restore, Options{}).Backups(t.Context(), testSet)
			require.NoError(t, err)
			for _, info := range infos {
				if info.ID == p.ids[1] || info.ID == p.ids[3] {
					require.Equal(t, StatusComplete, info.Status, "call %d", sites)
				}
			}
			p.mustPrune(t, PruneOptions{Choose: p.drop(2)})
			p.requireLeft(t, 1, 3)
			p.c.advance(longest + 2*slack + time.Minute)
			p.mustPrune(t, PruneOptions{})
			p.requireLeft(t, 1, 3)
			p.requireOnlyNeeded(t)
		}
		require.Greater(t, sites, 40, "the test has lost its grip on the store")
		t.Logf("%d calls, lost replies: %t", sites, lostReply)
	}
}

// TestNextAttemptAtADeletedBackup: the user has deleted a backup that ran, and its
// Job starts another pod. What that one commits would be deleted by the next prune, so
// that it must not say that all is well; nor where that prune was killed right after
// its record, and the commits of the first attempt are still there.
func TestNextAttemptAtADeletedBackup(t *testing.T) {
	for name, kill := range map[string]bool{"deleted": false, "killed before it deletes": true} {
		t.Run(name, func(t *testing.T) {
			p := newPruned(t, plainMode())
			p.backup(t, pruneContent(1))
			p.c.advance(time.Hour)
			p.backup(t, pruneContent(2))
			plan := planAt(p.c.now, "job00001", 0)
			store := p.store
			if kill {
				store = &undeleting{p.store}
			}
			_, err := p.prune(t, store, PruneOptions{Choose: p.drop(1), Force: true})
			require.Equal(t, kill, err != nil, "%v", err)
			p.c.advance(time.Minute)
			_, err = open(t, p.store, p.m.writer, p.options()).Begin(t.Context(), plan, "attempt-2")
			require.ErrorIs(t, err, ErrCondemned)
			p.mustPrune(t, PruneOptions{})
			p.requireLeft(t, 0)
		})
	}
}

// undeleting is a store on which a prune fails at its first deletion.
type undeleting struct{ storage.Store }

func (u *undeleting) Delete(context.Context, string) error { return errKilled }

// TestTwoPrunersAtOnce with one policy do no harm, whoever deletes first.
func TestTwoPrunersAtOnce(t *testing.T) {
	m := encryptedMode(t)
	for range 20 {
		p := crashed(t, m)
		errs := make(chan error, 2)
		for range cap(errs) {
			go func() {
				_, err := p.prune(t, p.store, PruneOptions{Choose: p.drop(2)})
				errs <- err
			}()
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				require.True(t, errors.Is(err, ErrConcurrentPrune) || errors.Is(err, ErrNoBackup), "%v", err)
			}
		}
		p.mustPrune(t, PruneOptions{Choose: p.drop(2)})
		p.requireLeft(t, 1, 3)
		p.c.advance(longest + 2*slack + time.Minute)
		p.mustPrune(t, PruneOptions{})
		p.requireLeft(t, 1, 3)
		p.requireOnlyNeeded(t)
	}
}

// TestTwoPrunersOfDifferentMinds: each condemns what the other keeps. Whenever
// the other one comes in between, something is left, unless the user has
// insisted on the newest with the other's record before his eyes.
func TestTwoPrunersOfDifferentMinds(t *testing.T) {
	m := plainMode()
	stoodBack := 0
	for at := 0; ; at++ {
		p := newPruned(t, m)
		for n := range 2 {
			p.backup(t, pruneContent(uint64(n)))
			p.c.advance(72 * time.Hour)
		}
		var other error
		between := &interrupting{Store: p.store, at: at, do: func() {
			_, other = p.prune(t, p.store, PruneOptions{Choose: p.drop(0)})
		}}
		keeps := false // the other's choice, as far as this one knew
		_, err := p.prune(t, between, PruneOptions{Force: true, Choose: func(v PruneView) ([]record.BackupID, error) {
			keeps = slices.ContainsFunc(v.Backups, func(b BackupInfo) bool { return b.ID == p.ids[0] && !b.Condemned })
			return p.drop(1)(v)
		}})
		if between.calls <= at {
			break
		}
		if err != nil {
			require.ErrorIs(t, err, ErrConcurrentPrune)
			stoodBack++
		}
		if other != nil {
			require.True(t, errors.Is(other, ErrConcurrentPrune) || errors.Is(other, ErrNewest), "%v", other)
		}
		left := keysBelow(t, p.store, layout{testSet}.commits())
		require.True(t, len(left) > 0 || !keeps, "call %d: both have deleted", at)
	}
	require.Positive(t, stoodBack)
}

// TestPruneStopsAtWhatItCannotRead: a record of a newer version, or none at
// all, may need anything.
func TestPruneStopsAtWhatItCannotRead(t *testing.T) {
	l := layout{testSet}
	newer := func(data []byte) []byte { return bytes.Replace(data, []byte(`"format":1`), []byte(`"format":2`), 1) }
	garbage := func([]byte) []byte { return []byte("?\n") }
	gone := func([]byte) []byte { return nil }
	for _, m := range modes(t) {
		for name, harm := range map[string]struct {
			prefix string
			change func([]byte) []byte
		}{
			"newer plan":     {l.backups(), newer},
			"newer commit":   {l.commits(), newer},
			"newer refs":     {l.refs(), newer},
			"newer record":   {l.prunes(), newer},
			"garbage plan":   {l.backups(), garbage},
			"garbage commit": {l.commits(), garbage},
			"garbage refs":   {l.refs(), garbage},
			"garbage record": {l.prunes(), garbage},
			"lost refs":      {l.refs(), gone},
		} {
			if m.name == "encrypted" && strings.HasSuffix(name, "plan") {
				continue // it is forged then, and its commits are followed
			}
			t.Run(m.name+"/"+name, func(t *testing.T) {
				p := crashed(t, m)
				for _, key := range keysBelow(t, p.store, harm.prefix) {
					at, _ := p.store.Stat(t.Context(), key)
					data := harm.change(readObject(t, p.store, key))
					require.NoError(t, p.store.Delete(t.Context(), key))
					now := p.c.now
					p.c.now = at.LastModified
					if data != nil {
						require.NoError(t, p.store.Put(t.Context(), key, bytes.NewReader(data)))
					}
					p.c.now = now
				}
				before := keysBelow(t, p.store, "")
				_, err := p.prune(t, p.store, PruneOptions{Choose: p.drop(2)})
				require.ErrorIs(t, err, ErrUncertain)
				require.Equal(t, before, keysBelow(t, p.store, ""))
			})
		}
	}
}

// TestPruneHoldsWhatTheForgedNeed: a good plan whose signature no longer fits, by
// a flipped bit or by somebody's hand, is no reason that its data goes.
func TestPruneHoldsWhatTheForgedNeed(t *testing.T) {
	p := crashed(t, encryptedMode(t))
	l := layout{testSet}
	key := l.plan(p.ids[1])
	good := readObject(t, p.store, key)
	stored, err := p.store.Stat(t.Context(), key)
	require.NoError(t, err)
	put := func(data []byte) {
		now := p.c.now
		p.c.now = stored.LastModified
		replace(t, p.store, key, data)
		p.c.now = now
	}
	put(bytes.Replace(good, []byte("mysql-0"), []byte("mysql-1"), 1))
	p.mustPrune(t, PruneOptions{Choose: p.drop(2)})
	p.c.advance(longest + 2*slack + time.Minute)
	p.mustPrune(t, PruneOptions{})
	put(good)
	p.requireLeft(t, 1, 3)
}

// TestPruneByTheStoresClock: whatever the pod's clock says, the same goes.
func TestPruneByTheStoresClock(t *testing.T) {
	var want []int
	for _, off := range []time.Duration{0, 13 * time.Hour, -13 * time.Hour, 40 * 24 * time.Hour} {
		p := newPruned(t, encryptedMode(t))
		for n := range 3 {
			p.backup(t, pruneContent(uint64(n)))
			p.c.advance(24 * time.Hour)
		}
		var counts []int
		for _, wait := range []time.Duration{0, longest + 2*slack, time.Second} {
			p.c.advance(wait)
			r := open(t, p.store, p.keyless(), Options{Clock: func() time.Time { return p.c.now.Add(off) }})
			report, err := r.Prune(t.Context(), PruneOptions{Set: testSet, Choose: p.drop(0)})
			require.NoError(t, err)
			require.Equal(t, p.c.now, report.Now)
			counts = append(counts, report.Marked.Objects, report.Deletable.Objects, report.Waiting.Objects, report.Freed.Objects)
		}
		if want == nil {
			want = counts
		}
		require.Equal(t, want, counts, "a clock that is off by %s", off)
	}
}

// TestNewestStays, and what is pinned.
func TestNewestStays(t *testing.T) {
	p := newPruned(t, encryptedMode(t))
	for n := range 3 {
		p.backup(t, pruneContent(uint64(n)))
		p.c.advance(24 * time.Hour)
	}
	r := open(t, p.store, p.keyless(), Options{Clock: p.c.Now})
	require.NoError(t, r.Pin(t.Context(), testSet, p.ids[0], "before the migration"))
	require.NoError(t, r.Pin(t.Context(), testSet, p.ids[0], "again"))
	before := keysBelow(t, p.store, "")
	_, err := p.prune(t, p.store, PruneOptions{Choose: p.drop(1, 2)})
	require.ErrorIs(t, err, ErrNewest)
	_, err = p.prune(t, p.store, PruneOptions{Choose: p.drop(0)})
	require.ErrorIs(t, err, ErrPinned)
	require.Equal(t, before, keysBelow(t, p.store, ""))
	p.mustPrune(t, PruneOptions{Choose: p.drop(1, 2), Force: true})
	p.requireLeft(t, 0)
	require.ErrorIs(t, r.Pin(t.Context(), testSet, p.ids[1], ""), ErrNoBackup)
	require.NoError(t, r.Unpin(t.Context(), testSet, p.ids[0]))
	require.NoError(t, r.Unpin(t.Context(), testSet, p.ids[0]))
	p.mustPrune(t, PruneOptions{Choose: p.drop(0), Force: true})
	verified, err := open(t, p.store, p.m.restore, Options{Clock: p.c.Now}).Verify(t.Context(), VerifyOptions{Set: testSet})
	require.NoError(t, err)
	require.Empty(t, verified.Damages)
	require.Len(t, verified.Problems, 1)
	for range 3 { // what was young when it was condemned takes another round
		p.c.advance(30 * time.Hour)
		p.mustPrune(t, PruneOptions{})
	}
	p.requireOnlyNeeded(t)
}

// TestEveryCompleteBackupIsCondemned, as by two pruners of different minds
// that were both killed: none is deleted before there is another one.
func TestEveryCompleteBackupIsCondemned(t *testing.T) {
	p := newPruned(t, plainMode())
	p.backup(t, pruneContent(1))
	p.c.advance(72 * time.Hour)
	condemn(t, p.store, record.Prune{Backups: p.ids})
	_, err := p.prune(t, p.store, PruneOptions{})
	require.ErrorIs(t, err, ErrNewest)
	require.NotEmpty(t, keysBelow(t, p.store, layout{testSet}.commits()))
	p.backup(t, pruneContent(2))
	report := p.mustPrune(t, PruneOptions{})
	require.Equal(t, p.ids[:1], report.Finished)
	p.requireLeft(t, 1)
}

// TestPruneRefusesToGuess: without the writers' public keys, and in a copy.
func TestPruneRefusesToGuess(t *testing.T) {
	p := newPruned(t, encryptedMode(t))
	p.backup(t, pruneContent(1))
	_, err := open(t, p.store, Keys{}, Options{}).Prune(t.Context(), PruneOptions{Set: testSet})
	require.ErrorIs(t, err, ErrNoTrusted)
	_, err = open(t, p.store, p.keyless(), Options{AcceptCopiedTimes: true}).Prune(t.Context(), PruneOptions{Set: testSet})
	require.ErrorIs(t, err, ErrReadOnly)
}

// TestPruneReleasesVolumeSnapshots once no commit names them, and again when
// the first try did not succeed.
func TestPruneReleasesVolumeSnapshots(t *testing.T) {
	p := newPruned(t, plainMode())
	for n := range 3 {
		b := p.begin(t, p.store)
		w, err := b.Member(t.Context(), 0)
		require.NoError(t, err)
		shared, own := testVolumeSnapshot("snap-shared"), testVolumeSnapshot(fmt.Sprintf("snap-%d", n))
		require.NoError(t, w.AddVolumeSnapshots([]record.VolumeSnapshot{shared, own}))
		require.NoError(t, p.commit(t, b, w, content{}))
		require.NoError(t, b.Close())
		p.c.advance(48 * time.Hour)
	}
	down := errors.New("the provider is down")
	var asked []string
	release := func(err error) PruneOptions {
		return PruneOptions{Choose: p.drop(0), Release: func(_ context.Context, now time.Time, list []NeededSnapshot) error {
			require.Equal(t, p.c.now, now)
			require.Empty(t, keysBelow(t, p.store, layout{testSet}.commits()+string(p.ids[0])), "its commit is gone by then")
			for _, s := range list {
				asked = append(asked, s.Snapshot.ID)
			}
			return err
		}}
	}
	_, err := p.prune(t, p.store, release(down))
	require.ErrorIs(t, err, down)
	p.mustPrune(t, release(nil))
	require.Equal(t, []string{"snap-0", "snap-0"}, asked)
	p.c.advance(longest + 2*slack + time.Second)
	p.mustPrune(t, release(nil))
	p.requireOnlyNeeded(t)
	p.requireLeft(t, 1, 2)
}

// TestPruneWithItsRightsOnly: a store that enforces the policy of docs/prune.md.
func TestPruneWithItsRightsOnly(t *testing.T) {
	p := crashed(t, encryptedMode(t))
	guarded := &guarded{
		Store: p.store,
		reads: []string{"config/", "/backups/", "/commits/", "/refs/", "/prune/", "/pins/"}, writes: []string{"/prune/", "/pins/"},
	}
	report, err := p.prune(t, guarded, PruneOptions{Choose: p.drop(2)})
	require.NoError(t, err)
	require.Positive(t, report.Deletable.Objects)
	r := open(t, guarded, p.keyless(), Options{Clock: p.c.Now})
	require.NoError(t, r.Pin(t.Context(), testSet, p.ids[1], ""))
	require.NoError(t, r.Unpin(t.Context(), testSet, p.ids[1]))
	p.requireLeft(t, 1, 3)
}

// TestAStolenWriterCannotHaveBackupsDeleted: what it may not write is what would condemn them.
func TestAStolenWriterCannotHaveBackupsDeleted(t *testing.T) {
	p := crashed(t, encryptedMode(t))
	writer := &guarded{Store: p.store, writes: []string{"/backups/", "/packs/", "/parts/", "/maps/", "/refs/", "/commits/", "/reports/", "/origin"}}
	_, err := open(t, writer, p.m.writer, Options{Clock: p.c.Now}).Prune(t.Context(), PruneOptions{Set: testSet, Choose: p.drop(1, 2, 3), Force: true})
	require.ErrorIs(t, err, storage.ErrDenied)
	p.requireLeft(t, 1, 2, 3)
}

// TestPruneOrder: a backup loses its commits first and its plan last, and a
// record goes after everything that it names: as long as one of these is there,
// no writer must use it.
func TestPruneOrder(t *testing.T) {
	p := newPruned(t, encryptedMode(t))
	for range 2 {
		b := p.begin(t, p.store)
		w, err := b.Member(t.Context(), 0)
		require.NoError(t, err)
		s, err := w.Create(t.Context(), "big", StreamOptions{})
		require.NoError(t, err)
		require.NoError(t, writeAll(s, randomBytes(uint64(len(p.ids)), 300<<10)))
		require.NoError(t, b.pipeline.flush(t.Context()))
		require.NoError(t, b.checkpoint(t.Context()))
		require.NoError(t, p.commit(t, b, w, pruneContent(9)))
		require.NoError(t, b.Report(t.Context(), "report"))
		require.NoError(t, b.Close())
		p.c.advance(72 * time.Hour)
	}
	l := layout{testSet}
	kinds := []string{l.commits(), l.reports(), l.backups(), l.prunes()}
	order := func(deleted []string) []string {
		var list []string
		for _, key := range deleted {
			kind := "content"
			for _, prefix := range kinds {
				if strings.HasPrefix(key, prefix) {
					kind = strings.TrimPrefix(prefix, l.root())
				}
			}
			if strings.HasSuffix(key, "/plan") {
				kind = "plan"
			}
			if len(list) == 0 || list[len(list)-1] != kind {
				list = append(list, kind)
			}
		}
		return list
	}
	first := &noting{Store: p.store}
	_, err := p.prune(t, first, PruneOptions{Choose: p.drop(0)})
	require.NoError(t, err)
	require.Equal(t, []string{"commits/", "reports/", "backups/", "plan", "prune/"}, order(first.deleted))
	p.c.advance(longest + 2*slack + time.Second)
	second := &noting{Store: p.store}
	_, err = p.prune(t, second, PruneOptions{})
	require.NoError(t, err)
	require.Equal(t, []string{"content", "prune/"}, order(second.deleted))
}
