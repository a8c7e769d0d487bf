package repository

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"keepset/internal/record"
	"keepset/internal/storage"
)

// keyWorld is an encrypted repository by a clock that the test moves, as those see
// it who hold its keys.
type keyWorld struct {
	t     *testing.T
	clock *clock
	store storage.Store
	// writer is the Secret of the backup pod, trusted what readers are configured with,
	// and restore the identity that keygen made.
	writer  Keys
	trusted Keys
	restore []age.Identity
	first   record.BackupID
	n       int
}

func newKeyWorld(t *testing.T) *keyWorld {
	t.Helper()
	m := encryptedMode(t)
	w := &keyWorld{t: t, clock: newClock(), writer: m.writer, trusted: Keys{Trusted: m.restore.Trusted}, restore: m.restore.Restore}
	w.store = initAt(t, m, w.clock)
	w.first = w.backup(crashContent(1))
	return w
}

func (w *keyWorld) options() Options {
	o := small()
	o.Clock = w.clock.Now
	return o
}

// open opens the repository as a reader with the identity, nil for none.
func (w *keyWorld) open(restore []age.Identity) *Repository {
	w.t.Helper()
	keys := w.trusted
	keys.Restore = restore
	return open(w.t, w.store, keys, w.options())
}

// backup takes a backup with the Secret of now, and lets an hour pass.
func (w *keyWorld) backup(c content) record.BackupID {
	w.t.Helper()
	id, err := w.take(open(w.t, w.store, w.writer, w.options()), c)
	require.NoError(w.t, err)
	return id
}

func (w *keyWorld) take(r *Repository, c content) (record.BackupID, error) {
	w.t.Helper()
	w.clock.advance(time.Hour)
	w.n++
	plan := planAt(w.clock.now, strings.Repeat(string(rune('a'+w.n)), 8), 0)
	b, err := r.Begin(w.t.Context(), plan, "attempt-1")
	if err != nil {
		return plan.ID, err
	}
	m, err := b.Member(w.t.Context(), 0)
	require.NoError(w.t, err)
	_, err = writeContent(w.t.Context(), m, c)
	return plan.ID, errors.Join(err, b.Close())
}

// renewal keeps what is published, as an administrator does.
func (w *keyWorld) renewal(published *KeySet) RenewOptions {
	return RenewOptions{Publish: func(set KeySet, _ Renewal) error {
		*published = set
		return nil
	}}
}

// use puts new keys in place.
func (w *keyWorld) use(set KeySet) {
	w.t.Helper()
	w.writer, w.trusted = keysOf(w.t, set.Writer), keysOf(w.t, set.Restore)
}

func (w *keyWorld) rotate() Renewal {
	w.t.Helper()
	var set KeySet
	w.clock.advance(time.Hour)
	result, err := w.open(w.restore).RotateWriter(w.t.Context(), w.renewal(&set))
	require.NoError(w.t, err)
	w.use(set)
	return result
}

func (w *keyWorld) reads(restore []age.Identity, id record.BackupID, want content) {
	w.t.Helper()
	got, err := readMember(w.t.Context(), w.open(restore), id, 0)
	require.NoError(w.t, err)
	requireContent(w.t, want, got)
}

// storedAnyway are the bytes of the secret stream of crashContent, which no backup
// takes over from another.
const storedAnyway = int64(16)

func identity(t testing.TB) *age.X25519Identity {
	t.Helper()
	i, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	return i
}

