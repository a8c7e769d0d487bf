package repository

import (
	"bytes"
	"crypto/sha256"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"keepset/internal/record"
	"keepset/internal/storage"
	"keepset/internal/storage/mem"
)

func initless() storage.Store { return mem.New(mem.Options{}) }

// stolenWorld is a repository whose backup pod was robbed. The thief has all of its
// Secret, and a program that asks nobody whether he is retired.
type stolenWorld struct {
	*keyWorld
	thief *Repository
}

func newStolenWorld(t *testing.T) *stolenWorld {
	t.Helper()
	w := newKeyWorld(t)
	return &stolenWorld{w, open(t, w.store, w.writer, w.options())}
}

// forge stores a whole backup with the thief's keys, now.
func (s *stolenWorld) forge() record.BackupID {
	s.t.Helper()
	id, err := s.take(s.thief, content{"ransom": []byte("pay")})
	require.ErrorIs(s.t, err, ErrWrongKey, "everything is stored; only an honest program looks once more")
	return id
}

// everybody are those who judge: with the configuration that was handed out, and
// with one that names the keys and no times, so that only the store's says it.
func (s *stolenWorld) everybody() map[string]*Repository {
	s.t.Helper()
	plain := s.trusted
	plain.Until = nil
	return map[string]*Repository{
		"told by their own configuration": s.open(s.restore),
		"told by the store's":             open(s.t, s.store, Keys{Trusted: plain.Trusted, Restore: s.restore}, s.options()),
		"the writer":                      open(s.t, s.store, s.writer, s.options()),
	}
}

// TestStolenWriter: after the keys were replaced nothing that the thief stores
// counts, for whoever judges: list, restore, verify, prune and the next backup.
func TestStolenWriter(t *testing.T) {
	for name, replaceKeys := range map[string]func(s *stolenWorld, set *KeySet) error{
		"rotate-writer": func(s *stolenWorld, set *KeySet) error {
			_, err := s.open(s.restore).RotateWriter(s.t.Context(), s.renewal(set))
			return err
		},
		"new-epoch": func(s *stolenWorld, set *KeySet) error {
			_, err := s.open(nil).NewEpoch(s.t.Context(), []*age.X25519Recipient{s.recipient()}, s.renewal(set))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStolenWorld(t)
			var set KeySet
			require.NoError(t, replaceKeys(s, &set))
			s.use(set)
			s.clock.advance(2 * time.Minute)
			good := s.backup(crashContent(2))
			forged := s.forge()
			s.requireForged(forged, good)

			// The next backup takes nothing of it, and is good.
			next := s.backup(crashContent(2))
			s.reads(s.restore, next, crashContent(2))
			s.requireForged(forged, next)
		})
	}
}

func (s *stolenWorld) requireForged(forged, good record.BackupID) {
	s.t.Helper()
	for name, r := range s.everybody() {
		infos, err := r.Backups(s.t.Context(), testSet)
		require.NoError(s.t, err)
		found := false
		for _, info := range infos {
			if info.ID == forged {
				found = true
				require.Equal(s.t, StatusInvalid, info.Status, name)
				require.Contains(s.t, info.Problems[0], "retired", name)
			} else {
				require.Equal(s.t, StatusComplete, info.Status, name)
			}
		}
		require.True(s.t, found, "it is shown")
		info, err := r.Resolve(s.t.Context(), testSet, Selector{})
		require.NoError(s.t, err)
		require.Equal(s.t, good, info.ID, name)
		_, err = r.Resolve(s.t.Context(), testSet, Selector{ID: forged, Allow: true})
		require.ErrorIs(s.t, err, ErrNoEligible, name)
		report, err := r.Verify(s.t.Context(), VerifyOptions{})
		require.NoError(s.t, err)
		named := false
		for _, d := range report.Damages {
			require.Contains(s.t, d.Key, string(forged), name)
			named = true
		}
		require.True(s.t, named, name)
	}
	// The pruner, which has public keys only: it takes the good one for the newest,
	// and does not let it go for the forged one.
	_, err := s.open(nil).Prune(s.t.Context(), PruneOptions{Set: testSet, DryRun: true, Choose: func(v PruneView) ([]record.BackupID, error) {
		var ids []record.BackupID
		for _, info := range v.Backups {
			if info.Status == StatusComplete {
				ids = append(ids, info.ID)
			}
		}
		return ids, nil
	}})
	require.ErrorIs(s.t, err, ErrNewest)
	require.ErrorContains(s.t, err, string(good))
}

