package repository

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"keepset/internal/record"
	"keepset/internal/storage"
	"keepset/internal/storage/mem"
)

// clock is a clock that a test moves.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time          { return c.now }
func (c *clock) advance(d time.Duration) { c.now = c.now.Add(d) }

func initAt(t testing.TB, m mode, c *clock) storage.Store {
	t.Helper()
	store := mem.New(mem.Options{Now: c.Now})
	_, err := Init(t.Context(), store, InitOptions{Keys: m.writer, Clock: c.Now})
	require.NoError(t, err)
	return store
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)} }

func planAt(at time.Time, uid string, ordinals ...int) record.Plan {
	plan := testPlan(0, ordinals...)
	plan.ID, plan.CreatedAt = record.NewBackupID(at, uid), at
	return plan
}

// TestWriterCannotRead: with exactly what the backup pod holds nothing that
// it wrote can be read, by our reader or by trying each key on each object.
func TestWriterCannotRead(t *testing.T) {
	m := encryptedMode(t)
	store := initStore(t, m)
	r := open(t, store, m.writer, small())
	writeBackup(t, r, crashContent(1))
	info, err := r.Resolve(t.Context(), testSet, Selector{})
	require.NoError(t, err)
	_, err = r.OpenMember(t.Context(), info, 0)
	require.ErrorIs(t, err, ErrNoIdentity)
	require.ErrorContains(t, err, NameRestoreIdentity)
	tried := 0
	for _, key := range keysBelow(t, store, "") {
		if !strings.Contains(key, "/packs/") && !strings.Contains(key, "/maps/") && !strings.HasPrefix(key, "keys/") {
			continue
		}
		for _, identity := range m.writer.Index {
			_, err := age.Decrypt(bytes.NewReader(readObject(t, store, key)), identity)
			var noMatch *age.NoIdentityMatchError
			require.ErrorAs(t, err, &noMatch, key)
			tried++
		}
	}
	require.Greater(t, tried, 3)
}

// TestNothingReadableInTheStore: an encrypted repository shows no content and
// no name of a stream.
func TestNothingReadableInTheStore(t *testing.T) {
	m := encryptedMode(t)
	store := initStore(t, m)
	writeBackup(t, open(t, store, m.writer, small()), content{"tables/customers": []byte("4111 1111 1111 1111"), "secret": []byte("hunter2")})
	secretName := contentRef([]byte("hunter2")).SHA256
	for _, key := range keysBelow(t, store, "") {
		data := readObject(t, store, key)
		for _, text := range []string{"customers", "4111 1111", "hunter2", secretName.String(), string(secretName[:]), m.writer.Data.String()} {
			require.NotContains(t, string(data), text, key)
		}
	}
}

// TestSecretStreamsAreNotNamedByTheirHash, even where everything is plain.
func TestSecretStreamsAreNotNamedByTheirHash(t *testing.T) {
	m := plainMode()
	store := initStore(t, m)
	r := open(t, store, m.writer, small())
	writeBackup(t, r, content{"secret": []byte("hunter2"), "a": []byte("open")})
	secret, public := contentRef([]byte("hunter2")).SHA256, contentRef([]byte("open")).SHA256
	seen := false
	for _, key := range keysBelow(t, store, layout{testSet}.parts()) {
		plain, err := r.codec.open(readObject(t, store, key), nil)
		require.NoError(t, err)
		require.False(t, bytes.Contains(plain, secret[:]))
		seen = seen || bytes.Contains(plain, public[:])
	}
	require.True(t, seen)
}

func TestWrongKeys(t *testing.T) {
	m, other := encryptedMode(t), encryptedMode(t)
	store := initStore(t, m)
	for name, keys := range map[string]Keys{
		"writer":  {Writer: other.writer.Writer, Data: m.writer.Data, Index: m.writer.Index},
		"data":    {Writer: m.writer.Writer, Data: other.writer.Data, Index: m.writer.Index},
		"index":   {Writer: m.writer.Writer, Data: m.writer.Data, Index: other.writer.Index},
		"restore": {Restore: other.restore.Restore},
		"trusted": {Trusted: other.restore.Trusted},
	} {
		_, err := Open(t.Context(), store, keys, Options{})
		require.ErrorIs(t, err, ErrWrongKey, name)
	}
	plain := initStore(t, plainMode())
	for name, keys := range map[string]Keys{"restore": m.restore, "writer": m.writer} {
		_, err := Open(t.Context(), plain, keys, Options{})
		require.ErrorIs(t, err, ErrWrongKey, name)
	}
	for name, keys := range map[string]Keys{
		NameWriterKey:     {Data: m.writer.Data, Index: m.writer.Index},
		NameDataRecipient: {Writer: m.writer.Writer, Index: m.writer.Index},
		NameIndexIdentity: {Writer: m.writer.Writer, Data: m.writer.Data},
	} {
		_, err := open(t, store, keys, Options{}).Begin(t.Context(), testPlan(0, 0), "attempt-1")
		require.ErrorIs(t, err, ErrNoKey)
		require.ErrorContains(t, err, name)
	}
}

