package ebs_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/snapshot"
	"keepset/internal/snapshot/ebs"
	"keepset/internal/snapshot/ebstest"
)

// written cuts a volume into which blocks with the given indexes were written, each full of its letter.
func (w *world) written(t *testing.T, volumes []snapshot.Volume, name string, blocks map[int64]byte) snapshot.Ref {
	t.Helper()
	f, err := os.OpenFile(w.volume(t, namespace, volumes[0].Claim).Path, os.O_WRONLY, 0)
	require.NoError(t, err)
	for index, letter := range blocks {
		_, err := f.WriteAt(bytes.Repeat([]byte{letter}, snapshot.BlockSize), index*snapshot.BlockSize)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
	refs, err := w.snap.Cut(t.Context(), name, volumes)
	require.NoError(t, err)
	require.NoError(t, w.snap.WaitReady(t.Context(), refs[0]))
	return refs[0]
}

// TestChangedBlocks: of many blocks only those that were written to are read again.
func TestChangedBlocks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	volumes := w.located(t, "data-mysql-0")
	many := map[int64]byte{}
	for i := range int64(300) {
		many[2*i] = 'a'
	}
	first := w.written(t, volumes, "first", many)
	second := w.written(t, volumes, "second", map[int64]byte{4: 'b', 7: 'b', 2047: 'b'})
	var changed, same []int64
	for b, err := range w.snap.Blocks(t.Context(), second, &first) {
		require.NoError(t, err)
		if b.Same {
			require.Empty(t, b.Token)
			same = append(same, b.Index)
			continue
		}
		buffer := make([]byte, snapshot.BlockSize)
		n, err := w.snap.ReadBlock(t.Context(), second, b, buffer)
		require.NoError(t, err)
		require.Equal(t, snapshot.BlockSize, n)
		require.Equal(t, bytes.Repeat([]byte{'b'}, n), buffer)
		changed = append(changed, b.Index)
	}
	require.Equal(t, []int64{4, 7, 2047}, changed)
	require.Len(t, same, 299)
	t.Logf("%d blocks, %d changed", len(same)+len(changed), len(changed))
}

// TestDamagedBlock: one that was damaged on its way is read again; one that stays so is an error.
func TestDamagedBlock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ref := w.written(t, w.located(t, "data-mysql-0"), cutName, map[int64]byte{0: 'a'})
	buffer := make([]byte, snapshot.BlockSize)
	for b, err := range w.snap.Blocks(t.Context(), ref, nil) {
		require.NoError(t, err)
		w.aws.Inject(ebstest.Rule{Action: "GetSnapshotBlock", Damage: true, Times: 2})
		_, err = w.snap.ReadBlock(t.Context(), ref, b, buffer)
		require.NoError(t, err)
		rule := w.aws.Inject(ebstest.Rule{Action: "GetSnapshotBlock", Damage: true, Times: -1})
		_, err = w.snap.ReadBlock(t.Context(), ref, b, buffer)
		require.ErrorIs(t, err, snapshot.ErrDamaged)
		require.ErrorContains(t, err, "block 0 of snapshot "+ref.ID)
		rule.Remove()
	}
}

// TestSpentTokens: a list goes on where it was, and a block gets a new token.
func TestSpentTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	many := map[int64]byte{}
	for i := range int64(250) {
		many[i] = 'a'
	}
	ref := w.written(t, w.located(t, "data-mysql-0"), cutName, many)
	_, err := w.snap.ReadBlock(t.Context(), ref, snapshot.Block{Index: 7, Token: "of last week"}, make([]byte, snapshot.BlockSize))
	require.NoError(t, err)
	_, err = w.snap.ReadBlock(t.Context(), ref, snapshot.Block{Index: 1000, Token: "of last week"}, make([]byte, snapshot.BlockSize))
	require.ErrorIs(t, err, snapshot.ErrNotFound)

	o := w.options()
	o.BlocksPerPage = 100
	s := w.open(t, o)
	w.aws.Inject(ebstest.Rule{Action: "ListSnapshotBlocks", Skip: 1, Fail: &ebstest.Error{Code: "ValidationException", Reason: "INVALID_PAGE_TOKEN"}})
	next := int64(0)
	for b, err := range s.Blocks(t.Context(), ref, nil) {
		require.NoError(t, err)
		require.Equal(t, next, b.Index)
		next++
	}
	require.EqualValues(t, 250, next)
}