// TestAddRecipient: a colleague reads what was stored before and what comes, no
// object but key files and configurations has come, and none has changed.
func TestAddRecipient(t *testing.T) {
	w := newKeyWorld(t)
	colleague := identity(t)
	_, err := Open(t.Context(), w.store, Keys{Restore: []age.Identity{colleague}}, Options{})
	require.ErrorIs(t, err, ErrWrongKey)
	_, err = w.open(nil).AddRecipient(t.Context(), colleague.Recipient(), false)
	require.ErrorIs(t, err, ErrNoIdentity)

	before := make(map[string][]byte)
	for _, key := range keysBelow(t, w.store, "") {
		before[key] = readObject(t, w.store, key)
	}
	dry, err := w.open(w.restore).AddRecipient(t.Context(), colleague.Recipient(), true)
	require.NoError(t, err)
	require.Len(t, keysBelow(t, w.store, ""), len(before))
	change, err := w.open(w.restore).AddRecipient(t.Context(), colleague.Recipient(), false)
	require.NoError(t, err)
	require.Equal(t, dry, change)
	require.Equal(t, []int{1}, change.Epochs)
	for _, key := range keysBelow(t, w.store, "") {
		if old, there := before[key]; there {
			require.Equal(t, old, readObject(t, w.store, key), key)
			continue
		}
		require.Contains(t, []string{"config/1", "keys/1." + change.Fingerprint + ".age"}, key)
	}
	w.reads([]age.Identity{colleague}, w.first, crashContent(1))
	second := w.backup(crashContent(2))
	w.reads([]age.Identity{colleague}, second, crashContent(2))
	w.reads(w.restore, second, crashContent(2))
	again, err := w.open([]age.Identity{colleague}).AddRecipient(t.Context(), colleague.Recipient(), false)
	require.NoError(t, err)
	require.True(t, again.Before)

	k, err := w.open([]age.Identity{colleague}).Keyring(t.Context())
	require.NoError(t, err)
	require.Len(t, k.Epochs, 1)
	require.Len(t, k.Epochs[0].Recipients, 2)
	for _, r := range k.Epochs[0].Recipients {
		require.True(t, r.Stored)
		require.Equal(t, r.Fingerprint == change.Fingerprint, r.Opened)
	}
}

// TestRemoveRecipient: never the last one, nor the one that asks.
func TestRemoveRecipient(t *testing.T) {
	w := newKeyWorld(t)
	mine := w.open(nil).config.Epoch().Recipients[0]
	_, err := w.open(w.restore).RemoveRecipient(t.Context(), mine, false)
	require.ErrorIs(t, err, ErrRecipient)
	_, err = w.open(w.restore).RemoveRecipient(t.Context(), "0123456789abcdef", false)
	require.ErrorIs(t, err, ErrRecipient)
	heir := identity(t)
	_, err = w.open(w.restore).AddRecipient(t.Context(), heir.Recipient(), false)
	require.NoError(t, err)
	_, err = w.open(w.restore).RemoveRecipient(t.Context(), mine, false)
	require.ErrorIs(t, err, ErrRecipient, "the identity that is given is the one that goes")

	// The right to delete is missing: said, and made good by another try.
	r := w.open([]age.Identity{heir})
	r.store = &undeletable{w.store}
	_, err = r.RemoveRecipient(t.Context(), mine, false)
	require.ErrorContains(t, err, "could not be deleted")
	change, err := w.open([]age.Identity{heir}).RemoveRecipient(t.Context(), mine, false)
	require.NoError(t, err)
	require.True(t, change.Before)
	require.Equal(t, []string{"keys/1." + mine + ".age"}, change.Deleted)

	_, err = Open(t.Context(), w.store, Keys{Restore: w.restore}, Options{})
	require.ErrorIs(t, err, ErrWrongKey, "said at once")
	w.reads([]age.Identity{heir}, w.first, crashContent(1))
	w.reads([]age.Identity{heir}, w.backup(crashContent(2)), crashContent(2))
	report, err := w.open(nil).Verify(t.Context(), VerifyOptions{})
	require.NoError(t, err)
	require.Empty(t, report.Damages)
}

type undeletable struct{ storage.Store }

func (*undeletable) Delete(context.Context, string) error { return errors.New("access denied") }