func TestInitRefusals(t *testing.T) {
	m := encryptedMode(t)
	store := initStore(t, m)
	_, err := Init(t.Context(), store, InitOptions{})
	require.ErrorIs(t, err, ErrExists)
	_, err = Open(t.Context(), mem.New(mem.Options{}), Keys{}, Options{})
	require.ErrorIs(t, err, ErrNotRepository)
	half := m.writer
	half.KeyFiles = nil
	_, err = Init(t.Context(), mem.New(mem.Options{}), InitOptions{Keys: half})
	require.ErrorIs(t, err, ErrNoKey)
}

func TestNewerFormat(t *testing.T) {
	store := initStore(t, plainMode())
	old := readObject(t, store, "config/0")
	for _, newer := range [][]byte{
		bytes.Replace(old, []byte(`"format":1`), []byte(`"format":2`), 1),
		bytes.Replace(old, []byte(`"format":1`), []byte(`"format":1,"critical":["holograms"]`), 1),
	} {
		require.NoError(t, store.Delete(t.Context(), "config/1"))
		require.NoError(t, store.Put(t.Context(), "config/1", bytes.NewReader(newer)))
		_, err := Open(t.Context(), store, Keys{}, Options{})
		require.ErrorIs(t, err, ErrNewerFormat)
	}
}

// TestForgery: who can write to the bucket, and knows everything but the
// writer's key, makes nothing that counts, and what he makes is shown.
func TestForgery(t *testing.T) {
	m, thief := encryptedMode(t), encryptedMode(t)
	store := initStore(t, m)
	good := writeBackup(t, open(t, store, m.writer, small()), crashContent(1))
	ahead := testPlan(60, 0)
	for name, key := range map[string]ed25519.PrivateKey{"unsigned": nil, "wrong key": thief.writer.Writer} {
		forged := ahead // one backup, whichever second it is
		forged.Header, forged.Repository = record.NewHeader(record.KindPlan), open(t, store, Keys{}, Options{}).config.Repository
		data, err := record.Encode(&forged, key)
		require.NoError(t, err)
		replace(t, store, layout{testSet}.plan(forged.ID), data)
		r := open(t, store, m.restore, Options{})
		infos, err := r.Backups(t.Context(), testSet)
		require.NoError(t, err)
		require.Len(t, infos, 2)
		require.Equal(t, StatusInvalid, infos[0].Status, name)
		require.NotEmpty(t, infos[0].Problems)
		info, err := r.Resolve(t.Context(), testSet, Selector{})
		require.NoError(t, err)
		require.Equal(t, good, info.ID)
		_, err = r.Resolve(t.Context(), testSet, Selector{ID: forged.ID, Allow: true})
		require.ErrorIs(t, err, ErrNoEligible)
	}
	// A plan that the right writer has signed, for another repository.
	foreign := testPlan(120, 0)
	foreign.Header, foreign.Repository = record.NewHeader(record.KindPlan), "elsewhere"
	data, err := record.Encode(&foreign, m.writer.Writer)
	require.NoError(t, err)
	replace(t, store, layout{testSet}.plan(foreign.ID), data)
	other, err := open(t, store, m.restore, Options{}).Backup(t.Context(), testSet, foreign.ID)
	require.NoError(t, err)
	require.Equal(t, StatusInvalid, other.Status)
	require.Contains(t, other.Problems[0], "elsewhere")
	// A commit of one backup under another's key, signature and all.
	from := keysBelow(t, store, layout{testSet}.commits())[0]
	to := strings.Replace(from, "attempt-1", "attempt-9", 1)
	replace(t, store, to, readObject(t, store, from))
	info, err := open(t, store, m.restore, Options{}).Backup(t.Context(), testSet, good)
	require.NoError(t, err)
	require.Equal(t, StatusComplete, info.Status)
	require.NoError(t, store.Delete(t.Context(), from))
	info, err = open(t, store, m.restore, Options{}).Backup(t.Context(), testSet, good)
	require.NoError(t, err)
	require.Equal(t, StatusIncomplete, info.Status)
	require.Contains(t, strings.Join(info.Problems, " "), "forged")
}