// TestStolenWriterCannotTurnBackTime: what the store's configuration says can be
// taken back by who may write it, which no writer may; what the reader's own says
// cannot.
func TestStolenWriterCannotTurnBackTime(t *testing.T) {
	s := newStolenWorld(t)
	s.rotate()
	s.clock.advance(2 * time.Minute)
	forged := s.forge()
	config := s.open(nil).config
	config.Header, config.Retired = record.NewHeader(record.KindConfig), nil
	config.Writers = append(config.Writers, record.KeyID(writerPublic(s.thief.keys.Writer)))
	data, err := record.Encode(&config, nil)
	require.NoError(t, err)
	require.NoError(t, s.store.Put(t.Context(), keyConfig(9), bytes.NewReader(data)))
	info, err := s.open(nil).Backup(t.Context(), testSet, forged)
	require.NoError(t, err)
	require.Equal(t, StatusInvalid, info.Status)
}

// TestStolenWriterAcceptsNothing: nor does he speak for a doubtful backup.
func TestStolenWriterAcceptsNothing(t *testing.T) {
	s := newStolenWorld(t)
	s.clock.advance(time.Hour)
	b, err := open(t, s.store, s.writer, s.options()).Begin(t.Context(), planAt(s.clock.now, "doubtful", 0), "attempt-1")
	require.NoError(t, err)
	m, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	_, err = m.Commit(t.Context(), testReport(), CommitStatus{Suspect: true, Reasons: []string{"it is empty"}})
	require.NoError(t, err)
	require.NoError(t, b.Close())
	id := b.Plan().ID
	s.rotate()
	s.clock.advance(2 * time.Minute)
	_, err = s.thief.Accept(t.Context(), testSet, id, "all is well", false)
	require.NoError(t, err, "his own program believes it")
	for name, r := range s.everybody() {
		info, err := r.Backup(t.Context(), testSet, id)
		require.NoError(t, err)
		require.Equal(t, StatusSuspect, info.Status, name)
	}
}

// TestStolenWriterLeavesNoCheckpoint that the next run would go on from.
func TestStolenWriterLeavesNoCheckpoint(t *testing.T) {
	s := newStolenWorld(t)
	s.rotate()
	s.clock.advance(2 * time.Minute)
	r := open(t, s.store, s.writer, s.options())
	b, err := r.Begin(t.Context(), planAt(s.clock.now, "underway", 0), "attempt-1")
	require.NoError(t, err)
	c := record.Checkpoint{
		Header: record.NewHeader(record.KindCheckpoint), Repository: r.config.Repository, Backup: b.Plan().ID, Set: testSet, Attempt: "attempt-9",
		Parts: []record.ObjectRef{{SHA256: sha256.Sum256(nil), Size: 1}},
	}
	for writer, want := range map[*Repository]error{s.thief: errRetired, r: nil} {
		data, err := record.Encode(&c, writer.keys.Writer)
		require.NoError(t, err)
		key := b.layout.checkpoint(b.Plan().ID, 0, "attempt-9", 0)
		replace(t, s.store, key, data)
		_, err = b.readCheckpoint(t.Context(), key, s.clock.now)
		require.ErrorIs(t, err, want)
	}
	require.NoError(t, b.Close())
}

// TestCopyOfARetiredWriter: in a copy nothing shows when a backup was stored. What a
// retired writer has signed is adopted when the user says so, and with an ID of
// after the theft not even then.
func TestCopyOfARetiredWriter(t *testing.T) {
	s := newStolenWorld(t)
	s.rotate()
	s.clock.advance(2 * time.Minute)
	forged := s.forge()
	now := &clock{s.clock.now.Add(100 * 24 * time.Hour)}
	to := mem.New(mem.Options{Now: now.Now})
	for _, key := range keysBelow(t, s.store, "") {
		require.NoError(t, to.Put(t.Context(), key, bytes.NewReader(readObject(t, s.store, key))))
	}
	s.store, s.clock = to, now
	copied := s.options()
	copied.AcceptCopiedTimes = true
	keys := s.trusted
	keys.Restore = s.restore
	infos, err := open(t, to, keys, copied).Backups(t.Context(), testSet)
	require.NoError(t, err)
	require.Equal(t, StatusInvalid, infos[0].Status)
	require.Equal(t, forged, infos[0].ID)
	require.Equal(t, StatusComplete, infos[1].Status)
	signer := open(t, to, s.writer, s.options())
	list, err := signer.AdoptCopies(t.Context(), testSet, AdoptOptions{})
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, s.first, list[0].Backup)
	require.Contains(t, list[0].Why, "--retired-writers")
	list, err = signer.AdoptCopies(t.Context(), testSet, AdoptOptions{Retired: true})
	require.NoError(t, err)
	require.Equal(t, []Adopted{{Backup: s.first}}, list)
	s.reads(s.restore, s.first, crashContent(1))
	info, err := s.open(nil).Backup(t.Context(), testSet, forged)
	require.NoError(t, err)
	require.Equal(t, StatusInvalid, info.Status)
}