// TestStartOfTheComplete: what is complete is neither begun nor written again.
func TestStartOfTheComplete(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *ebstest.Options, o *ebs.Options) { o.KMSKey = "arn:aws:kms:us-east-1:111122223333:key/k" })
	require.NoError(t, writeBlocks(t.Context(), w.snap))
	require.True(t, w.aws.Snapshots()[0].Encrypted)
	puts := len(w.calls("PutSnapshotBlock"))
	require.NoError(t, writeBlocks(t.Context(), w.open(t, w.options())), "after a crash between the end and its record")
	require.Len(t, w.aws.Snapshots(), 1)
	require.Len(t, w.calls("PutSnapshotBlock"), puts, "nothing is written into what is complete")
}

// TestSnapshotNotSeenYet: the first blocks may come before AWS has heard of their snapshot everywhere.
func TestSnapshotNotSeenYet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.aws.Inject(ebstest.Rule{Action: "PutSnapshotBlock", Times: 3, Fail: &ebstest.Error{Code: "ResourceNotFoundException"}})
	require.NoError(t, writeBlocks(t.Context(), w.snap))
}

// TestAnotherAccount: who sees nothing of the account that was cut in gets its volume by blocks alone, bit for
// bit, and encrypted as it was, with a key of his own.
func TestAnotherAccount(t *testing.T) {
	t.Parallel()
	const key, account = "AKIANEW", "999988887777"
	w := newWorld(t, func(o *ebstest.Options, _ *ebs.Options) { o.Accounts = map[string]string{key: account} })
	volumes := w.located(t, "data-mysql-0")
	ref := w.written(t, volumes, cutName, map[int64]byte{0: 'a', 5: 'b', 2047: 'c'})
	o := w.options()
	o.Credentials.AccessKeyID = key
	fresh := w.open(t, o)
	require.ErrorIs(t, fresh.WaitReady(t.Context(), ref), snapshot.ErrNotFound)
	for _, err := range fresh.Blocks(t.Context(), ref, nil) {
		require.ErrorIs(t, err, snapshot.ErrNotFound)
	}

	volumes[0].Encrypted = true
	into, err := fresh.StartSnapshot(t.Context(), "restore."+runID+".0", volumes[0])
	require.NoError(t, err)
	require.True(t, into.Encrypted)
	require.Contains(t, into.KMSKey, account)
	blocks := int64(0)
	for b, err := range w.snap.Blocks(t.Context(), ref, nil) {
		require.NoError(t, err)
		buffer := make([]byte, snapshot.BlockSize)
		_, err := w.snap.ReadBlock(t.Context(), ref, b, buffer)
		require.NoError(t, err)
		require.NoError(t, fresh.WriteBlock(t.Context(), into, b.Index, buffer))
		blocks++
	}
	require.NoError(t, fresh.CompleteSnapshot(t.Context(), into, blocks))
	require.NoError(t, fresh.Provision(t.Context(), into, target("data-mysql-2")))
	made := w.volume(t, namespace, "data-mysql-2")
	require.Equal(t, account, made.Account)
	require.True(t, made.Encrypted)
	paths := map[string]string{}
	for _, s := range w.aws.Snapshots() {
		paths[s.ID] = s.Path
	}
	requireSameBytes(t, paths[ref.ID], made.Path)
}

// requireSameBytes compares two images to their ends.
func requireSameBytes(t *testing.T, want, got string) {
	t.Helper()
	a, err := os.Open(want)
	require.NoError(t, err)
	defer func() { require.NoError(t, a.Close()) }()
	b, err := os.Open(got)
	require.NoError(t, err)
	defer func() { require.NoError(t, b.Close()) }()
	mine, theirs := make([]byte, snapshot.BlockSize), make([]byte, snapshot.BlockSize)
	for i := range int64(gib / snapshot.BlockSize) {
		_, err := a.ReadAt(mine, i*snapshot.BlockSize)
		require.NoError(t, err)
		_, err = b.ReadAt(theirs, i*snapshot.BlockSize)
		require.NoError(t, err)
		require.True(t, bytes.Equal(mine, theirs), "block %d", i)
	}
}