// TestWithoutTrustedKeys a signed repository lists, and restores nothing.
func TestWithoutTrustedKeys(t *testing.T) {
	m := encryptedMode(t)
	store := initStore(t, m)
	writeBackup(t, open(t, store, m.writer, small()), crashContent(1))
	r := open(t, store, Keys{Restore: m.restore.Restore}, Options{})
	infos, err := r.Backups(t.Context(), testSet)
	require.NoError(t, err)
	require.True(t, infos[0].Unchecked)
	require.Equal(t, StatusUnchecked, infos[0].Status)
	_, err = r.Resolve(t.Context(), testSet, Selector{ID: infos[0].ID, Allow: true})
	require.ErrorContains(t, err, NameTrustedWriters)
	_, err = r.OpenMember(t.Context(), infos[0], 0)
	require.ErrorIs(t, err, ErrNoTrusted)
}

func TestForeignOrigin(t *testing.T) {
	store := initStore(t, plainMode())
	r := open(t, store, Keys{}, small())
	writeBackup(t, r, content{"a": []byte("a")})
	plan := testPlan(1, 0)
	plan.Origin = "staging"
	_, err := r.Begin(t.Context(), plan, "attempt-1")
	require.ErrorIs(t, err, ErrOrigin)
	require.ErrorContains(t, err, "staging")
	require.Len(t, keysBelow(t, store, layout{testSet}.backups()), 1)
}

// TestCopiedOrForgedIDs: an ID whose time is not when it was stored is
// quarantined, and does not displace a good backup.
func TestCopiedOrForgedIDs(t *testing.T) {
	c := newClock()
	m := encryptedMode(t)
	store := initAt(t, m, c)
	o := small()
	o.Clock = c.Now
	b, err := open(t, store, m.writer, o).Begin(t.Context(), planAt(c.now, "11111111", 0), "a")
	require.NoError(t, err)
	writeMember(t, b, 0, crashContent(1))
	require.NoError(t, b.Close())
	_, err = open(t, store, m.writer, o).Begin(t.Context(), planAt(c.now.Add(25*time.Hour), "22222222", 0), "a")
	require.ErrorIs(t, err, ErrForged)
	require.ErrorContains(t, err, "quarantined")
	info, err := open(t, store, m.restore, Options{}).Resolve(t.Context(), testSet, Selector{})
	require.NoError(t, err)
	require.Equal(t, b.Plan().ID, info.ID)
	// The whole bucket copied, a week later: every time is wrong.
	c.advance(7 * 24 * time.Hour)
	copied := mem.New(mem.Options{Now: c.Now})
	for _, key := range keysBelow(t, store, "") {
		require.NoError(t, copied.Put(t.Context(), key, bytes.NewReader(readObject(t, store, key))))
	}
	_, err = open(t, copied, m.restore, Options{}).Resolve(t.Context(), testSet, Selector{})
	require.ErrorIs(t, err, ErrNoEligible)
	require.ErrorContains(t, err, "quarantined")
}

// TestTooLong: a commit later than L after its plan is void, and the run says so.
func TestTooLong(t *testing.T) {
	c := newClock()
	store := initAt(t, plainMode(), c)
	o := small()
	o.Clock = c.Now
	r := open(t, store, Keys{}, o)
	b, err := r.Begin(t.Context(), planAt(c.now, "11111111", 0, 1), "a")
	require.NoError(t, err)
	writeMember(t, b, 0, crashContent(1))
	c.advance(24*time.Hour + time.Second)
	w, err := b.Member(t.Context(), 1)
	require.NoError(t, err)
	_, err = writeContent(t.Context(), w, crashContent(1))
	require.ErrorIs(t, err, ErrVoid)
	require.NoError(t, b.Close())
	info, err := r.Backup(t.Context(), testSet, b.Plan().ID)
	require.NoError(t, err)
	require.Equal(t, StatusIncomplete, info.Status)
	require.True(t, info.Members[0].Valid)
	require.False(t, info.Members[1].Valid)
	require.Contains(t, info.Members[1].Why, "too long")
}

// TestEarlierCommitCounts: of two attempts that commit the same member.
func TestEarlierCommitCounts(t *testing.T) {
	c := newClock()
	m := encryptedMode(t)
	store := initAt(t, m, c)
	plan := planAt(c.now, "11111111", 0)
	first, second := content{"a": []byte("first")}, content{"a": []byte("second")}
	one, two := begin(t, store, m, plan, "z-one"), begin(t, store, m, plan, "a-two")
	writeMember(t, one, 0, first)
	c.advance(time.Minute)
	writeMember(t, two, 0, second)
	require.NoError(t, one.Close())
	require.NoError(t, two.Close())
	got, err := readMember(t.Context(), open(t, store, m.restore, Options{}), plan.ID, 0)
	require.NoError(t, err)
	requireContent(t, first, got)
	commit, done, err := two.Committed(t.Context(), 0)
	require.NoError(t, err)
	require.True(t, done)
	require.Equal(t, record.AttemptID("z-one"), commit.Attempt)
}