// TestRotateWriter: what the former writer has written counts, and goes on to be
// what new backups are compared with; it writes nothing more that counts.
func TestRotateWriter(t *testing.T) {
	w := newKeyWorld(t)
	old := w.writer
	_, err := w.open(nil).RotateWriter(t.Context(), RenewOptions{})
	require.ErrorIs(t, err, ErrNoIdentity)
	_, err = open(t, w.store, Keys{Restore: w.restore}, w.options()).RotateWriter(t.Context(), RenewOptions{})
	require.ErrorIs(t, err, ErrNoTrusted)
	result := w.rotate()
	require.Equal(t, 1, result.Epoch)
	require.Len(t, result.Retired, 1)
	require.Zero(t, result.Late)

	// At once, before anything is read or stored, with what to do about it.
	_, err = Open(t.Context(), w.store, old, w.options())
	require.ErrorIs(t, err, ErrWrongKey)
	require.ErrorContains(t, err, "was retired")
	require.ErrorContains(t, err, "backup keys rotate-writer")
	_, err = Open(t.Context(), w.store, Keys{Trusted: old.Trusted}, w.options())
	require.ErrorIs(t, err, ErrWrongKey, "who was not told of the new writer would see none of its backups")

	w.reads(w.restore, w.first, crashContent(1))
	second := w.backup(crashContent(1))
	w.reads(w.restore, second, crashContent(1))
	info, err := w.open(nil).Backup(t.Context(), testSet, second)
	require.NoError(t, err)
	require.LessOrEqual(t, info.Members[0].Commit.Stored, storedAnyway, "the base is the former writer's backup")
}

// TestNewEpoch: everybody reads what he could, and what comes only who was named.
func TestNewEpoch(t *testing.T) {
	w := newKeyWorld(t)
	heir := identity(t)
	var set KeySet
	w.clock.advance(time.Hour)
	result, err := w.open(nil).NewEpoch(t.Context(), []*age.X25519Recipient{heir.Recipient(), heir.Recipient()}, w.renewal(&set))
	require.NoError(t, err)
	require.Equal(t, 2, result.Epoch)
	require.Len(t, result.Recipients, 1)
	require.Len(t, result.Dropped, 1)
	old := w.writer
	w.use(set)
	for name, keys := range map[string]Keys{"all": old, "data": {Data: old.Data}, "index and data": {Writer: w.writer.Writer, Data: old.Data, Index: old.Index}} {
		_, err := Open(t.Context(), w.store, keys, w.options())
		require.ErrorIs(t, err, ErrWrongKey, name)
	}

	// Nor by a pod that was left the former index key, and could.
	w.writer.Index = append(w.writer.Index, old.Index...)
	second := w.backup(crashContent(1))
	info, err := w.open(nil).Backup(t.Context(), testSet, second)
	require.NoError(t, err)
	require.Equal(t, 2, info.Plan.KeyEpoch())
	require.Greater(t, info.Members[0].Commit.Stored, storedAnyway, "nothing is taken over from before")
	third := w.backup(crashContent(1))
	info, err = w.open(nil).Backup(t.Context(), testSet, third)
	require.NoError(t, err)
	require.LessOrEqual(t, info.Members[0].Commit.Stored, storedAnyway)
	w.reads([]age.Identity{heir}, third, crashContent(1))
	w.reads(w.restore, w.first, crashContent(1))

	_, err = readMember(t.Context(), w.open(w.restore), second, 0)
	require.ErrorIs(t, err, ErrNoIdentity)
	require.ErrorContains(t, err, "epoch 2")
	_, err = readMember(t.Context(), w.open([]age.Identity{heir}), w.first, 0)
	require.ErrorIs(t, err, ErrNoIdentity)
	require.ErrorContains(t, err, "epoch 1")

	// Who opens the first epoch lets the heir do so. The second is not his to give.
	_, err = w.open(w.restore).AddRecipient(t.Context(), identity(t).Recipient(), false)
	require.ErrorIs(t, err, ErrWrongKey)
	both := append(slices.Clone(w.restore), heir)
	change, err := w.open(both).AddRecipient(t.Context(), heir.Recipient(), false)
	require.NoError(t, err)
	require.Equal(t, []int{1}, change.Epochs)
	w.reads([]age.Identity{heir}, w.first, crashContent(1))
	w.reads([]age.Identity{heir}, third, crashContent(1))
	report, err := w.open([]age.Identity{heir}).Verify(t.Context(), VerifyOptions{ReadData: 100})
	require.NoError(t, err)
	require.Empty(t, report.Damages)
}

