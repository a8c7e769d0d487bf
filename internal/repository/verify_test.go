package repository

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keepset/internal/record"
	"keepset/internal/storage"
	"keepset/internal/storage/mem"
)

func verifyAll(t testing.TB, r *Repository, o VerifyOptions) VerifyReport {
	t.Helper()
	report, err := r.Verify(t.Context(), o)
	require.NoError(t, err)
	return report
}

func damagedKeys(report VerifyReport) []string {
	keys := []string{}
	for _, d := range report.Damages {
		keys = append(keys, d.Key)
	}
	return keys
}

// TestVerifyOfRecords: a plan or commit that does not count is a damage, and
// so is a plan that must have been there. Two backups, so that one is always good.
func TestVerifyOfRecords(t *testing.T) {
	l := layout{testSet}
	for _, m := range modes(t) {
		for name, c := range map[string]struct {
			spoil func(t *testing.T, store storage.Store, id record.BackupID)
			key   func(id record.BackupID) string
			what  string
		}{
			"garbage plan": {
				func(t *testing.T, store storage.Store, id record.BackupID) {
					replace(t, store, l.plan(id), []byte("?"))
				}, l.plan, "",
			},
			"lost plan": {
				func(t *testing.T, store storage.Store, id record.BackupID) {
					require.NoError(t, store.Delete(t.Context(), l.plan(id)))
				}, l.plan, "missing",
			},
			"garbage commit": {
				func(t *testing.T, store storage.Store, id record.BackupID) {
					replace(t, store, l.commit(id, 0, "attempt-1"), []byte("?\n"))
				}, func(id record.BackupID) string { return l.commit(id, 0, "attempt-1") }, "",
			},
		} {
			t.Run(m.name+"/"+name, func(t *testing.T) {
				store := initStore(t, m)
				good := writeBackup(t, open(t, store, m.writer, small()), content{"a": []byte("a")})
				b := begin(t, store, m, testPlan(1, 0), "attempt-1")
				writeMember(t, b, 0, content{"a": []byte("b")})
				require.NoError(t, b.Report(t.Context(), "done"))
				require.NoError(t, b.Close())
				id := b.Plan().ID
				c.spoil(t, store, id)

				r := open(t, store, Keys{Trusted: m.restore.Trusted}, Options{})
				report := verifyAll(t, r, VerifyOptions{})
				require.Equal(t, []string{c.key(id)}, damagedKeys(report))
				require.Contains(t, report.Damages[0].What, c.what)
				require.Len(t, report.Damages[0].Harmed, 1)
				require.Equal(t, id, report.Damages[0].Harmed[0].Backup)
				require.Equal(t, 1, report.Statuses[StatusComplete])
				require.Equal(t, 2, report.Backups)
				require.Empty(t, verifyAll(t, r, VerifyOptions{Set: testSet, IDs: []record.BackupID{good}}).Damages)
			})
		}
	}
}

// TestVerifyOfASignedCommit sees a single bit.
func TestVerifyOfASignedCommit(t *testing.T) {
	m := encryptedMode(t)
	store := initStore(t, m)
	id := writeBackup(t, open(t, store, m.writer, small()), content{"a": []byte("a")})
	key := layout{testSet}.commit(id, 0, "attempt-1")
	replace(t, store, key, flip(readObject(t, store, key), 100))
	report := verifyAll(t, open(t, store, Keys{Trusted: m.restore.Trusted}, Options{}), VerifyOptions{})
	require.Equal(t, []string{key}, damagedKeys(report))
	require.Equal(t, map[Status]int{StatusIncomplete: 1}, report.Statuses)
}