// TestRetryAdoptsThePlan that the first attempt stored.
func TestRetryAdoptsThePlan(t *testing.T) {
	m := encryptedMode(t)
	store := initStore(t, m)
	plan := testPlan(0, 0, 1)
	require.NoError(t, begin(t, store, m, plan, "one").Close())
	changed := plan
	changed.Members = plan.Members[:1]
	b := begin(t, store, m, changed, "two")
	require.Len(t, b.Plan().Members, 2)
	require.NoError(t, b.Close())
}

// TestCondemned: what a prune record names is neither offered nor reused.
func TestCondemned(t *testing.T) {
	for _, m := range modes(t) {
		store := initStore(t, m)
		want := crashContent(1)
		id := writeBackup(t, open(t, store, m.writer, small()), want)
		l := layout{testSet}
		prune := record.Prune{Header: record.NewHeader(record.KindPrune), Set: testSet, Backups: []record.BackupID{id}}
		for _, key := range keysBelow(t, store, l.packs()) {
			name, _ := parseHashKey(key, l.packs())
			prune.Packs = append(prune.Packs, name)
		}
		data, err := record.Encode(&prune, nil)
		require.NoError(t, err)
		replace(t, store, l.prunes()+"20261120T120000Z", data)
		r := open(t, store, m.restore, Options{})
		_, err = r.Resolve(t.Context(), testSet, Selector{})
		require.ErrorIs(t, err, ErrNoEligible)
		require.ErrorContains(t, err, "condemned")
		requireStoredAnew(t, store, m, want, prune.Packs)
		// One that cannot be read may condemn anything.
		replace(t, store, l.prunes()+"20261120T130000Z", []byte("?"))
		requireStoredAnew(t, store, m, want, prune.Packs)
	}
}

func requireStoredAnew(t *testing.T, store storage.Store, m mode, want content, condemned []record.Hash) {
	t.Helper()
	// Only the condemned base is there, or nothing may be reused at all.
	r := open(t, store, m.writer, small())
	b, err := r.Begin(t.Context(), testPlan(len(keysBelow(t, store, layout{testSet}.backups())), 0), "attempt-1")
	require.NoError(t, err)
	commit := writeMember(t, b, 0, want)
	require.NoError(t, b.Close())
	require.Greater(t, commit.Stored, int64(700<<10))
	refs, err := r.readRefs(t.Context(), layout{testSet}, &commit)
	require.NoError(t, err)
	for _, ref := range refs.Packs {
		require.NotContains(t, condemned, ref.SHA256)
	}
}

// TestCondemnedPacksOfAGoodBase are not reused either.
func TestCondemnedPacksOfAGoodBase(t *testing.T) {
	m := plainMode()
	store := initStore(t, m)
	want := crashContent(1)
	id := writeBackup(t, open(t, store, m.writer, small()), want)
	l := layout{testSet}
	first := keysBelow(t, store, l.packs())[0]
	name, _ := parseHashKey(first, l.packs())
	part, _ := parseHashKey(keysBelow(t, store, l.parts())[0], l.parts())
	prune := record.Prune{Header: record.NewHeader(record.KindPrune), Set: testSet, Packs: []record.Hash{name}, Parts: []record.Hash{part}}
	data, err := record.Encode(&prune, nil)
	require.NoError(t, err)
	replace(t, store, l.prunes()+"20261120T120000Z", data)
	info, err := open(t, store, m.restore, Options{}).Resolve(t.Context(), testSet, Selector{})
	require.NoError(t, err)
	require.Equal(t, id, info.ID, "the backup itself is not condemned")
	r := open(t, store, m.writer, small())
	b, err := r.Begin(t.Context(), testPlan(1, 0), "attempt-1")
	require.NoError(t, err)
	commit := writeMember(t, b, 0, want)
	require.NoError(t, b.Close())
	refs, err := r.readRefs(t.Context(), l, &commit)
	require.NoError(t, err)
	for _, ref := range refs.Packs {
		require.NotEqual(t, name, ref.SHA256)
	}
	for _, ref := range refs.Parts {
		require.NotEqual(t, part, ref.SHA256)
	}
}