// TestKeysOfANewEpochDoNotInit: a new repository has keys of its own.
func TestKeysOfANewEpochDoNotInit(t *testing.T) {
	w := newKeyWorld(t)
	var set KeySet
	_, err := w.open(nil).NewEpoch(t.Context(), []*age.X25519Recipient{identity(t).Recipient()}, w.renewal(&set))
	require.NoError(t, err)
	_, err = Init(t.Context(), initless(), InitOptions{Keys: keysOf(t, set.Writer)})
	require.ErrorIs(t, err, ErrWrongKey)
	// The text has every key file, to put a lost one back from.
	keys := keysOf(t, set.Writer)
	require.Len(t, keys.KeyFiles, 2)
	for name, data := range keys.KeyFiles {
		if !strings.Contains(name, ".") {
			name = "1." + name
		}
		require.Equal(t, readObject(t, w.store, "keys/"+name+".age"), data)
	}
}

// TestARunIsOvertaken: the writer is retired while it writes. Whatever it stores
// afterwards does not count, and it does not say that it does.
func TestARunIsOvertaken(t *testing.T) {
	w := newKeyWorld(t)
	r := open(t, w.store, w.writer, w.options())
	w.rotate()
	id, err := w.take(r, crashContent(2))
	require.ErrorIs(t, err, ErrWrongKey)
	require.ErrorContains(t, err, "was retired")
	info, err := w.open(nil).Backup(t.Context(), testSet, id)
	require.NoError(t, err)
	require.Equal(t, StatusInvalid, info.Status)

	// One that commits within the minute of grace has seen nothing of it, and counts.
	r = open(t, w.store, w.writer, w.options())
	b, err := r.Begin(t.Context(), planAt(w.clock.now, "graceful", 0), "attempt-1")
	require.NoError(t, err)
	m, err := b.Member(t.Context(), 0)
	require.NoError(t, err)
	var set KeySet
	_, err = w.open(w.restore).RotateWriter(t.Context(), w.renewal(&set))
	require.NoError(t, err)
	w.use(set)
	w.clock.advance(30 * time.Second)
	_, err = writeContent(t.Context(), m, crashContent(3))
	require.NoError(t, err)
	require.NoError(t, b.Close())
	w.clock.advance(time.Hour)
	w.reads(w.restore, b.Plan().ID, crashContent(3))
}

// TestAPlanOfAnEpochBefore is not gone on with: its keys are others.
func TestAPlanOfAnEpochBefore(t *testing.T) {
	w := newKeyWorld(t)
	plan := planAt(w.clock.now, "unfinished", 0)
	_, err := open(t, w.store, w.writer, w.options()).Begin(t.Context(), plan, "attempt-1")
	require.NoError(t, err)
	var set KeySet
	w.clock.advance(time.Minute)
	_, err = w.open(nil).NewEpoch(t.Context(), []*age.X25519Recipient{identity(t).Recipient()}, w.renewal(&set))
	require.NoError(t, err)
	w.use(set)
	_, err = open(t, w.store, w.writer, w.options()).Begin(t.Context(), plan, "attempt-2")
	require.ErrorIs(t, err, ErrWrongKey)
	require.ErrorContains(t, err, "start a new one")
}