// TestVerifyOfWhatIsGone: whole folders.
func TestVerifyOfWhatIsGone(t *testing.T) {
	l := layout{testSet}
	for _, m := range modes(t) {
		for name, c := range map[string]struct {
			gone []string
			keys func(id record.BackupID) []string
		}{
			"commits":          {[]string{l.commits()}, func(record.BackupID) []string { return []string{l.commits()} }},
			"commits and refs": {[]string{l.commits(), l.refs()}, func(record.BackupID) []string { return []string{l.commits()} }},
			"plans":            {[]string{l.backups()}, func(id record.BackupID) []string { return []string{l.plan(id)} }},
			"plans and commits": {[]string{l.backups(), l.commits()}, func(record.BackupID) []string {
				return []string{l.backups()}
			}},
		} {
			t.Run(m.name+"/"+name, func(t *testing.T) {
				store := initStore(t, m)
				b := begin(t, store, m, testPlan(0, 0, 1), "attempt-1")
				writeMember(t, b, 0, content{"a": []byte("a")})
				writeMember(t, b, 1, content{"a": []byte("b")})
				require.NoError(t, b.Report(t.Context(), "done"))
				require.NoError(t, b.Close())
				id := b.Plan().ID
				for _, prefix := range c.gone {
					for _, key := range keysBelow(t, store, prefix) {
						require.NoError(t, store.Delete(t.Context(), key))
					}
				}
				report := verifyAll(t, open(t, store, Keys{Trusted: m.restore.Trusted}, Options{Clock: dayAfter}), VerifyOptions{})
				require.Equal(t, c.keys(id), damagedKeys(report))
			})
		}
	}
}

// TestVerifyOfAnEmptyRepository is no damage as long as it is really empty.
func TestVerifyOfAnEmptyRepository(t *testing.T) {
	store := initStore(t, plainMode())
	r := open(t, store, Keys{}, Options{})
	report := verifyAll(t, r, VerifyOptions{})
	require.Empty(t, report.Damages)
	require.Contains(t, strings.Join(report.Problems, " "), "empty")
	require.NoError(t, r.claimOrigin(t.Context(), layout{testSet}, "test"))
	require.Empty(t, verifyAll(t, r, VerifyOptions{}).Damages, "a run that was killed right at its beginning")
	require.NoError(t, store.Delete(t.Context(), layout{testSet}.origin()))
	replace(t, store, "sets/left", []byte("over"))
	require.Equal(t, []string{"sets/left"}, damagedKeys(verifyAll(t, r, VerifyOptions{})))
}

// TestVerifyOfOneBackup by its ID, which has to be there.
func TestVerifyOfOneBackup(t *testing.T) {
	store := initStore(t, plainMode())
	r := open(t, store, Keys{}, small())
	id := writeBackup(t, r, content{"a": []byte("a")})
	_, err := r.Verify(t.Context(), VerifyOptions{Set: testSet, IDs: []record.BackupID{id, "20200101T000000Z-12345678"}})
	require.ErrorIs(t, err, ErrNoBackup)
	require.ErrorContains(t, err, "20200101T000000Z-12345678")
}

// TestVerifyOfKeyFiles: no key is needed to see that one is lost.
func TestVerifyOfKeyFiles(t *testing.T) {
	m := encryptedMode(t)
	for name := range m.writer.KeyFiles {
		m.writer.KeyFiles["0123456789abcdef"] = m.writer.KeyFiles[name] // a second recipient
		break
	}
	store := initStore(t, m)
	id := writeBackup(t, open(t, store, m.writer, small()), content{"a": []byte("a")})
	r := open(t, store, Keys{Trusted: m.restore.Trusted}, Options{})
	require.Empty(t, verifyAll(t, r, VerifyOptions{}).Damages)
	keys := keysBelow(t, store, prefixKeys)
	require.Len(t, keys, 2)

	require.NoError(t, store.Delete(t.Context(), keys[0]))
	report := verifyAll(t, r, VerifyOptions{})
	require.Equal(t, keys[:1], damagedKeys(report))
	require.Contains(t, report.Damages[0].What, "1 of 2 key files are left")
	require.Empty(t, report.Damages[0].Harmed, "another recipient can still restore")
	missing, err := r.MissingKeyFiles(t.Context())
	require.NoError(t, err)
	require.Equal(t, keys[:1], missing)
	require.NoError(t, begin(t, store, m, testPlan(1, 0), "attempt-1").Close())

	replace(t, store, keys[1], nil)
	report = verifyAll(t, r, VerifyOptions{})
	require.Equal(t, keys, damagedKeys(report))
	for _, d := range report.Damages {
		require.Contains(t, d.What, NameKeyFiles)
		require.Equal(t, id, d.Harmed[0].Backup)
	}
	_, err = open(t, store, m.writer, small()).Begin(t.Context(), testPlan(2, 0), "attempt-1")
	require.ErrorIs(t, err, ErrDamaged)
	require.ErrorContains(t, err, keys[0])
}

