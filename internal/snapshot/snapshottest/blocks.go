package snapshottest

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"keepset/internal/snapshot"
)

var blockTests = []namedBlockTest{
	{"blocks there and back", testBlocks},
	{"blocks that have not changed are marked", testBlocksSince},
	{"blocks since a stranger", testBlocksStranger},
	{"blocks stop when told", testBlocksStop},
	{"start of the same name is the same snapshot", testBlocksStartAgain},
	{"complete with too few blocks", testBlocksMissing},
	{"blocks follow their context", testBlocksCancelled},
}

// read returns a snapshot's blocks with their bytes, and checks their order.
func read(t *testing.T, b blocks, r snapshot.Ref, since *snapshot.Ref) (map[int64][]byte, []int64) {
	t.Helper()
	content, same := map[int64][]byte{}, []int64{}
	last := int64(-1)
	for block, err := range b.Blocks(t.Context(), r, since) {
		require.NoError(t, err)
		require.Greater(t, block.Index, last)
		last = block.Index
		if block.Same {
			same = append(same, block.Index)
			continue
		}
		buffer := make([]byte, snapshot.BlockSize)
		n, err := b.ReadBlock(t.Context(), r, block, buffer)
		require.NoError(t, err)
		content[block.Index] = buffer[:n]
	}
	return content, same
}

func testBlocks(t *testing.T, s *suite, b blocks) {
	volumes := s.located(t, "data-mysql-0")
	refs, err := s.snap.Cut(t.Context(), cutName, volumes)
	require.NoError(t, err)
	require.NoError(t, s.snap.WaitReady(t.Context(), refs[0]))
	content, _ := read(t, b, refs[0], nil)
	require.NotEmpty(t, content)

	copied, err := b.StartSnapshot(t.Context(), "copy", volumes[0])
	require.NoError(t, err)
	require.NotEqual(t, refs[0].ID, copied.ID)
	for index, block := range content {
		require.NoError(t, b.WriteBlock(t.Context(), copied, index, slices.Grow(block, snapshot.BlockSize)[:snapshot.BlockSize]))
	}
	require.NoError(t, b.CompleteSnapshot(t.Context(), copied, int64(len(content))))
	require.NoError(t, s.snap.WaitReady(t.Context(), copied))
	again, _ := read(t, b, copied, nil)
	require.Equal(t, content, again)

	s.provision(t, copied, s.target("data-mysql-2"))
	require.Equal(t, "data-mysql-0", s.Read(t, s.Namespace, "data-mysql-2"))
	require.Len(t, s.list(t, s.owner), 2)
}

func testBlocksSince(t *testing.T, s *suite, b blocks) {
	volumes := s.located(t, "data-mysql-0")
	first := s.cutFor(t, s.owner, cutName, volumes)
	require.NoError(t, s.snap.WaitReady(t.Context(), first))
	unchanged := s.cutFor(t, s.owner, "20261121T131730Z-1a2b3c4d-0", volumes)
	require.NoError(t, s.snap.WaitReady(t.Context(), unchanged))
	all, _ := read(t, b, first, nil)
	changed, same := read(t, b, unchanged, &first)
	require.Empty(t, changed)
	require.Len(t, same, len(all))

	s.Write(t, s.Namespace, "data-mysql-0", "something new")
	second := s.cutFor(t, s.owner, "20261122T131730Z-1a2b3c4d-0", volumes)
	require.NoError(t, s.snap.WaitReady(t.Context(), second))
	changed, same = read(t, b, second, &first)
	require.NotEmpty(t, changed)
	whole, _ := read(t, b, second, nil)
	require.Len(t, same, len(whole)-len(changed))
	for index, block := range whole {
		if slices.Contains(same, index) {
			require.True(t, bytes.Equal(all[index], block), "block %d is marked as the same and is not", index)
		} else {
			require.True(t, bytes.Equal(changed[index], block), "block %d", index)
		}
	}
}

func testBlocksStranger(t *testing.T, s *suite, b blocks) {
	volumes := s.located(t, "data-mysql-0", "log-mysql-0")
	refs, err := s.snap.Cut(t.Context(), cutName, volumes)
	require.NoError(t, err)
	gone := s.cutFor(t, s.owner, "20261121T131730Z-1a2b3c4d-0", volumes[:1])
	for _, r := range append(refs, gone) {
		require.NoError(t, s.snap.WaitReady(t.Context(), r))
	}
	require.NoError(t, s.snap.Delete(t.Context(), s.owner, gone))
	for _, since := range []snapshot.Ref{refs[1], gone} {
		seen := 0
		var last error
		for _, err := range b.Blocks(t.Context(), refs[0], &since) {
			seen++
			last = err
		}
		require.ErrorIs(t, last, snapshot.ErrNotFound)
		require.Equal(t, 1, seen, "before the first block")
	}
}

func testBlocksStop(t *testing.T, s *suite, b blocks) {
	ref := s.cut(t)
	seen := 0
	for _, err := range b.Blocks(t.Context(), ref, nil) {
		require.NoError(t, err)
		seen++
		break
	}
	require.Equal(t, 1, seen)
}

func testBlocksStartAgain(t *testing.T, s *suite, b blocks) {
	volumes := s.located(t, "data-mysql-0")
	first, err := b.StartSnapshot(t.Context(), "copy", volumes[0])
	require.NoError(t, err)
	second, err := b.StartSnapshot(t.Context(), "copy", volumes[0])
	require.NoError(t, err)
	require.Equal(t, first.ID, second.ID)
	require.Len(t, s.list(t, s.owner), 1)
	require.NoError(t, s.snap.Delete(t.Context(), s.owner, first))
	require.Empty(t, s.list(t, s.owner))
}

func testBlocksMissing(t *testing.T, s *suite, b blocks) {
	volumes := s.located(t, "data-mysql-0")
	ref, err := b.StartSnapshot(t.Context(), "copy", volumes[0])
	require.NoError(t, err)
	require.NoError(t, b.WriteBlock(t.Context(), ref, 0, make([]byte, snapshot.BlockSize)))
	require.Error(t, b.CompleteSnapshot(t.Context(), ref, 2))
}

func testBlocksCancelled(t *testing.T, s *suite, b blocks) {
	volumes := s.located(t, "data-mysql-0")
	refs, err := s.snap.Cut(t.Context(), cutName, volumes)
	require.NoError(t, err)
	require.NoError(t, s.snap.WaitReady(t.Context(), refs[0]))
	var last error
	for _, err := range b.Blocks(cancelled(t), refs[0], nil) {
		last = err
	}
	require.ErrorIs(t, last, context.Canceled)
	_, err = b.ReadBlock(cancelled(t), refs[0], snapshot.Block{}, make([]byte, snapshot.BlockSize))
	require.ErrorIs(t, err, context.Canceled)
	before := s.Inventory(t)
	_, err = b.StartSnapshot(cancelled(t), "copy", volumes[0])
	require.ErrorIs(t, err, context.Canceled)
	require.ElementsMatch(t, before, s.Inventory(t))
}