// TestWriterThatNobodyTrusts: said before the first backup, not at the restore.
func TestWriterThatNobodyTrusts(t *testing.T) {
	w := newKeyWorld(t)
	former := w.trusted.Trusted
	var set KeySet
	o := w.renewal(&set)
	o.Until = w.clock.now.Add(5 * time.Hour) // both writers are good ones
	_, err := w.open(w.restore).RotateWriter(t.Context(), o)
	require.NoError(t, err)
	keys := keysOf(t, set.Writer)
	keys.Trusted = former
	_, err = Open(t.Context(), w.store, keys, w.options())
	require.ErrorIs(t, err, ErrWrongKey)
	require.ErrorContains(t, err, "is not among the trusted ones")
}

// TestValidUntil: the former writer goes on for a while, and in the other
// direction, what it has written since a theft counts no more.
func TestValidUntil(t *testing.T) {
	w := newKeyWorld(t)
	old := w.writer
	var set KeySet
	o := w.renewal(&set)
	o.Until = w.clock.now.Add(5 * time.Hour)
	_, err := w.open(w.restore).RotateWriter(t.Context(), o)
	require.NoError(t, err)
	w.use(set)
	second, err := w.take(open(t, w.store, old, w.options()), crashContent(2))
	require.NoError(t, err)
	w.reads(w.restore, second, crashContent(2))
	w.clock.advance(5 * time.Hour)
	_, err = Open(t.Context(), w.store, old, w.options())
	require.ErrorIs(t, err, ErrWrongKey)
	w.reads(w.restore, second, crashContent(2))

	third := w.backup(crashContent(3))
	o = w.renewal(&set)
	o.Until = third.Time().Add(-time.Minute)
	_, err = w.open(w.restore).RotateWriter(t.Context(), o)
	require.NoError(t, err)
	w.use(set)
	info, err := w.open(nil).Backup(t.Context(), testSet, third)
	require.NoError(t, err)
	require.Equal(t, StatusInvalid, info.Status)
	w.reads(w.restore, w.first, crashContent(1))
	w.reads(w.restore, second, crashContent(2))
}

// stopsWriting fails the n-th write, and every one after it.
type stopsWriting struct {
	storage.Store
	left int
}

func (k *stopsWriting) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	if k.left--; k.left < 0 {
		return errors.New("killed")
	}
	return k.Store.Put(ctx, key, body)
}

// TestKeysAfterAKill: killed at any write, each command can be run again, the keys
// that are in place go on to work until it has succeeded, and those that it then
// gives work.
func TestKeysAfterAKill(t *testing.T) {
	heir := identity(t)
	for name, do := range map[string]func(w *keyWorld, r *Repository, set *KeySet) error{
		"add-recipient": func(w *keyWorld, r *Repository, _ *KeySet) error {
			_, err := r.AddRecipient(w.t.Context(), heir.Recipient(), false)
			return err
		},
		"rotate-writer": func(w *keyWorld, r *Repository, set *KeySet) error {
			_, err := r.RotateWriter(w.t.Context(), w.renewal(set))
			return err
		},
		"new-epoch": func(w *keyWorld, r *Repository, set *KeySet) error {
			_, err := r.NewEpoch(w.t.Context(), []*age.X25519Recipient{heir.Recipient(), w.recipient()}, w.renewal(set))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			for n := 0; ; n++ {
				w := newKeyWorld(t)
				var set KeySet
				r := w.open(w.restore)
				r.store = &stopsWriting{w.store, n}
				err := do(w, r, &set)
				if err != nil {
					w.reads(w.restore, w.backup(crashContent(2)), crashContent(2))
					set = KeySet{}
					require.NoError(t, do(w, w.open(w.restore), &set))
				}
				if set.Writer != nil {
					w.use(set)
				}
				w.reads(w.restore, w.first, crashContent(1))
				w.reads(w.restore, w.backup(crashContent(3)), crashContent(3))
				if name != "rotate-writer" {
					w.reads([]age.Identity{heir}, w.backup(crashContent(4)), crashContent(4))
				}
				if err == nil {
					require.Greater(t, n, 1, "it was killed at each of its writes")
					return
				}
			}
		})
	}
}