// TestDamagedPackIsStoredAgain once it has been moved away, as verify says.
// Until then it is inherited: who writes cannot read packs.
func TestDamagedPackIsStoredAgain(t *testing.T) {
	for _, m := range modes(t) {
		store := initStore(t, m)
		want := crashContent(1)
		writeBackup(t, open(t, store, m.writer, small()), want)
		key := keysBelow(t, store, layout{testSet}.packs())[0]
		replace(t, store, key, flip(readObject(t, store, key), 1000))
		again := func(n int) VerifyReport {
			b := begin(t, store, m, testPlan(n, 0), "attempt-1")
			writeMember(t, b, 0, want)
			require.NoError(t, b.Close())
			return verifyAll(t, open(t, store, Keys{Trusted: m.restore.Trusted}, Options{}), VerifyOptions{
				Set: testSet, IDs: []record.BackupID{b.Plan().ID}, ReadData: 100,
			})
		}
		report := again(1)
		require.Equal(t, []string{key}, damagedKeys(report))
		require.Contains(t, report.Damages[0].What, "move the object away and run a backup")
		require.NoError(t, store.Delete(t.Context(), key))
		report = again(2)
		require.Empty(t, report.Damages)
		require.Empty(t, report.Problems)
		require.Equal(t, 1, report.Statuses[StatusComplete])
	}
}

// TestCopiedTimes: with consent a copied bucket is read, never written, and
// signatures count as ever.
func TestCopiedTimes(t *testing.T) {
	for _, m := range modes(t) {
		c := newClock()
		store := initAt(t, m, c)
		o := small()
		o.Clock = c.Now
		b, err := open(t, store, m.writer, o).Begin(t.Context(), planAt(c.now, "11111111", 0), "a")
		require.NoError(t, err)
		want := crashContent(1)
		writeMember(t, b, 0, want)
		require.NoError(t, b.Close())
		// Commits are copied before their plans, days apart.
		copied := mem.New(mem.Options{Now: c.Now})
		c.advance(7 * 24 * time.Hour)
		keys := keysBelow(t, store, "")
		for i := range keys {
			key := keys[len(keys)-1-i]
			c.advance(2 * time.Hour)
			require.NoError(t, copied.Put(t.Context(), key, bytes.NewReader(readObject(t, store, key))))
		}

		strict := open(t, copied, m.restore, Options{})
		_, err = strict.Resolve(t.Context(), testSet, Selector{})
		require.ErrorIs(t, err, ErrNoEligible)
		require.ErrorContains(t, err, "--accept-copied-times")
		require.NotEmpty(t, verifyAll(t, strict, VerifyOptions{}).Damages)

		o = small()
		o.AcceptCopiedTimes = true
		r := open(t, copied, m.restore, o)
		info, err := r.Resolve(t.Context(), testSet, Selector{})
		require.NoError(t, err)
		got, err := readMember(t.Context(), r, info.ID, 0)
		require.NoError(t, err)
		requireContent(t, want, got)
		report := verifyAll(t, r, VerifyOptions{ReadData: 100})
		require.Empty(t, report.Damages)
		require.Equal(t, 1, report.Statuses[StatusComplete])

		_, err = open(t, copied, m.writer, o).Begin(t.Context(), planAt(c.now, "22222222", 0), "a")
		require.ErrorIs(t, err, ErrReadOnly)
		if !m.signed() {
			continue
		}
		_, err = open(t, copied, Keys{Restore: m.restore.Restore}, o).Resolve(t.Context(), testSet, Selector{})
		require.ErrorContains(t, err, NameTrustedWriters)
		plan := layout{testSet}.plan(info.ID)
		replace(t, copied, plan, bytes.Replace(readObject(t, copied, plan), []byte("mysql-0"), []byte("mysql-9"), 1))
		_, err = r.Resolve(t.Context(), testSet, Selector{})
		require.ErrorIs(t, err, ErrNoEligible)
	}
}