// TestKeysThatCannotBeKept: a full disk where the new Secret was to go changes
// nothing. A writer whose key nobody has would shut everybody out.
func TestKeysThatCannotBeKept(t *testing.T) {
	w := newKeyWorld(t)
	full := errors.New("no space left")
	o := RenewOptions{Publish: func(KeySet, Renewal) error { return full }}
	_, err := w.open(w.restore).RotateWriter(t.Context(), o)
	require.ErrorIs(t, err, full)
	_, err = w.open(nil).NewEpoch(t.Context(), []*age.X25519Recipient{w.recipient()}, o)
	require.ErrorIs(t, err, full)
	w.reads(w.restore, w.backup(crashContent(2)), crashContent(2))
	require.Equal(t, 1, w.open(nil).config.Epoch().Number)
	require.Empty(t, w.open(nil).config.Retired)
}

// TestTwoAdministrators change the keys at the same moment: one of them is told.
func TestTwoAdministrators(t *testing.T) {
	w := newKeyWorld(t)
	one, other := identity(t), identity(t)
	mine, yours := w.open(w.restore), w.open(w.restore)
	_, err := mine.AddRecipient(t.Context(), one.Recipient(), false)
	require.NoError(t, err)
	_, err = yours.AddRecipient(t.Context(), other.Recipient(), false)
	require.ErrorIs(t, err, ErrChanged)
	change, err := w.open(w.restore).AddRecipient(t.Context(), other.Recipient(), false)
	require.NoError(t, err)
	require.Len(t, change.Found, 1, "what was stored the first time, for its holder to prove")
	for _, restore := range []age.Identity{w.restore[0], one, other} {
		w.reads([]age.Identity{restore}, w.first, crashContent(1))
	}
	// Both would begin epoch 2. One does, with key files that fit.
	mine, yours = w.open(nil), w.open(nil)
	var set, lost KeySet
	_, err = mine.NewEpoch(t.Context(), []*age.X25519Recipient{one.Recipient()}, w.renewal(&set))
	require.NoError(t, err)
	_, err = yours.NewEpoch(t.Context(), []*age.X25519Recipient{one.Recipient()}, w.renewal(&lost))
	require.ErrorIs(t, err, ErrChanged)
	w.use(set)
	w.reads([]age.Identity{one}, w.backup(crashContent(2)), crashContent(2))
}

// recipient is that of the identity which keygen made.
func (w *keyWorld) recipient() *age.X25519Recipient {
	w.t.Helper()
	mine, ok := w.restore[0].(*age.X25519Identity)
	require.True(w.t, ok)
	return mine.Recipient()
}

// TestKeyFilesThatAreHarmed: one that is damaged locks out its holder, not the
// others, and is shown.
func TestKeyFilesThatAreHarmed(t *testing.T) {
	w := newKeyWorld(t)
	heir := identity(t)
	change, err := w.open(w.restore).AddRecipient(t.Context(), heir.Recipient(), false)
	require.NoError(t, err)
	mine := Fingerprint(w.recipient().String())
	key := "keys/1." + mine + ".age"
	replace(t, w.store, key, bytes.Replace(readObject(t, w.store, key), []byte("-> X25519"), []byte("-> X25510"), 1))
	w.reads([]age.Identity{heir}, w.first, crashContent(1))
	_, err = Open(t.Context(), w.store, Keys{Restore: w.restore}, w.options())
	require.Error(t, err)
	k, err := w.open([]age.Identity{heir}).Keyring(t.Context())
	require.NoError(t, err)
	for _, r := range k.Epochs[0].Recipients {
		require.Equal(t, r.Fingerprint == change.Fingerprint, r.Opened)
	}
}
